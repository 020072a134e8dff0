"""Fuzzes everything that reads what comes from outside, and keeps each input that breaks a promise.

A target is one decoder with the property that it must keep for any bytes (samd_scripts.fuzzing). Each runs in
a process of its own under atheris, guided by coverage; where atheris cannot be installed (it has wheels for
x86-64 alone), hypothesis draws the inputs. Two run at a time. Interesting inputs are kept in .samd/fuzz and
begun from the next time.

Exit code 0: nothing was found; 1: an input that breaks a target is kept; 2: the call itself is wrong.
"""

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from samd_scripts.fuzzing.engines import has_atheris
from samd_scripts.fuzzing.target import ROOT, load, names

PROCESSES: Final = 2
GRACE_SECONDS: Final = 60.0
"""What a target may take beyond its share: to import, to run its seeds, to shrink what it found."""

_COVERAGE: Final = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")
_KEPT: Final = re.compile(r"Test unit written to (.+)$", re.MULTILINE)
_RUNS: Final = re.compile(r"stat::number_of_executed_units: (\d+)")
_EXCEPTION: Final = re.compile(r"^(?:\w+\.)*(?:Wrong|[A-Z]\w*(?:Error|Exception)): .*$", re.MULTILINE)


@dataclass(kw_only=True)
class Outcome:
    """What came of one target. Coverage counts edges of the instrumented code; None without atheris."""

    target: str
    runs: int
    seconds: float
    corpus: int | None
    coverage: int | None
    features: int | None
    crashes: list[str] = field(default_factory=list)
    error: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; results go to standard output, progress to the error output."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all; see --list")
    parser.add_argument("--seconds", type=float, default=300.0, help="for all targets together (default 300)")
    parser.add_argument("--seed", type=int, help="of the mutator; default: another one each time")
    parser.add_argument("--list", action="store_true", help="name the targets and end")
    parser.add_argument("--json", action="store_true", help="results as JSON")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one kept input through its TARGET")
    parser.add_argument("--engine", choices=("atheris", "hypothesis"), help="default: atheris if it is here")
    parser.add_argument("--folder", type=Path, default=ROOT / ".samd" / "fuzz", help="default .samd/fuzz")
    parser.add_argument(
        "--target-module", type=Path, metavar="FILE", help="targets from a Python file (TARGETS)"
    )
    args = parser.parse_args(argv)
    if args.target_module is not None and not args.target_module.is_file():
        parser.error(f"no file {args.target_module}")
    targets = names(args.target_module)
    unknown = [name for name in args.targets if name not in targets]
    if unknown:
        parser.error(f"no target {unknown[0]!r}; choose from: {', '.join(targets)}")
    if args.list:
        for target in load(args.target_module).values():
            print(f"{target.name:<20} {target.about}")
        return 0
    if args.replay is not None:
        if len(args.targets) != 1:
            parser.error("name the one target that --replay is for")
        if not args.replay.is_file():
            parser.error(f"no file {args.replay}")
        return _replay(args.targets[0], args)
    if not args.seconds > 0:
        parser.error("--seconds is above 0")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if args.engine is None:
        args.engine = "atheris" if has_atheris() else "hypothesis"
        if args.engine == "hypothesis":
            console.print("atheris is not installed here (x86-64 only): hypothesis draws the inputs instead")
    elif args.engine == "atheris" and not has_atheris():
        parser.error("atheris is not installed here; leave --engine out, and hypothesis draws the inputs")
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(1, 2**31)
    outcomes = _fuzz(args.targets or targets, args, console)
    found = [outcome for outcome in outcomes if outcome.crashes or outcome.error]
    if args.json:
        print(
            json.dumps(
                {"seed": args.seed, "engine": args.engine, "targets": [asdict(o) for o in outcomes]}, indent=2
            )
        )
    else:
        _show(outcomes)
    for outcome in found:
        for crash in outcome.crashes:
            console.print(f"{outcome.target}: {outcome.error}", style="red", markup=False)
            console.print(f"  kept: {crash}", markup=False)
            module = f" --target-module {args.target_module}" if args.target_module else ""
            console.print(f"  replay: scripts/fuzz {outcome.target}{module} --replay {crash}", markup=False)
        if not outcome.crashes:
            console.print(f"{outcome.target}: {outcome.error}", style="red", markup=False)
    return 1 if found else 0


