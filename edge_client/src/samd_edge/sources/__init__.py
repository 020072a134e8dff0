"""Where readings come from: a source is chosen by a URL and found by the entry points ``samd_edge.sources``.

==============================================  ==========================================================
URL                                             readings
==============================================  ==========================================================
``-``                                           JSON lines or CSV on standard input, live
``csv:FILE``, ``csv:FILE?follow=1``             a file of CSV or JSON lines; one that grows
``replay:PATH?patient=N&speed=600&from=70%``    a recording, played at its own pace times ``speed``
``mqtt:TOPIC``                                  a monitor that publishes JSON
``hl7:PORT``                                    HL7 v2 ORU^R01 over MLLP, acknowledged
``fhir:PORT``, ``fhir+poll:URL``                FHIR R4 Observations, by POST or polled from a server
``ble:``                                        Bluetooth LE sensors
``sim:?scenario=sepsis&speed=60``               an invented patient
==============================================  ==========================================================

Several may be open at once (``open_sources``). Another distribution adds a kind by an entry point of that
group: a function that takes a ``SourceURL`` and the ``Surroundings``, and returns a ``Source``.

What a source promises: it asks for its next item only after the one before was taken over, so code behind a
``yield`` runs when the reading is committed (an HL7 acknowledgement, a PUBACK). What cannot be used is a
``Rejection`` with its place, never an exception; an exception ends the source. What it said before and now
takes back is a ``Retraction``. Heavy libraries are imported by its opener, not at import.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec

from samd_data.errors import DataError
from samd_data.plausibility import Rejection, printable, shown
from samd_data.reading import Reading
from samd_edge.clock import Clock, wall_now
from samd_edge.extras import install
from samd_edge.retraction import Retraction
from samd_edge.sources.surroundings import Surroundings

GROUP: Final = "samd_edge.sources"

_KIND: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")

_WRONG_TYPE: Final = re.compile(
    r"Expected `(?P<wanted>\w+)(?: \| null)?`, got `[^`]*` - at `\$\.(?P<name>\w+)`"
)
_WANTED: Final = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a text",
    "array": "a list",
}

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

Item = Reading | Rejection | Retraction
"""What comes out of a source."""

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


class SourceError(DataError):
    """A source cannot be opened as asked; one line: what, where, what to do."""


class SourceURL(NamedTuple):
    """A source as the user wrote it, taken apart: its kind, what it opens, and the options.

    ``table``: what a ``[[source]]`` of the configuration says beside ``url``: settings that do not fit into
    a URL, such as a field mapping.
    """

    text: str
    kind: str
    path: str
    options: Mapping[str, str]
    table: Mapping[str, Any] = _NOTHING

    def only(self, *known: str) -> None:
        """Raises SourceError for an option that is none of ``known``, or stands in URL and table."""
        for name in (*self.options, *self.table):
            if name not in known:
                allowed = f"it has {', '.join(known)}" if known else "it has none"
                raise SourceError(f"source {self.text!r}: no option {name!r} in {self.kind!r}; {allowed}")
            if name in self.options and name in self.table:
                raise SourceError(
                    f"source {self.text!r}: {name} is given twice, in the URL and in the table; keep one"
                )

    def settings(self, kind: type[SettingsT]) -> SettingsT:
        """Options and table together as a struct of the source's own.

        Texts of the URL become numbers and flags where the struct asks for them. Raises SourceError, which
        names the option, for one that is unknown, of the wrong type, or refused by the struct itself.
        """
        fields = msgspec.structs.fields(kind)
        self.only(*(field.encode_name for field in fields))
        given: dict[str, Any] = {**self.options, **self.table}
        for name in ("allow",):  # a list, in a URL written with commas
            if isinstance(given.get(name), str):
                given[name] = [part.strip() for part in given[name].split(",") if part.strip()]
        try:
            return msgspec.convert(given, kind, strict=False)
        except (msgspec.ValidationError, ValueError) as error:
            raise SourceError(f"source {self.text!r}: {_in_words(error, given)}") from error


def _in_words(error: Exception, given: Mapping[str, Any]) -> str:
    """A value of the wrong type, said for people; what a struct says itself is said for them already."""
    found = _WRONG_TYPE.fullmatch(str(error))
    if found is None or found["name"] not in given or found["wanted"] not in _WANTED:
        return str(error)
    value = given[found["name"]]
    return f"option {found['name']}: {_WANTED[found['wanted']]} is wanted, {shown(value)} was given"


class Source(Protocol):
    """The readings of one patient. Iterate over it once; close it with ``aclose``."""

    clock: Clock
    """The patient's time: every reading's ``observed_at`` is in it."""

    def history(self) -> Iterable[Reading]:
        """Readings from before the source begins, oldest first: put them into the store before live play."""
        ...

    def __aiter__(self) -> AsyncIterator[Item]:
        """Readings as they appear, what could not be read, and what is taken back, until the source ends."""
        ...

    async def aclose(self) -> None:
        """Let go of files, pipes, sockets and connections."""
        ...


def parse(text: str, table: Mapping[str, Any] = _NOTHING) -> SourceURL:
    """Take a source's URL apart; raises SourceError."""
    if text.strip() == "-":
        return SourceURL("-", "stdin", "", {}, table)
    kind, colon, rest = text.strip().partition(":")
    if not colon or not _KIND.fullmatch(kind):
        raise SourceError(f"source {text!r}: write replay:PATH, csv:FILE, hl7:PORT, or - for standard input")
    path, _, query = rest.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise SourceError(f"source {text!r}: write options as ?name=value&name=value") from error
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise SourceError(f"source {text!r}: {printable(name)} is given twice; keep one of them")
    return SourceURL(text, kind, path, dict(pairs), table)


def kinds() -> tuple[str, ...]:
    """The kinds of source that are installed here."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def open_source(
    url: str | SourceURL,
    *,
    wall: Callable[[], datetime] = wall_now,
    around: Surroundings | None = None,
) -> Source:
    """Open a source. Raises SourceError or DataError, one line each, when it cannot be read.

    ``around``: what the source may need of the device; without it, that of a command without a device.
    """
    parsed = parse(url) if isinstance(url, str) else url
    found = {point.name: point for point in entry_points(group=GROUP)}
    if parsed.kind not in found:
        known = ", ".join(sorted(found))
        raise SourceError(f"source {parsed.text!r}: no kind {parsed.kind!r}; known are {known}")
    try:
        opener: Any = found[parsed.kind].load()
        source: Source = opener(parsed, around or Surroundings(wall=wall))
    except ImportError as error:
        raise SourceError(
            f"source {parsed.text!r}: what reads it is not installed ({error}); "
            f"{install(parsed.kind.partition('+')[0])}"
        ) from error
    return source
