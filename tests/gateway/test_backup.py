"""Backup and restore: while messages come, by command and by a running gateway, whole or not at all."""

import gzip
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_peers import Device, Gateway, free_port, until
from postgres import PostgreSQL

from samd_gateway import archive, backup, restore, schema
from samd_gateway.errors import UsageError


def command(*arguments: str, code: int = 0, env: dict[str, str] | None = None) -> dict[str, Any] | str:
    """A command of the package, as a user would give it: what --json printed, or the error."""
    done = subprocess.run(
        [sys.executable, "-m", "samd_gateway", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == code, done.stderr
    return done.stderr.strip().splitlines()[-1] if code else json.loads(done.stdout)


def messages(folder: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(folder / "gateway.sqlite3")) as connection:
        return connection.execute("SELECT device, id FROM messages ORDER BY device, id").fetchall()


def unpacked(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as members:
        return {member.name: members.extractfile(member).read() for member in members}


@contextmanager
def load(device: Device) -> Iterator[list[str]]:
    """A device that goes on assessing; the ids of what it sent."""
    sent: list[str] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.002):
            sent.append(device.assess().id)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def model_file(folder: Path) -> bytes:
    """Something in the model store: a backup takes every file of it as it is."""
    content = b"a model" * 1000
    path = folder / "models" / f"{hashlib.sha256(content).hexdigest()}.samd"
    path.write_bytes(content)
    return content


def test_a_backup_under_load_is_one_moment_and_is_restored_elsewhere(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, tmp_path: Path
) -> None:
    gateway = make_gateway(own_broker)
    content = model_file(gateway.data)
    device = peers(Device(own_broker, "bed-01"))
    file, other = tmp_path / "backup.tar.gz", tmp_path / "other"
    with load(device) as sent:
        until(lambda: len(messages(gateway.data)) > 50)
        command("backup", str(file), "--gateway", gateway.url, "--json")
        until(lambda: len(messages(gateway.data)) > 100)
    until(lambda: set(sent) <= {row[1] for row in messages(gateway.data)})
    assert file.stat().st_mode & 0o777 == 0o600
    command("restore", str(file), "--data", str(other), "--json")
    restored, original = messages(other), messages(gateway.data)
    assert set(restored) < set(original)
    # of one moment: what came later is not in it, what came before is, in the order in which it was sent
    ids = [row[1] for row in restored]
    held = [each for each in sent if each in ids]
    assert held == sent[: len(held)]
    assert len(held) > 40
    with closing(sqlite3.connect(other / "gateway.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [path.read_bytes() for path in (other / "models").glob("*.samd")] == [content]
    again = make_gateway(own_broker, "--name", "other", data="other")
    assert again.device("bed-01")["assessment"] is not None
    entries = again.get("/api/audit", action="database.backup")["entries"]
    assert len(entries) == 1


def test_a_backup_of_a_folder_beside_its_gateway_is_equal_to_what_is_there(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, tmp_path: Path
) -> None:
    gateway = make_gateway(own_broker)
    model_file(gateway.data)
    device = peers(Device(own_broker, "bed-01"))
    sent = {device.assess(total).id for total in range(1, 15)}
    until(lambda: sent <= {row[1] for row in messages(gateway.data)})
    file = tmp_path / "backup.tar.gz"
    command("backup", str(file), "--data", str(gateway.data), "--json")
    assert gateway.end() == 0
    command("restore", str(file), "--data", str(tmp_path / "other"), "--json")
    assert messages(tmp_path / "other") == messages(gateway.data)
    manifest = json.loads(unpacked(file)["manifest.json"])
    assert [each["path"].split("/")[0] for each in manifest["files"]] == ["database.sqlite3", "models"]


def test_a_running_gateway_restores_itself_and_loses_no_message(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, tmp_path: Path
) -> None:
    gateway = make_gateway(own_broker, "--port", str(free_port()))
    device = peers(Device(own_broker, "bed-01"))
    first = device.assess(1).id
    until(lambda: first in {row[1] for row in messages(gateway.data)})
    file = tmp_path / "backup.tar.gz"
    command("backup", str(file), "--gateway", gateway.url, "--json")
    lost = device.assess(2).id  # acknowledged, and not in the backup
    until(lambda: lost in {row[1] for row in messages(gateway.data)})
    boot = _boot(gateway.data)
    with load(device) as sent:
        until(lambda: len(sent) > 20)
        error = command("restore", str(file), "--gateway", gateway.url, code=2)
        assert "add --force" in error
        command("restore", str(file), "--gateway", gateway.url, "--force", "--json")
        count = len(sent)
        until(lambda: len(sent) > count + 20)
    (kept,) = gateway.data.glob("before-restore-*")
    before = {row[1] for row in messages(kept)}
    assert {first, lost} <= before
    # each message is in the state of before or in the one that goes on
    until(lambda: set(sent) <= before | {row[1] for row in messages(gateway.data)})
    after = {row[1] for row in messages(gateway.data)}
    assert first in after
    assert lost not in after
    assert gateway.get("/healthz")["status"] == "ok"
    assert _boot(gateway.data) > boot
    assert not (gateway.data / "restore-pending").exists()


def _boot(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "gateway.sqlite3")) as connection:
        return int(connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()[0])


def test_a_folder_in_use_is_not_restored_to(
    broker_url: str, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = make_gateway(broker_url)
    file = tmp_path / "backup.tar.gz"
    command("backup", str(file), "--data", str(gateway.data), "--json")
    before = messages(gateway.data)
    error = command("restore", str(file), "--data", str(gateway.data), "--force", code=2)
    assert "another gateway uses it" in error
    assert messages(gateway.data) == before


def folder_with(path: Path, tag: str) -> Path:
    """A data folder with one row that tells it from others."""
    path.mkdir(mode=0o700)
    database = schema.open_database(None, path)
    with database.write() as connection:
        connection.execute(schema.tags.insert().values(device="bed-01", tag=tag))
    database.close()
    (path / "models").mkdir()
    model_file(path)
    return path


def tags(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "gateway.sqlite3")) as connection:
        return [row[0] for row in connection.execute("SELECT tag FROM tags")]


@pytest.fixture(scope="module")
def backup_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = folder_with(tmp_path_factory.mktemp("backup") / "a", "backed-up")
    database = schema.open_database(None, folder)
    file = folder.parent / "b.tar.gz"
    backup.write(database, folder, file, gateway="main", version="0.1.0", now=1_760_000_000.0)
    database.close()
    return file


def test_what_is_there_is_kept_aside(backup_file: Path, tmp_path: Path) -> None:
    here = folder_with(tmp_path / "here", "here")
    error = command("restore", str(backup_file), "--data", str(here), code=2)
    assert "is there already" in error
    assert tags(here) == ["here"]
    answer = command("restore", str(backup_file), "--data", str(here), "--force", "--json")
    assert tags(here) == ["backed-up"]
    assert tags(Path(answer["kept"])) == ["here"]
    assert len(list((Path(answer["kept"]) / "models").iterdir())) == 1
    # and that state can itself be put back
    second = tmp_path / "second.tar.gz"
    command("backup", str(second), "--data", answer["kept"], "--json")
    command("restore", str(second), "--data", str(here), "--force", "--json")
    assert tags(here) == ["here"]
    assert len(list(here.glob("before-restore-*"))) == 2


@pytest.mark.parametrize("calls", range(1, 12))
def test_killed_at_any_point_a_restore_goes_on(
    backup_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Each step that changes the folder fails once, as a kill would; the next start ends the work."""
    here = folder_with(tmp_path / "here", "here")
    restore.stage(backup_file, here, None)
    left = [calls]
    moves = {
        "move": restore.shutil.move,
        "rename": os.rename,
        "rmtree": restore.shutil.rmtree,
        "touch": Path.touch,
    }

    def failing(name: str) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(5, "killed")
            return moves[name](*arguments, **more)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(restore.shutil, "move", failing("move"))
        patch.setattr(restore.shutil, "rmtree", failing("rmtree"))
        patch.setattr(restore.os, "rename", failing("rename"))
        patch.setattr(Path, "touch", failing("touch"))
        with_error = False
        try:
            restore.finish(here, None, now=1_760_000_000.0)
        except UsageError:
            with_error = True
    if with_error:
        assert restore.pending(here)
        restore.finish(here, None, now=1_770_000_000.0)
    assert not restore.pending(here)
    assert tags(here) == ["backed-up"]
    assert len(list((here / "models").iterdir())) == 1
    (kept,) = here.glob("before-restore-*")
    assert tags(kept) == ["here"]
    assert len(list((kept / "models").iterdir())) == 1


def test_a_restore_signs_everybody_out_and_counts_starts_on(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "a", "a")
    database = schema.open_database(None, folder)
    for _ in range(3):
        boot = database.next_boot()
    with database.write() as connection:
        times = {"created_at": 0.0, "last_seen": 0.0, "expires_at": 2e9}
        connection.execute(schema.sessions.insert().values(hash="h", user="n.kim", csrf="c", **times))
    database.close()
    command("backup", str(tmp_path / "b.tar.gz"), "--data", str(folder), "--json")
    command("restore", str(tmp_path / "b.tar.gz"), "--data", str(tmp_path / "c"), "--json")
    database = schema.open_database(None, tmp_path / "c")
    assert database.next_boot() == boot + restore.BOOTS_AHEAD + 1
    with database.read() as connection:
        assert connection.execute(schema.sessions.select()).all() == []
    database.close()


# bad archives


def repacked(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    members = unpacked(source)
    change(members)
    with tarfile.open(target, "w:gz") as packed:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return target


def _manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def run(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        change(manifest)
        members["manifest.json"] = json.dumps(manifest).encode()

    return run


def _flip(members: dict[str, bytes]) -> None:
    content = members["database.sqlite3"]
    members["database.sqlite3"] = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


def _escape(members: dict[str, bytes]) -> None:
    content = b"evil"
    entry = {"path": "../evil", "size": 4, "sha256": hashlib.sha256(content).hexdigest()}
    _manifest(lambda manifest: manifest["files"].append(entry))(members)
    members["../evil"] = content


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_flip, "database.sqlite3 is damaged"),
        (_escape, "names files that no backup holds"),
        (lambda members: members.pop("database.sqlite3"), "is missing in it|is not what its manifest says"),
        (lambda members: members.update(extra=b"x"), "'extra' is not what its manifest says"),
        (lambda members: members.pop("manifest.json"), "no backup of a gateway"),
        (_manifest(lambda manifest: manifest.update(revision="9999")), "of another program"),
        (_manifest(lambda manifest: manifest.update(format=2)), "of another program"),
        (
            _manifest(lambda manifest: manifest["files"][0].update(size=10**15)),
            "do not fit|not what its manifest",
        ),
        (_manifest(lambda manifest: manifest.update(files="none")), "its manifest cannot be read"),
    ],
)
def test_an_archive_that_was_changed_changes_nothing(
    backup_file: Path, tmp_path: Path, change: Callable, error: str
) -> None:
    here = folder_with(tmp_path / "here", "here")
    bad = repacked(backup_file, tmp_path / "bad.tar.gz", change)
    with pytest.raises(UsageError, match=error):
        restore.stage(bad, here, None)
    assert not restore.pending(here)
    assert sorted(path.name for path in here.iterdir()) == ["gateway.sqlite3", "models"]
    assert tags(here) == ["here"]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("length", [0, 10, 500, -20, -1])
def test_an_archive_that_breaks_off_is_none(backup_file: Path, tmp_path: Path, length: int) -> None:
    content = backup_file.read_bytes()
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(content[:length] if length else b"")
    with pytest.raises(UsageError, match="no backup"):
        archive.read(broken, None)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(gzip.compress(b"hello" * 1000))
    with pytest.raises(UsageError, match="no backup"):
        archive.read(file, None)
    with pytest.raises(UsageError, match="no backup"):
        archive.read(tmp_path / "absent", None)


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "a", "a")
    file = tmp_path / "b.tar.gz"
    file.write_text("mine")
    assert "exists" in command("backup", str(file), "--data", str(folder), code=2)
    assert file.read_text() == "mine"
    command("backup", str(file), "--data", str(folder), "--force", "--json")
    assert archive.read(file, None).database == "sqlite"


def test_a_folder_without_data_is_not_backed_up(tmp_path: Path) -> None:
    assert "no gateway's data is there" in command(
        "backup", str(tmp_path / "b"), "--data", str(tmp_path), code=2
    )
    assert list(tmp_path.iterdir()) == []


def test_a_postgresql_database_is_backed_up_and_put_back(postgresql: PostgreSQL, tmp_path: Path) -> None:
    def add(url: str, tag: str) -> None:
        database = schema.open_database(url, tmp_path, password_file=str(postgresql.password_file))
        with database.write() as connection:
            connection.execute(schema.tags.insert().values(device="bed-01", tag=tag))
        database.close()

    def tags_of(url: str) -> list[str]:
        database = schema.open_database(url, tmp_path, password_file=str(postgresql.password_file))
        with database.read() as connection:
            found = [row.tag for row in connection.execute(schema.tags.select().order_by(schema.tags.c.tag))]
        database.close()
        return found

    url = postgresql.create()
    env = postgresql.environment(url)
    add(url, "one")
    (tmp_path / "here").mkdir()
    file = tmp_path / "b.tar.gz"
    command("backup", str(file), "--data", str(tmp_path / "here"), "--json", env=env)
    add(url, "two")
    error = command(
        "restore", str(file), "--data", str(tmp_path / "other"), code=2, env={"SAMD_DATABASE_URL": ""}
    )
    assert "a backup of postgresql, and this gateway uses sqlite" in error
    error = command("restore", str(file), "--data", str(tmp_path / "here"), code=2, env=env)
    assert "the database of SAMD_DATABASE_URL is there already" in error
    assert tags_of(url) == ["one", "two"]
    answer = command("restore", str(file), "--data", str(tmp_path / "here"), "--force", "--json", env=env)
    assert tags_of(url) == ["one"]
    # what was there is kept as a dump, which is itself complete
    assert (Path(answer["kept"]) / "database.dump").stat().st_size > 1000
    fresh = postgresql.create()
    command(
        "restore", str(file), "--data", str(tmp_path / "new"), "--json", env=postgresql.environment(fresh)
    )
    assert tags_of(fresh) == ["one"]
    assert "only-for-tests" not in file.read_bytes().decode("latin-1")
