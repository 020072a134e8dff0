"""Asks about deterioration at each full hour of patient time, from the readings in an admission's store.

Artefacts and struck values are excluded. The past is read once, in slices of about a millisecond, and then
only what is new; after a correction, a reading that came late, another model or a restart it is read anew.
Meanwhile, and whatever happens here, readings are judged, and rule and severity go on.

The calibration is fitted once a day of patient time and kept in the store, with the model that it belongs to.
"""

import logging
from collections import deque
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from samd_data.calibration import Calibration
from samd_data.reading import Reading
from samd_edge.assessment import TRAINED_SCALE, Model
from samd_edge.database import micros
from samd_edge.forecast import (
    CALIBRATE_EVERY,
    OTHER_SCALE,
    Forecast,
    Hours,
    conclude,
    full_hour,
    why_not,
)
from samd_edge.readings import Mark
from samd_protocol.tasks import Vector

log = logging.getLogger(__name__)

PAGE: Final = 64
"""Readings that are fetched at once."""
SLICE_HOURS: Final = 4
"""Hours that are made in one slice, and ..."""
ASK_HOURS: Final = 16
"""... that the model is asked about at once: each about a millisecond."""
SETTING: Final = "calibration"


class Past(Protocol):
    """Where the readings come from: ``samd_edge.store.AdmissionStore``."""

    def page(self, after: Mark, before: datetime, limit: int) -> tuple[list[Reading], Mark]: ...

    def newest_rows(self) -> tuple[int, int]: ...

    def changed_since(self, newest: tuple[int, int], before: int) -> bool: ...

    def setting(self, name: str, default: Any = None) -> Any: ...

    def note(self, **values: Any) -> None: ...


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration in the store, and the model that it belongs to, by version and checksum of weights."""

    version: int
    weights: int
    fitted_at: datetime
    calibration: Calibration


class Forecaster:
    """Asks about one admission. ``work`` is called again and again; ``latest`` is the newest answer."""

    def __init__(self, past: Past, *, spo2_scale: int = 1, model: Model | None = None) -> None:
        self._past = past
        self._spo2_scale = spo2_scale
        self._error: str | None = None
        self.use(model)

    def use(self, model: Model | None) -> None:
        """Ask another model from now on, first about the last full hour."""
        self._model = model
        self._weights = 0 if model is None else Vector.of(model.weights).crc32
        self.latest: Forecast | None = None
        self._target: datetime | None = None
        self._forget()

    def _forget(self) -> None:
        """Read the past anew."""
        self._hours = Hours()
        self._page: deque[Reading] = deque()
        self._mark = Mark()
        self._read: tuple[int, int] | None = None
        self._before = 0  # microseconds: what is older was read

    def work(self, now: datetime) -> bool:
        """One slice of what there is to do at ``now`` (aware, patient time); whether there is more."""
        model = self._model
        if model is None:
            return False
        if self._target is None:
            hour = full_hour(now)
            if self.latest is not None and self.latest.asked_at >= hour:
                return False
            self._target = hour
        target = self._target
        try:
            if self._spo2_scale != TRAINED_SCALE:
                found: Forecast | None = Forecast(target, model.version, reason=OTHER_SCALE)
            else:
                found = self._slice(model, target)
            self._error = None if found is not None else self._error
        except Exception as error:  # noqa: BLE001 - whatever it is: the rule and the severity go on
            found = self._failed(model, target, error)
        if found is None:
            return True
        self.latest, self._target = found, None
        return False

    def _slice(self, model: Model, target: datetime) -> Forecast | None:
        """Read a little further; the answer once everything before ``target`` was read."""
        if self._read is not None and self._past.changed_since(self._read, self._before):
            self._forget()
        self._read = self._past.newest_rows()
        if not self._page:
            found, self._mark = self._past.page(self._mark, target, PAGE)
            self._page.extend(found)
            self._before = max(self._before, self._mark.moment)
        if self._page:
            self._take_page(model)
            return None
        self._hours.reach(target)
        self._hours.ask(model)
        self._before = micros(target)
        hour = self._hours.before(target)
        reason = why_not(hour, model)
        if hour is None or reason is not None:
            return Forecast(target, model.version, reason=reason)
        return conclude(hour, target, model.version, self._calibration(model, target))

    def _take_page(self, model: Model) -> None:
        """Take what was fetched, as far as a slice goes."""
        until = self._hours.waiting + SLICE_HOURS
        while self._page and self._hours.waiting < until:
            self._hours.take(self._page.popleft())
        if self._hours.waiting >= ASK_HOURS:
            self._hours.ask(model)

    def _failed(self, model: Model, target: datetime, error: Exception) -> Forecast:
        reason = str(error) or type(error).__name__
        if reason != self._error:  # once, not each hour: it would fill the card
            log.error(
                "deterioration: model %d gives no answer (%s); asked again next hour", model.version, reason
            )
        self._error = reason
        self._forget()
        return Forecast(target, model.version, reason=f"no answer: {reason}")

    def _calibration(self, model: Model, target: datetime) -> Calibration:
        """The calibration of this model for this patient: the one in the store, fitted anew once a day."""
        kept = self._stored()
        mine = kept is not None and (kept.version, kept.weights) == (model.version, self._weights)
        if kept is None or not mine or not timedelta(0) <= target - kept.fitted_at < CALIBRATE_EVERY:
            kept = Kept(
                version=model.version,
                weights=self._weights,
                fitted_at=target,
                calibration=self._hours.fit(model),
            )
            self._past.note(**{SETTING: msgspec.to_builtins(kept)})
        return kept.calibration

    def _stored(self) -> Kept | None:
        stored = self._past.setting(SETTING)
        try:
            return None if stored is None else msgspec.convert(stored, Kept)
        except msgspec.ValidationError as error:
            log.warning("the stored calibration cannot be used (%s); it is fitted anew", error)
            return None
