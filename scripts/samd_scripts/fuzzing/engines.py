"""One target in a process of its own: under atheris, under hypothesis where there is none, or one input.

``python -m samd_scripts.fuzzing.engines TARGET ENGINE ...``, started by ``scripts/fuzz``, which reads what
libFuzzer writes; the other engine writes the same lines.
"""

import argparse
import hashlib
import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from samd_scripts.fuzzing.target import INSTRUMENTED, Target, load

MEMORY_MB: Final = 2048
"""Address space of the process; an input that makes a decoder ask for more has found a fault."""
RESIDENT_MB: Final = 1024
INPUT_SECONDS: Final = 20
"""Wall time after which libFuzzer calls an input hung; the target itself counts processor time."""


def has_atheris() -> bool:
    """Whether coverage can be had here: there are wheels for x86-64 only."""
    return importlib.util.find_spec("atheris") is not None


def main(argv: Sequence[str] | None = None) -> int:
    """0: nothing was found, else the traceback stands in the error output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("engine", choices=("atheris", "hypothesis", "replay"))
    parser.add_argument("--module", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--crashes", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", type=Path)
    args = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB * 2**20, MEMORY_MB * 2**20))
    if args.engine == "atheris":
        _atheris(args)
        return 0  # libFuzzer ends the process itself
    target = load(args.module, args.target)[args.target]
    if args.engine == "replay":
        target.run(args.file.read_bytes())
        return 0
    return _hypothesis(target, args)


def _atheris(args: argparse.Namespace) -> None:
    import atheris  # type: ignore[import-untyped,unused-ignore]  # not on every machine

    include = [*INSTRUMENTED, *([args.module.stem] if args.module else [])]
    with atheris.instrument_imports(include=include, enable_loader_override=False):
        target = load(args.module, args.target)[args.target]
    with tempfile.TemporaryDirectory(prefix="samd-fuzz-") as folder:
        seeds = Path(folder, "seeds")
        seeds.mkdir()
        for number, data in enumerate(target.corpus()):
            (seeds / f"{number:04}").write_bytes(data)
        words = Path(folder, "words")
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        options = {
            "max_total_time": max(1, round(args.seconds)),
            "seed": args.seed,
            "max_len": target.max_bytes,
            "timeout": INPUT_SECONDS,
            "rss_limit_mb": RESIDENT_MB,
            "artifact_prefix": f"{args.crashes}/",
            "print_final_stats": 1,
            "reload": 0,
        }
        argv = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items())]
        argv += [f"-dict={words}"] if target.words else []
        atheris.Setup([*argv, str(args.corpus), str(seeds)], _Watched(target, args.crashes))
        atheris.Fuzz()


class _Watched:
    """Runs a target, and keeps the input that breaks it, under the name that libFuzzer gives it.

    libFuzzer keeps it too, but only in an exit handler of the process, and not every process comes so far."""

    def __init__(self, target: Target, crashes: Path) -> None:
        self._target = target
        self._crashes = crashes
        self._runs = 0

    def __call__(self, data: bytes) -> None:
        self._runs += 1
        try:
            self._target.run(data)
        except BaseException:
            _keep(data, self._crashes, self._runs)
            raise


def _keep(data: bytes, crashes: Path, runs: int) -> None:
    crash = crashes / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"
    crash.write_bytes(data)
    sys.stderr.write(f"Test unit written to {crash}\nstat::number_of_executed_units: {runs}\n")
    sys.stderr.flush()


def _escaped(word: str | bytes) -> str:
    data = word if isinstance(word, bytes) else word.encode()
    return "".join(f"\\x{byte:02x}" for byte in data)


def _hypothesis(target: Target, args: argparse.Namespace) -> int:
    """Round after round, each from another seed, until the time is over or an input breaks the target."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from samd_scripts.fuzzing.strategies import inputs

    runs, last = 0, b""
    until = time.monotonic() + args.seconds
    quiet = settings(
        max_examples=200,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )

    def one(data: bytes) -> None:
        nonlocal runs, last
        runs, last = runs + 1, data
        target.run(data)

    try:
        for data in target.corpus():
            one(data)
        number = args.seed
        while time.monotonic() < until:
            seed(number)(quiet(given(inputs(target))(one)))()
            number += 1
    except Exception:
        _keep(last, args.crashes, runs)  # the smallest input that breaks it is the last one that was tried
        raise
    sys.stderr.write(f"stat::number_of_executed_units: {runs}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
