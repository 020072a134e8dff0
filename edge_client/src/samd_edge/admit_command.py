"""``samd-edge admit`` and ``samd-edge discharge``: the next patient, without a gateway."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from samd_edge.control import ControlError, ask
from samd_edge.observe_command import data_dir

_ADMIT = """\
Begin an admission on the running agent: a fresh store, with the settings that belong to this patient. The
patient before must have been discharged. ID is a name of your own, used once; never the patient's name or
record number.
"""

_DISCHARGE = """\
End the admission on the running agent: its store is sealed and kept, or erased with --erase. The next patient
begins with nothing of this one.
"""

_EPILOG = """\
examples:
  samd-edge discharge --device bed-01
  samd-edge admit --device bed-01 stay-0042 --spo2-scale 2 --monitoring-interval 3600

exit codes: 0 done, 1 the agent refuses (the reason is printed), 2 bad input, or no agent runs there.
"""


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register both commands."""
    for name, text, description in (
        ("admit", "begin an admission: the next patient", _ADMIT),
        ("discharge", "end the admission: its store is sealed, or erased", _DISCHARGE),
    ):
        parser = subparsers.add_parser(
            name,
            help=text,
            description=description,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--device", help="name of the device (default: the one whose agent runs here)")
        parser.add_argument("--data-dir", metavar="DIR", type=Path, help="its data directory")
        parser.add_argument("--json", action="store_true", help="the answer as JSON")
        if name == "admit":
            parser.add_argument("id", metavar="ID", help="letters, digits, dots, dashes and underscores")
            parser.add_argument(
                "--spo2-scale", type=int, choices=(1, 2), default=1, help="by prescription (default 1)"
            )
            parser.add_argument(
                "--monitoring-interval",
                type=float,
                metavar="S",
                help="a full set of observations is due at least this often (default: as the chart asks)",
            )
            parser.add_argument("--consent", action="store_true", help="the patient consents to training")
        else:
            parser.add_argument("id", metavar="ID", nargs="?", help="the admission (default: the open one)")
            parser.add_argument("--erase", action="store_true", help="erase the store instead of keeping it")
        parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask the agent; the exit code."""
    command = f"samd-edge {arguments.command}"
    try:
        folder = data_dir(arguments.device, arguments.data_dir)
        open_admission = ask(folder, {"ask": "view"})["view"]["admission"]
    except (ControlError, ValueError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    try:
        body = _body(arguments, open_admission)
        ask(folder, {"ask": "do", "body": body})
    except ControlError as error:
        if arguments.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        print(f"{command}: refused: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"ok": True, "admission": body["admission"]}))
    elif arguments.command == "admit":
        print(f"admission {body['admission']} is open")
    else:
        kept = "kept, sealed" if body["keep"] else "erased"
        print(f"admission {body['admission']} ended; its store is {kept}")
    return 0


def _body(arguments: argparse.Namespace, open_admission: str | None) -> dict[str, Any]:
    if arguments.command == "admit":
        return {
            "type": "patient.admit",
            "admission": arguments.id,
            "spo2_scale": arguments.spo2_scale,
            "monitoring_interval_s": arguments.monitoring_interval,
            "consent_to_training": arguments.consent,
        }
    admission = arguments.id or open_admission
    if admission is None:
        raise ControlError("no patient is admitted")
    return {"type": "patient.discharge", "admission": admission, "keep": not arguments.erase}
