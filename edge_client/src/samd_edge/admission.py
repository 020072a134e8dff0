"""One patient on this device: from reading to assessment, store, alert, and what is to be sent of it.

A reading is judged, committed with its judgement, run through the alerts, and only then handed to the outbox.
The device's file remembers how far the outbox has taken over, so that an agent killed between the two commits
hands over the rest at its next start, with the same message ids.
"""

import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from samd_data.carry import CARRY_SECONDS
from samd_data.plausibility import Rejection
from samd_data.reading import FIELDS, Reading, without
from samd_edge import alerts, forecast
from samd_edge.alerts import AlertState, Policy, Seen
from samd_edge.anew import take_again
from samd_edge.artefacts import ArtefactPolicy, Flag
from samd_edge.assessment import Assessor, Judgement, Model, to_message
from samd_edge.clock import AHEAD, Clock
from samd_edge.database import StoreError
from samd_edge.forecaster import Forecaster
from samd_edge.outbox import ALERT, ASSESSMENT, Entry, Outbox
from samd_edge.readings import measured_at
from samd_edge.retraction import BY_HAND, Retraction
from samd_edge.store import NO_FLAGS, AdmissionStore, Stored, erase
from samd_edge.trends import Trends
from samd_protocol import envelope, topics
from samd_protocol.envelope import Sealer
from samd_protocol.messages import Alert

log = logging.getLogger(__name__)

ASSESSMENT_EXPIRES: Final = timedelta(hours=24)

TOGETHER_S: Final = 0.05
"""Assessments that come within this time of each other are handed to the outbox in one commit."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the device remembers of its admission. `own` names the source of one that it began by itself."""

    id: str
    spo2_scale: Literal[1, 2] = 1
    monitoring_interval_s: float | None = None
    consent: bool = False
    own: str | None = None


def folder_of(data_dir: Path, admission: str) -> Path:
    """Where an admission's files lie."""
    return data_dir / "admissions" / admission


