"""Where readings come from: a source is chosen by a URL and found by the entry points ``samd_edge.sources``.

==============================================  ==========================================================
URL                                             readings
==============================================  ==========================================================
``replay:PATH?patient=N&speed=600&from=70%``    a recording, played at its own pace times ``speed``
``csv:FILE``                                    a file of CSV or JSON lines, row after row
``-``                                           JSON lines or CSV on standard input, live
==============================================  ==========================================================

Another distribution adds a kind by an entry point of that group: a function that takes a ``SourceURL`` and
the wall's time, and returns a ``Source``.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from importlib.metadata import entry_points
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl

from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.clock import Clock, wall_now

GROUP: Final = "samd_edge.sources"


class SourceError(DataError):
    """A source cannot be opened as asked; one line: what, where, what to do."""


class SourceURL(NamedTuple):
    """A source as the user wrote it, taken apart: its kind, what it opens, and the options."""

    text: str
    kind: str
    path: str
    options: dict[str, str]

    def only(self, *known: str) -> None:
        """Raises SourceError for an option that is none of ``known``."""
        for name in self.options:
            if name not in known:
                allowed = f"it has {', '.join(known)}" if known else "it has none"
                raise SourceError(f"source {self.text!r}: no option {name!r} in {self.kind!r}; {allowed}")


class Source(Protocol):
    """The readings of one patient. Iterate over it once; close it with ``aclose``."""

    clock: Clock
    """The patient's time: every reading's ``observed_at`` is in it."""

    def history(self) -> Iterable[Reading]:
        """Readings from before the source begins, oldest first: put them into the store before live play."""
        ...

    def __aiter__(self) -> AsyncIterator[Reading | Rejection]:
        """Readings as they appear, and what could not be read, until the source ends."""
        ...

    async def aclose(self) -> None:
        """Let go of files and pipes."""
        ...


def parse(text: str) -> SourceURL:
    """Take a source's URL apart; raises SourceError."""
    if text.strip() == "-":
        return SourceURL("-", "stdin", "", {})
    kind, colon, rest = text.strip().partition(":")
    if not colon or not kind:
        raise SourceError(f"source {text!r}: write replay:PATH, csv:FILE, or - for standard input")
    path, _, query = rest.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise SourceError(f"source {text!r}: write options as ?name=value&name=value") from error
    return SourceURL(text, kind, path, dict(pairs))


def open_source(url: str, *, wall: Callable[[], datetime] = wall_now) -> Source:
    """Open a source. Raises SourceError or DataError, one line each, when it cannot be read."""
    parsed = parse(url)
    found = {point.name: point for point in entry_points(group=GROUP)}
    if parsed.kind not in found:
        raise SourceError(f"source {url!r}: no kind {parsed.kind!r}; known are {', '.join(sorted(found))}")
    try:
        opener: Any = found[parsed.kind].load()
    except ImportError as error:
        raise SourceError(
            f"source {url!r}: its reader cannot be loaded ({error}); install what it needs"
        ) from error
    source: Source = opener(parsed, wall=wall)
    return source
