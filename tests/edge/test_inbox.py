"""The bounded queue between a thread that receives and the loop."""

import asyncio
import threading

from samd_edge.sources.inbox import Inbox, Overrun


async def drained(inbox: Inbox[str], count: int) -> list[str | Overrun | None]:
    return [await asyncio.wait_for(inbox.get(), 5) for _ in range(count)]


def test_the_oldest_goes_first_and_is_counted() -> None:
    async def scene() -> None:
        gone: list[str] = []
        inbox = Inbox[str](limit=3, limit_bytes=100, size=len, pushed_out=gone.append)
        for item in "abcde":
            inbox.put(item)
        assert await drained(inbox, 4) == [Overrun(2), "c", "d", "e"]
        assert gone == ["a", "b"]

    asyncio.run(scene())


def test_what_is_long_takes_the_room_of_many_but_the_newest_always_fits() -> None:
    async def scene() -> None:
        inbox = Inbox[str](limit=3, limit_bytes=5, size=len)
        for item in ("aa", "bb", "cc", "dddddddd"):
            inbox.put(item)
        assert await drained(inbox, 2) == [Overrun(3), "dddddddd"]
        inbox.put("ee")
        assert await drained(inbox, 1) == ["ee"]

    asyncio.run(scene())


def test_items_of_another_thread_wake_the_loop_and_none_is_lost() -> None:
    async def scene() -> None:
        inbox = Inbox[str](limit=1000, limit_bytes=10_000, size=len)
        thread = threading.Thread(target=lambda: [inbox.put(str(number)) for number in range(1000)])
        thread.start()
        assert await drained(inbox, 1000) == [str(number) for number in range(1000)]
        thread.join()
        closing = asyncio.create_task(inbox.get())
        await asyncio.sleep(0)
        inbox.close()
        assert await closing is None
        inbox.put("too late")
        assert await inbox.get() is None

    asyncio.run(scene())


def test_a_loop_that_has_ended_is_no_error() -> None:
    async def scene() -> Inbox[str]:
        return Inbox[str](limit=1, limit_bytes=10, size=len)

    asyncio.run(scene()).put("nobody waits")
