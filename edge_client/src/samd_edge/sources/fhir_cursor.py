"""How far a poller has come on its server, and what it has had: nothing twice, nothing lost at a border.

A server tells the time of each change (``meta.lastUpdated``), and may show a change a little later than one
with a later time. So each poll begins a while (``OVERLAP``) before the newest change that was had, and what
was had already is left out by its id and version. The last state is kept in a file, so that a restart loses
nothing either; in it stand hashes, no ids.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

log = logging.getLogger(__name__)

OVERLAP: Final = timedelta(minutes=1)
REMEMBERED: Final = 10_000
KEPT: Final = 1_000  # in the file: what may lie within the overlap


class _State(msgspec.Struct, forbid_unknown_fields=True):
    newest: datetime
    had: list[str]


class Cursor:
    """``begin``: where to start on a server that was never asked before (aware). ``file``: where the state is
    kept, or None."""

    def __init__(self, begin: datetime, file: Path | None = None) -> None:
        self._newest = begin
        self._had: OrderedDict[str, None] = OrderedDict()
        self._file = file
        self._changed = False
        if file is not None and file.exists():
            try:
                state = msgspec.json.decode(file.read_bytes(), type=_State)
                if state.newest.utcoffset() is None:
                    raise ValueError("a time without a zone")
            except (OSError, ValueError) as error:
                log.warning("%s cannot be read (%s); polling begins as on the first day", file, error)
            else:
                self._newest = state.newest
                self._had = OrderedDict.fromkeys(state.had[-KEPT:])

    @property
    def newest(self) -> datetime:
        """The newest change that was had."""
        return self._newest

    @property
    def since(self) -> str:
        """What a poll asks for: changes from here on, as FHIR writes an instant."""
        moment = (self._newest - OVERLAP).astimezone(UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def is_new(self, resource: dict[str, Any]) -> bool:
        """Whether this version of a resource was not had yet."""
        return _key(resource) not in self._had

    def had(self, resource: dict[str, Any]) -> None:
        """This version was taken over."""
        self._had[_key(resource)] = None
        self._changed = True
        if len(self._had) > REMEMBERED:
            self._had.popitem(last=False)

    def reached(self, newest: datetime | None) -> None:
        """Everything up to this change (None: there was none with a time) was had; keep it."""
        if newest is not None and newest > self._newest:
            self._newest = newest
            self._changed = True
        if self._file is not None and self._changed:
            self._keep(self._file)
        self._changed = False

    def _keep(self, file: Path) -> None:
        state = msgspec.json.encode(_State(self._newest, list(self._had)[-KEPT:]))
        beside = file.with_suffix(".new")
        try:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as stream:
                stream.write(state)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(file)
        except OSError as error:
            log.warning("%s cannot be written (%s); a restart will ask for more than is new", file, error)


def changed_at(resource: dict[str, Any]) -> datetime | None:
    """When the server last changed a resource, or None when it does not say, or not with a zone."""
    meta = resource.get("meta")
    text = meta.get("lastUpdated") if isinstance(meta, dict) else None
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        return None if moment is None or moment.utcoffset() is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _key(resource: dict[str, Any]) -> str:
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    own_id = resource.get("id")
    known = isinstance(own_id, str) and isinstance(version, str)
    text = f"{own_id}/{version}" if known else json.dumps(resource, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
