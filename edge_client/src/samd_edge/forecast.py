"""Deterioration: does NEWS2 reach 7 within the six hours after a full hour? From readings to an answer.

The readings become the hours, features and labels of ``samd_data``, the same that training reads; nothing of
an answer depends on a later reading. Each hour keeps the model's score, so that it can be held against what
came later: the scores on this patient's own hold-out (the last fifth of the labelled hours, purged as in
training) give the calibration. With too few cases it changes nothing, and says so.

Pure: no store, no clock. ``forecaster`` asks these of the readings in a store, at each full hour.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from samd_data import calibration as calibrations
from samd_data import deterioration, splits
from samd_data.calibration import Calibration, Kind
from samd_data.carry import Carrier
from samd_data.history import History
from samd_data.hourly import HourlyTable, row_of
from samd_data.reading import COLUMNS, Reading
from samd_edge.assessment import TRAINED_SCALE, BadOutput, Model, infer_rows
from samd_edge.clock import Clock
from samd_edge.runtime import GraphError, RuntimeUnavailable
from samd_edge.trainer.rows import PURGE, TRAIN_SHARE
from samd_protocol import messages

GAP: Final = timedelta(hours=24)
"""Longer without any reading is the time between two stays, as in ``samd_data.hourly``."""
KEEP_HOURS: Final = 8760
CALIBRATE_EVERY: Final = timedelta(hours=24)
HOUR: Final = timedelta(hours=1)

REACHED: Final = "7 or more is reached already"
NOTHING_KNOWN: Final = "nothing that the model reads is known"
OTHER_SCALE: Final = f"the model learned SpO2 scale {TRAINED_SCALE}, this patient is on another"

Outcome = Literal["stable", "deteriorates"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """One answer, by the model of ``version``. ``probability`` is None where there is none, with the reason.

    ``asked_at``: the full hour of patient time whose past was read. ``possible``: the classes that cannot be
    ruled out. ``calibration`` is "none" with too few cases on the hold-out.
    """

    asked_at: datetime
    version: int
    probability: float | None = None
    possible: tuple[Outcome, ...] = ()
    calibration: Kind = "none"
    reason: str | None = None


class Hour(NamedTuple):
    """One hour of the past, by its beginning: values and ages ``float64[7]``, the model's score."""

    begins: np.datetime64
    values: NDArray[np.float64]
    ages: NDArray[np.float64]
    score: float


class Hours:
    """The hours of one patient, made of readings in order of time; each is asked about once."""

    def __init__(self) -> None:
        self._carrier = Carrier()
        self._history = History()
        self._open: datetime | None = None
        self._newest: datetime | None = None
        self._waiting: list[tuple[Hour, NDArray[np.float64]]] = []
        self._asked: deque[Hour] = deque(maxlen=KEEP_HOURS)

    @property
    def waiting(self) -> int:
        """How many hours the model was not asked about yet."""
        return len(self._waiting)

    def take(self, reading: Reading) -> None:
        """The next reading. One of an hour that is over changes only what is valid from now on."""
        at = reading.observed_at
        if self._newest is None or at - self._newest > GAP:
            self._history = History()
            self._open = full_hour(at)
        self._close(at)
        self._carrier.update(reading)
        self._newest = at if self._newest is None else max(at, self._newest)

    def reach(self, hour: datetime) -> None:
        """No reading before ``hour`` is yet to come. After a day of silence there are no hours any more."""
        if self._newest is not None and hour - self._newest <= GAP:
            self._close(hour)

    def _close(self, moment: datetime) -> None:
        while self._open is not None and self._open + HOUR <= moment:
            values, ages = row_of(self._carrier, self._open)
            begins = stamp(self._open)
            row = self._history.take(begins, values, ages)
            self._waiting.append((Hour(begins, values, ages, np.nan), row))
            self._open += HOUR

    def ask(self, model: Model) -> None:
        """Let the model answer for every hour that waits. Raises what ``infer_rows`` raises."""
        if not self._waiting:
            return
        now_only = model.spec.row_size == len(COLUMNS)
        rows = np.stack([hour.values if now_only else row for hour, row in self._waiting])
        scores = infer_rows(model, rows)[:, 1].tolist()
        for (hour, _), score in zip(self._waiting, scores, strict=True):
            self._asked.append(hour._replace(score=score))
        self._waiting.clear()

    def before(self, hour: datetime) -> Hour | None:
        """The hour that ended at ``hour``, if there is one and it was asked about."""
        if not self._asked or self._asked[-1].begins != stamp(hour - HOUR):
            return None
        return self._asked[-1]

    def fit(self, model: Model) -> Calibration:
        """The calibration on the hold-out of the hours so far."""
        hours = list(self._asked)
        table = HourlyTable(
            np.array([hour.begins for hour in hours]),
            np.array([hour.values for hour in hours]),
            np.array([hour.ages for hour in hours]),
        )
        labels = deterioration.labels(table, model.spec.labels)
        known = labels >= 0
        _, holdout = splits.by_time(table.hours[known], TRAIN_SHARE, PURGE)
        scores = np.array([hour.score for hour in hours])[known][holdout]
        return calibrations.fit(np.stack([1.0 - scores, scores], axis=1), labels[known][holdout])


