"""``samd-edge update``: bring another release of the client into use, on trial, and go back."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import contextlib
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from samd_edge.update import service, trial
from samd_edge.update.layout import Layout
from samd_edge.update.manifest import Refused, UpdateError
from samd_edge.update.trial import Limits, Outcome

if TYPE_CHECKING:
    from samd_edge.update.device import Device

ROOT: Final = Path("/opt/samd")
DATA_DIR: Final = Path("/var/lib/samd")
_JOURNAL: Final = "/dev/log"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_DESCRIPTION: Final = """\
A device keeps two releases of the client. 'apply' checks a package, unpacks it beside the release in use, has
it compute, switches, starts the service anew and watches: the new client must answer, hold the admission,
assess, use the model and reach the broker as the old one did. If it does not, the device goes back by itself.
"""

_EPILOG: Final = """\
examples:
  samd-edge update apply samd-edge-0.2.0-1a2b3c4d.tar             # with .tar.sha256 beside it
  samd-edge update apply samd-edge-0.2.0-1a2b3c4d.tar --sha256 HEX
  samd-edge update status
  samd-edge update back

exit codes: 0 done, 1 refused for now (an alert, another update) or gone back to the old release, 2 bad input.
"""


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    update = subparsers.add_parser(
        "update",
        help="another release of the client, on trial, with the way back",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = update.add_subparsers(dest="action", metavar="ACTION", required=True)
    defaults = Limits()

    def action(
        name: str, text: str, function: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="default %(default)s")
        parser.add_argument("--json", action="store_true", help="the answer as one JSON object")
        parser.set_defaults(function=_guarded(function))
        return parser

    def acting(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--data-dir",
            type=Path,
            default=DATA_DIR,
            metavar="DIR",
            help="of the client (default %(default)s)",
        )
        parser.add_argument(
            "--restart", default=service.RESTART, metavar="COMMAND", help="default '%(default)s'"
        )
        parser.add_argument(
            "--restarts",
            default=service.RESTARTS,
            metavar="COMMAND",
            help="prints how often the service was started anew by itself (default '%(default)s')",
        )
        parser.add_argument("--boot-id", type=Path, default=_BOOT_ID, help=argparse.SUPPRESS)

    def trying(parser: argparse.ArgumentParser) -> None:
        acting(parser)
        parser.add_argument("--force", action="store_true", help="although the patient has an alert")
        parser.add_argument(
            "--deadline",
            type=float,
            default=defaults.deadline_s,
            metavar="S",
            help="so long it may try (default %(default)s)",
        )
        parser.add_argument(
            "--settle",
            type=float,
            default=defaults.settle_s,
            metavar="S",
            help="so long it must be well on end (default %(default)s)",
        )
        parser.add_argument(
            "--crashes",
            type=int,
            default=defaults.crashes,
            metavar="N",
            help="so many crashes end the trial (default %(default)s)",
        )
        parser.add_argument(
            "--boots",
            type=int,
            default=defaults.boots,
            metavar="N",
            help="boots without a verdict that are suffered (default %(default)s)",
        )

    apply = action("apply", "check a package, and bring it into use on trial", _apply)
    apply.add_argument("file", type=Path, metavar="FILE", help="samd-edge-NAME.tar")
    apply.add_argument("--sha256", metavar="HEX", help="its hash (default: that in FILE.sha256)")
    apply.add_argument(
        "--one-way",
        action="store_true",
        help="although the old release could not open the data any more once the new one has run",
    )
    trying(apply)
    trying(action("back", "bring the release before into use, on trial too", _back))
    acting(action("check", "go on with an update that was cut off, to its verdict (at boot)", _check))
    action("status", "the releases of this device, the trial, and how the last update ended", _status)
    action("self-test", "whether this release can compute here; an update asks the new one", _self_test)


def _apply(arguments: argparse.Namespace) -> int:
    from samd_edge.update import package, steps

    sha256 = package.expected(arguments.file, arguments.sha256)
    limits = _limits(arguments)
    outcome = steps.apply(
        _device(arguments),
        arguments.file,
        sha256,
        force=arguments.force,
        one_way=arguments.one_way,
        limits=limits,
    )
    return _said(outcome, arguments)


def _back(arguments: argparse.Namespace) -> int:
    from samd_edge.update import steps

    return _said(steps.back(_device(arguments), force=arguments.force, limits=_limits(arguments)), arguments)


def _check(arguments: argparse.Namespace) -> int:
    from samd_edge.update import steps

    outcome = steps.check(_device(arguments))
    if outcome is not None:
        return _said(outcome, arguments)
    print('{"outcome": null}' if arguments.json else "no release is on trial")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    layout = Layout(arguments.root)
    current = layout.current()
    found, last = trial.read(layout), trial.last(layout)
    if arguments.json:
        body = {
            "current": current,
            "previous": layout.named("previous"),
            "releases": layout.installed(),
            "trial": msgspec.to_builtins(found),
            "last": msgspec.to_builtins(last),
        }
        print(json.dumps(body))
        return 0
    print(f"in use    {current}")
    print(f"before    {layout.named('previous') or 'none'}")
    if found is not None:
        print(f"on trial  {found.name}, the way back is {found.back_to}, {found.boots} boots so far")
    if last is not None:
        print(f"last      {_words(last)} ({last.at:%Y-%m-%d %H:%M} UTC, clock {last.clock})")
    return 0


def _self_test(_arguments: argparse.Namespace) -> int:
    from samd_edge.update import steps

    print(json.dumps(steps.self_test()))
    return 0


def _device(arguments: argparse.Namespace) -> "Device":
    from samd_edge.update.device import Device

    os.umask(0o022)  # a release is read by whoever the client runs as
    _log()
    try:
        boot_id = arguments.boot_id.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UpdateError(f"{arguments.boot_id}: cannot be read ({error})") from error
    return Device(
        layout=Layout(arguments.root),
        data_dir=arguments.data_dir,
        service=service.Service(arguments.restart, arguments.restarts or None),
        boot_id=boot_id,
        step=lambda text: print(f"{text:<24}", file=sys.stderr, flush=True),
        told=_percent if sys.stderr.isatty() else lambda _share: None,
    )


def _limits(arguments: argparse.Namespace) -> Limits:
    values = {
        "deadline_s": arguments.deadline,
        "settle_s": arguments.settle,
        "crashes": arguments.crashes,
        "boots": arguments.boots,
    }
    try:
        return msgspec.convert(values, Limits)
    except msgspec.ValidationError as error:
        raise UpdateError(f"a limit of the trial cannot be: {error}") from error


def _said(outcome: Outcome, arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(outcome)))
    else:
        print(_words(outcome))
    return 0 if outcome.outcome == "done" else 1


def _words(outcome: Outcome) -> str:
    reason = f": {outcome.reason}" if outcome.reason else ""
    return {
        "done": f"{outcome.release} is in use{reason}",
        "returned": f"back to {outcome.before}; {outcome.release} failed{reason}",
        "undone": f"{outcome.before} stayed in use; {outcome.release} was not begun{reason}",
        "stayed": f"{outcome.release} failed and stays in use{reason}",
    }[outcome.outcome]


def _guarded(function: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], Any]:
    def run(arguments: argparse.Namespace) -> int:
        try:
            return function(arguments)
        except (UpdateError, OSError) as error:
            if arguments.json:
                print(json.dumps({"outcome": "refused", "reason": str(error)}))
            print(f"samd-edge update: {error}", file=sys.stderr)
            return 1 if isinstance(error, Refused) else 2

        except KeyboardInterrupt:
            text = "interrupted; a release on trial is brought to its verdict by: samd-edge update check"
            print(f"samd-edge update: {text}", file=sys.stderr)
            raise

    return run


def _log() -> None:
    """What happens goes to standard error, which systemd keeps; by hand it goes to the journal too."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    error = os.fstat(2)
    kept = os.environ.get("JOURNAL_STREAM") == f"{error.st_dev}:{error.st_ino}"
    if not kept and Path(_JOURNAL).exists():
        with contextlib.suppress(OSError):  # nobody listens there
            journal = logging.handlers.SysLogHandler(_JOURNAL)
            journal.ident = "samd-edge-update: "
            handlers.append(journal)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)


def _percent(share: float) -> None:
    print(f"\runpacking {share:4.0%}", end="\r", file=sys.stderr, flush=True)
