"""``fhir+poll:URL?patient=ID``: the Observations of one patient, asked from a FHIR R4 server again and again.

``URL`` is the server's base, as in ``https://fhir.example.org/r4``; ``http:`` only on this machine. Options:

``patient``     the patient's id on that server (needed: a server holds many)
``every``       seconds between two polls (default 30)
``token_file``  a file of mode 0600 with a bearer token
``ca_file``     the authority (PEM) that signed the server's certificate, instead of the system's
``since``       where to begin the first time, as in ``2026-01-31T08:00:00Z`` (default: 15 minutes ago)

Each poll asks for what changed since the last one, sorted by the time of change, and follows the pages. What
fails for a while (no connection, a time-out, 429, 5xx) is tried again with growing pauses; what will not heal
by itself (401, 403, 404, a certificate, a redirection) is told once, and tried again every few minutes.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.clock import WallClock
from samd_edge.sources import Item, SourceError, SourceURL
from samd_edge.sources.fhir_client import FhirClient, Lasting, SearchFailed
from samd_edge.sources.fhir_cursor import Cursor, changed_at
from samd_edge.sources.fhir_message import MessageRefused, decode
from samd_edge.sources.fhir_observations import load
from samd_edge.sources.fhir_patient import Patients
from samd_edge.sources.fhir_versions import Versions
from samd_edge.sources.surroundings import Surroundings
from samd_protocol.broker import read_secret
from samd_protocol.errors import BrokerError

log = logging.getLogger(__name__)

CODES: Final = (
    *("8867-4", "8889-8", "9279-1", "59408-5", "2708-6", "85354-9", "8480-6", "8462-4", "76534-7", "76535-4"),
    *("76215-3", "76213-8", "8310-5", "8329-5", "60836-4", "60838-0", "8332-9", "8333-7", "8331-1", "8328-7"),
    *("80288-4", "67775-7", "3151-8"),
)
"""The LOINC codes that are asked for."""

FIRST: Final = timedelta(minutes=15)  # also more than two clocks differ that are set by a time service
FAR_AHEAD: Final = timedelta(days=1)
LONGEST_S: Final = 300.0
MAX_PAGES: Final = 20
PAGE: Final = 250
TOLD_AFTER: Final = 3  # passing failures in a row, until people are told

_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """See the module."""

    patient: str = ""
    every: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 30.0
    token_file: str | None = None
    ca_file: str | None = None
    since: str | None = None


class FhirPoll:
    """The Observations of ``patient`` on one server. Owns the client.

    ``every_s``: between two polls. ``pause``: how it is waited for the next one, in seconds; without it,
    somewhat shorter each time, so that the devices of a ward do not all ask at once.
    """

    def __init__(
        self,
        name: str,
        client: FhirClient,
        patient: str,
        cursor: Cursor,
        around: Surroundings,
        *,
        every_s: float,
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self.clock = WallClock(around.wall)
        self._name = name
        self._client = client
        self._patient = patient
        self._cursor = cursor
        self._around = around
        self._every_s = every_s
        self._pause = self._rest if pause is None else pause
        self._closing = asyncio.Event()
        self._failures = 0
        self._told: set[str] = set()
        self._versions = Versions(of_server=True)

    def history(self) -> Iterator[Reading]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Item]:
        while not self._closing.is_set():
            pause_s = self._every_s
            try:
                async for item in self._poll():
                    yield item
            except SearchFailed as failure:
                self._client.forget()
                pause_s, told = self._failed(failure)
                if told is not None:
                    yield told
            else:
                if self._failures:
                    log.info("the FHIR server answers again, after %d failed polls", self._failures)
                self._failures = 0
                self._told.clear()
            await self._pause(pause_s)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds * random.uniform(0.75, 1.0))  # noqa: S311

    async def _poll(self) -> AsyncIterator[Item]:
        """Everything that changed since the last poll. Raises SearchFailed."""
        parameters = {
            "patient": f"Patient/{self._patient}",
            "code": ",".join(f"http://loinc.org|{code}" for code in CODES),
            "_lastUpdated": f"ge{self._cursor.since}",
            "_sort": "_lastUpdated",
            "_count": str(PAGE),
        }
        begun = self._cursor.newest
        newest: datetime | None = None
        in_order = True
        pages = 0
        had_all = cut = False
        async with contextlib.aclosing(self._client.search("Observation", parameters)) as found:
            async for page in found:
                observations = _observations(page)
                fresh = [one for one in observations if self._cursor.is_new(one)]
                for item in await self._decode(fresh):
                    yield item
                for one in fresh:
                    self._cursor.had(one)
                # A time far ahead would hide what comes next.
                limit = self._around.wall() + FAR_AHEAD
                times = [at for one in observations if (at := changed_at(one)) is not None and at < limit]
                known = times if newest is None else [newest, *times]
                in_order = in_order and known == sorted(known)
                newest = max(known, default=None)
                if in_order:  # then a failure half way loses nothing, and the next poll goes on from here
                    self._cursor.reached(newest)
                pages += 1
                had_all = not fresh
                # Some servers give one page and no link to the next.
                cut = pages == MAX_PAGES or len(observations) >= PAGE
                if pages == MAX_PAGES:
                    break
        if not cut:
            self._cursor.reached(newest)
            return
        self._client.forget()  # the same answer again is news: it leads no further
        if not in_order or (had_all and self._cursor.newest <= begun):
            raise Lasting(
                "the answer is long, and its pages or its order lead no further", "begin later (since)"
            )

    async def _decode(self, observations: list[dict[str, Any]]) -> Iterator[Item]:
        """The readings in some Observations, and what cannot be used; Lasting for another patient's."""
        patients = Patients(base=self._client.base)
        if any(patients.id_of(one) != self._patient for one in observations):
            reason = "the server answers with Observations of another patient than the one asked for"
            raise Lasting(reason, "check that it finds Observations by patient")
        entries = [{"resource": one} for one in observations]
        bundle = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
        now = self._around.wall()
        try:
            decoded = await asyncio.to_thread(
                decode, bundle, name=self._name, now=now, base=self._client.base
            )
        except MessageRefused as refusal:
            raise Lasting(refusal.problem.reason, refusal.problem.remedy) from refusal

        def items() -> Iterator[Item]:
            for item in decoded.items(self._name, self._versions):
                sentence = self._around.patient.refusal(decoded.patient)
                if sentence is not None:
                    reason, _, remedy = sentence.partition("; ")
                    raise Lasting(reason, remedy)
                yield item
            self._versions.remember(decoded.versions())

        return items()

    def _failed(self, failure: SearchFailed) -> tuple[float, Rejection | None]:
        """How long to wait, and what people are told, each thing once until the server answers again."""
        self._failures += 1
        lasting = isinstance(failure, Lasting)
        pause_s = min(max(LONGEST_S, self._every_s), self._every_s * 2.0 ** min(self._failures, 16))
        if lasting:
            pause_s = max(LONGEST_S, self._every_s)
        elif failure.wait_s is not None:
            pause_s = max(pause_s, min(failure.wait_s, 3600.0))
        if failure.reason in self._told:
            return pause_s, None
        if not lasting and self._failures < TOLD_AFTER:
            return pause_s, None
        self._told.add(failure.reason)
        log.warning("FHIR poll: %s", failure.reason)
        return pause_s, Rejection(self._name, 0, "", "", failure.reason, failure.remedy)

    async def aclose(self) -> None:
        self._closing.set()
        await self._client.aclose()