def _fuzz(names: list[str], args: argparse.Namespace, console: Console) -> list[Outcome]:
    workers = min(PROCESSES, len(names), len(os.sched_getaffinity(0)))
    share = args.seconds * workers / len(names)
    console.print(
        f"{len(names)} targets, {share:.0f} s each, {workers} at a time; {args.engine}, seed {args.seed}"
    )
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(workers) as pool:
        for outcome in pool.map(lambda name: _one(name, share, args), names):
            outcomes.append(outcome)
            coverage = f", coverage {outcome.coverage}, features {outcome.features}"
            console.print(
                f"{outcome.target}: {outcome.runs} runs{coverage if outcome.coverage else ''}: "
                f"{outcome.error or 'clean'}",
                markup=False,
            )
    return outcomes


def _one(name: str, seconds: float, args: argparse.Namespace) -> Outcome:
    """Run one target to its end; its log is kept beside its corpus."""
    folder = args.folder.resolve()
    corpus, crashes = folder / "corpus" / name, folder / "crashes" / name
    for path in (corpus, crashes):
        path.mkdir(parents=True, exist_ok=True)
    command = [*_child(name, args.engine, args), "--corpus", str(corpus), "--crashes", str(crashes)]
    command += ["--seconds", str(seconds), "--seed", str(args.seed)]
    began = time.monotonic()
    ended: int | None = None
    log = folder / f"{name}.log"
    with log.open("wb") as output, contextlib.suppress(subprocess.TimeoutExpired):
        ended = subprocess.run(
            command,
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=seconds + GRACE_SECONDS,
            cwd=ROOT,
        ).returncode
    took = time.monotonic() - began
    said = log.read_text("utf-8", "replace")
    found = sorted(set(_KEPT.findall(said)))
    error = None
    if ended is None:
        error = f"did not end within {seconds + GRACE_SECONDS:.0f} s; see {log}"
    elif ended != 0 or found:
        causes = _EXCEPTION.findall(said)
        error = causes[-1][:300] if causes else f"ended with code {ended}; see {log}"
    coverage = _COVERAGE.findall(said)
    cov, features, corpus_size = (int(number) for number in coverage[-1]) if coverage else (None, None, None)
    runs = _RUNS.findall(said)
    return Outcome(
        target=name,
        runs=int(runs[-1]) if runs else 0,
        seconds=round(took, 1),
        corpus=corpus_size,
        coverage=cov,
        features=features,
        crashes=found,
        error=error,
    )


def _child(name: str, engine: str, args: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "samd_scripts.fuzzing.engines", name, engine]
    return command + (["--module", str(args.target_module.resolve())] if args.target_module else [])


def _replay(name: str, args: argparse.Namespace) -> int:
    command = [*_child(name, "replay", args), "--file", str(args.replay.resolve())]
    ended = subprocess.run(command, check=False, cwd=ROOT).returncode
    print(f"{name}: {args.replay} {'breaks it' if ended else 'is handled as it must be'}")
    return 1 if ended else 0


def _show(outcomes: list[Outcome]) -> None:
    table = Table()
    table.add_column("target")
    for title in ("runs", "seconds", "corpus", "coverage", "features", "crashes"):
        table.add_column(title, justify="right")
    for outcome in outcomes:
        numbers = (outcome.runs, outcome.seconds, outcome.corpus, outcome.coverage, outcome.features)
        cells = ["-" if number is None else f"{number:,}" for number in numbers]
        table.add_row(outcome.target, *cells, str(len(outcome.crashes)))
    table.add_section()
    runs, crashes = sum(o.runs for o in outcomes), sum(len(o.crashes) for o in outcomes)
    table.add_row("all", f"{runs:,}", "", "", "", "", str(crashes))
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
