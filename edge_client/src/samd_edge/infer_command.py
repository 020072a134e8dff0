"""``samd-edge infer``: readings in, one assessment a line out. No broker, no server, nothing stored."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from samd_data.deterioration import HORIZON_HOURS
from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import Reading, without
from samd_data.severity import CLASSES
from samd_data.tasks import DETERIORATION
from samd_edge.assessment import (
    TRAINED_SCALE,
    Assessor,
    Judgement,
    Model,
    ModelRefused,
    load_model,
    signs_of,
)
from samd_edge.forecast import OTHER_SCALE, Following, Forecast
from samd_edge.runtime import RuntimeUnavailable
from samd_edge.sources import Source, open_source
from samd_protocol import bundle as bundles
from samd_protocol.errors import BundleError

_DESCRIPTION = """\
Assess readings: NEWS2 with its points, and the model's severity beside it, one line a reading.

Each reading is judged at its own time, with the values before it that are still valid. A patient's readings
belong into one file or pipe; several patients into several.
"""

_EPILOG = """\
examples:
  samd-edge infer --model model.samd --source csv:bed-01.csv
  tail -f readings.jsonl | samd-edge infer --model model.samd --source - --json

exit codes: 0 done, 2 an input that cannot be used. Rejected values and rows do not end it: they are counted
on stderr and listed with --rejects.
"""


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "infer",
        help="assess readings from a file or a pipe; no broker, no server",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, type=Path, metavar="FILE", help="the model, NAME.samd")
    parser.add_argument(
        "--deterioration",
        type=Path,
        metavar="FILE",
        help="a second model, asked at each full hour: does the score reach 7 within six hours?",
    )
    parser.add_argument(
        "--source",
        required=True,
        metavar="URL",
        help="csv:FILE, - (standard input), or replay:PATH?patient=N",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines instead of text")
    parser.add_argument(
        "--allow-untrained",
        action="store_true",
        help="use a model that was never trained: its class is noise",
    )
    parser.add_argument(
        "--spo2-scale",
        type=int,
        choices=(1, 2),
        default=1,
        help="NEWS2 SpO2 scale; 2 by prescription only (default 1)",
    )
    parser.add_argument("--rejects", type=Path, metavar="FILE", help="list rejected values here, JSON lines")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Assess until the source ends; the exit code."""
    try:
        model = load_model(bundles.read(arguments.model), allow_untrained=arguments.allow_untrained)
        following = _following(arguments)
        source = open_source(arguments.source)
        with _rejects_file(arguments.rejects) as rejects:
            return asyncio.run(_assess_all(arguments, model, following, source, rejects))
    except (BundleError, DataError, ModelRefused, RuntimeUnavailable) as error:
        hint = "" if not isinstance(error, ModelRefused) or arguments.allow_untrained else _hint(error)
        print(f"samd-edge infer: {error}{hint}", file=sys.stderr)
        return 2


def _following(arguments: argparse.Namespace) -> Following | None:
    if arguments.deterioration is None:
        return None
    if arguments.spo2_scale != TRAINED_SCALE:
        raise ModelRefused(f"--deterioration: {OTHER_SCALE}; leave it out")
    bundle = bundles.read(arguments.deterioration)
    model = load_model(bundle, allow_untrained=arguments.allow_untrained, task=DETERIORATION)
    return Following(model)


def _hint(error: ModelRefused) -> str:
    return " (--allow-untrained)" if "never trained" in str(error) else ""


@contextlib.contextmanager
def _rejects_file(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another --rejects") from error
    with file:
        yield file


async def _assess_all(
    arguments: argparse.Namespace,
    model: Model,
    following: Following | None,
    source: Source,
    rejects: TextIO | None,
) -> int:
    assessor = Assessor(spo2_scale=arguments.spo2_scale, model=model)
    readings = rejected = disagreeing = failing = 0
    newest: datetime | None = None
    try:
        for past in source.history():
            flags = assessor.take(past)
            if following is not None:
                following.take(without(past, flags), past.observed_at)
        async for item in source:
            if isinstance(item, Rejection):
                rejected += 1
                if rejects is not None:
                    rejects.write(json.dumps(as_reject(item), ensure_ascii=False) + "\n")
                continue
            # A row that comes late is taken over, and the patient is judged at the newest time there is.
            newest = item.observed_at if newest is None else max(newest, item.observed_at)
            flags = assessor.take(item)
            judgement = assessor.assess(newest)
            readings += 1
            disagreeing += judgement.disagreement
            failing += judgement.model_error is not None
            ahead = None if following is None else following.take(without(item, flags), newest)
            print(line(item, judgement, ahead, as_json=arguments.json), flush=True)
    finally:
        await source.aclose()
    print(summary(readings, rejected, disagreeing, failing, arguments.rejects), file=sys.stderr)
    if not readings:
        print(f"samd-edge infer: {arguments.source}: held no reading that can be used", file=sys.stderr)
        return 2
    return 0


def summary(readings: int, rejected: int, disagreeing: int, failing: int, rejects: Path | None) -> str:
    """One line for people: what was read, what was left out."""
    parts = [f"{readings} readings", f"{disagreeing} with rule and model two classes or more apart"]
    if failing:
        parts.append(f"{failing} without the model's view")
    where = f"listed in {rejects}" if rejects else "list them with --rejects FILE"
    parts.append(f"{rejected} rejected ({where})" if rejected else "none rejected")
    return "; ".join(parts)


def as_reject(rejection: Rejection) -> dict[str, Any]:
    """A rejection as JSON: what, where, and what to do."""
    return {name: getattr(rejection, name) for name in rejection.__struct_fields__}


def line(reading: Reading, judgement: Judgement, ahead: Forecast | None = None, *, as_json: bool) -> str:
    """One assessment as a line, for programs or for people."""
    if as_json:
        return json.dumps(as_object(reading, judgement) | {"deterioration": _ahead_object(ahead)})
    return as_text(judgement) + _ahead_text(ahead)


def _ahead_object(ahead: Forecast | None) -> dict[str, Any] | None:
    if ahead is None:
        return None
    return {
        "asked_at": _iso(ahead.asked_at),
        "horizon_h": HORIZON_HOURS,
        "version": ahead.version,
        "probability": None if ahead.probability is None else round(ahead.probability, 6),
        "possible": list(ahead.possible),
        "calibration": ahead.calibration,
        "reason": ahead.reason,
    }


def _ahead_text(ahead: Forecast | None) -> str:
    if ahead is None:
        return ""
    asked = f"  7+ within {HORIZON_HOURS} h of {ahead.asked_at.astimezone(UTC):%H:%M}"
    if ahead.probability is None:
        return f"{asked}: not asked, {ahead.reason}"
    fitted = "uncalibrated" if ahead.calibration == "none" else ahead.calibration
    possible = ", ".join(ahead.possible) or "unlike any hour before"
    return f"{asked}: {ahead.probability:.2f} ({fitted}; possible: {possible})"


def as_object(reading: Reading, judgement: Judgement) -> dict[str, Any]:
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
        "ages": judgement.ages,
        "signs": signs_of(judgement.snapshot),
    }


def as_text(judgement: Judgement) -> str:
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
    return text


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