def _observations(page: dict[str, Any]) -> list[dict[str, Any]]:
    """The Observations of a page; what else a server adds to it is no answer."""
    entries = page.get("entry")
    resources = (
        [one.get("resource") for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    )
    return [one for one in resources if isinstance(one, dict) and one.get("resourceType") == "Observation"]


def open_source(url: SourceURL, around: Surroundings) -> FhirPoll:
    """Make ready to poll; raises SourceError for an address or an option that cannot be used, or safely."""
    shown = f"source {url.kind}:{url.path}"  # without its options: the patient's id is a record number
    _check_base(url.path, shown)
    settings = url.settings(Settings)
    patient = settings.patient.removeprefix("Patient/")
    if not _ID.fullmatch(patient):
        raise SourceError(f"{shown}: names no patient; write ?patient=ID with the id on that server")
    begin = around.wall() - FIRST if settings.since is None else _begin(settings.since, shown)
    try:
        token = None if settings.token_file is None else read_secret(settings.token_file)
        tls = ssl.create_default_context(cafile=settings.ca_file)
    except BrokerError as error:
        raise SourceError(f"{shown}: {error}") from error
    except OSError as error:
        raise SourceError(f"{shown}: ca_file cannot be used ({error}); give a PEM file") from error
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    file = None
    if around.folder is not None:
        same = hashlib.blake2b(f"{url.path} {patient}".encode(), digest_size=8).hexdigest()
        file = around.folder / f"fhir-poll-{same}.json"
    client = FhirClient(url.path, tls=tls, token=token)
    load()
    return FhirPoll(
        f"fhir+poll:{urlsplit(url.path).netloc}",
        client,
        patient,
        Cursor(begin, file),
        around,
        every_s=settings.every,
    )


def _check_base(base: str, shown: str) -> None:
    """Raises SourceError for what is no address of a server, or would send a patient's signs unencrypted."""
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if "@" in parts.netloc:
        raise SourceError("source fhir+poll: no password belongs into the URL; give a token_file")
    if parts.scheme not in ("http", "https") or not host or parts.fragment:
        raise SourceError(f"{shown}: write the server's base, as in fhir+poll:https://fhir.example.org/r4")
    if parts.scheme == "http" and not _is_loopback(host):
        raise SourceError(f"{shown}: vital signs cross a network only encrypted; write https://")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _begin(text: str, shown: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus in a URL is a space
    except ValueError:
        moment = datetime(1, 1, 1)  # noqa: DTZ001  (it is refused below)
    if moment.utcoffset() is None or moment.year < 1900:
        raise SourceError(f"{shown}: since={text}: write a time with its zone, as in 2026-01-31T08:00:00Z")
    return moment
