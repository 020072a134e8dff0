"""Answers the agent's frames one after the other; whatever one of them holds, the next is answered too."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from samd_data.features import FeatureSpec
from samd_edge.database import StoreError
from samd_edge.runtime import GraphError, RuntimeUnavailable
from samd_edge.store import read_readings
from samd_edge.trainer import frames
from samd_edge.trainer.learning import Diverged, Place, evaluate_round, train_round
from samd_edge.trainer.rows import Admission, build
from samd_protocol import bundle as bundles
from samd_protocol.errors import BundleError, MessageError
from samd_protocol.tasks import Task, Update, Vector, decode_task
from samd_protocol.tasks import encode as encode_update

_log = logging.getLogger(__name__)

PROGRESS_S: Final = 0.2
"""At most one progress frame in this time: an epoch may take less than a millisecond."""

Say = Callable[[frames.FromTrainer], None]


@dataclass(frozen=True)
class _Prepared:
    graph_sha256: str
    batch_size: int
    size: int
    spec: FeatureSpec
    trainer: Any  # learning.Trainer
    admission: Admission


class Worker:
    """``load`` makes a trainer of a bundle (``litert.load`` or ``tensorflow.load``); ``say`` sends a frame.

    One admission is held at a time: a new ``prepare`` forgets the one before, even when it fails.
    """

    def __init__(
        self,
        load: Callable[[bundles.Bundle], Any],
        say: Say,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._say = say
        self._wall = wall
        self._monotonic = monotonic
        self._prepared: _Prepared | None = None

    def run(self, bodies: Iterator[bytes]) -> None:
        """Answer each frame's message until there are no more."""
        for body in bodies:
            try:
                message = frames.decode_from_agent(body)
            except frames.FrameError as error:
                self._say(frames.Failed(error=str(error)))
                continue
            if isinstance(message, frames.Prepare):
                self._say(self.prepare(message))
            else:
                self._work(message.task)

    def prepare(self, message: frames.Prepare) -> frames.Prepared:
        """Read bundle and store, build the rows, keep them; the counts of each class, or the error."""
        began = self._monotonic()
        self._prepared = None
        try:
            bundle = bundles.read(Path(message.bundle))
            spec = FeatureSpec(name=bundle.manifest.features.name, labels=bundle.manifest.features.labels)
            if bundle.manifest.features.size != spec.size:
                raise ValueError(f"the model reads {bundle.manifest.features.size} features, not {spec.size}")
            trainer = self._load(bundle)
            admission = build(read_readings(Path(message.store)), spec)
        except (BundleError, StoreError, GraphError, RuntimeUnavailable, ValueError, MemoryError) as error:
            text = str(error) or "out of memory: raise the trainer's ceiling"
            _log.error("nothing prepared: %s", text)
            return frames.Prepared(error=text, seconds=self._monotonic() - began)
        self._prepared = _Prepared(
            graph_sha256=bundle.graph_sha256,
            batch_size=bundle.manifest.batch_size,
            size=bundle.manifest.weights_size,
            spec=spec,
            trainer=trainer,
            admission=admission,
        )
        return frames.Prepared(
            graph_sha256=bundle.graph_sha256,
            train=admission.train.counts(),
            holdout=admission.holdout.counts(),
            seconds=self._monotonic() - began,
        )

    def _work(self, payload: bytes) -> None:
        try:
            task = decode_task(payload)
        except MessageError as error:
            self._say(frames.Failed(error=f"a task was dropped ({error.reason}): {error}"))
            return
        update = self.answer(task)
        try:
            self._say(frames.Done(update=encode_update(update)))
        except MessageError as error:
            self._say(frames.Done(update=encode_update(_answer(task, error=str(error)))))

    def answer(self, task: Task) -> Update:
        """Do one task; an update with ``error`` when it cannot be done."""
        began, started_at = self._monotonic(), self._wall()
        try:
            update = self._do(task)
        except (GraphError, Diverged, ValueError, MemoryError) as error:
            text = str(error) or "out of memory: raise the trainer's ceiling"
            _log.error("round %d: %s", task.round, text)
            update = _answer(task, error=text)
        fields = {name: getattr(update, name) for name in update.__struct_fields__}
        return Update(**{**fields, "seconds": self._monotonic() - began, "started_at": started_at})

    def _do(self, task: Task) -> Update:
        ready = self._prepared
        if ready is None:
            return _answer(task, error="not prepared: no rows are held")
        if task.graph_sha256 != ready.graph_sha256:
            return _answer(task, error="another graph: the task is for a model that is not the prepared one")
        rows = ready.admission.train if task.split == "train" else ready.admission.holdout
        if not len(rows):
            return _answer(task, error="no data")
        weights = task.weights.array()
        if len(weights) != ready.size:
            return _answer(
                task, error=f"the task has {len(weights)} weights, the prepared model {ready.size}"
            )
        if not np.isfinite(weights).all():
            return _answer(task, error="the task's weights are not finite")
        place = Place(task.settings.seed, task.round, task.device)
        epochs = task.settings.epochs if task.kind == "train" else 1
        progress = self._progress(task, epochs)
        progress(0)
        if task.kind == "evaluate":
            report = evaluate_round(
                ready.trainer, rows, ready.spec, weights=weights, settings=task.settings, place=place
            )
            return _answer(task, num_examples=len(rows), report=report, loss=report.loss)
        trained, loss = train_round(
            ready.trainer,
            rows,
            ready.spec,
            weights=weights,
            settings=task.settings,
            place=place,
            batch_size=ready.batch_size,
            on_epoch=progress,
        )
        return _answer(task, num_examples=len(rows), weights=Vector.of(trained), loss=loss)

    def _progress(self, task: Task, epochs: int) -> Callable[[int], None]:
        last = -PROGRESS_S

        def tell(epoch: int) -> None:
            nonlocal last
            now = self._monotonic()
            if epoch and now - last < PROGRESS_S:
                return
            last = now
            self._say(
                frames.Progress(
                    task=task.id, run=task.run, round=task.round, epoch=epoch, epochs=epochs, at=self._wall()
                )
            )

        return tell


def _answer(task: Task, **fields: Any) -> Update:
    return Update(task=task.id, run=task.run, round=task.round, device=task.device, kind=task.kind, **fields)
