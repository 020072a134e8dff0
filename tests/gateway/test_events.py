"""A reader that does not keep up is dropped; nobody waits for it."""

import asyncio

from samd_gateway.events import Event, Events
from samd_gateway.metrics import Metrics


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
