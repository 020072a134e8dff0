"""From the tables to the ward's cards. Reads only; the time and the states are arguments."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.alerts import store as alert_store
from samd_gateway.queries import moment, rows
from samd_gateway.states import DeviceState, data_age_s
from samd_gateway.ward import admissions
from samd_gateway.ward.answers import Because, CardDeterioration, CardModel, News2Out, WardCard
from samd_gateway.ward.risk import Limits, Standing, not_current, risk
from samd_gateway.ward.trend import DAY_S, Trends
from samd_gateway.ward.why import Labels, why_differ
from samd_protocol.messages import Assessment

FORGET_S = 30 * DAY_S
"""A device that was silent for so long, and on which nobody is admitted, has no patient."""

_DIGITS = re.compile(r"(\d+)")


class Bed(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record of one bed, before it is made a card. `age_s`: of the reading, by our clock."""

    device: str
    state: DeviceState | None
    admission: dict[str, Any] | None
    after: tuple[int, int] | None
    """Behind which place of the device's messages they are of this patient; None while nobody knows."""
    assessment: Assessment | None
    age_s: float | None
    alert: dict[str, Any] | None
    lost: tuple[str, dict[str, Any], str] | None
    key: list[float]


class Cards:
    """Builds cards; remembers the assessments that it has decoded, and the lines of the last day."""

    def __init__(self, trends: Trends, *, labels: Callable[[int], Labels | None]) -> None:
        """`labels`: how the labels of a version of the severity model were made, if that is known here."""
        self._trends = trends
        self._labels = labels
        self._decoded: dict[str, tuple[tuple[int, int, float], Assessment]] = {}

    def beds(
        self,
        connection: Connection,
        now: float,
        *,
        states: Mapping[str, DeviceState],
        limits: Limits,
        devices: Sequence[str] | None = None,
    ) -> list[Bed]:
        """Every bed with a patient, those that need somebody first."""
        open_ones = admissions.open_ones(connection, devices)
        ends = admissions.last_ends(connection, devices)
        alerts = _alerts(connection, devices)
        told = self._assessments(connection, devices)
        found = []
        for device in {*open_ones, *told}:
            admission = open_ones.get(device)
            row = told.get(device)
            after = _after(admission, ends.get(device))
            if row is not None and (after is None or (row["boot"], row["seq"]) <= after):
                row = None
            if row is None and admission is None:
                continue
            if admission is None and row is not None and now - row["received_at"] > FORGET_S:
                continue
            found.append(
                self._bed(
                    device,
                    state=states.get(device),
                    admission=admission,
                    after=after,
                    row=row,
                    alert=alerts.get(device),
                    limits=limits,
                    now=now,
                )
            )
        found.sort(key=lambda bed: ([-part for part in bed.key], natural(_place(bed))))
        return found

    def card(self, connection: Connection, bed: Bed, now: float) -> WardCard:
        """A bed as a card."""
        admission, assessment, state = bed.admission or {}, bed.assessment, bed.state
        if bed.after is not None:
            self._trends.load(connection, bed.device, bed.after, now)
        current = bed.lost is None
        model = None if assessment is None else assessment.model
        scale = admission.get("spo2_scale")
        certain = (
            current
            and assessment is not None
            and assessment.rule_severity == assessment.rule_severity_possible
        )
        return WardCard(
            device=bed.device,
            pseudonym=admission.get("id"),
            admission_state=admission.get("state"),
            bed=admission.get("bed") or "",
            ward=admission.get("ward") or "",
            spo2_scale=scale,
            state="unknown" if state is None else state.state,
            state_reason="never heard of" if state is None else state.reason,
            state_since=None if state is None else moment(state.since),
            current=current,
            why_not_current=None
            if bed.lost is None
            else Because(key=bed.lost[0], arguments=bed.lost[1], text=bed.lost[2]),
            news2=None if assessment is None else News2Out(**msgspec.structs.asdict(assessment.news2)),
            rule_severity=None if assessment is None else assessment.rule_severity,
            rule_severity_possible=None if assessment is None else assessment.rule_severity_possible,
            model=None if model is None else CardModel(**msgspec.structs.asdict(model)),
            severity=None if assessment is None else assessment.severity,
            disagreement=assessment is not None and assessment.disagreement,
            why_differ=[]
            if assessment is None
            else why_differ(
                assessment, labels=None if model is None else self._labels(model.version), spo2_scale=scale
            ),
            deterioration=None
            if assessment is None or assessment.deterioration is None
            else CardDeterioration(**msgspec.structs.asdict(assessment.deterioration)),
            trend=[] if bed.after is None else self._trends.points(bed.device, now - DAY_S, now),
            signs=None if assessment is None else assessment.signs,
            age_s=bed.age_s,
            observed_at=None if assessment is None else assessment.observed_at,
            next_due_at=None if assessment is None else assessment.next_due_at,
            due=[] if assessment is None else assessment.due,
            overdue=_overdue(bed, now),
            stale=[] if assessment is None else assessment.stale,
            missing=[] if assessment is None else assessment.missing,
            artefacts={} if assessment is None else {**assessment.artefacts},
            alert=None if bed.alert is None else alert_store.answer(bed.alert),
            risk=bed.key,
            certain=certain,
        )

    def _bed(
        self,
        device: str,
        *,
        state: DeviceState | None,
        admission: dict[str, Any] | None,
        after: tuple[int, int] | None,
        row: dict[str, Any] | None,
        alert: dict[str, Any] | None,
        limits: Limits,
        now: float,
    ) -> Bed:
        assessment = None if row is None else self._decode(row)
        age_s = None
        if row is not None and assessment is not None:
            observed = assessment.observed_at.timestamp() if row["synced"] else None
            age_s = data_age_s(assessment.reading_age_s, row["received_at"], now, observed_at=observed)
        continuous = assessment is not None and assessment.next_due_at is None
        lost = not_current(state, age_s, limits, continuous=continuous)
        ahead = None if assessment is None else assessment.deterioration
        standing = Standing(
            current=lost is None,
            certain=None if assessment is None else assessment.rule_severity,
            possible=None if assessment is None else assessment.rule_severity_possible,
            model=None if assessment is None or assessment.model is None else assessment.model.severity,
            low=0 if assessment is None else assessment.news2.low,
            high=20 if assessment is None else assessment.news2.high,
            probability=None if ahead is None else ahead.probability,
            waiting=alert is not None and alert["waiting_since"] is not None,
        )
        return Bed(
            device=device,
            state=state,
            admission=admission,
            after=after,
            assessment=assessment,
            age_s=age_s,
            alert=alert,
            lost=lost,
            key=risk(standing),
        )

    def _assessments(
        self, connection: Connection, devices: Sequence[str] | None
    ) -> dict[str, dict[str, Any]]:
        latest = schema.latest
        query = select(latest).where(latest.c.kind == "assessment")
        if devices is not None:
            query = query.where(latest.c.device.in_(devices))
        return {row["device"]: row for row in rows(connection, query)}

    def _decode(self, row: Mapping[str, Any]) -> Assessment:
        version = (row["boot"], row["seq"], row["received_at"])
        held = self._decoded.get(row["device"])
        if held is None or held[0] != version:
            held = (version, msgspec.json.decode(row["body"], type=Assessment))
            self._decoded[row["device"]] = held
        return held[1]


