"""``samd-edge infer``: readings in, one assessment a line out. No broker, no server, nothing stored."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import asyncio
import contextlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TextIO, cast

from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import Reading, without
from samd_data.tasks import DETERIORATION
from samd_edge.assessment import TRAINED_SCALE, Assessor, Judgement, Model, ModelRefused, load_model
from samd_edge.clock import Clock, WallClock
from samd_edge.extras import install
from samd_edge.forecast import OTHER_SCALE, Following, Forecast
from samd_edge.infer_out import Told, as_object, as_reject, as_text, write_line
from samd_edge.intake import ahead
from samd_edge.readings import measured_at
from samd_edge.retraction import Retraction
from samd_edge.runtime import RuntimeUnavailable
from samd_edge.sources import Item, SourceURL, parse
from samd_edge.sources.several import open_sources
from samd_edge.sources.surroundings import Surroundings
from samd_protocol import bundle as bundles
from samd_protocol.errors import BundleError

_DESCRIPTION = """\
Assess readings: NEWS2 with its points, and the model's severity beside it, one line a reading. Without a
model, the rule alone.

A reading of a file, a pipe or a recording is judged at its own time, with the values before it that are
still valid; one of a live source (a monitor, a listener, a server that is polled) when it comes. All readings
are of one patient; several patients are several calls.
"""

_EPILOG = """\
sources:
  -                              CSV or JSON lines on standard input
  csv:FILE[?follow=1]            a file of CSV or JSON lines; one that grows
  replay:PATH?patient=N          a recording
  mqtt:TOPIC                     a monitor that publishes JSON
  hl7:PORT                       HL7 v2 ORU^R01 over MLLP
  fhir:PORT                      FHIR R4 Observations and Bundles by POST
  fhir+poll:URL?patient=ID       a FHIR R4 server, asked again and again
  ble:                           Bluetooth LE sensors
  sim:?scenario=sepsis           an invented patient

examples:
  samd-edge infer --model model.samd --source csv:bed-01.csv
  tail -f readings.jsonl | samd-edge infer --model model.samd --source - --json
  samd-edge infer --source hl7:2575 --source fhir:8080
  samd-edge infer --source csv:bed-01.csv --out fhir --subject Patient/17

--out fhir writes one FHIR R4 Bundle a line: an Observation with the score (a range while inputs are missing),
and a RiskAssessment with the model's probabilities in percent where there is a model's view.

