"""The command ``samd-data``: score readings, and list, describe, convert and make up recordings.

Exit codes: 0 done (rejected values are told, not fatal), 2 the input cannot be used (one line on stderr says
what, where and what to do), 130 interrupted.
"""

import argparse
import io
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import msgspec
import numpy as np

from samd_data import __version__
from samd_data.errors import DataError
from samd_data.news2 import Score, score
from samd_data.plausibility import Rejection
from samd_data.reading import COLUMNS, Reading
from samd_data.severity import CLASSES, labels
from samd_data.table import read_rows

_SHOWN_REJECTIONS = 10


class Scored(msgspec.Struct, frozen=True):
    """One line of ``samd-data score``: the score of the reading at ``observed_at``, keys as in ``Score``."""

    observed_at: str
    total: int | None
    low: int
    high: int
    band: str
    band_high: str
    points: dict[str, int]
    missing: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without ° must not end in a traceback
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said what is wrong, or shown the help
        return int(stop.code or 0)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has enough. Python would complain once more when it closes stdout.
        _discard_stdout()
        return 0
    except KeyboardInterrupt:
        return 130
    except DataError as error:
        return _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}; check the path and its permissions")
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"samd-data: {message}; see '{self.prog} --help'\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="samd-data",
        description="Vital signs: NEWS2 scores, open data sets, recordings.",
        epilog=(
            "examples:\n"
            "  samd-data score ward.csv\n"
            "  samd-data synthetic --patients 10 --hours 72 --seed 1 --out recordings\n"
            "  samd-data convert clif-demo --out recordings --patients 20\n"
            "  samd-data describe recordings"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"samd-data {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _command(
        commands, "datasets", "list the data sets that can be read, and how to get each", _datasets
    )
    command.add_argument("--json", action="store_true", help="as one JSON array")

    command = _command(
        commands,
        "score",
        "NEWS2 of each reading, one JSON object a line",
        _score,
        description="Reads CSV with a header line, or JSON lines; '-' is stdin, answered line by line.\n"
        "Columns: observed_at (ISO 8601 with zone), heart_rate, respiratory_rate (per minute), spo2 (%),\n"
        "systolic_bp, diastolic_bp (mmHg), temperature (°C), supplemental_oxygen (true, false),\n"
        "consciousness (A C V P U). What is missing makes the score a range from low to high.",
        example="samd-data score ward.csv\n  sensor | samd-data score - --spo2-scale 2 --rejects rejects.txt",
    )
    command.add_argument("file", metavar="FILE", help="a .csv or .jsonl file, or - for standard input")
    command.add_argument(
        "--format",
        choices=("csv", "jsonl"),
        help="what the file is, when its name or first line does not tell",
    )
    command.add_argument(
        "--spo2-scale",
        type=int,
        choices=(1, 2),
        default=1,
        help="2 by prescription only, for hypercapnic respiratory failure (default: 1)",
    )
    command.add_argument(
        "--version",
        dest="score_version",
        choices=("news2", "news"),
        default="news2",
        help="news2 of 2017, or news of 2012 (default: news2)",
    )
    command.add_argument(
        "--rejects", metavar="FILE", type=Path, help="write every rejected value there, one a line"
    )

    command = _command(
        commands,
        "synthetic",
        "make up recordings with deteriorating patients",
        _synthetic,
        example="samd-data synthetic --patients 10 --hours 72 --seed 1 --out recordings",
    )
    command.add_argument("--patients", type=_positive, default=10, metavar="N", help="how many (default: 10)")
    command.add_argument("--hours", type=_positive, default=72, metavar="N", help="hours each (default: 72)")
    command.add_argument(
        "--seed", type=_whole, default=1, metavar="N", help="same seed, same data (default: 1)"
    )
    _add_out(command)

    command = _command(
        commands,
        "convert",
        "write a data set as a folder of PATIENT.csv, which a device can replay",
        _convert,
        example="samd-data convert clif-demo --out recordings --patients 20",
    )
    command.add_argument(
        "path", metavar="PATH", help="the folder of a data set, or clif-demo, which is fetched"
    )
    command.add_argument(
        "--patients",
        type=_positive,
        metavar="N",
        help="only the N patients with the most readings (default: all)",
    )
    _add_out(command)

    command = _command(
        commands,
        "describe",
        "count a data set: patients, readings, what is missing, severity",
        _describe,
        description="Severity and completeness are those of stay-hours: the last value of the hour, carried\n"
        "forward for 3 hours (temperature, oxygen and consciousness 12).",
        example="samd-data describe recordings",
    )
    command.add_argument("path", metavar="PATH", help="a folder, a .csv or .jsonl file, or clif-demo")
    command.add_argument("--json", action="store_true", help="as one JSON object")
    return parser


