"""The link: a will with the number of its connection, callbacks that only enqueue, a new client each time."""

import asyncio
from collections.abc import Callable
from typing import Any

from samd_edge.link import Connected, Disconnected, Event, Link, Received
from samd_protocol import topics
from samd_protocol.broker import Broker


class Ears:
    """A link, and what it told."""

    def __init__(self, url: str, device: str) -> None:
        self.events: list[Event] = []
        self.acks: list[tuple[int, int, str | None]] = []
        self.link = Link(
            Broker(url=url),
            device,
            will=lambda connection: f"gone {connection}".encode(),
            on_event=self.events.append,
            on_ack=lambda connection, packet, refusal: self.acks.append((connection, packet, refusal)),
        )

    def last(self, kind: type) -> Any:
        return next((event for event in reversed(self.events) if isinstance(event, kind)), None)


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not check():  # noqa: ASYNC110  (what is awaited comes from another process)
            await asyncio.sleep(0.005)


def test_connections_are_counted_and_acknowledgements_carry_the_count(
    own_broker: Any, listen: Any, device: str
) -> None:
    async def scene() -> None:
        ears = Ears(own_broker.url, device)
        assert ears.link.publish("samd/v1/x", b"1") is None, "without a connection nothing is taken"
        ears.link.start()
        await asyncio.to_thread(own_broker.start)
        await until(lambda: ears.last(Connected))
        assert ears.last(Connected) == Connected(1)
        packet = ears.link.publish(topics.up(device, "result"), b"1", expiry_s=5)
        assert packet is not None
        await until(lambda: (1, packet, None) in ears.acks)
        await asyncio.to_thread(own_broker.stop)
        await until(lambda: ears.last(Disconnected))
        assert not ears.link.up
        assert ears.link.publish(topics.up(device, "result"), b"2") is None
        await asyncio.to_thread(own_broker.start)
        await until(lambda: ears.last(Connected) == Connected(2))
        packet = ears.link.publish(topics.up(device, "result"), b"3")
        await until(lambda: (2, packet, None) in ears.acks)
        peer = await asyncio.to_thread(listen, own_broker)
        for kind in ("command", "config", "task"):
            await asyncio.to_thread(peer.send, topics.down(device, kind), kind.encode())  # type: ignore[arg-type]
            await until(
                lambda kind=kind: ears.last(Received) == Received(topics.down(device, kind), kind.encode())
            )
        await asyncio.to_thread(peer.send, topics.down("other", "command"), b"not for us")
        await asyncio.to_thread(peer.send, topics.MODEL, b"for all")
        await until(lambda: ears.last(Received) == Received(topics.MODEL, b"for all"))
        assert not any(
            isinstance(event, Received) and event.payload == b"not for us" for event in ears.events
        )
        await ears.link.close(b"farewell")
        await until(lambda: peer.raw(topics.up(device, "state")) == [b"farewell"])

    asyncio.run(scene())


def test_without_a_broker_it_ends_at_once(device: str) -> None:
    async def scene() -> None:
        ears = Ears("mqtt://127.0.0.1:9", device)
        ears.link.start()
        async with asyncio.timeout(5):
            await ears.link.close(b"farewell")
        assert ears.events == []

    asyncio.run(scene())
