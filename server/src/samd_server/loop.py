"""The round loop: one run from its first task to a candidate model.

    count      every device counts the classes of its training rows; the sum gives the logit adjustment
    rounds     configure_train -> tasks -> replies, checked -> aggregate_train -> checkpoint
    evaluate   the candidate and the model in use on the devices' own hold-outs
    gate       released, or kept with the reason

Our own loop, with its own clock: Flower's waits for ever for nodes, cannot resume, and one malformed reply
ends it. The strategy is Flower's, unchanged.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from samd_data.tasks import TASKS, task_of
from samd_protocol.bundle import Bundle
from samd_protocol.messages import RunSpec, RunStatus
from samd_protocol.methods import PERSONAL
from samd_protocol.runspec import problems
from samd_protocol.tasks import EvaluationReport, Vector
from samd_server.checkpoint import Checkpoint, RunFolder
from samd_server.errors import RunFailed, RunStopped
from samd_server.grid import Collected, MqttGrid, arrays_of
from samd_server.outcome import Outcome, judged, log_prior, personal_of, summed
from samd_server.strategies import aggregate, of_spec, restore, state_of
from samd_server.telling import coarsely, device_seconds, reasons, said

log = logging.getLogger(__name__)

RETRIES = 3
"""How often an exchange that missed its quorum is asked again before the run fails."""


class RoundLoop:
    """Leads one run. `publish` sends the status; `halted` tells whether to stop or to pause; `track`
    (default: the run's folder) is told what happened."""

    def __init__(
        self,
        spec: RunSpec,
        grid: MqttGrid,
        folder: RunFolder,
        parent: Bundle,
        *,
        publish: Callable[[RunStatus], None],
        halted: Callable[[], str | None],
        track: Callable[[Mapping[str, Any]], None] | None = None,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 1 <= spec.quorum <= len(grid.devices):
            raise RunFailed(f"a quorum of {spec.quorum} with {len(grid.devices)} devices can never be met")
        self.spec = spec
        self.grid = grid
        self.folder = folder
        self.parent = parent
        self._publish = publish
        self._tracked = track
        self._halted = halted
        self._now = now
        self._wait = wait
        if spec.task not in TASKS:
            raise RunFailed(f"task {spec.task!r} is not known here; known: {', '.join(TASKS)}")
        if found := problems(spec, parent.manifest.layers):
            raise RunFailed("; ".join(found))
        self._strategy: Strategy = of_spec(spec, len(grid.devices))
        grid.deadline_s = spec.round_deadline_s

    def run(self) -> Outcome:
        """All steps, from the last checkpoint on. Raises RunFailed or RunStopped."""
        self._say("preparing")
        point = self.folder.load()
        if point is None:
            counts = self._count(self.parent.weights)
            point = Checkpoint(
                run=self.folder.run,
                round=0,
                weights=Vector.of(self.parent.weights),
                label_counts=counts,
                parent_version=self.parent.manifest.version,
            )
            self.folder.save(point)
        weights = point.weights.array()
        if weights.shape != self.parent.weights.shape:
            raise RunFailed(
                f"the checkpoint holds {weights.size} weights, the model {self.parent.weights.size}; "
                "start a new run"
            )
        restore(self._strategy, point.strategy, weights.size)
        self._say("training", round=point.round)
        prior = log_prior(point.label_counts, self.spec.logit_adjustment)
        for number in range(point.round + 1, self.spec.rounds + 1):
            began = self._now()
            weights, collected = self._train_round(number, weights, prior)
            point = msgspec.structs.replace(
                point, round=number, weights=Vector.of(weights), strategy=state_of(self._strategy)
            )
            self.folder.save(point)
            self._report_round(number, collected, self._now() - began)
        self._say("evaluating", round=self.spec.rounds)
        # The personal passes that end a run are a training like the others, with the same adjustment.
        closing = prior if self.spec.method in PERSONAL else None
        reports = self._evaluate(self.spec.rounds + 1, weights, closing=closing)
        candidate, in_use = summed(reports, self.spec.task), None
        personal = None
        if self.spec.method in PERSONAL:
            personal = personal_of(reports, self.spec.task)
            self._track(event="personalised", method=self.spec.method, by_device=personal.devices)
        if self.parent.manifest.trained:
            others = self._evaluate(self.spec.rounds + 2, self.parent.weights)
            # Two models are compared on the same patients, or not at all.
            both = reports.keys() & others.keys()
            candidate = summed({device: reports[device] for device in both}, self.spec.task)
            in_use = summed({device: others[device] for device in both}, self.spec.task)
        return Outcome(weights, candidate, in_use, self.spec.rounds, point.label_counts, personal)

    # -- steps ----------------------------------------------------------------

    def _count(self, weights: NDArray[np.float32]) -> list[int]:
        collected = self._ask("evaluate", 0, weights, [], split="train")
        counts = np.zeros(len(task_of(self.spec.task).classes), dtype=np.int64)
        by_device = {}
        for reply in collected.replies:
            if reply.update.report is not None:
                found = np.asarray(reply.update.report.confusion, dtype=np.int64).sum(axis=1)
                by_device[reply.device] = {"label_counts": found.tolist()}
                counts += found
        self._track(
            event="counted",
            label_counts=counts.tolist(),
            devices=len(collected.replies),
            by_device=by_device,
        )
        return [int(count) for count in counts]

    def _train_round(
        self, number: int, weights: NDArray[np.float32], prior: list[float]
    ) -> tuple[NDArray[np.float32], Collected]:
        collected = self._ask("train", number, weights, prior, split="train")
        replies = [reply.message for reply in collected.replies]
        return aggregate(self._strategy, number, replies, weights), collected

    def _evaluate(
        self, number: int, weights: NDArray[np.float32], *, closing: list[float] | None = None
    ) -> dict[str, EvaluationReport]:
        collected = self._ask(
            "evaluate", number, weights, closing or [], split="holdout", personalise=closing is not None
        )
        self._track(
            event="evaluated",
            round=number,
            devices=len(collected.replies),
            dropped=collected.dropped,
            awaited=collected.awaited,
            by_device={
                reply.device: judged(reply.update.report, self.spec.task)
                for reply in collected.replies
                if reply.update.report is not None
            },
        )
        return {
            reply.device: reply.update.report
            for reply in collected.replies
            if reply.update.report is not None
        }

    def _ask(
        self,
        kind: str,
        number: int,
        weights: NDArray[np.float32],
        prior: list[float],
        *,
        split: str,
        personalise: bool = False,
    ) -> Collected:
        """One exchange with every admitted device, asked again when it misses the quorum.

        On the hold-outs one report is enough once the others were waited for, and a device whose recording
        has no hold-out yet answers with an error, which is an answer. If nobody has one, or nobody answers,
        the exchange ends with no report: the gate then keeps the candidate and says why.
        """
        judging = split == "holdout"
        quorum = 1 if judging else self.spec.quorum
        phase = "training" if kind == "train" else "evaluating" if judging else "preparing"
        for attempt in range(1 + RETRIES):
            self._obey(phase, number)
            config = self._config(prior, split)
            config["personalise"] = personalise
            configure = (
                self._strategy.configure_train if kind == "train" else self._strategy.configure_evaluate
            )
            messages: list[Message] = list(configure(number, arrays_of(weights), config, self.grid))
            ids = self.grid.push_messages(messages)
            collected = self.grid.collect(
                ids,
                timeout=self.spec.round_deadline_s,
                quorum=self.spec.quorum,
                stop=lambda: self._halted() == "stop",
                refusals_count=judging,
            )
            self._obey(phase, number)
            if len(collected.replies) >= quorum:
                return collected
            if judging and len(collected.dropped) >= self.spec.quorum:
                return collected
            self._track(
                event="quorum missed",
                round=number,
                attempt=attempt + 1,
                replies=len(collected.replies),
                dropped=collected.dropped,
                awaited=collected.awaited,
            )
            self._say(
                phase,
                round=number,
                replies=len(collected.replies),
                awaited=dict(Counter(collected.awaited.values())),
                dropped=coarsely(collected),
                reason=f"{len(collected.replies)} of {quorum} replies",
            )
            if attempt < RETRIES and collected.dropped and not collected.awaited:
                self._wait(min(1.0, self.spec.round_deadline_s))
        if judging:
            return collected
        raise RunFailed(
            f"round {number}: {len(collected.replies)} of the {quorum} replies needed, "
            f"asked {1 + RETRIES} times; {reasons(collected)}"
        )

    def _config(self, prior: list[float], split: str) -> ConfigRecord:
        return ConfigRecord(
            {
                "epochs": self.spec.epochs,
                "learning-rate": self.spec.learning_rate,
                "proximal-mu": self.spec.proximal_mu,
                "mask-rate": self.spec.mask_rate,
                "log-prior": prior,
                "seed": self.spec.seed,
                "split": split,
                "optimizer": self.spec.optimizer,
                "method": self.spec.method,
                "personal-epochs": self.spec.personal_epochs,
                "personal-learning-rate": self.spec.personal_learning_rate,
                "personal-mu": self.spec.personal_mu,
                "personal-alpha": self.spec.personal_alpha,
                "personal-alpha-rate": self.spec.personal_alpha_rate,
                "rehearsal": self.spec.rehearsal,
            }
        )

    # -- talking --------------------------------------------------------------

    def _obey(self, phase: str, number: int) -> None:
        """Return at once, or when a pause is over. Raises RunStopped."""
        paused = False
        while (order := self._halted()) is not None:
            if order == "stop":
                raise RunStopped("stopped by an operator")
            if not paused:
                paused = True
                self._say("paused", round=number)
            self._wait(0.2)
        if paused:
            self._say(phase, round=number)

    def _report_round(self, number: int, collected: Collected, seconds: float) -> None:
        slowest = max(map(device_seconds, collected.replies), default=0.0)
        total = sum(reply.update.num_examples for reply in collected.replies)
        losses = [(reply.update.loss, reply.update.num_examples) for reply in collected.replies]
        loss = sum(loss * count for loss, count in losses if loss is not None) / total
        self._track(
            event="round",
            round=number,
            loss=loss,
            examples=total,
            replies=len(collected.replies),
            dropped=collected.dropped,
            awaited=collected.awaited,
            ignored=dict(self.grid.ignored),
            seconds=seconds,
            slowest_device_seconds=slowest,
            by_device={reply.device: said(reply) for reply in collected.replies},
        )
        self._say(
            "training",
            round=number,
            replies=len(collected.replies),
            awaited=dict(Counter(collected.awaited.values())),
            dropped=coarsely(collected),
            metrics={"loss": loss, "examples": float(total)},
            round_seconds=seconds,
            overhead_seconds=max(0.0, seconds - slowest),
        )

    def _track(self, **record: Any) -> None:
        """Write down what happened: into the run's folder, unless somebody else does that too."""
        if self._tracked is None:
            self.folder.log(**record)
        else:
            self._tracked(record)

    def _say(self, phase: str, **fields: object) -> None:
        status = {
            "run": self.folder.run,
            "phase": phase,
            "rounds": self.spec.rounds,
            "quorum": self.spec.quorum,
        }
        self._publish(msgspec.convert(status | fields, RunStatus))