def _command(
    commands: Any, name: str, summary: str, run: Any, *, description: str = "", example: str = ""
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{description}".strip(),
        epilog=f"example:\n  {example or f'samd-data {name}'}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder to write PATIENT.csv into"
    )
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000000")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


# --- the commands ------------------------------------------------------------------------------------------


def _datasets(arguments: argparse.Namespace) -> int:
    from samd_data.datasets import catalog

    if arguments.json:
        print(msgspec.json.encode(catalog()).decode())
        return 0
    for entry in catalog():
        print(f"{entry.name}\n  {entry.what}\n  where:   {entry.where}\n  licence: {entry.licence}")
        print(f"  use:     {entry.command}\n")
    return 0


def _score(arguments: argparse.Namespace) -> int:
    if arguments.score_version == "news" and arguments.spo2_scale == 2:
        raise DataError("--version news: the score of 2012 has no SpO2 scale 2; leave out one of the two")
    useful = 0
    teller = _Teller(arguments.rejects)
    with _opened(arguments.file) as (stream, name), _written(arguments.rejects) as rejects:
        for item in read_rows(stream, name, format=arguments.format):
            if isinstance(item, Rejection):
                teller.add(item)
                if rejects is not None:
                    print(item.line(), file=rejects, flush=True)
                continue
            result = score(item, spo2_scale=arguments.spo2_scale, version=arguments.score_version)
            print(msgspec.json.encode(_scored(item, result)).decode(), flush=True)
            useful += bool(item.present())
            if useful:
                teller.tell()
    if not useful:
        raise DataError(f"{name}: no reading could be used{_first_of(teller.waiting)}")
    teller.close()
    return 0


def _scored(reading: Reading, result: Score) -> Scored:
    return Scored(
        observed_at=reading.observed_at.isoformat().replace("+00:00", "Z"),
        **{field: getattr(result, field) for field in result.__struct_fields__},
    )


def _synthetic(arguments: argparse.Namespace) -> int:
    from samd_data.datasets.recordings import write_recordings
    from samd_data.synthetic import generate

    recordings = generate(arguments.patients, arguments.hours, arguments.seed)
    written = write_recordings(arguments.out, recordings, replace=arguments.force)
    print(f"{arguments.out}: {_many(len(written), 'recording')} of {_many(arguments.hours, 'hour')}, made up")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from samd_data.datasets import open_dataset
    from samd_data.datasets.recordings import write_recordings

    dataset = open_dataset(arguments.path)
    patients = dataset.patients()[: arguments.patients]
    if not patients:
        raise DataError(f"{dataset.path}: no reading could be used{_first_of(dataset.rejections)}")
    recordings = (dataset.recording(patient) for patient in patients)
    written = write_recordings(arguments.out, recordings, replace=arguments.force)
    teller = _Teller()
    for rejection in dataset.rejections:
        teller.add(rejection)
    teller.close()
    print(f"{arguments.out}: {_many(len(written), 'recording')} from {dataset.kind}")
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from samd_data.datasets import open_dataset

    dataset = open_dataset(arguments.path)
    patients = dataset.patients()
    if not patients:
        raise DataError(f"{dataset.path}: no reading could be used{_first_of(dataset.rejections)}")
    readings = 0
    present: Counter[str] = Counter()
    tables = []
    for patient in patients:
        recording = dataset.recording(patient)
        readings += len(recording.readings)
        for reading in recording.readings:
            present.update(reading.present())
        tables += [table.values for table in dataset.hourly_tables(patient)]
    values = np.concatenate(tables)
    classes = {}
    for setting in ("five", "all"):
        known = labels(values, setting)
        counts = np.bincount(known[known >= 0], minlength=len(CLASSES))
        classes[setting] = {name: int(count) for name, count in zip(CLASSES, counts, strict=True)}
    description: dict[str, Any] = {
        "kind": dataset.kind,
        "patients": len(patients),
        "readings": readings,
        "readings_with": {field: present[field] for field in COLUMNS},
        "hours": len(values),
        "hours_with": {
            field: int(n) for field, n in zip(COLUMNS, (~np.isnan(values)).sum(axis=0), strict=True)
        },
        "severity_of_five_signs": classes["five"],
        "severity_of_all_inputs": classes["all"],
        "rejected": dict(Counter(item.column or "line" for item in dataset.rejections)),
    }
    if arguments.json:
        print(msgspec.json.encode(description).decode())
    else:
        _print_description(description)
    return 0


