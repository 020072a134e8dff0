"""``samd-edge report``: the record of one admission as a page that can be printed."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import contextlib
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta, tzinfo
from importlib import metadata
from pathlib import Path

from samd_edge.database import StoreError
from samd_edge.extras import install
from samd_edge.observe_command import moment as time_of

_DESCRIPTION = """\
Writes one page, without scripts and without anything from the network: plots of the signs over the chart's
bands, the score with its range, rule and model, alerts, gaps, observations and corrections with names. The
store is only read: the agent may go on writing, and an admission that has ended works as well.

The page holds patient data; its file is readable by its owner alone.
"""

_EPILOG = """\
examples:
  samd-edge report --device bed-01 --since 24h --out bed-01.html
  samd-edge report --data-dir /var/lib/samd --admission local --since 7d --out week.html
  samd-edge report --device bed-01 --since 2026-01-31T08:00:00Z --out - > shift.html

exit codes: 0 done, 1 the store is damaged or cannot be read, 2 bad input, or there is nothing to report on.
"""


class _Refused(Exception):  # noqa: N818  (it is an answer, with its reason)
    """An option that cannot be; one line."""


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "report",
        help="a page with plots of the signs, the score, alerts and gaps",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", help="name of the device (default: the only one that has data here)")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="its data directory")
    parser.add_argument(
        "--admission", metavar="ID", help="an admission, also one that has ended (default: the open one)"
    )
    parser.add_argument(
        "--since",
        default="24h",
        metavar="TIME",
        help="90m, 24h, 7d before now (before the last entry of an admission that has ended), or ISO 8601 "
        "with a zone (default 24h)",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="where the page goes; - is stdout")
    parser.add_argument("--utc", action="store_true", help="times in UTC (default: the zone of this machine)")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, draw, write; the exit code."""
    from samd_edge.report.source import NoReport

    try:
        _check_out(arguments.out)
        page = _page(arguments, datetime.now(UTC))
        _write(arguments.out, page)
    except ImportError as error:
        print(
            f"samd-edge report: a library is not installed ({error}); {install('report')}",
            file=sys.stderr,
        )
        return 2
    except (NoReport, _Refused) as error:
        print(f"samd-edge report: {error}", file=sys.stderr)
        return 2
    except StoreError as error:
        print(f"samd-edge report: {error}", file=sys.stderr)
        return 1
    return 0


def _page(arguments: argparse.Namespace, now: datetime) -> str:
    import jinja2  # noqa: F401  (before the store is read: what is missing is said at once)
    import matplotlib as mpl  # noqa: F401

    from samd_edge.report import history as histories
    from samd_edge.report.page import render
    from samd_edge.report.plots import picture
    from samd_edge.report.record import moment, seconds
    from samd_edge.report.source import data_dir, opened, store_of

    folder = data_dir(arguments.device, arguments.data_dir)
    store = store_of(folder, arguments.admission)
    with opened(store) as connection:
        span = histories.span(connection)
        until = now
        if span is not None:
            until = moment(histories.end(connection, span[1], seconds(now)))
        asked = _since(arguments.since, until)
        since = asked if span is None else max(asked, min(moment(span[0]), until - timedelta(seconds=1)))
        history = histories.read(
            connection,
            store,
            device=arguments.device or folder.name,
            since=seconds(since),
            until=seconds(until),
        )
    zone = _zone(utc=arguments.utc)
    return render(
        history,
        picture(history, zone),
        asked_since=asked,
        generated_at=now,
        version=metadata.version("samd-edge"),
        zone=zone,
    )


def _since(text: str, until: datetime) -> datetime:
    try:
        found = time_of(text, until)
    except ValueError as error:
        raise _Refused(f"--since {error}") from error
    if found >= until:
        raise _Refused(f"--since {text}: lies after the end of the record, {until:%Y-%m-%dT%H:%M:%SZ}")
    return found


def _zone(*, utc: bool) -> tzinfo:
    if utc:
        return UTC
    return datetime.now().astimezone().tzinfo or UTC


def _check_out(out: str) -> None:
    """Refuse to overwrite what is not a report: a store, say."""
    from samd_edge.report.page import MARK

    if out == "-":
        return
    path = Path(out)
    if not path.parent.is_dir():
        raise _Refused(f"{path}: there is no folder {path.parent}")
    if not (path.exists() or path.is_symlink()):
        return
    if not path.is_file():
        raise _Refused(f"{path}: is no ordinary file; name another one, or use --out -")
    try:
        with path.open("rb") as file:
            known = MARK.encode() in file.read(4096)
    except OSError as error:
        raise _Refused(f"{path}: cannot be read ({error.strerror}); name another file") from error
    if not known:
        raise _Refused(f"{path}: exists and is no report; name another file, or remove it first")


def _write(out: str, page: str) -> None:
    """Whole or not at all, and for its owner alone."""
    if out == "-":
        sys.stdout.buffer.write(page.encode())
        sys.stdout.flush()
        return
    path = Path(out)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:  # mkstemp made it with mode 0600
                file.write(page.encode())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
    except OSError as error:
        raise _Refused(f"{path}: cannot be written ({error.strerror})") from error
