"""Commands: once, in time, always answered."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samd_edge.commands import Answer, CommandFailed, Commands, Refused
from samd_edge.device_db import DeviceDb
from samd_edge.outbox import Outbox
from samd_protocol import envelope
from samd_protocol.envelope import Sealer
from samd_protocol.errors import MessageError
from samd_protocol.messages import Command, CommandBody, Report, Result, State

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Bench:
    """Commands over a real file; `execute` does what the test says, and counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.count = 0
        self.act: Callable[[], Answer] = Answer
        self.gateway = Sealer("gateway.a", 1, now=lambda: self.now)
        self.open()

    def open(self) -> None:
        self.db = DeviceDb(self.folder)
        self.outbox = Outbox(self.db)
        sealer = Sealer("bed-01", self.db.next_boot(), now=lambda: self.now)
        self.commands = Commands(self.db, self.outbox, sealer, execute=self._execute, wall=lambda: self.now)

    def restart(self) -> None:
        self.db.close()
        self.open()

    def _execute(self, body: CommandBody) -> Answer:
        assert body == Report()
        self.count += 1
        return self.act()

    def order(self, seconds: float = 10.0) -> bytes:
        command = Command(expires_at=self.now + timedelta(seconds=seconds), body=Report())
        return envelope.encode(self.gateway.seal(command))

    def results(self) -> list[bytes]:
        return [payload for _, _, payload, _ in self.outbox.next(100, ())]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.db.close()


def refuse() -> Answer:
    raise Refused("no data")


def fail() -> Answer:
    raise CommandFailed("the disk is full")


@pytest.mark.parametrize(
    ("act", "status", "reason"),
    [
        (Answer, "done", None),
        (lambda: Answer(accepted=True, rows=12), "accepted", None),
        (refuse, "rejected", "no data"),
        (fail, "failed", "the disk is full"),
    ],
)
def test_every_command_is_answered(
    bench: Bench, act: Callable[[], Answer], status: str, reason: str | None
) -> None:
    bench.act = act
    payload = bench.order()
    result = bench.commands.receive(payload)
    assert result is not None
    assert (result.command, result.status, result.reason) == (envelope.decode(payload).id, status, reason)
    assert [envelope.decode(found, sender="bed-01").data for found in bench.results()] == [result]
    assert result.detail == ({"rows": 12} if status == "accepted" else {})


def test_repeated_it_is_answered_again_and_not_executed_again(bench: Bench) -> None:
    payload = bench.order()
    bench.commands.receive(payload)
    first = bench.results()
    assert bench.commands.receive(payload) is None
    bench.restart()
    assert bench.commands.receive(payload) is None
    bench.outbox.remove([row for row, *_ in bench.outbox.next(9, ())])
    bench.now += timedelta(hours=1)
    assert bench.commands.receive(payload) is None, "also after its expiry it was done, not expired"
    assert bench.results() == first, "the same bytes"
    assert bench.count == 1


@pytest.mark.parametrize("seconds", [0.0, -0.001, -3600.0])
def test_never_after_its_expiry(bench: Bench, seconds: float) -> None:
    result = bench.commands.receive(bench.order(seconds))
    assert result is not None
    assert result.status == "expired"
    assert bench.count == 0


def test_a_moment_before_its_expiry(bench: Bench) -> None:
    result = bench.commands.receive(bench.order(0.001))
    assert result is not None
    assert result.status == "done"


def test_one_that_an_agent_died_over_is_not_tried_again(bench: Bench) -> None:
    payload = bench.order()
    bench.db.take_up(envelope.decode(payload).id, NOW + timedelta(seconds=10), NOW)
    bench.restart()
    result = bench.commands.receive(payload)
    assert isinstance(result, Result)
    assert result.status == "failed"
    assert "restarted" in str(result.reason)
    assert bench.count == 0


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"v":1}', b"\xff\xfe", b"null", b"[1,2]"], ids=range(6))
def test_what_is_no_command_is_refused_unanswered(bench: Bench, payload: bytes) -> None:
    with pytest.raises(MessageError):
        bench.commands.receive(payload)
    assert bench.results() == []


def test_another_message_is_no_command(bench: Bench) -> None:
    state = State(status="online", boot_id="x", connection=1, client_version="1")
    with pytest.raises(MessageError, match="is no command"):
        bench.commands.receive(envelope.encode(bench.gateway.seal(state)))
