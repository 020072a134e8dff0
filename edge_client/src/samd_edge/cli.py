"""The command ``samd-edge``: each subcommand's module is imported only when it is chosen."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

_COMMANDS: Final = {
    "run": ("samd_edge.run_command", "the agent: read, assess, store, report, take part in training"),
    "infer": ("samd_edge.infer_command", "assess readings from a file or a pipe; no broker, no server"),
    "alarms": ("samd_edge.alarms_command", "what alert policies would have done to recordings"),
    "observe": ("samd_edge.observe_command", "enter consciousness and oxygen, or correct a wrong reading"),
    "admit": ("samd_edge.admit_command", "begin an admission: the next patient"),
    "discharge": ("samd_edge.admit_command", "end the admission: its store is sealed, or erased"),
    "top": ("samd_edge.top_command", "the patient and the agent on one screen"),
    "report": ("samd_edge.report_command", "a page with plots of the signs, the score, alerts and gaps"),
    "models": ("samd_edge.run_command", "the versions of the model that this device holds"),
    "update": ("samd_edge.update.command", "another release of the client, on trial, with the way back"),
    "doctor": ("samd_edge.doctor_command", "check clock, broker, disk, runtime and model"),
}

_EPILOG: Final = """\
This is research software and no certified medical device.
'samd-edge COMMAND --help' tells the options of a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 a check failed, 2 bad input, 130 ended by Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # One thread: a pool of numpy's takes memory on every core, for matrices of one row.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(
        prog="samd-edge",
        description="The device at the bedside: assesses live vital signs, trains on its own recordings.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in given if not word.startswith("-")), None)
    try:
        if chosen in _COMMANDS:
            import_module(_COMMANDS[chosen][0]).add_parsers(subparsers)
        else:
            for name, (_, text) in _COMMANDS.items():
                subparsers.add_parser(name, help=text)
        parsed = parser.parse_args(given)
        function: Callable[[argparse.Namespace], Any] = parsed.function
        return int(function(parsed) or 0)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has gone: as for every filter, that is an ordinary end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _version() -> str:
    from samd_edge.update.running import running_version

    return f"samd-edge {running_version()}"
