"""``samd-edge observe``: what a person sees, and what a person corrects, given to the running agent."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from samd_data.reading import FIELDS, VITALS
from samd_edge.config import DEFAULT_ROOT
from samd_edge.control import FILE, ControlError, ask, listens
from samd_edge.view import View

_DESCRIPTION = """\
Give the running agent what no sensor sees: consciousness and oxygen (valid for 12 hours or until the next
one), or correct a wrong value. A value that is corrected is kept, struck through, with your name and the
reason; it is never scored again.
"""

_EPILOG = """\
examples:
  samd-edge observe --device bed-01 --by 'N. Kim' --consciousness A --oxygen no
  samd-edge observe --device bed-01 --by 'N. Kim' --consciousness V --at 10m
  samd-edge observe --device bed-01 --by 'N. Kim' --correct systolic_bp --value 128 --reason 'cuff slipped'
  samd-edge observe --device bed-01 --by 'N. Kim' --correct spo2 --reason 'probe on the cuff arm'

exit codes: 0 done, 1 the agent refuses (the reason is printed), 2 bad input, or no agent runs there.
"""

_FLAGS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "air": False}


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "observe",
        help="enter consciousness and oxygen, or correct a wrong reading",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", help="name of the device")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="its data directory")
    parser.add_argument("--by", required=True, metavar="NAME", help="who observed or corrects")
    parser.add_argument(
        "--consciousness",
        type=str.upper,
        choices=("A", "C", "V", "P", "U"),
        help="A alert, C new confusion, V responds to voice, P to pain, U unresponsive",
    )
    parser.add_argument("--oxygen", type=str.lower, choices=tuple(_FLAGS), help="supplemental oxygen")
    parser.add_argument("--correct", metavar="FIELD", choices=FIELDS, help=f"one of {', '.join(FIELDS)}")
    parser.add_argument("--value", metavar="V", help="the right value; without it the wrong one is struck")
    parser.add_argument("--reason", metavar="TEXT", help="why it is wrong")
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="when: ISO 8601 with a zone, or so long ago, as in 10m or 2h. Of an observation: when it was "
        "made (default now); of a correction: when the wrong value was measured (default: the newest)",
    )
    parser.add_argument("--json", action="store_true", help="the answer as JSON")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask the agent; the exit code."""
    try:
        folder = data_dir(arguments.device, arguments.data_dir)
        body = _body(arguments)
    except ValueError as error:
        print(f"samd-edge observe: {error}", file=sys.stderr)
        return 2
    try:
        ask(folder, {"ask": "view"})  # an agent that is not there is another thing than one that refuses
    except ControlError as error:
        print(f"samd-edge observe: {error}", file=sys.stderr)
        return 2
    try:
        struck = ask(folder, {"ask": "do", "body": body}).get("detail", {}).get("struck")
        view = msgspec.convert(ask(folder, {"ask": "view"})["view"], View)
    except ControlError as error:
        if arguments.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        print(f"samd-edge observe: refused: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        answer = {"ok": True, "news2": msgspec.to_builtins(view.news2), "severity": view.severity}
        print(json.dumps(answer if struck is None else {**answer, "struck": struck}))
    else:
        print(f"done{_struck(struck, arguments.value)}; {_now(view)}")
    return 0


def data_dir(device: str | None, folder: Path | None) -> Path:
    """The data directory that is meant; raises ValueError when that cannot be told."""
    if folder is not None:
        return folder
    if device:
        return DEFAULT_ROOT / device
    running = sorted(path.parent for path in DEFAULT_ROOT.glob(f"*/{FILE}") if listens(path.parent))
    if len(running) == 1:
        return running[0]
    if running:
        names = ", ".join(path.name for path in running)
        raise ValueError(f"{len(running)} agents run here ({names}): say which with --device or --data-dir")
    raise ValueError(f"no agent runs in {DEFAULT_ROOT}: give --device or --data-dir, or start samd-edge run")


def _body(arguments: argparse.Namespace) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "observation.add", "by": arguments.by}
    at = None if arguments.at is None else moment(arguments.at, datetime.now(UTC)).isoformat()
    if arguments.correct is None:
        if arguments.value is not None or arguments.reason is not None:
            raise ValueError("--value and --reason belong to a correction: name the field with --correct")
        if arguments.consciousness is None and arguments.oxygen is None:
            raise ValueError("nothing to enter: give --consciousness, --oxygen, or --correct FIELD")
        if at is not None:
            body["observed_at"] = at
        if arguments.consciousness is not None:
            body["consciousness"] = arguments.consciousness
        if arguments.oxygen is not None:
            body["supplemental_oxygen"] = _FLAGS[arguments.oxygen]
        return body
    if arguments.consciousness is not None or arguments.oxygen is not None:
        raise ValueError("an observation and a correction are two things; enter them one after the other")
    if not (arguments.reason or "").strip():
        raise ValueError("a correction carries its reason: give --reason 'why the value is wrong'")
    correction: dict[str, Any] = {"field": arguments.correct, "reason": arguments.reason}
    if at is not None:
        correction["observed_at"] = at
    if arguments.value is not None:
        correction["value"] = _value(arguments.correct, arguments.value)
    body["correction"] = correction
    return body


def _value(field: str, text: str) -> float | bool | str:
    if field in VITALS:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"--value {text!r}: {field} is a number") from None
    if field == "supplemental_oxygen":
        if text.lower() not in _FLAGS:
            raise ValueError(f"--value {text!r}: oxygen is yes or no")
        return _FLAGS[text.lower()]
    return text.upper()


def moment(text: str, now: datetime) -> datetime:
    """A time, or so long before ``now``: 90s, 10m, 2h, 7d. Raises ValueError."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    number, unit = text[:-1], text[-1:]
    if unit in units and number.replace(".", "", 1).isdecimal() and number.isascii():
        try:
            return now - timedelta(seconds=float(number) * units[unit])
        except OverflowError:
            raise ValueError(f"{text!r} is too long ago") from None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 10m, 2h, or 2026-01-31T08:00:00Z") from None
    if found.utcoffset() is None:
        raise ValueError(f"{text!r} has no zone: write it as in 2026-01-31T08:00:00Z")
    return found


def _struck(struck: dict[str, Any] | None, instead: str | None) -> str:
    """Which value was struck through: who corrects the wrong one must see it."""
    if struck is None:
        return ""
    value, at = struck["value"], datetime.fromisoformat(struck["measured_at"]).astimezone(UTC)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    elif isinstance(value, (int, float)):
        value = f"{value:g}"
    right = "" if instead is None else f", {instead} in its place"
    return f"; struck {struck['field']} {value} of {at:%Y-%m-%dT%H:%M:%SZ}{right}"


def _now(view: View) -> str:
    score = view.news2
    if score is None:
        return "nothing is known of the patient yet"
    total = f"{score.total}" if score.total is not None else f"{score.low}-{score.high}"
    missing = f", without {', '.join(score.missing)}" if score.missing else ""
    return f"NEWS2 is now {total} ({score.band}{missing})"
