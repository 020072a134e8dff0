"""What a source may know of the device that it is opened on, and the one patient whom it belongs to."""

import hashlib
import logging
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from samd_edge.clock import wall_now
from samd_protocol.broker import Broker

log = logging.getLogger(__name__)

WRONG_PATIENT: Final = (
    "another patient than the one this device belongs to; check the channel, or discharge and admit first"
)
NO_PATIENT: Final = "no patient is admitted on this device; admit one first"


class PatientGuard:
    """A device belongs to one patient: the first identifier that its channels name, until the next admission.

    Identifiers are record numbers, so only a keyed hash of the first is remembered, never the text itself.
    ``bound`` is that hash of an admission that goes on; ``remember`` is called with it once it is known, and
    again with the next message while it fails: a disk that is full must not end a source.
    """

    def __init__(self) -> None:
        self._key = b""
        self._bound: str | None = None
        self._remembered = True
        self._remember: Callable[[str], None] = lambda _hash: None
        self.admitted = True
        self.admit(key=secrets.token_hex(16))

    def admit(
        self, *, key: str, bound: str | None = None, remember: Callable[[str], None] = lambda _hash: None
    ) -> None:
        """A patient is admitted: whoever is named first from now on is this patient."""
        self._key = key.encode()
        self._bound = bound
        self._remembered = True
        self._remember = remember
        self.admitted = True

    def discharge(self) -> None:
        """Nobody is admitted: every reading is refused until the next ``admit``."""
        self._bound = None
        self.admitted = False

    def refusal(self, identifier: str | None) -> str | None:
        """Why a reading of this patient is not taken, or None. A channel that names nobody passes None."""
        if not self.admitted:
            return NO_PATIENT
        if identifier is None or not identifier.strip():
            return None
        found = hashlib.blake2b(
            " ".join(identifier.split()).encode(), key=self._key[:64], digest_size=16
        ).hexdigest()
        first = self._bound is None
        if first:
            self._bound = found
            self._remembered = False
        if found != self._bound:
            return WRONG_PATIENT
        if not self._remembered:
            self._keep(found, tell=first)
        return None

    def _keep(self, found: str, *, tell: bool) -> None:
        try:
            self._remember(found)
        except sqlite3.Error as error:
            if tell:
                log.error(
                    "whose device this is cannot be stored (%s); it is known until the next start", error
                )
        else:
            self._remembered = True


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Wall time; the device's name, data directory and broker (None without a device); the patient."""

    wall: Callable[[], datetime] = wall_now
    device: str | None = None
    folder: Path | None = None
    broker: Broker | None = None
    patient: PatientGuard = field(default_factory=PatientGuard)