def _print_description(description: dict[str, Any]) -> None:
    readings, hours = description["readings"], description["hours"]
    patients = _many(description["patients"], "patient")
    print(f"{description['kind']}: {patients}, {_many(readings, 'reading')}, {_many(hours, 'stay-hour')}")
    print(f"\n{'missing':<22}{'of readings':>12}{'of hours':>12}")
    for field in COLUMNS:
        of_readings = 1 - description["readings_with"][field] / max(readings, 1)
        of_hours = 1 - description["hours_with"][field] / max(hours, 1)
        print(f"{field:<22}{of_readings:>11.1%} {of_hours:>11.1%} ")
    for title, key in (
        ("five signs", "severity_of_five_signs"),
        ("all seven inputs", "severity_of_all_inputs"),
    ):
        classes = description[key]
        total = sum(classes.values())
        print(f"\nseverity by {title}: {total} complete hours")
        if total:
            print(
                "  " + "   ".join(f"{name} {count} ({count / total:.1%})" for name, count in classes.items())
            )
    rejected = description["rejected"]
    if rejected:
        print(f"\nrejected: {_by_column(rejected)}")


# --- input, output, messages -------------------------------------------------------------------------------


@contextmanager
def _opened(file: str) -> Iterator[tuple[TextIO, str]]:
    """The text of a file, or of standard input for "-"; a byte that is not UTF-8 only spoils its cell."""
    if file == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")
        yield sys.stdin, "stdin"
        return
    path = Path(file)
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; name a file, or use 'samd-data describe {path}'")
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check the name")
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        yield stream, file


@contextmanager
def _written(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    with path.open("w", encoding="utf-8") as stream:
        yield stream


class _Teller:
    """Tells rejections on stderr: the first ones as they come, in the end how many there were.

    They wait until one reading was of use: when none is, one line says so instead.
    """

    def __init__(self, also_in: Path | None = None) -> None:
        self.waiting: list[Rejection] = []
        self._also_in = also_in
        self._told = 0
        self._counts: Counter[str] = Counter()

    def add(self, rejection: Rejection) -> None:
        self._counts[rejection.column or "line"] += 1
        if self._told + len(self.waiting) < _SHOWN_REJECTIONS:
            self.waiting.append(rejection)

    def tell(self) -> None:
        for rejection in self.waiting:
            print(rejection.line(), file=sys.stderr, flush=True)
        self._told += len(self.waiting)
        self.waiting.clear()

    def close(self) -> None:
        self.tell()
        number = self._counts.total()
        if number:
            first = f", the first {self._told} above" if number > self._told else ""
            where = f", all in {self._also_in}" if self._also_in else ""
            summary = f"rejected {_many(number, 'value')}{first}{where}: {_by_column(self._counts)}"
            print(f"samd-data: {summary}", file=sys.stderr)


def _by_column(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{column} {count}" for column, count in ordered)


def _first_of(rejections: Sequence[Rejection]) -> str:
    if not rejections:
        return ": there is no row below the header; give at least one"
    return f"; the first is: {rejections[0].line()}"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _fail(message: str) -> int:
    print(f"samd-data: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _discard_stdout() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass  # stdout is no real file, as in a test
    finally:
        os.close(null)


if __name__ == "__main__":
    sys.exit(main())
