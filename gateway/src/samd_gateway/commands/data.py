"""`samd-gateway export` and `samd-gateway database`: what is on record as files, and how long it is kept."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected
from samd_gateway.errors import UsageError

KINDS = ("assessments", "hours", "alerts", "devices", "health", "audit")
DAYS = (
    ("messages_days", "messages but assessments and alerts"),
    ("assessments_days", "single assessments, then hours"),
    ("assessment_hours_days", "hours of assessments"),
    ("alerts_days", "cleared alerts"),
    ("health_days", "health by five minutes, then hours"),
    ("health_hours_days", "hours of health"),
    ("commands_days", "commands"),
    ("audit_days", "the audit"),
)


def add(commands: Any, parents: Parents) -> None:
    """Add the commands to the parser."""
    export = commands.add_parser(
        "export", parents=parents.both, help="what is on record, as CSV, JSON or FHIR"
    )
    export.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    export.add_argument(
        "--format",
        choices=("csv", "json", "fhir"),
        default="csv",
        help="json: a record a line; fhir: R4 Observations of assessments, one a line (default: %(default)s)",
    )
    export.add_argument("--out", default="-", metavar="FILE", help="default: standard output")
    export.add_argument("--since", metavar="TIME", help="2026-01-31, 2026-01-31T12:00:00Z, or 24h, 7d ago")
    export.add_argument("--until", metavar="TIME", help="likewise; default: now")
    export.add_argument("--device", metavar="NAME", help="of this device alone")
    export.add_argument("--force", action="store_true", help="replace FILE where it exists")
    export.set_defaults(run=connected(export_))

    database = commands.add_parser("database", help="its size, how long what is kept, what is due to go")
    below = database.add_subparsers(required=True, metavar="ACTION")
    below.add_parser("info", parents=parents.both, help="size and rows").set_defaults(run=connected(info))
    prune = below.add_parser("prune", parents=parents.both, help="let go now what is due by the retention")
    prune.add_argument("--preview", action="store_true", help="only say what would go")
    prune.set_defaults(run=connected(prune_))
    keep = below.add_parser(
        "retention", parents=parents.both, help="show, or set, how many days what is kept"
    )
    for name, text in DAYS:
        keep.add_argument(f"--{name.replace('_', '-')}", metavar="N", help=f"{text}; a number, or `ever`")
    keep.set_defaults(run=connected(retention_))


# export


def moment(text: str | None, now: datetime) -> str | None:
    """A time as it is typed, as ISO 8601. Raises UsageError."""
    if text is None:
        return None
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if ago:
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
        return (now - timedelta(**{unit: int(ago[1])})).isoformat()
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time; write 2026-01-31T12:00:00Z, or 24h, 7d") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


@contextmanager
def whole_file(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file that is there once the block has ended well, for its owner alone. Raises UsageError."""
    if path.exists() and not force:
        raise UsageError(f"{path}: exists; name another file, or add --force")
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror}); make room, or name another"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def export_(client: Client, arguments: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    asked = {
        "format": arguments.format,
        "since": moment(arguments.since, now),
        "until": moment(arguments.until, now),
        "device": arguments.device,
    }
    query = {name: value for name, value in asked.items() if value is not None}
    if arguments.out == "-":
        if arguments.json:
            raise UsageError("--json tells of a file that was written; name it: --out FILE")
        with client.download("GET", f"/api/export/{arguments.kind}", query) as response:
            for piece in response.iter_bytes():
                sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return 0
    path = Path(arguments.out)
    with whole_file(path, force=arguments.force) as file:
        bytes_, lines = _fetch(client, arguments.kind, query, file)
    if arguments.json:
        say(json.dumps({"file": str(path), "bytes": bytes_, "lines": lines}))
    else:
        say(f"{path}: {lines} lines, {bytes_ / 1e6:.1f} MB")
    return 0


def _fetch(client: Client, kind: str, query: dict[str, str], file: IO[bytes]) -> tuple[int, int]:
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    bytes_ = lines = 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(kind, total=None)
        with client.download("GET", f"/api/export/{kind}", query) as response:
            for piece in response.iter_bytes():
                file.write(piece)
                bytes_ += len(piece)
                lines += piece.count(b"\n")
                progress.update(task, completed=bytes_)
    return bytes_, lines


# the database


def info(client: Client, arguments: argparse.Namespace) -> int:
    answer = client.get("/api/database")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    free = f", {answer['free_bytes'] / 1e6:.1f} MB of it free" if answer["free_bytes"] else ""
    say(f"{answer['backend']}, revision {answer['revision']}: {answer['size_bytes'] / 1e6:.1f} MB{free}")
    say(f"oldest message: {answer['oldest_message'] or 'none yet'}")
    for table in answer["tables"]:
        if table["rows"]:
            say(f"  {table['name']:<18} {table['rows']:>12,}")
    if answer["pruned"] is not None:
        rows = ", ".join(f"{count:,} {name}" for name, count in answer["pruned"]["rows"].items())
        say(f"last pruned {answer['pruned']['at'][:19]}: {rows}")
    return 0


def prune_(client: Client, arguments: argparse.Namespace) -> int:
    """The gateway works for a few seconds at a time; ask until nothing is left."""
    due = client.post("/api/database/prune", {"preview": True})
    if arguments.preview:
        _tell(due, arguments, "would go")
        return 0
    from rich.console import Console
    from rich.progress import Progress

    taken: dict[str, int] = {}
    answer: dict[str, Any] = {"complete": False}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rows", total=max(sum(due["rows"].values()), 1))
        while not answer["complete"]:
            answer = client.post("/api/database/prune", {"preview": False}, timeout_s=120.0)
            for name, rows in answer["rows"].items():
                taken[name] = taken.get(name, 0) + rows
            progress.update(task, completed=sum(taken.values()))
    _tell({**answer, "rows": taken}, arguments, "went")
    return 0


def _tell(answer: dict[str, Any], arguments: argparse.Namespace, verb: str) -> None:
    if arguments.json:
        say(json.dumps(answer))
        return
    rows = {name: count for name, count in answer["rows"].items() if count}
    if not rows:
        say("nothing is due")
    for name, count in rows.items():
        say(f"{count:>12,} {name} {verb}")


def retention_(client: Client, arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name, _ in DAYS if getattr(arguments, name) is not None}
    kept = client.get("/api/settings/retention")
    if given:
        kept = client.put(
            "/api/settings/retention", kept | {name: _days(name, text) for name, text in given.items()}
        )
    if arguments.json:
        say(json.dumps(kept))
        return 0
    for name, text in DAYS:
        say(f"{text:<38} {'for ever' if kept[name] is None else f'{kept[name]} days'}")
    return 0


def _days(name: str, text: str) -> int | None:
    if text == "ever":
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"--{name.replace('_', '-')} {text!r}: write a number of days, or `ever`")
    return int(text)
