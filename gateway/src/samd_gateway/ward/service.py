"""The ward behind one object: cards, time lines, and what people do at the bedside, sent as commands.

What is done carries the name of who did it, and is audited in the transaction that puts the command on
record. Whether it took effect is the device's word: `result` waits for it.
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, select

from samd_gateway import schema, settings
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.alerts.rules import SILENCE, Silence
from samd_gateway.alerts.words import words
from samd_gateway.dispatch import Dispatch
from samd_gateway.errors import ConflictError, NotFoundError, UsageError
from samd_gateway.intake import Item
from samd_gateway.queries import rows
from samd_gateway.schema import Database
from samd_gateway.states import DeviceState
from samd_gateway.ward import admissions, timeline
from samd_gateway.ward.answers import CommandOutcome, Timeline, WardCard
from samd_gateway.ward.cards import Cards
from samd_gateway.ward.risk import Limits
from samd_gateway.ward.trend import Score, Trends
from samd_gateway.ward.why import Labels
from samd_protocol.messages import (
    Assessment,
    CommandBody,
    Correction,
    ObservationAdd,
    PatientAdmit,
    PatientDischarge,
)
from samd_protocol.topics import valid_name

TTL_S = 60.0
LATE_S = 5.0
"""An answer may come so long after its command has expired; then nobody waits any more."""
CARDS = 200
FINAL = ("rejected", "done", "failed", "expired")

Consciousness = Literal["A", "C", "V", "P", "U"]


class Ward:
    """Cards and time lines, and commands to the bedside."""

    def __init__(
        self,
        database: Database,
        dispatch: Dispatch,
        *,
        states: Callable[[], Mapping[str, DeviceState]],
        labels: Callable[[int], Labels | None] = lambda version: None,
        changed: Callable[[Sequence[str]], None] = lambda devices: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._dispatch = dispatch
        self._states = states
        self._changed = changed
        self._warm = False
        self._now = now
        self._trends = Trends()
        self._cards = Cards(self._trends, labels=labels)
        self._answered = threading.Condition()

    # what is read

    def cards(self, *, ward: str | None = None, limit: int = CARDS) -> list[WardCard]:
        """The patients, those that need somebody first; of one ward, if it is named."""
        return self.page(ward=ward, limit=limit)[0]

    def page(self, *, ward: str | None = None, limit: int = CARDS) -> tuple[list[WardCard], int]:
        """The cards, and how many patients there are."""
        now, states = self._now(), self._states()
        with self._database.read() as connection:
            beds = self._cards.beds(connection, now, states=states, limits=self._limits(connection))
            if ward is not None:
                beds = [bed for bed in beds if (bed.admission or {}).get("ward") == ward]
            return [self._cards.card(connection, bed, now) for bed in beds[:limit]], len(beds)

    def some(self, devices: Sequence[str]) -> list[WardCard]:
        """The cards of these devices, as far as patients are on them."""
        now, states = self._now(), self._states()
        with self._database.read() as connection:
            beds = self._cards.beds(
                connection, now, states=states, limits=self._limits(connection), devices=devices
            )
            return [self._cards.card(connection, bed, now) for bed in beds]

    def card(self, device: str) -> WardCard:
        """The card of one device. Raises NotFoundError where no patient is."""
        now, states = self._now(), self._states()
        with self._database.read() as connection:
            beds = self._cards.beds(
                connection, now, states=states, limits=self._limits(connection), devices=[device]
            )
            if not beds:
                raise NotFoundError(f"no patient is on {device[:64]!r}; GET /api/ward lists those who are")
            return self._cards.card(connection, beds[0], now)

    def timeline(
        self,
        device: str,
        since: float,
        until: float,
        *,
        points: int = 1000,
        admission: str | None = None,
    ) -> Timeline:
        """The past of who lies there now, or of a former admission, between two times (seconds since 1970),
        thinned to so many points."""
        if not since < until:
            raise UsageError("since: it must lie before until")
        with self._database.read() as connection:
            self._known(connection, device)
            return timeline.read(
                connection, device, since, min(until, self._now()), most=points, admission=admission
            )

    # what people do

    def admit(
        self,
        actor: Actor,
        device: str,
        *,
        admission: str | None = None,
        bed: str = "",
        ward: str = "",
        spo2_scale: Literal[1, 2] = 1,
        monitoring_interval_s: float | None = None,
        consent_to_training: bool = False,
    ) -> str:
        """Ask a device to begin an admission; returns the command's id. `admission` is a pseudonym, used
        once; left out, one is drawn."""
        pseudonym = admission or f"stay-{uuid.uuid4().hex[:12]}"
        if not valid_name(pseudonym):
            raise UsageError(
                "admission: a pseudonym of letters, digits, dots, dashes and underscores; never a name or a "
                "record number"
            )
        places = {
            name: words(text, name, longest=64) if text.strip() else ""
            for name, text in (("bed", bed), ("ward", ward))
        }
        if monitoring_interval_s is not None and not 60.0 <= monitoring_interval_s <= 86_400.0:
            raise UsageError("monitoring_interval_s: it lies between 60 s and a day")
        body = PatientAdmit(
            admission=pseudonym,
            spo2_scale=spo2_scale,
            monitoring_interval_s=monitoring_interval_s,
            consent_to_training=consent_to_training,
        )
        after = {
            "admission": pseudonym,
            **places,
            "spo2_scale": spo2_scale,
            "monitoring_interval_s": monitoring_interval_s,
            "consent_to_training": consent_to_training,
        }

        def write(connection: Connection, command: str, now: float) -> None:
            admissions.give_up(connection, now - LATE_S)
            table = admissions.TABLE
            if admissions.open_ones(connection, [device]):
                raise ConflictError(f"a patient is admitted on {device}; discharge first")
            if connection.execute(select(table.c.id).where(table.c.id == pseudonym)).first() is not None:
                raise ConflictError("this admission was here before: a pseudonym is used once")
            connection.execute(
                table.insert().values(
                    id=pseudonym,
                    device=device,
                    **places,
                    spo2_scale=spo2_scale,
                    monitoring_interval_s=monitoring_interval_s,
                    consent_to_training=consent_to_training,
                    admitted_at=now,
                    admitted_by=actor.name,
                    command=command,
                    state="pending",
                )
            )

        return self._send(actor, device, body, "patient.admit", after, also=write)

    def discharge(self, actor: Actor, device: str, *, keep: bool = True) -> str:
        """Ask a device to end its admission, and keep or erase its store; returns the command's id."""
        with self._database.read() as connection:
            self._known(connection, device)
            row = admissions.open_ones(connection, [device]).get(device)
        if row is None or row["state"] != "active":
            raise ConflictError(
                f"no patient was admitted on {device} from here; at the device: samd-edge discharge"
            )

        def write(connection: Connection, command: str, now: float) -> None:
            table = admissions.TABLE
            connection.execute(
                table.update()
                .where(table.c.id == row["id"], table.c.state == "active")
                .values(discharge_command=command, discharged_by=actor.name, reason=None)
            )

        return self._send(
            actor,
            device,
            PatientDischarge(admission=row["id"], keep=keep),
            "patient.discharge",
            {"admission": row["id"], "keep": keep},
            also=write,
        )

    def observe(
        self,
        actor: Actor,
        device: str,
        *,
        consciousness: Consciousness | None = None,
        supplemental_oxygen: bool | None = None,
        observed_at: datetime | None = None,
    ) -> str:
        """Enter what no sensor sees, under the name of who saw it; returns the command's id."""
        if consciousness is None and supplemental_oxygen is None:
            raise UsageError("nothing was observed: give consciousness, supplemental_oxygen, or both")
        body = ObservationAdd(
            by=actor.name,
            observed_at=observed_at,
            consciousness=consciousness,
            supplemental_oxygen=supplemental_oxygen,
        )
        # the audit says that and by whom, not what: it outlives the patient's data
        fields = [
            name
            for name, value in (
                ("consciousness", consciousness),
                ("supplemental_oxygen", supplemental_oxygen),
            )
            if value is not None
        ]
        return self._send(actor, device, body, "observation.add", {"fields": fields})

    def correct(
        self,
        actor: Actor,
        device: str,
        *,
        field: str,
        reason: str,
        value: float | bool | str | None = None,
        observed_at: datetime | None = None,
    ) -> str:
        """Strike a wrong value, and give the right one if it is known; returns the command's id."""
        correction = Correction(
            field=words(field, "field", longest=64),
            reason=words(reason, "reason"),
            value=value,
            observed_at=observed_at,
        )
        return self._send(
            actor,
            device,
            ObservationAdd(by=actor.name, correction=correction),
            "observation.correct",
            {"field": correction.field, "reason": correction.reason, "replaced": value is not None},
        )

    def result(self, command: str, timeout_s: float = 10.0) -> CommandOutcome:
        """What a device answered, waiting at most so long. Raises NotFoundError for an unknown command."""
        end = time.monotonic() + timeout_s
        while True:
            outcome = self._outcome(command)
            left = end - time.monotonic()
            if outcome.status in FINAL or left <= 0:
                return outcome
            with self._answered:
                # the other gateways of a cluster may take the answer in: then nobody wakes us
                self._answered.wait(min(left, 0.25))

    def committed(self, items: Sequence[Item]) -> None:
        """Messages that are on record now."""
        for item in items:
            if item.kind == "assessment" and isinstance(item.envelope.data, Assessment):
                told = item.envelope.data
                at = min(told.observed_at.timestamp(), item.received_at)
                place = (item.envelope.boot, item.envelope.seq)
                self._trends.add(item.sender, place, at, Score(told.news2.low, told.news2.high))
        answered = dict.fromkeys(item.sender for item in items if item.kind == "result")
        if answered:
            with self._answered:
                self._answered.notify_all()
            self._changed(list(answered))

    def tend(self) -> None:
        """Let go of admissions whose device has not answered in time. The first time, read the lines of the
        last day, so that nobody who opens the page waits for them."""
        if not self._warm:
            self._warm = True
            self.page()
        with self._database.read() as connection:
            pending = any(row["state"] == "pending" for row in admissions.open_ones(connection).values())
        if pending:
            with self._database.write() as connection:
                freed = admissions.give_up(connection, self._now() - LATE_S)
            if freed:
                self._changed(freed)

    # inside

    def _limits(self, connection: Connection) -> Limits:
        rules = settings.get(connection, SILENCE, Silence())
        return Limits(reading_age_s=rules.reading_age_s, continuous_s=rules.continuous_age_s)

    @staticmethod
    def _known(connection: Connection, device: str) -> None:
        table = schema.devices
        if connection.execute(select(table.c.name).where(table.c.name == device)).first() is None:
            raise NotFoundError(f"no device {device[:64]!r} is known here; GET /api/devices lists them")

    def _send(
        self,
        actor: Actor,
        device: str,
        body: CommandBody,
        action: str,
        after: dict[str, Any],
        *,
        also: Callable[[Connection, str, float], None] | None = None,
    ) -> str:
        actor.need("ward")

        def write(connection: Connection, ids: Mapping[str, str]) -> None:
            now = self._now()
            self._known(connection, device)
            if also is not None:
                also(connection, ids[device], now)
            said = {**after, "command": ids[device]}
            audit.record(connection, actor, action, f"device/{device}", now=now, after=said)

        with self._database.read() as connection:
            self._known(connection, device)
        command = self._dispatch.send({device: body}, TTL_S, also=write)[device]
        self._changed([device])
        return command

    def _outcome(self, command: str) -> CommandOutcome:
        table = schema.commands
        with self._database.read() as connection:
            row = next(iter(rows(connection, select(table).where(table.c.id == command))), None)
        if row is None:
            raise NotFoundError(f"no command {command[:64]!r} was sent from here")
        return CommandOutcome(
            command=command,
            device=row["device"],
            type=row["type"],
            status=row["status"],
            reason=row["reason"],
        )
