"""What people entered in a period: observations, and corrections with name and reason."""

import sqlite3
from typing import Final

import msgspec

from samd_data.plausibility import RANGES
from samd_data.reading import FIELDS, Reading
from samd_edge.report.record import SECOND, Correction, History, Observation
from samd_edge.top.words import CONSCIOUSNESS, NAMES, clean, number

_ENTERED: Final = ("supplemental_oxygen", "consciousness")
_readings: Final = msgspec.json.Decoder(Reading)


def read(connection: sqlite3.Connection, history: History, *, reasons: bool) -> None:
    """Fill in the observations and corrections of the period; ``reasons``: the store keeps reasons."""
    period = (round(history.since * SECOND), round(history.until * SECOND))
    instead: dict[tuple[str, int], str] = {}
    corrected = {
        (str(by), int(at)) for by, at in connection.execute("SELECT by, corrected_at FROM corrections")
    }
    wrong: dict[int, set[str]] = {}
    for row, name in connection.execute("SELECT reading, field FROM corrections WHERE field IS NOT NULL"):
        wrong.setdefault(row, set()).add(name)
    for row, at, by, entered_at, body, struck in connection.execute(
        "SELECT r.id, r.observed_at, o.by, o.entered_at, r.body, r.struck FROM observations o "
        "JOIN readings r ON r.id = o.reading WHERE r.observed_at BETWEEN ? AND ? "
        "ORDER BY r.observed_at, o.id",
        period,
    ):
        reading = _decoded(body)
        what = "cannot be read" if reading is None else told(reading)
        corrects = (by, entered_at) in corrected
        if corrects:
            instead[by, entered_at] = what
        gone = bool(struck) or (reading is not None and set(reading.present()) <= wrong.get(row, set()))
        history.observations.append(
            Observation(at / SECOND, entered_at / SECOND, clean(by), what, gone, corrects)
        )
    reason = "c.reason" if reasons else "NULL"
    for at, name, by, why, corrected_at, body in connection.execute(
        f"SELECT r.observed_at, c.field, c.by, {reason}, c.corrected_at, r.body FROM corrections c "  # noqa: S608
        "JOIN readings r ON r.id = c.reading WHERE r.observed_at BETWEEN ? AND ? ORDER BY c.id",
        period,
    ):
        reading = _decoded(body)
        history.corrections.append(
            Correction(
                at / SECOND,
                "whole reading" if name is None else NAMES.get(name, name),
                "cannot be read" if reading is None else told(reading, name),
                clean(by),
                clean(why or ""),
                corrected_at / SECOND,
                instead.get((by, corrected_at), ""),
            )
        )
    history.counts["corrections"] = len(history.corrections)


def told(reading: Reading, only: str | None = None) -> str:
    """The values of a reading, or one of them, as text; "--" when there is none."""
    texts = []
    for name in FIELDS if only is None else (only,):
        value = getattr(reading, name, None)
        if value is None:
            continue
        text = (
            ("on oxygen" if value else "on air")
            if isinstance(value, bool)
            else CONSCIOUSNESS.get(value, value)
            if isinstance(value, str)
            else f"{number(name, value)} {RANGES[name].unit}"
        )
        texts.append(text if only is not None or name in _ENTERED else f"{NAMES[name]} {text}")
    return ", ".join(texts) or "--"


def _decoded(body: bytes) -> Reading | None:
    try:
        return _readings.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
