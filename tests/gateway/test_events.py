"""A reader that does not keep up is dropped; one that does is told all that is new."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway_peers import assessment

from samd_gateway.events import Event, Events, Subscriber
from samd_gateway.health_buckets import Beats
from samd_gateway.intake import Item, parse
from samd_gateway.metrics import Metrics
from samd_gateway.recorder import record, take_in
from samd_gateway.roster import Roster
from samd_gateway.schema import open_database
from samd_gateway.states import Policy
from samd_gateway.watcher import Watcher
from samd_protocol import envelope, topics


def test_a_slow_reader_is_dropped_and_the_others_go_on() -> None:
    async def scenario() -> tuple[bool, int]:
        metrics = Metrics()
        events = Events(metrics, size=3)
        slow, quick = events.subscribe(), events.subscribe()
        got = 0
        for number in range(5):
            await asyncio.to_thread(events.publish, Event("run", {"number": number}))
            event = await asyncio.wait_for(quick.get(), 5)
            assert event is not None
            assert event.data == {"number": number}
            got += 1
        assert await slow.get() is None
        assert "samd_gateway_event_clients_dropped_total 1.0" in metrics.text().decode()
        assert "samd_gateway_event_clients 1.0" in metrics.text().decode()
        return slow.dropped, got

    assert asyncio.run(scenario()) == (True, 5)


def test_closing_ends_every_stream_also_one_that_comes_late() -> None:
    async def scenario() -> None:
        events = Events(Metrics())
        early = events.subscribe()
        events.close()
        late = events.subscribe()
        assert await asyncio.wait_for(early.get(), 5) is None
        assert await asyncio.wait_for(late.get(), 5) is None

    asyncio.run(scenario())


class Fed:
    """A watcher on a real database, fed as the writer feeds it, with one reader."""

    def __init__(self, folder: Path, size: int) -> None:
        self.database = open_database(None, folder)
        self.now = 1_700_000_000.0
        self.metrics = Metrics()
        self.events = Events(self.metrics, size=size)
        self.policy = Policy()
        self.roster = Roster(self.database, self.policy, now=lambda: self.now)
        self.watcher = Watcher(
            self.database,
            self.roster,
            self.events,
            self.metrics,
            self.policy,
            deaf=lambda: None,
            now=lambda: self.now,
        )

    def commit(self, items: Sequence[Item]) -> None:
        with self.database.append({item.sender for item in items}) as connection:
            recorded = record(connection, items, self.policy, self.roster)
        take_in(recorded, self.roster, Beats())
        self.watcher.committed(recorded)

    def item(self, sealer: envelope.Sealer, total: int) -> Item:
        sealed = sealer.seal(assessment(total))
        return parse(topics.up(sealer.device, "assessment"), envelope.encode(sealed), self.now)


async def read(subscriber: Subscriber, done: Callable[[list[Event]], bool]) -> list[Event]:
    """Events until they are what is waited for."""
    found: list[Event] = []
    while not done(found):
        event = await asyncio.wait_for(subscriber.get(), 30)
        assert event is not None, "the reader was dropped"
        found.append(event)
    return found


def of(events: Sequence[Event], name: str) -> list[Event]:
    return [event for event in events if event.name == name]


def test_a_burst_of_a_thousand_devices_drops_no_reader_that_reads(tmp_path: Path) -> None:
    """More events than a reader's queue holds, at once: they come in portions."""

    async def scenario() -> None:
        fed = Fed(tmp_path, size=256)
        reader = fed.events.subscribe()
        items = [fed.item(envelope.Sealer(f"bed-{index}", 1), 3) for index in range(1000)]
        fed.commit(items)
        fed.watcher.start()
        try:
            got = await read(
                reader, lambda got: len(of(got, "assessment")) == 1000 and len(of(got, "device")) == 1000
            )
        finally:
            fed.watcher.stop()
            fed.database.close()
        assert {event.data["device"] for event in of(got, "assessment")} == {item.sender for item in items}
        assert of(got, "fleet")[-1].data == {"online": 1000, "stale": 0, "offline": 0, "unknown": 0}

    asyncio.run(scenario())


def test_of_a_device_that_sends_faster_than_it_is_told_the_newest_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        fed = Fed(tmp_path, size=256)
        reader = fed.events.subscribe()
        sealer = envelope.Sealer("bed-1", 1)
        first = fed.item(sealer, 1)
        rest = [fed.item(sealer, total) for total in (2, 3, 4, 9)]
        fed.commit(rest)
        fed.commit([first])  # it had waited in an outbox: of the past, and never told as the present
        fed.watcher.start()
        try:
            got = await read(reader, lambda got: bool(of(got, "assessment") and of(got, "device")))
            fed.now += 30.0  # silence alone is a change
            got += await read(
                reader, lambda got: any(event.data["state"] == "stale" for event in of(got, "device"))
            )
        finally:
            fed.watcher.stop()
            fed.database.close()
        assert [event.data["news2"]["low"] for event in of(got, "assessment")] == [9]
        assert [event.data["state"] for event in of(got, "device")] == ["online", "stale"]

    asyncio.run(scenario())
