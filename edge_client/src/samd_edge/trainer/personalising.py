"""The end of a run on one device: fit the personal model to the final weights, examine it, use it or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from samd_data.features import FeatureSpec, encode
from samd_data.tasks import SEVERITY
from samd_edge import personal
from samd_edge.personalisation import Method, State
from samd_edge.personalisation.forgetting import REHEARSE_SEED, grid
from samd_edge.personalisation.policy import Evidence, judge, too_little, urgent_recall
from samd_edge.runtime import Floats
from samd_edge.trainer.learning import Place, Trainer, evaluate_round, personal_round
from samd_edge.trainer.rows import Admission, Rows
from samd_protocol.tasks import PersonalReport, Task, TrainSettings, Vector

NO_GRID: Final = (
    "a personal model for this task is not used: the forgetting grid is labelled by the chart, which says "
    "nothing of what comes"
)


@dataclass(frozen=True)
class Standing:
    """A model that a personal one has to stand up to: how it computes, what it reads, its weights."""

    trainer: Trainer
    spec: FeatureSpec
    weights: Floats


@dataclass(frozen=True)
class Personaliser:
    """What is needed to fit and to examine. ``folder`` is the admission's; ``in_use`` assesses now, and
    ``in_use_error`` says why nothing can be compared with it."""

    folder: Path
    task: str
    graph_sha256: str
    standing: Standing
    batch_size: int
    admission: Admission
    in_use: Standing | None = None
    in_use_error: str | None = None

    def state(self, method: Method, task: Task, weights: Floats) -> State:
        """Where this round begins: what was carried, or the method's own beginning."""
        kept = personal.load_state(
            self.folder,
            task=self.task,
            method=method.name,
            graph_sha256=self.graph_sha256,
            run=task.run,
            number=task.round,
            size=len(weights),
        )
        return method.init(weights) if kept is None else kept

    def keep(self, method: Method, task: Task, before: State, after: State) -> None:
        """Carry a state to the next round."""
        personal.save_state(
            self.folder,
            task=self.task,
            method=method.name,
            graph_sha256=self.graph_sha256,
            run=task.run,
            number=task.round,
            before=before,
            after=after,
        )

    def finish(self, method: Method, task: Task, weights: Floats) -> PersonalReport:
        """Fit the personal model to the final ``weights``, examine it, put it in use if it passes."""
        if self.task != SEVERITY:
            return PersonalReport(adopted=False, reason=NO_GRID)
        reason = too_little(self.admission.train.counts(), self.admission.holdout.counts())
        if reason is not None:
            return PersonalReport(adopted=False, reason=reason)
        place = Place(task.settings.seed, task.round, task.device)
        before = self.state(method, task, weights)
        _, after, _ = personal_round(
            method,
            self.standing.trainer,
            self.admission.train,
            self.standing.spec,
            state=before,
            weights=weights,
            settings=task.settings,
            place=place,
            batch_size=self.batch_size,
            rehearsed=self._rehearsed(task.settings),
            closing=True,
        )
        self.keep(method, task, before, after)
        vector = method.infer_weights(after, weights)
        return self._examine(method, task, vector, weights, place)

    def _examine(
        self, method: Method, task: Task, vector: Floats, weights: Floats, place: Place
    ) -> PersonalReport:
        own = self._evidence(self._with(vector), task.settings, place)
        report = PersonalReport(
            adopted=False,
            reason=f"the model in use cannot be compared with: {self.in_use_error}",
            confusion=own.complete.tolist(),
            confusion_masked=own.masked.tolist(),
            grid_recall=urgent_recall(own.grid),
        )
        if self.in_use_error is not None:
            return report
        others = {
            name: self._evidence(model, task.settings, place) for name, model in self._others(weights).items()
        }
        verdict = judge(own, others)
        if verdict.adopted:
            judged = [weights] + ([] if self.in_use is None else [self.in_use.weights])
            kept = personal.ModelFile(
                method=method.name,
                graph_sha256=self.graph_sha256,
                run=task.run,
                weights=Vector.of(vector),
                judged=sorted({personal.checksum(each) for each in judged}),
            )
            personal.save_model(self.folder, kept)
        return PersonalReport(
            adopted=verdict.adopted,
            reason=verdict.reason,
            confusion=report.confusion,
            confusion_masked=report.confusion_masked,
            grid_recall=report.grid_recall,
        )

    def _others(self, weights: Floats) -> Mapping[str, Standing]:
        """The final global model, the one in use, and the personal one that this patient has already."""
        found = {"the global model": self._with(weights)}
        if self.in_use is None:
            return found
        found["the model in use"] = self.in_use
        kept = personal.load_model(self.folder, self.graph_sha256)
        if kept is not None and personal.checksum(self.in_use.weights) in kept[0].judged:
            found["the personal model in use"] = self._with(kept[1])
        return found

    def _with(self, weights: Floats) -> Standing:
        return Standing(self.standing.trainer, self.standing.spec, weights)

    def _evidence(self, model: Standing, settings: TrainSettings, place: Place) -> Evidence:
        # Two models are asked about the same hidden signs, the kind of question that a bedside asks.
        report = evaluate_round(
            model.trainer,
            self.admission.holdout,
            model.spec,
            weights=model.weights,
            settings=settings,
            place=place,
        )
        asked = grid(self.standing.spec.labels)
        _, answered = model.trainer.evaluate(encode(asked.values, model.spec), asked.labels, model.weights)
        return Evidence(
            np.asarray(report.confusion, dtype=np.int64),
            np.asarray(report.confusion_masked, dtype=np.int64),
            answered,
        )

    def _rehearsed(self, settings: TrainSettings) -> Rows | None:
        if not settings.rehearsal:
            return None
        return grid(self.standing.spec.labels, settings.rehearsal, REHEARSE_SEED)
