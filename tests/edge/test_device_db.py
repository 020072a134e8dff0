"""The device's own file survives what happens to the agent."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samd_edge.database import StoreError
from samd_edge.device_db import KEEP_COMMANDS, DeviceDb, locked, make_private

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_boots_and_values_survive(tmp_path: Path) -> None:
    for boot in (1, 2, 3):
        db = DeviceDb(tmp_path)
        assert db.next_boot() == boot
        db.close()
    db = DeviceDb(tmp_path)
    db.set(admission={"id": "a"}, config=[1, 2])
    db.set(config=None)
    db.close()
    db = DeviceDb(tmp_path)
    assert (db.get("admission"), db.get("config", "none"), db.get("boot")) == ({"id": "a"}, "none", 3)
    db.close()


def test_commands_are_remembered_across_a_restart(tmp_path: Path) -> None:
    db = DeviceDb(tmp_path)
    assert db.seen("c1") == (False, None)
    db.take_up("c1", NOW + timedelta(minutes=1), NOW)
    db.close()
    db = DeviceDb(tmp_path)
    assert db.seen("c1") == (True, None)
    db.finish("c1", b"{}")
    assert db.seen("c1") == (True, b"{}")
    db.close()


def test_old_commands_are_forgotten_only_after_their_expiry(tmp_path: Path) -> None:
    db = DeviceDb(tmp_path)
    with db.write() as connection:
        connection.executemany(
            "INSERT INTO commands VALUES (?, ?, NULL)", [(f"old{n}", n) for n in range(KEEP_COMMANDS + 50)]
        )
    db.take_up("new", NOW + timedelta(minutes=1), NOW)
    assert db.number("SELECT COUNT(*) FROM commands") == KEEP_COMMANDS
    assert db.seen("new") == (True, None)
    assert db.seen("old0") == (False, None)
    db.close()


def test_only_the_owner_can_enter(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    make_private(folder)
    DeviceDb(folder).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "device.sqlite").stat().st_mode) == 0o600
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="give another --data-dir"):
        make_private(tmp_path / "file")


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StoreError, match="already running here"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
