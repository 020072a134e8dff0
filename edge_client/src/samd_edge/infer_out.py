"""An assessment as one line, for people or for programs; as FHIR it is written by ``fhir_out``. And which
rejections are told while others come."""

import os
import re
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from samd_data.deterioration import HORIZON_HOURS
from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_data.severity import CLASSES
from samd_edge.assessment import Judgement, signs_of
from samd_edge.forecast import Forecast

_SORTS: Final = 50  # sorts of rejections that are told; a sender may invent new ones for months
_CHANGING: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\d+(?:[.,:]\d+)*")


class Told:
    """Which rejections were told already: the first of each column and reason, whatever the values in it."""

    def __init__(self) -> None:
        self._sorts: set[tuple[str, str, str]] = set()

    def first(self, rejection: Rejection) -> bool:
        """Whether this one is to be told."""
        sort = (rejection.column, rejection.kind, _CHANGING.sub("", rejection.reason))
        if sort in self._sorts or len(self._sorts) >= _SORTS:
            return False
        self._sorts.add(sort)
        return True


def write_line(text: str, file: TextIO, name: str, *, flush: bool = True) -> None:
    """Write a line; raises DataError when that fails, and BrokenPipeError when the reader has gone."""
    try:
        print(text, file=file, flush=flush)
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python writes the rest once more when it ends: that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        raise DataError(
            f"{name}: cannot be written ({error.strerror}); make room, or write it elsewhere"
        ) from error


def as_reject(rejection: Rejection) -> dict[str, Any]:
    """A rejection as JSON: what, where, and what to do."""
    return {name: getattr(rejection, name) for name in rejection.__struct_fields__}


def as_object(reading: Reading, judgement: Judgement, forecast: Forecast | None = None) -> dict[str, Any]:
    """The assessment as JSON. ``ages`` in seconds; ``signs`` are the values judged, carried ones included."""
    score, model = judgement.news2, judgement.model
    return {
        "observed_at": _iso(reading.observed_at),
        "assessed_at": _iso(judgement.at),
        "news2": {
            "total": score.total,
            "low": score.low,
            "high": score.high,
            "band": score.band,
            "points": score.points,
            "missing": score.missing,
        },
        "rule_severity": judgement.rule_severity,
        "rule_severity_possible": judgement.rule_severity_possible,
        "model": None
        if model is None
        else {
            "severity": model.severity,
            "probabilities": [round(value, 6) for value in model.probabilities],
            "version": model.version,
        },
        "model_error": judgement.model_error,
        "severity": judgement.severity,
        "disagreement": judgement.disagreement,
        "missing": list(judgement.missing),
        "stale": list(judgement.stale),
        "artefacts": dict(judgement.artefacts),
        "due": list(judgement.due),
        "next_due_at": None if judgement.next_due_at is None else _iso(judgement.next_due_at),
        "ages": judgement.ages,
        "signs": signs_of(judgement.snapshot),
        "deterioration": _forecast_object(forecast),
    }


def as_text(judgement: Judgement, forecast: Forecast | None = None) -> str:
    """The assessment as one line to read; a range stays a range."""
    score, model = judgement.news2, judgement.model
    total = f"{score.total}" if score.total is not None else f"{score.low}-{score.high}"
    rule = CLASSES[judgement.rule_severity]
    if judgement.rule_severity_possible != judgement.rule_severity:
        rule += f" (possibly {CLASSES[judgement.rule_severity_possible]})"
    view = "none" if model is None else f"{CLASSES[model.severity]} {model.probabilities[model.severity]:.2f}"
    points = " ".join(f"{field}={value}" for field, value in score.points.items() if value) or "no points"
    text = f"{_iso(judgement.at)}  NEWS2 {total:<5}  rule {rule}  model {view}"
    if model is not None:
        text += "  DISAGREE" if judgement.disagreement else "  agree"
    text += f"  [{points}]"
    for word, fields in (("missing", judgement.missing), ("stale", judgement.stale)):
        if fields:
            text += f"  {word}: {', '.join(fields)}"
    if judgement.artefacts:
        flagged = (f"{field} ({kind.replace('_', ' ')})" for field, kind in judgement.artefacts.items())
        text += f"  not scored: {', '.join(flagged)}"
    return text + _forecast_text(forecast)


def _forecast_object(forecast: Forecast | None) -> dict[str, Any] | None:
    if forecast is None:
        return None
    return {
        "asked_at": _iso(forecast.asked_at),
        "horizon_h": HORIZON_HOURS,
        "version": forecast.version,
        "probability": None if forecast.probability is None else round(forecast.probability, 6),
        "possible": list(forecast.possible),
        "calibration": forecast.calibration,
        "reason": forecast.reason,
    }


def _forecast_text(forecast: Forecast | None) -> str:
    if forecast is None:
        return ""
    asked = f"  7+ within {HORIZON_HOURS} h of {forecast.asked_at.astimezone(UTC):%H:%M}"
    if forecast.probability is None:
        return f"{asked}: not asked, {forecast.reason}"
    fitted = "uncalibrated" if forecast.calibration == "none" else forecast.calibration
    possible = ", ".join(forecast.possible) or "unlike any hour before"
    return f"{asked}: {forecast.probability:.2f} ({fitted}; possible: {possible})"


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
