"""From what happens to the browsers that look: one hub a process, however many pages are open.

Events say whose card may have changed; a batch of them is read from the database once, compared with what
was sent before, and the difference goes to all pages as one and the same text. Each second a beat tells every
page the gateway's time, by which it shows ages, and that it is still connected: whoever hears none says so.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec
from fastapi.concurrency import run_in_threadpool
from nicegui import Client
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway.events import Event
from samd_gateway.gateway import Gateway
from samd_gateway.ward.answers import WardCard

log = logging.getLogger(__name__)

BATCH_S = 0.1
BEAT_S = 1.0
WHOLE_S = 15.0
"""So often every card is read anew, whatever the events said: time alone makes figures old."""
MOST_CARDS = 400
"""Of a larger ward the patients who need somebody most; the page says of how many."""
BEHIND_MESSAGES, CAUGHT_UP_MESSAGES = 120, 20
"""A browser that has not confirmed so many messages is sent no cards until it has; then it gets them all."""
CARD_EVENTS = frozenset({"device", "assessment", "alert", "ward"})
JITTER_S = 0.5


class Watcher:
    """One page that shows cards: those of all patients, or that of one."""

    __slots__ = ("behind", "client", "only")

    def __init__(self, client: Client, only: str | None) -> None:
        self.client = client
        self.only = only
        self.behind = False

    def of_mine(self, cards: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [card for card in cards if self.only is None or card["device"] == self.only]


class Hub:
    """Started and stopped with the pages, in their event loop."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._pages: dict[str, Client] = {}
        self._watchers: dict[str, Watcher] = {}
        self._listeners: dict[int, tuple[frozenset[str], Callable[[Event], None]]] = {}
        self._next = 0
        self._cards: dict[str, dict[str, Any]] = {}
        self._dirty: set[str] = set()
        self._whole_at = float("-inf")
        self._wake = asyncio.Event()
        self._looked_at = asyncio.Event()
        self._reading = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self.problem: str | None = None
        self.total = 0

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(each(), name=f"pages: {each.__name__.strip('_')}")
            for each in (self._listen, self._send, self._beat)
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # who looks

    def open(self, client: Client) -> None:
        """A page that wants the beat, for as long as it is open."""
        self._pages[client.id] = client
        client.on_delete(lambda: self._close(client.id))
        self._looked_at.set()

    async def watch(self, client: Client, only: str | None = None) -> list[dict[str, Any]]:
        """A page that shows cards, or one: as they are now; what changes is sent to it from here on."""
        loop = asyncio.get_running_loop()
        self._looked_at.set()
        if loop.time() - self._whole_at > BEAT_S:
            await self._read(None)
        # nothing is awaited between these two: no change falls in between
        watcher = self._watchers[client.id] = Watcher(client, only)
        return watcher.of_mine(self._cards.values())

    def listen(self, client: Client, kinds: Iterable[str], heard: Callable[[Event], None]) -> None:
        """Call `heard` in the event loop with each event of these kinds, while the page is open."""
        number = self._next
        self._next += 1
        self._listeners[number] = (frozenset(kinds), heard)
        client.on_delete(lambda: self._listeners.pop(number, None))
        self._looked_at.set()

    def changed(self, device: str) -> None:
        """Look at this device's card again: something was done to it here."""
        self._dirty.add(device)
        self._wake.set()

    def card(self, device: str) -> dict[str, Any] | None:
        """A card as it was last read."""
        return self._cards.get(device)

    def _close(self, client: str) -> None:
        self._pages.pop(client, None)
        self._watchers.pop(client, None)
        if not self._pages and not self._listeners:
            self._looked_at.clear()

    # what happens

    async def _listen(self) -> None:
        events = self._gateway.events
        while True:
            await self._looked_at.wait()
            subscriber = events.subscribe()
            self._whole_at = float("-inf")  # what happened while nobody listened is not known
            self._wake.set()
            try:
                while self._looked_at.is_set():
                    try:
                        event = await asyncio.wait_for(subscriber.get(), BEAT_S)
                    except TimeoutError:
                        continue
                    if event is None:
                        await asyncio.sleep(BATCH_S)  # dropped, or the gateway ends
                        break
                    self._heard(event)
            finally:
                events.unsubscribe(subscriber)

    def _heard(self, event: Event) -> None:
        if event.name in CARD_EVENTS:
            device = event.data.get("device") or event.data.get("name")
            if isinstance(device, str):
                self._dirty.add(device)
                self._wake.set()
        for kinds, heard in list(self._listeners.values()):
            if event.name in kinds:
                try:
                    heard(event)
                except Exception:  # one page's fault is not the others'
                    log.exception("a page could not take an event")

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), BEAT_S)
            self._wake.clear()
            if not self._watchers:
                self._dirty.clear()
                continue
            began = loop.time()
            whole = began - self._whole_at > max(WHOLE_S, 20.0 * took)
            dirty = self._dirty | self._overdue()
            self._dirty = set()
            if whole or dirty:
                changes, gone = await self._read(None if whole else dirty)
                if whole:
                    took = loop.time() - began
                self._tell(changes, gone)
            await asyncio.sleep(max(0.0, BATCH_S - (loop.time() - began)))

    def _overdue(self) -> set[str]:
        """Cards whose next observation has become due since they were read."""
        now = self._gateway.now()
        return {
            name
            for name, card in self._cards.items()
            if not card["overdue"] and card["due_at"] is not None and card["due_at"] < now
        }

    # cards

    async def _read(self, names: Collection[str] | None) -> tuple[list[dict[str, Any]], list[str]]:
        """Read these cards, or all; what has changed of each, and which are no more."""
        loop = asyncio.get_running_loop()
        async with self._reading:
            began = loop.time()
            try:
                found = await run_in_threadpool(self._build, names)
            except SQLAlchemyError as error:
                self.problem = f"database: {type(error).__name__}"
                return self._unread(names)
            except Exception:  # a card that cannot be built must not end the pages' only source
                log.exception("cards could not be read")
                self.problem = "an error of this program; its log says more"
                return self._unread(names)
            self.problem = None
            if names is None:
                self._whole_at = began
            changes = []
            for card in found:
                before = self._cards.get(card["device"])
                change = card if before is None else difference(before, card)
                if change is not None:
                    self._cards[card["device"]] = card
                    changes.append(change)
            asked = self._cards.keys() if names is None else names
            there = {card["device"] for card in found}
            gone = [name for name in asked if name not in there and name in self._cards]
            for name in gone:
                del self._cards[name]
            return changes, gone

    def _unread(self, names: Collection[str] | None) -> tuple[list[dict[str, Any]], list[str]]:
        """Nothing is known to have changed, and what was asked for is asked for again."""
        if names is not None:
            self._dirty |= set(names)
        return [], []

    def _build(self, names: Collection[str] | None) -> list[dict[str, Any]]:
        ward, now = self._gateway.ward, self._gateway.now()
        if names is None:
            cards, self.total = ward.page(limit=MOST_CARDS)
        else:
            cards = ward.some(list(names))
        return [as_sent(card, now) for card in cards]

    def _tell(self, changes: list[dict[str, Any]], gone: list[str]) -> None:
        if not changes and not gone:
            return
        code = script("cards", {"cards": changes, "gone": gone, "total": self.total})
        touched = {*gone, *(change["device"] for change in changes)}
        for watcher in list(self._watchers.values()):
            if watcher.behind:
                continue
            if watcher.only is None:
                watcher.client.run_javascript(code)
            elif watcher.only in touched:
                mine = {"cards": watcher.of_mine(changes), "gone": [n for n in gone if n == watcher.only]}
                watcher.client.run_javascript(script("cards", mine))

    # the beat

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if not self._pages:
                continue
            problem = self.problem or self._gateway.link.problem
            code = script("beat", {"now": self._gateway.now(), "problem": problem})
            for client in list(self._pages.values()):
                if client.has_socket_connection:
                    client.run_javascript(code)
            for watcher in list(self._watchers.values()):
                waiting = len(watcher.client.outbox.message_history) + len(watcher.client.outbox.messages)
                if waiting > BEHIND_MESSAGES:
                    watcher.behind = True
                elif watcher.behind and waiting < CAUGHT_UP_MESSAGES:
                    watcher.behind = False
                    mine = {"cards": watcher.of_mine(self._cards.values()), "whole": True}
                    watcher.client.run_javascript(script("cards", mine))


def as_sent(card: WardCard, now: float) -> dict[str, Any]:
    """A card for the browsers: times that stay as they are, in place of ages that grow."""
    sent = card.model_dump(mode="json")
    age = sent.pop("age_s")
    sent["read_at"] = None if age is None else round(now - age, 1)
    sent["due_at"] = None if card.next_due_at is None else card.next_due_at.timestamp()
    return sent


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any] | None:
    """What of a card has changed, with its device; None if nothing has."""
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    old, new = before["read_at"], after["read_at"]
    if "read_at" in changed and old is not None and new is not None and abs(old - new) < JITTER_S:
        del changed["read_at"]  # the same reading: its age is measured anew each time
    if not changed:
        return None
    return {"device": after["device"]} | changed


def script(name: str, message: dict[str, Any]) -> str:
    """A call of the page's script. What came over the wire stays data: it is parsed there, not run."""
    text = msgspec.json.encode(message).decode()
    literal = msgspec.json.encode(text).decode().replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"samd.{name}(JSON.parse({literal}))"