class Admission:
    """The open admission: its store, its assessor, its alerts. Used within one loop.

    Raises StoreError when its store cannot be opened.
    """

    def __init__(
        self,
        record: Record,
        data_dir: Path,
        *,
        outbox: Outbox,
        handed: list[object] | None,
        sealer: Sealer,
        clock: Clock,
        wall: Callable[[], datetime],
        share_signs: Callable[[], bool],
        direct: Callable[[str, bytes], object],
        model: Model | None,
        policy: Policy,
        artefacts: ArtefactPolicy,
        later: Callable[[float, Callable[[], None]], object] | None = None,
        forecast_model: Model | None = None,
    ) -> None:
        self.record = record
        self.folder = folder_of(data_dir, record.id)
        self.store = AdmissionStore(self.folder)
        self._outbox = outbox
        self._sealer = sealer
        self._clock = clock
        self._wall = wall
        self._share_signs = share_signs
        self._direct = direct
        self._later = later
        self._waiting: list[Entry] = []
        self._flushed = 0.0
        self._topic = topics.up(sealer.device, "assessment")
        self._alert_topic = topics.up(sealer.device, "alert")
        self.policy = policy
        self.assessor = Assessor(
            spo2_scale=record.spo2_scale,
            model=model,
            monitoring_interval_s=record.monitoring_interval_s,
            artefacts=artefacts,
        )
        self.alert = self._stored_alert = AlertState()
        self.forecaster = Forecaster(self.store, spo2_scale=record.spo2_scale, model=forecast_model)
        self.latest: Judgement | None = None
        self.trends = Trends()
        self.disagreements = 0
        self.rejected = 0
        self.failures = 0
        self._generation = ""
        self._rows = [0, 0]
        self._begin(handed)

    def _begin(self, handed: list[object] | None) -> None:
        """Take up a store: generation, alert, the values still valid, and what was not handed over."""
        generation = self.store.setting("generation")
        if generation is None:
            generation = str(uuid.uuid4())
            self.store.set(
                generation=generation,
                admission=self.record.id,
                spo2_scale=self.record.spo2_scale,
                monitoring_interval_s=self.record.monitoring_interval_s,
                consent=self.record.consent,
            )
        self._generation = generation
        if handed is not None and handed[0] == generation:
            self._rows = [int(str(handed[1])), int(str(handed[2]))]
        else:
            self._rows = [0, 0]
        state = self.store.setting("alert")
        self.alert = AlertState() if state is None else msgspec.convert(state, AlertState)
        self._stored_alert = self.alert
        self._take_recent()
        self._hand_over_rest()

    def _take_recent(self) -> None:
        """Judge from what the store holds: the values still valid, and those before an artefact."""
        now = self._clock.now()
        self.assessor.forget()
        self.trends = Trends()
        for kept in self.store.recent(now - timedelta(seconds=max(CARRY_SECONDS.values()))):
            # a replay that begins anew has already stored what is yet to come
            if kept.reading.observed_at <= now + AHEAD:
                self._absorb(kept.reading, observed=kept.observed)

    def _absorb(self, reading: Reading, *, observed: bool = False) -> dict[str, Flag]:
        flags = self.assessor.take(reading, observed=observed)
        self.trends.take(without(reading, flags) if flags else reading)
        return flags

    def now(self) -> datetime:
        """The patient's time. Where a sensor's clock is a little ahead, that of what it measured last: judged
        earlier, its value would not be there yet."""
        now = self._clock.now()
        newest = self.assessor.newest
        return now if newest is None else max(now, min(newest, now + AHEAD))

    @property
    def patient_key(self) -> str:
        """What the identifiers of this patient are hashed with."""
        return self._generation

    def add_history(self, readings: Iterable[Reading]) -> int:
        """Take over a recording's past, reading by reading; returns how many are new."""
        return self.store.add_history(readings, self._absorb)

    def take(self, reading: Reading) -> Judgement | None:
        """A new reading: judge it, commit both, alert, hand over. None for one that was struck as a whole."""
        corrected = self.store.as_corrected(reading)
        if corrected is None:
            return None
        flags = self._absorb(corrected)
        judgement = self.assessor.assess(self.now())
        self._settle(judgement, reading, flags)
        return judgement

    def reject(self, rejection: Rejection) -> None:
        """A value that could not be used: counted; of a field it is flagged, and told when that is news."""
        self.rejected += 1
        field = rejection.column
        if field not in FIELDS:
            return
        flag = Flag(rejection.kind, f"{rejection.reason}; {rejection.remedy}", self.now())
        if self.assessor.flag(field, flag.kind, flag.reason, flag.at):
            self._settle(self.assessor.assess(flag.at), None, {field: flag})

    def observe(self, reading: Reading, *, by: str, entered_at: datetime) -> Judgement:
        """What a person observed: kept with the name, then judged like a reading."""
        self.store.add_observation(reading, by=by, entered_at=entered_at)
        self._absorb(reading, observed=True)
        judgement = self.assessor.assess(self.now())
        self._settle(judgement, None)
        return judgement

    def correct(
        self,
        field: str,
        at: datetime | None,
        value: float | bool | str | None,
        *,
        by: str,
        reason: str,
        corrected_at: datetime,
        tolerance: timedelta,
    ) -> tuple[float | bool | str, datetime] | None:
        """Strike a value through, with the right one in its place if there is one, and judge anew.

        `at`: when it was measured (None: the newest of `field`), found within `tolerance`. Returns the value
        that was struck and its time, or None where there was none. Raises ValueError for a field or a right
        value that cannot be.
        """
        wrong = self.store.find_value(field, at, tolerance)
        if wrong is None:
            return None
        instead = None
        if value is not None:
            given: dict[str, Any] = {field: value}
            instead = Reading(observed_at=measured_at(wrong.reading, field), **given)
        self.store.strike(
            wrong.row, field=field, by=by, reason=reason, corrected_at=corrected_at, instead=instead
        )
        self._judge_again([(field, measured_at(wrong.reading, field))])
        if instead is not None:
            self.trends.take(instead)
        self._settle(self.assessor.assess(self.now()), None)
        return getattr(wrong.reading, field), measured_at(wrong.reading, field)

    def retract(self, retraction: Retraction) -> list[Rejection]:
        """Strike what a source takes back, take what it says instead, and judge anew, all in one step.

        Returns what could not be done, for people to see.
        """
        struck, refused = self._take_back(retraction)
        kept = [(reading, self.store.as_corrected(reading)) for reading in retraction.instead]
        taken = [(reading, self._absorb(left)) for reading, left in kept if left is not None]
        for reading, flags in taken:
            self._settle(self.assessor.assess(self.now()), reading, flags)
        if struck and not taken:
            self._settle(self.assessor.assess(self.now()), None)
        given = {(one.observed_at, field) for _, one in kept if one is not None for field in one.present()}
        for one in retraction.values:
            if retraction.spared(one) is not None and (one.measured_at, one.field) not in given:
                reason = f"{one.field}: {one.reason}, but the value that it gives instead was struck before"
                refused.append(Rejection(retraction.by, 0, "", "", reason, BY_HAND))
        return refused

    def _take_back(self, retraction: Retraction) -> tuple[bool, list[Rejection]]:
        """Whether anything was struck now, and what cannot be found."""
        try:
            struck, unknown = self.store.take_back(retraction, corrected_at=self._wall())
            if struck:
                log.info("%s took back %d values that were taken", retraction.by, len(struck))
                self._judge_again([(one.field, one.measured_at) for one in struck])
        except sqlite3.Error as error:
            # As in _settle, the patient comes first: until the next start it is at least not scored.
            self.failures += 1
            self._recover(error)
            self._let_go([(one.field, one.measured_at) for one in retraction.values])
            self.assessor.forget_fields({one.field for one in retraction.values})
            return True, []
        reasons = [f"{one.field}: {one.reason}, but no such value was taken" for one in unknown]
        return bool(struck), [Rejection(retraction.by, 0, "", "", reason, BY_HAND) for reason in reasons]

    def _judge_again(self, struck: Sequence[tuple[str, datetime]]) -> None:
        """What is known of some fields without the values that were struck, each measured at its time."""
        self._let_go(struck)
        wrong: dict[str, datetime] = {}
        for field, at in struck:
            self.trends.strike(field, at)
            if self._is_newest(field, at) or field in self.assessor.flags:
                wrong[field] = min(at, wrong.get(field, at))
        take_again(self.assessor, self.store, wrong, self._clock.now())

    def _let_go(self, struck: Sequence[tuple[str, datetime]]) -> None:
        """The points that an alert holds for a missing input must not be those of a value that was wrong."""
        wrong = {field for field, at in struck if self._is_newest(field, at)}
        held = {name: points for name, points in self.alert.points.items() if name not in wrong}
        self.alert = msgspec.structs.replace(self.alert, points=held)

    def _is_newest(self, field: str, at: datetime) -> bool:
        """Whether nothing newer than a value of this time is known of a field."""
        held = self.assessor.latest(field)
        return held is None or held[0] <= at

    def age(self) -> bool:
        """Judge again without a reading; stored and sent only if time has changed picture or alert."""
        judgement = self.assessor.assess(self.now())
        if self.latest is None:
            if not judgement.snapshot.present() and not judgement.stale:
                return False  # nothing was ever known, so there is nothing to say
        elif _picture(judgement) == _picture(self.latest) and self._step(judgement)[1] is None:
            return False
        self._settle(judgement, None)
        return True

    def look_ahead(self) -> bool:
        """A slice of asking about deterioration; an answer is sent with an assessment of now. Returns whether
        there is more to do."""
        before = self.forecaster.latest
        more = self.forecaster.work(self._clock.now())
        if self.forecaster.latest is not before:
            self.tell()
        return more

    def waiting(self) -> str | None:
        """What the alert waits for, in words."""
        if self.latest is None:
            return None
        judgement = self.assessor.assess(self.now())
        return alerts.waiting(self.alert, _seen(judgement, self._clock), self.policy)

    def tell(self) -> None:
        """Send an assessment of now, changed or not; nothing when nothing was ever known."""
        judgement = self.assessor.assess(self.now())
        if judgement.snapshot.present() or judgement.stale:
            self._settle(judgement, None)

    def tell_again(self) -> None:
        """For a gateway that has just come: the last alert, under its own id, and an assessment of now.

        A broker acknowledges what nobody has subscribed to. An alert must not be lost that way; one that
        arrives twice is known by its id.
        """
        last = self.store.last_alert()
        if last is not None:
            self._hand_over([Entry(ALERT, "alert", self._alert_topic, last.message_id, last.body)])
        self.tell()

    def reading_age_s(self) -> float | None:
        """Wall seconds since the newest value was measured; None before the first."""
        if self.latest is None:
            return None
        observed = self._clock.to_wall(self.latest.observed_at)
        return max(0.0, (self._clock.to_wall(self._clock.now()) - observed).total_seconds())

    def set_consent(self, consent: bool) -> None:
        """The patient's consent to training, from now on."""
        self.record = msgspec.structs.replace(self.record, consent=consent)
        self.store.set(consent=consent)

    def end_alert(self) -> None:
        """Close an open alert: with the admission, nobody is left here for whom it could ring."""
        self.flush()
        if not self.alert.active:
            return
        sealed = self._sealer.seal(alerts.ended(self.alert, self._wall()))
        body = envelope.encode(sealed)
        try:
            row = self.store.add_alert(Stored(0, sealed.id, body), self._clock.now())
            self._rows[1] = row
        except sqlite3.Error as error:
            log.error("the end of an alert cannot be stored (%s); it is sent all the same", error)
        self._hand_over([Entry(ALERT, "alert", self._alert_topic, sealed.id, body)])
        self.alert = AlertState()

    def finish(self, *, keep: bool) -> None:
        """Seal the store, or erase it whole."""
        self.flush()
        if keep:
            self.store.seal()
        else:
            self.store.close()
            erase(self.folder)
        log.info("admission %s ended; its store is %s", self.record.id, "kept, sealed" if keep else "erased")

    def close(self) -> None:
        """Close the store; the admission goes on at the next start."""
        self.flush()
        self.store.close()

    # -- from judgement to outbox --------------------------------------------------------------------------

    def _step(self, judgement: Judgement) -> tuple[AlertState, Alert | None]:
        return alerts.step(self.alert, _seen(judgement, self._clock), lambda: str(uuid.uuid4()), self.policy)

    def _settle(
        self, judgement: Judgement, reading: Reading | None, flags: Mapping[str, Flag] = NO_FLAGS
    ) -> None:
        before, self.latest = self.latest, judgement
        self.trends.score(judgement.at, judgement.news2.low, judgement.news2.high, judgement.severity)
        self.disagreements += judgement.disagreement and not (before is not None and before.disagreement)
        told = to_message(judgement, self._clock, self._share_signs())
        ahead = forecast.to_message(self.forecaster.latest, self._clock)
        sealed = self._sealer.seal(
            msgspec.structs.replace(told, deterioration=ahead),
            expires_at=self._wall() + ASSESSMENT_EXPIRES,
        )
        body = envelope.encode(sealed)
        state, message = self._step(judgement)
        alert = None
        if message is not None:
            alert_sealed = self._sealer.seal(message)
            alert = Stored(0, alert_sealed.id, envelope.encode(alert_sealed))
        changed = state != self._stored_alert
        self.alert = state
        try:
            rows = self.store.add(
                reading,
                assessed_at=judgement.at,
                severity=judgement.severity,
                assessment=Stored(0, sealed.id, body),
                alert=alert,
                flags=flags,
                settings={"alert": msgspec.to_builtins(state)} if changed else None,
            )
        except sqlite3.Error as error:
            # The patient comes first: what cannot be stored is still sent, and the file is opened anew.
            self.failures += 1
            self._hand_over(self._entries(Stored(0, sealed.id, body), alert, sealed.expires_at))
            self._recover(error)
            self.alert = state
            return
        self._stored_alert = state
        self._rows = [rows[0], self._rows[1] if rows[1] is None else rows[1]]
        self._waiting += self._entries(Stored(0, sealed.id, body), alert, sealed.expires_at)
        self._flush_soon(at_once=alert is not None)

    def _flush_soon(self, *, at_once: bool) -> None:
        """An alert goes to the outbox at once; assessments that come faster than that, together.

        What waits is in the store, and the mark of what was handed over is not yet set: nothing is lost.
        """
        now = time.monotonic()
        if at_once or self._later is None or now - self._flushed >= TOGETHER_S:
            self.flush()
        elif len(self._waiting) == 1:
            self._later(TOGETHER_S, self.flush)

    def flush(self) -> None:
        """Hand what waits to the outbox."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._flushed = time.monotonic()
            self._hand_over(waiting, {"handed": self._mark()})

    def _recover(self, error: sqlite3.Error) -> None:
        try:
            self.store.reopen(error)
            self._begin(self._mark())
        except (StoreError, sqlite3.Error) as again:
            log.error("the store stays closed (%s): readings are assessed and sent, and not kept", again)

    def _hand_over(self, entries: list[Entry], marks: Mapping[str, object] | None = None) -> None:
        """To the outbox; when even that cannot be written, alerts go straight to the broker."""
        try:
            self._outbox.put(entries, marks)
        except sqlite3.Error as error:
            self.failures += 1
            log.error("the outbox cannot be written (%s); check the disk and its free space", error)
            for entry in entries:
                if entry.priority == ALERT:
                    self._direct(entry.topic, entry.payload)

    def _entries(self, assessment: Stored, alert: Stored | None, expires_at: datetime | None) -> list[Entry]:
        entries = [
            Entry(ASSESSMENT, "assessment", self._topic, assessment.message_id, assessment.body, expires_at)
        ]
        if alert is not None:
            entries.insert(0, Entry(ALERT, "alert", self._alert_topic, alert.message_id, alert.body))
        return entries

    def _mark(self) -> list[object]:
        return [self._generation, *self._rows]

    def _hand_over_rest(self) -> None:
        """Give the outbox what an agent that was killed could not."""
        entries: list[Entry] = []
        for stored in self.store.alerts_after(self._rows[1]):
            entries.append(Entry(ALERT, "alert", self._alert_topic, stored.message_id, stored.body))
            self._rows[1] = stored.row
        for stored in self.store.assessments_after(self._rows[0]):
            expires_at = envelope.decode(stored.body).expires_at
            entries.append(
                Entry(ASSESSMENT, "assessment", self._topic, stored.message_id, stored.body, expires_at)
            )
            self._rows[0] = stored.row
        self._outbox.put(entries, {"handed": self._mark()})
        if entries:
            log.info("%d messages of the last run were handed to the outbox", len(entries))


def _seen(judgement: Judgement, clock: Clock) -> Seen:
    score = judgement.news2
    return Seen(
        low=score.low,
        high=score.high,
        points=score.points,
        at=judgement.at,
        observed_at=clock.to_wall(judgement.observed_at),
    )


def _picture(judgement: Judgement) -> tuple[object, ...]:
    """What an assessment says, without its time: a change of it is worth a message."""
    return (
        judgement.news2.low,
        judgement.news2.high,
        tuple(judgement.news2.points.items()),
        judgement.missing,
        judgement.stale,
        tuple(judgement.artefacts.items()),
        judgement.due,
        judgement.severity,
        None if judgement.model is None else (judgement.model.severity, judgement.model.version),
    )