def _alerts(connection: Connection, devices: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """The open alert of each device that weighs most: one that waits for somebody before all others."""
    table = schema.alerts
    query = select(table).where(table.c.state == "active")
    if devices is not None:
        query = query.where(table.c.device.in_(devices))

    def weight(row: Mapping[str, Any]) -> tuple[bool, int, bool]:
        return row["waiting_since"] is not None, row["severity"], row["kind"] == "severity"

    found: dict[str, dict[str, Any]] = {}
    for row in rows(connection, query):
        held = found.get(row["device"])
        if held is None or weight(row) > weight(held):
            found[row["device"]] = row
    return found


def _after(admission: Mapping[str, Any] | None, end: tuple[int, int] | None) -> tuple[int, int] | None:
    """Behind which place the device's messages are of whoever lies there now. None while it has not answered:
    whatever it says then is of somebody else."""
    if admission is not None:
        return None if admission["boot"] is None else (admission["boot"], admission["seq"])
    return (-1, -1) if end is None else end


def _overdue(bed: Bed, now: float) -> bool:
    if bed.assessment is None:
        return False
    if bed.assessment.next_due_at is None:  # without a break, so a reading that is old is overdue
        return bed.lost is not None
    return bed.assessment.next_due_at.timestamp() < now


def _place(bed: Bed) -> str:
    return str((bed.admission or {}).get("bed") or bed.device)


@lru_cache(maxsize=20_000)
def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that puts bed 2 before bed 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(text) if part]
