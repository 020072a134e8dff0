"""Answers the agent's frames one after the other; whatever one of them holds, the next is answered too."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from samd_data.features import FeatureSpec
from samd_edge.database import StoreError
from samd_edge.personalisation import Method, by_name
from samd_edge.runtime import Floats, GraphError, RuntimeUnavailable
from samd_edge.store import read_readings
from samd_edge.trainer import frames
from samd_edge.trainer.learning import Diverged, Place, evaluate_round, personal_round
from samd_edge.trainer.personalising import Personaliser, Standing
from samd_edge.trainer.rows import Admission, build
from samd_protocol import bundle as bundles
from samd_protocol.errors import BundleError, MessageError
from samd_protocol.methods import PERSONAL
from samd_protocol.tasks import PersonalReport, Task, Update, Vector, decode_task
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
    layers: Sequence[bundles.Layer]
    personaliser: Personaliser


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
            admission = build(read_readings(Path(message.store)), spec, bundle.manifest.task)
            in_use, in_use_error = self._in_use(message.in_use, bundle, spec, trainer)
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
            layers=bundle.manifest.layers,
            personaliser=Personaliser(
                folder=Path(message.store).parent,
                task=bundle.manifest.task,
                graph_sha256=bundle.graph_sha256,
                standing=Standing(trainer, spec, bundle.weights),
                batch_size=bundle.manifest.batch_size,
                admission=admission,
                in_use=in_use,
                in_use_error=in_use_error,
            ),
        )
        return frames.Prepared(
            graph_sha256=bundle.graph_sha256,
            train=admission.train.counts(),
            holdout=admission.holdout.counts(),
            seconds=self._monotonic() - began,
        )

    def _in_use(
        self, path: str, bundle: bundles.Bundle, spec: FeatureSpec, trainer: Any
    ) -> tuple[Standing | None, str | None]:
        """The model that assesses now, or why a personal one cannot be compared with it."""
        if not path:
            return None, None
        try:
            other = bundles.read(Path(path))
            features = other.manifest.features
            other_spec = FeatureSpec(name=features.name, labels=features.labels)
            if (other.manifest.task, features.labels) != (bundle.manifest.task, spec.labels):
                return None, "it answers another question"
            if other.graph_sha256 != bundle.graph_sha256:
                trainer = self._load(other)
        except (BundleError, GraphError, RuntimeUnavailable, ValueError) as error:
            return None, str(error)
        return Standing(trainer, other_spec, other.weights), None

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
        except (GraphError, Diverged, ValueError, MemoryError, OSError) as error:
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
        absence = ready.admission.absence(rows)
        if absence is not None:
            return _answer(task, error=absence)
        weights = task.weights.array()
        if len(weights) != ready.size:
            return _answer(
                task, error=f"the task has {len(weights)} weights, the prepared model {ready.size}"
            )
        if not np.isfinite(weights).all():
            return _answer(task, error="the task's weights are not finite")
        method = by_name(task.settings.method, ready.layers)
        place = Place(task.settings.seed, task.round, task.device)
        epochs = task.settings.epochs if task.kind == "train" else 1
        progress = self._progress(task, epochs)
        progress(0)
        if task.kind == "evaluate":
            report = evaluate_round(
                ready.trainer, rows, ready.spec, weights=weights, settings=task.settings, place=place
            )
            if task.personalise and method.name in PERSONAL:
                report = msgspec.structs.replace(report, personal=self._personalise(method, task, weights))
            return _answer(
                task,
                num_examples=len(rows),
                label_counts=rows.counts(),
                report=report,
                loss=report.loss,
            )
        before = ready.personaliser.state(method, task, weights)
        update, after, metrics = personal_round(
            method,
            ready.trainer,
            rows,
            ready.spec,
            state=before,
            weights=weights,
            settings=task.settings,
            place=place,
            batch_size=ready.batch_size,
            on_epoch=progress,
        )
        if method.name in PERSONAL:
            ready.personaliser.keep(method, task, before, after)
        return _answer(
            task,
            num_examples=len(rows),
            label_counts=rows.counts(),
            weights=Vector.of(update),
            loss=metrics["loss"],
            metrics={key: value for key, value in metrics.items() if key != "loss"},
        )

    def _personalise(self, method: Method, task: Task, weights: Floats) -> PersonalReport:
        """Fit and examine; whatever goes wrong, the global model goes on and the report is sent."""
        ready = self._prepared
        assert ready is not None  # noqa: S101 - checked by the caller
        try:
            report = ready.personaliser.finish(method, task, weights)
        except (GraphError, Diverged, ValueError, OSError) as error:
            return PersonalReport(adopted=False, reason=str(error))
        if report.adopted:
            self._say(frames.Adopted(run=task.run))
        return report

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