def why_not(hour: Hour | None, model: Model) -> str | None:
    """Why nothing is asked at the end of an hour; None where it is."""
    if hour is None:
        return NOTHING_KNOWN
    values = hour.values[np.newaxis]
    if deterioration.asked(values, model.spec.labels)[0]:
        return None
    low, _ = deterioration.low_totals(values, model.spec.labels)
    return REACHED if low[0] >= deterioration.THRESHOLD else NOTHING_KNOWN


def conclude(hour: Hour, at: datetime, version: int, calibration: Calibration) -> Forecast:
    """The answer at the end ``at`` of an hour that was asked about."""
    given = np.array([[1.0 - hour.score, hour.score]])
    inside = calibrations.sets(calibration, given)[0]
    possible = [name for name, there in zip(deterioration.CLASSES, inside, strict=True) if there]
    return Forecast(
        at,
        version,
        probability=float(calibrations.apply(calibration, given)[0, 1]),
        possible=cast("tuple[Outcome, ...]", tuple(possible)),
        calibration=calibration.kind,
    )


class Following:
    """The answers for readings that come one by one and are kept nowhere; the calibration is fitted once a
    day. One reading that comes late changes nothing of the hours that are over."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._hours = Hours()
        self._fitted: tuple[datetime, Calibration] | None = None
        self.latest: Forecast | None = None

    def take(self, reading: Reading, at: datetime) -> Forecast:
        """The next reading; the answer of the last full hour at ``at``."""
        self._hours.take(reading)
        hour = full_hour(at)
        if self.latest is None or self.latest.asked_at < hour:
            try:
                self._hours.ask(self._model)
                self.latest = self._answer(hour)
            except (GraphError, BadOutput, RuntimeUnavailable, ValueError) as error:
                self._hours = Hours()
                self.latest = Forecast(hour, self._model.version, reason=f"no answer: {error}")
        return self.latest

    def begin_anew(self) -> None:
        """A value was taken back: the hours that were made with it are forgotten, and those before them."""
        self._hours = Hours()
        self.latest = None

    def _answer(self, at: datetime) -> Forecast:
        hour = self._hours.before(at)
        reason = why_not(hour, self._model)
        if hour is None or reason is not None:
            return Forecast(at, self._model.version, reason=reason)
        if self._fitted is None or at - self._fitted[0] >= CALIBRATE_EVERY:
            self._fitted = at, self._hours.fit(self._model)
        return conclude(hour, at, self._model.version, self._fitted[1])


def full_hour(moment: datetime) -> datetime:
    """The last full hour at ``moment`` (aware), in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def stamp(moment: datetime) -> np.datetime64:
    """A time in UTC as an ``HourlyTable`` holds it."""
    return np.datetime64(moment.replace(tzinfo=None), "s")


def to_message(forecast: Forecast | None, clock: Clock) -> messages.Deterioration | None:
    """The answer as it crosses the wire: its time by the wall."""
    if forecast is None:
        return None
    return messages.Deterioration(
        asked_at=clock.to_wall(forecast.asked_at),
        horizon_h=deterioration.HORIZON_HOURS,
        version=forecast.version,
        probability=forecast.probability,
        possible=list(forecast.possible),
        calibration=forecast.calibration,
        reason=forecast.reason,
    )
