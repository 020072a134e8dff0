"""``python -m samd_edge.trainer``: the worker as a process, frames on stdin and stdout.

It loads what it needs, says ``ready`` and waits, so that it can be started before it is wanted. It ends when
stdin closes; Ctrl-C is left to the agent, which then closes it. What a library prints goes to stderr.
"""

import argparse
import contextlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

DEFAULT_CEILING_MB: Final = {"litert": 160, "tensorflow": 0}
"""Of data (heap and private mappings, RLIMIT_DATA); 0 is none. The graph takes about 40 of it."""


def parser() -> argparse.ArgumentParser:
    """The arguments, for ``--help``."""
    made = argparse.ArgumentParser(
        prog="samd-edge-trainer",
        description="Train on one admission's recordings; frames on stdin and stdout. Used by samd-edge run.",
    )
    made.add_argument("--trainer", choices=sorted(DEFAULT_CEILING_MB), default="litert")
    made.add_argument(
        "--memory-mb",
        type=int,
        metavar="MB",
        help="ceiling of its data, 0 for none (litert: 160, tensorflow: none)",
    )
    made.add_argument("--nice", type=int, default=10, metavar="N", help="priority, 0 normal to 19 lowest")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Serve until stdin closes. Exit code 2 when the trainer cannot be loaded."""
    chosen = parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = _take_pipes()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s trainer: %(message)s")
    _lower(chosen.nice, DEFAULT_CEILING_MB[chosen.trainer] if chosen.memory_mb is None else chosen.memory_mb)

    from samd_edge.runtime import RuntimeUnavailable
    from samd_edge.trainer import frames
    from samd_edge.trainer.worker import Worker

    def say(message: frames.FromTrainer) -> None:
        sink.write(frames.encode(message))
        sink.flush()

    def bodies() -> Iterator[bytes]:
        while (body := frames.read_body(source)) is not None:
            yield body

    try:
        try:
            if chosen.trainer == "litert":
                from samd_edge.trainer import litert as trainer
            else:
                from samd_edge.trainer import tensorflow as trainer  # type: ignore[no-redef]
            runtime = trainer.warm_up()
        except RuntimeUnavailable as error:
            say(frames.Failed(error=str(error)))
            return 2
        say(frames.Ready(trainer=chosen.trainer, runtime=runtime, pid=os.getpid()))
        Worker(trainer.load, say).run(bodies())
    except frames.FrameError as error:
        with contextlib.suppress(OSError):
            say(frames.Failed(error=str(error)))
        return 2
    except BrokenPipeError:
        return 0  # the agent is gone, and nobody waits for an answer
    return 0


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """stdin and stdout for frames alone: whatever a library prints goes to stderr and corrupts nothing."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def _lower(nice: int, ceiling_mb: int) -> None:
    # One thread each: a pool would take memory and cores that belong to the agent.
    for name in (
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):
        os.environ.setdefault(name, "1")
    with contextlib.suppress(OSError):
        os.nice(nice)
    if ceiling_mb > 0:
        ceiling = ceiling_mb * 1024 * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            ceiling = min(ceiling, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, hard))


if __name__ == "__main__":
    sys.exit(main())