exit codes: 0 done, 2 an input that cannot be used or an output that cannot be written, 130 ended by Ctrl-C.
Rejected values and rows do not end it: they are counted on stderr at the end, also after Ctrl-C, and listed
with --rejects. Of a pipe or a live source the first of each sort is also told on stderr as it comes.
"""


_REMEMBERED: Final = 1000  # values that were taken back, should they be sent again


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "infer",
        help="assess readings from files, pipes and live sources; no broker, no server",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="the model, NAME.samd (default: the rule alone)"
    )
    parser.add_argument(
        "--deterioration",
        type=Path,
        metavar="FILE",
        help="a second model, asked at each full hour: does the score reach 7 within six hours?",
    )
    parser.add_argument(
        "--source",
        required=True,
        action="append",
        metavar="URL",
        help="where the readings come from, see below; live sources may be several",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--out",
        choices=("text", "json", "fhir"),
        default="text",
        help="what is written (default %(default)s)",
    )
    form.add_argument("--json", action="store_const", const="json", dest="out", help="the same as --out json")
    parser.add_argument(
        "--subject",
        metavar="REF",
        help="with --out fhir: the patient, as Patient/ID, or SYSTEM|VALUE for an identifier",
    )
    parser.add_argument(
        "--score-code",
        metavar="SYSTEM|CODE",
        help="with --out fhir: a further code of the score, besides SNOMED CT 1104051000000101",
    )
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
    """Assess until the sources end; the exit code."""
    try:
        model = name = None
        if arguments.model is not None:
            bundle = bundles.read(arguments.model)
            model, name = load_model(bundle, allow_untrained=arguments.allow_untrained), bundle.manifest.name
        following = _following(arguments)
        write = writer(arguments, name)
        urls = [parse(text) for text in arguments.source]
        with _rejects_file(arguments.rejects) as rejects:
            return asyncio.run(
                _assess_all(arguments, model, urls, write, following=following, rejects=rejects)
            )
    except (BundleError, DataError, ModelRefused, RuntimeUnavailable) as error:
        hint = "" if not isinstance(error, ModelRefused) or arguments.allow_untrained else _hint(error)
        print(f"samd-edge infer: {error}{hint}", file=sys.stderr)
        return 2


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
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); make room") from error


def _following(arguments: argparse.Namespace) -> Following | None:
    if arguments.deterioration is None:
        return None
    if arguments.spo2_scale != TRAINED_SCALE:
        raise ModelRefused(f"--deterioration: {OTHER_SCALE}; leave it out")
    if arguments.out == "fhir":
        raise ModelRefused("--deterioration: is not written as FHIR; take --out json, or leave it out")
    bundle = bundles.read(arguments.deterioration)
    model = load_model(bundle, allow_untrained=arguments.allow_untrained, task=DETERIORATION)
    return Following(model)


Write = Callable[[Reading, Judgement, Forecast | None], str]


def writer(arguments: argparse.Namespace, model_name: str | None) -> Write:
    """What makes a line of an assessment. Raises DataError for options that do not fit."""
    if arguments.out != "fhir":
        for option, value in (("--subject", arguments.subject), ("--score-code", arguments.score_code)):
            if value is not None:
                raise DataError(f"{option}: belongs to --out fhir; give that too, or leave it out")
    if arguments.out == "text":
        return lambda _reading, judgement, forecast: as_text(judgement, forecast)
    if arguments.out == "json":
        return lambda reading, judgement, forecast: json.dumps(as_object(reading, judgement, forecast))
    from samd_edge.fhir_out import FhirWriter, coding_of, subject_of

    if find_spec("fhir") is None:
        raise DataError(f"--out fhir: fhir.resources is missing; {install('fhir')}")
    to_fhir = FhirWriter(
        subject=None if arguments.subject is None else subject_of(arguments.subject),
        further_code=None if arguments.score_code is None else coding_of(arguments.score_code),
        spo2_scale=arguments.spo2_scale,
        model_name=model_name,
    )
    return lambda _reading, judgement, _forecast: to_fhir.line(judgement)


async def _assess_all(
    arguments: argparse.Namespace,
    model: Model | None,
    urls: Sequence[SourceURL],
    write: Write,
    *,
    following: Following | None,
    rejects: TextIO | None,
) -> int:
    sources = open_sources(urls, Surroundings())
    names = ", ".join(url.text.partition("?")[0] for url in urls)
    live = isinstance(sources.clock, WallClock) and any(url.kind != "stdin" for url in urls)
    if live:
        print(f"samd-edge infer: waiting for readings of {names}; Ctrl-C ends it", file=sys.stderr)
    assessor = Assessor(spo2_scale=arguments.spo2_scale, model=model)
    run = Run(assessor, sources.clock, live=live, following=following)
    told = Told()
    try:
        for past in sources.history():
            run.remember(past)
        async for item in sources:
            for found in run.take(item):
                if not isinstance(found, Rejection):
                    write_line(write(*found, run.forecast), sys.stdout, "standard output")
                    continue
                if isinstance(sources.clock, WallClock) and told.first(found):
                    print(f"samd-edge infer: rejected: {found.line()}", file=sys.stderr, flush=True)
                if rejects is not None:
                    line = json.dumps(as_reject(found), ensure_ascii=False)
                    write_line(line, rejects, str(arguments.rejects), flush=live)
    except asyncio.CancelledError:  # Ctrl-C, the ordinary end of a live source
        print(f"samd-edge infer: ended; {run.summary(arguments.rejects)}", file=sys.stderr)
        raise
    finally:
        await sources.aclose()
    print(run.summary(arguments.rejects), file=sys.stderr)
    if not run.readings:
        print(f"samd-edge infer: {names}: held no reading that can be used", file=sys.stderr)
    return 0 if run.readings and not any(status.error for status in sources.status) else 2


class Run:
    """The assessments of one call. ``live``: readings are judged when they come, not at their own time."""

    def __init__(
        self, assessor: Assessor, clock: Clock, *, live: bool, following: Following | None = None
    ) -> None:
        self.assessor = assessor
        self.forecast: Forecast | None = None
        self._following = following
        self.readings = 0
        self._clock = clock
        self._live = live
        self._rejected = self._disagreeing = self._failing = 0
        self._flags: dict[str, Rejection] = {}
        self._newest: datetime | None = None
        self._taken_back = 0
        self._struck: deque[tuple[str, datetime, float | bool | str]] = deque(maxlen=_REMEMBERED)

    def remember(self, past: Reading) -> None:
        """A reading from before the source begins: taken over without a judgement."""
        flags = self.assessor.take(past)
        if self._following is not None:
            self._following.take(without(past, flags), past.observed_at)

    def take(self, item: Item) -> Iterator[tuple[Reading, Judgement] | Rejection]:
        """What follows from one item of a source: judgements, each with its reading, or a rejection."""
        if isinstance(item, Retraction):
            yield from self._retract(item)
            return
        late = ahead(item, self._clock) if self._live and isinstance(item, Reading) else None
        if late is not None or isinstance(item, Rejection):
            yield self._reject(late or cast("Rejection", item))
            return
        reading = self._as_corrected(item)
        if reading is None:
            return
        # A row that comes late is taken over, and the patient is judged at the newest time there is.
        self._newest = item.observed_at if self._newest is None else max(self._newest, item.observed_at)
        self._flag(item.observed_at)
        flags = self.assessor.take(reading)
        self.readings += 1
        judgement = self._judged()
        if self._following is not None:
            self.forecast = self._following.take(without(reading, flags), judgement.at)
        yield item, judgement

    def _reject(self, rejection: Rejection) -> Rejection:
        self._rejected += 1
        self._flags[rejection.column] = rejection
        if self._live:
            self._flag(self._clock.now())
        return rejection

    def _judged(self) -> Judgement:
        now = self._clock.now()
        at = max(self._newest or now, now) if self._live or self._newest is None else self._newest
        judgement = self.assessor.assess(at)
        self._disagreeing += judgement.disagreement
        self._failing += judgement.model_error is not None
        return judgement

    def _retract(self, retraction: Retraction) -> Iterator[tuple[Reading, Judgement] | Rejection]:
        """Nothing is stored here, so what was before a value that is taken back is not known any more."""
        at: datetime | None = None
        for one in retraction.values:
            held = self.assessor.latest(one.field)
            said = None if held is None or held[0] != one.measured_at else cast("float | bool | str", held[1])
            if said is not None and retraction.wrong(one, said):
                self.assessor.forget_fields([one.field])
                self._struck.append((one.field, one.measured_at, said))
                self._taken_back += 1
                at = one.measured_at
        if at is not None and self._following is not None:
            self._following.begin_anew()
            self.forecast = None
        for reading in retraction.instead:
            yield from self.take(reading)
        if at is not None and not retraction.instead:
            yield Reading(observed_at=at), self._judged()

    def _as_corrected(self, reading: Reading) -> Reading | None:
        """Without what was taken back: it may be sent again. None where nothing is left."""
        gone = {
            field
            for field, at, value in self._struck
            if measured_at(reading, field) == at and getattr(reading, field) == value
        }
        if not gone:
            return reading
        return without(reading, gone) if gone < set(reading.present()) else None

    def _flag(self, at: datetime) -> None:
        """What is rejected in a file is of the time of the next reading: it has none of its own."""
        for one in self._flags.values():
            self.assessor.flag(one.column, one.kind, f"{one.reason}; {one.remedy}", at)
        self._flags.clear()

    def summary(self, rejects: Path | None) -> str:
        """One line for people: what was read, what was left out."""
        parts = [f"{self.readings} readings"]
        if self.assessor.model is None:
            parts.append("the rule alone, without a model")
        else:
            parts.append(f"{self._disagreeing} with rule and model two classes or more apart")
        if self._failing:
            parts.append(f"{self._failing} without the model's view")
        if self._taken_back:
            parts.append(f"{self._taken_back} values taken back by their source")
        where = f"listed in {rejects}" if rejects else "list them with --rejects FILE"
        parts.append(f"{self._rejected} rejected ({where})" if self._rejected else "none rejected")
        return "; ".join(parts)
