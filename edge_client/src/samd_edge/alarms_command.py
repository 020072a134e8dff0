"""``samd-edge alarms``: what alert policies would have done to recordings, before one goes live."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from samd_data.errors import DataError
from samd_data.plausibility import printable
from samd_data.reading import Recording
from samd_edge.alarms import Item, Tally, judge, stays
from samd_edge.alarms_report import Candidate, as_object, as_table, figures_of
from samd_edge.alerts import Policy
from samd_edge.artefacts import ArtefactPolicy
from samd_edge.sources import scenarios
from samd_edge.sources.extract_many import Recordings

_DESCRIPTION = """\
Play recordings through the assessor and the alerts at full speed, and count what each policy would have done.

Every recording is judged as the device judges it live: each sign with its own age, artefacts flagged, alerts
on the certain end of NEWS2, hysteresis, dwell and refractory times in the patient's time. The model takes no
part: alerts act on the rule.
"""

_EPILOG = """\
A policy file is TOML with a table [alerts] (and [artefacts] if wanted); the agent's configuration is one:

  [alerts]
  raise_at = "high"
  min_dwell_s = 1800

examples:
  samd-edge alarms --replay recordings
  samd-edge alarms --replay recordings --policy quiet.toml --policy strict.toml
  samd-edge alarms --scenario sepsis --json

A stay is a run of readings without a pause of more than 12 hours; patient-days are from its first reading to
its last. exit codes: 0 done, 2 an input that cannot be used.
"""

_PROGRESS_S: Final = 2.0
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "alarms",
        help="what alert policies would have done to recordings",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--replay", type=Path, metavar="PATH", help="a data set, a folder of recordings, or one file"
    )
    what.add_argument("--scenario", metavar="NAME", help=f"invented: {', '.join(scenarios.SCENARIOS)}")
    parser.add_argument(
        "--patient", nargs="+", action="extend", default=[], metavar="N", help="only these patients"
    )
    parser.add_argument(
        "--policy",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a policy to set beside the default one; may be repeated",
    )
    parser.add_argument(
        "--spo2-scale", type=int, choices=(1, 2), default=1, help="NEWS2 SpO2 scale (default 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the scenario (default 0)")
    parser.add_argument("--hours", type=float, default=24.0, help="of the scenario (default 24)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Play, count, print; the exit code."""
    try:
        candidates = [
            Candidate("default", Policy(), ArtefactPolicy()),
            *(load_policy(file) for file in arguments.policy),
        ]
        with _patients(arguments) as (total, patients):
            tallies = count_all(patients, candidates, arguments.spo2_scale, done=_Progress(total))
    except DataError as error:
        print(f"samd-edge alarms: {error}", file=sys.stderr)
        return 2
    figures = [figures_of(candidate, tally) for candidate, tally in zip(candidates, tallies, strict=True)]
    if arguments.json:
        print(json.dumps(as_object(figures, tallies[0], arguments.spo2_scale), indent=2))
    else:
        print("\n".join(as_table(figures, tallies[0], arguments.spo2_scale)))
    return 0


def load_policy(file: Path) -> Candidate:
    """A policy from the tables [alerts] and [artefacts] of a file. Raises DataError."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(printable(f"{file}: is no TOML ({error})")) from error
    if "alerts" not in content:
        raise DataError(f"{file}: has no table [alerts]; write [alerts] and, below it, min_dwell_s = 600")
    try:
        policy = msgspec.convert(content["alerts"], Policy)
    except msgspec.ValidationError as error:
        raise DataError(printable(f"{file}: [alerts]: {error}")) from error
    try:
        artefacts = msgspec.convert(content.get("artefacts", {}), ArtefactPolicy)
    except msgspec.ValidationError as error:
        raise DataError(printable(f"{file}: [artefacts]: {error}")) from error
    return Candidate(file.stem, policy, artefacts)


@contextmanager
def _patients(arguments: argparse.Namespace) -> Iterator[tuple[int, Iterator[list[list[Item]]]]]:
    """How many patients were asked for, and the stays of each. Raises DataError."""
    if arguments.scenario is None:
        with Recordings(arguments.replay, arguments.patient) as recordings:
            yield recordings.patients, (_stays_of(recording) for recording in recordings)
        return
    if arguments.patient:
        raise DataError("--patient belongs to --replay; a scenario has one patient")
    if not (0 < arguments.hours <= 8760 and arguments.seed >= 0):
        raise DataError("--hours is above 0 and at most 8760, and --seed is 0 or more")
    items = scenarios.timeline(arguments.scenario, seed=arguments.seed, start=_START, hours=arguments.hours)
    yield 1, iter([list(stays(items))])


def _stays_of(recording: Recording) -> list[list[Item]]:
    return list(stays((reading.observed_at, reading) for reading in recording.readings))


def count_all(
    patients: Iterable[list[list[Item]]],
    candidates: Sequence[Candidate],
    spo2_scale: Literal[1, 2],
    *,
    done: Callable[[int], None] = lambda _count: None,
) -> list[Tally]:
    """One tally per policy, in their order. ``done`` hears after each patient how many there were."""
    tallies = [Tally() for _ in candidates]
    screens = list(dict.fromkeys(candidate.artefacts for candidate in candidates))
    for count, patient in enumerate(patients, start=1):
        for screen in screens:  # what is seen does not depend on the policy
            seen = [judge(stay, spo2_scale=spo2_scale, artefacts=screen) for stay in patient]
            for candidate, tally in zip(candidates, tallies, strict=True):
                if candidate.artefacts == screen:
                    tally.add_patient(seen, candidate.policy)
        done(count)
    return tallies


class _Progress:
    """A line on standard error each two seconds, for what takes longer."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._said = time.monotonic()

    def __call__(self, count: int) -> None:
        if count < self._total and time.monotonic() - self._said >= _PROGRESS_S:
            self._said = time.monotonic()
            print(f"samd-edge alarms: {count} of {self._total} patients", file=sys.stderr)
