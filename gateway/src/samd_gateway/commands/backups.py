"""`samd-gateway backup` and `samd-gateway restore`: of a running gateway, or of its data folder."""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samd_gateway.client import Client, say
from samd_gateway.commands import Parents, connected
from samd_gateway.commands.data import whole_file
from samd_gateway.errors import ConflictError, GatewayError, UsageError

PATIENCE_S = 3600.0
BACK_S = 120.0
CHUNK = 1 << 20


def add(commands: Any, parents: Parents) -> None:
    """Add the commands to the parser."""
    backup = commands.add_parser(
        "backup",
        parents=parents.both,
        help="database, models and settings in one file, beside running gateways",
    )
    backup.add_argument("file", type=Path, metavar="FILE")
    backup.add_argument("--force", action="store_true", help="replace FILE where it exists")
    restore = commands.add_parser(
        "restore",
        parents=parents.both,
        help="put a backup back; what was there before is kept beside it",
    )
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.add_argument("--force", action="store_true", help="although there is data already")
    for each in (backup, restore):
        each.add_argument(
            "--data",
            type=Path,
            metavar="DIR",
            help="a gateway's data folder, instead of asking a running gateway; with SAMD_DATABASE_URL, of "
            "that database",
        )
    backup.set_defaults(run=_either(backup_folder, backup_gateway))
    restore.set_defaults(run=_either(restore_folder, restore_gateway))


def _either(
    folder: Callable[[argparse.Namespace], int], gateway: Callable[[Client, argparse.Namespace], int]
) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        return connected(gateway)(arguments) if arguments.data is None else folder(arguments)

    return run


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield tell


def _pieces(path: Path, tell: Callable[[str, int, int], None]) -> Iterator[bytes]:
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece
            done += len(piece)
            tell("upload", done, total)


def _database_url() -> str | None:
    return os.environ.get("SAMD_DATABASE_URL") or None


def _password_file() -> str | None:
    return os.environ.get("SAMD_DATABASE_PASSWORD_FILE") or None


# backup


def backup_folder(arguments: argparse.Namespace) -> int:
    """Beside a gateway that may be running: nothing in the folder changes, and nobody waits."""
    from samd_gateway import __version__, backup
    from samd_gateway.schema import Database
    from samd_gateway.schema.database import FILE, engine_of

    if arguments.file.exists() and not arguments.force:
        raise UsageError(f"{arguments.file}: exists; name another file, or add --force")
    if _database_url() is None and not (arguments.data / FILE).is_file():
        raise UsageError(f"--data {arguments.data}: no gateway's data is there; name its folder")
    engine = engine_of(_database_url(), arguments.data, _password_file())
    try:
        with _progress() as tell:
            manifest = backup.write(
                Database(engine),
                arguments.data,
                arguments.file,
                gateway="main",
                version=__version__,
                now=time.time(),
                progress=tell,
            )
    finally:
        engine.dispose()
    _summary(arguments, manifest)
    return 0


def backup_gateway(client: Client, arguments: argparse.Namespace) -> int:
    """What was received is checked as a whole before it counts as a backup."""
    from samd_gateway import archive

    with _progress() as tell, whole_file(arguments.file, force=arguments.force) as file:
        with client.download("POST", "/api/backup", wait_s=PATIENCE_S) as response:
            total = int(response.headers.get("content-length", 0))
            for piece in response.iter_bytes(CHUNK):
                file.write(piece)
                tell("download", file.tell(), total)
        file.flush()
        manifest = archive.read(Path(file.name), None, progress=tell)
    _summary(arguments, manifest)
    return 0


def _summary(arguments: argparse.Namespace, manifest: Any) -> None:
    size = arguments.file.stat().st_size
    if arguments.json:
        told: dict[str, Any] = {"file": str(arguments.file), "bytes": size, "files": len(manifest.files)}
        told |= {"created_at": manifest.created_at.isoformat(), "revision": manifest.revision}
        say(json.dumps(told))
        return
    say(
        f"{arguments.file}: {len(manifest.files)} files, {size / 1e6:.1f} MB, as of "
        f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"
    )


# restore


def restore_folder(arguments: argparse.Namespace) -> int:
    """The folder is locked meanwhile: never beside a gateway that runs on it."""
    from samd_gateway import restore
    from samd_gateway.folder import prepare_folder

    folder, url = arguments.data, _database_url()
    with prepare_folder(folder), _progress() as tell:
        used = [str(path) for path in folder.iterdir() if path.name not in ("lock", "id")]
        if url is not None and restore.holds_tables(url, folder, _password_file()):
            used.append("the database of SAMD_DATABASE_URL")
        if used and not arguments.force:
            raise UsageError(
                f"{used[0]} is there already; restore into a new folder, or add --force, which keeps what is "
                "there in a folder within --data"
            )
        manifest = restore.stage(arguments.file, folder, url, progress=tell)
        kept = restore.finish(folder, url, password_file=_password_file(), now=time.time())
        if kept is not None and not any(kept.iterdir()):
            kept.rmdir()
            kept = None
    if arguments.json:
        told = {
            "data": str(folder),
            "files": len(manifest.files),
            "kept": None if kept is None else str(kept),
        }
        say(json.dumps(told | {"created_at": manifest.created_at.isoformat()}))
        return 0
    say(f"{folder}: restored to {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC, {len(manifest.files)} files")
    if kept is not None:
        say(f"what was there before is kept in {kept}")
    return 0


def restore_gateway(client: Client, arguments: argparse.Namespace) -> int:
    """The gateway checks it and starts anew with it; wait until it answers again."""
    from samd_gateway import archive

    if not arguments.force:
        raise UsageError(
            f"the gateway at {client.url} would start anew with what is in {arguments.file}; if that is "
            "meant, add --force (its data is kept beside), or restore into a new folder: --data DIR"
        )
    with _progress() as tell:
        archive.read(arguments.file, None, progress=tell)  # before anything is sent
        answer = client.upload("/api/restore", _pieces(arguments.file, tell), wait_s=PATIENCE_S)
    _wait_until_back(client)
    if arguments.json:
        say(json.dumps(answer))
    else:
        say(f"restored to {answer['created_at'][:19]} UTC; the gateway runs again")
    return 0


def _wait_until_back(client: Client) -> None:
    """Gone first, then there again: what answers before is the one that ends."""
    ends = time.monotonic() + BACK_S
    gone = False
    while time.monotonic() < ends:
        try:
            client.get("/healthz")
        except GatewayError as error:  # one that is there but not well is there
            here = not str(error).startswith("no gateway answers")
        else:
            here = True
        if here and gone:
            return
        gone = gone or not here
        time.sleep(0.1)
    raise ConflictError(f"{client.url} does not answer again within {BACK_S:.0f} s; look at its log")
