"""Centralised training: the reference that federated training is held against.

The recordings are all in one place here, which is what the rest of the project avoids; use it on a data set
that you hold. The maths is that of a device: the same graph or the same Keras network, Adam, fresh masks
on the signs each epoch, logit adjustment by class counts (Menon et al., 2021, arXiv:2007.07314).
"""

import math
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from samd_data.features import FeatureSpec, encode, hide
from samd_data.reading import COLUMNS
from samd_data.tasks import DETERIORATION, SEVERITY, task_of
from samd_protocol import bundle
from samd_protocol.bundle import Bundle
from samd_server import keras_file, metrics, ranking
from samd_server.cohort import Cohort, Rows
from samd_server.errors import ServerError
from samd_server.graph import Graph, TrainState, batches

EXPORT_SECONDS = 300.0


class TrainError(ServerError):
    """A model cannot be trained as asked."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Hyper-parameters. `mask_rate`: the share of signs hidden in each epoch; `logit_adjustment`: tau, 0 for
    none. Raises ValueError for what is out of range."""

    epochs: int = 60
    learning_rate: float = 0.003
    mask_rate: float = 0.15
    logit_adjustment: float = 1.0
    """Of `severity`; for `deterioration` 0 is right: a probability that is shown must not be of a world in
    which every second hour deteriorates."""
    seed: int = 0
    trainer: Literal["litert", "tensorflow"] = "litert"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; it is 1 or more")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"the learning rate is {self.learning_rate}; it is above 0 and at most 1")
        if not 0 <= self.mask_rate < 1:
            raise ValueError(f"the mask rate is {self.mask_rate}; it is at least 0 and below 1")
        if not 0 <= self.logit_adjustment <= 10:
            raise ValueError(f"the logit adjustment is {self.logit_adjustment}; it is 0 to 10")


class Trainer(Protocol):
    """Weights that learn: by the graph or by Keras."""

    @property
    def weights(self) -> NDArray[np.float32]:
        """float32[P]."""

    def epoch(self, features: NDArray[np.float32], labels: ArrayLike, order: ArrayLike) -> float:
        """Train over the rows of `order`; the mean loss."""

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities float32[N, C]."""


class GraphTrainer:
    """The bundle's graph in the bare interpreter."""

    def __init__(self, model: Bundle, *, learning_rate: float, log_prior: ArrayLike) -> None:
        self._graph = Graph(model.graph)
        self._state = TrainState.fresh(model.weights)
        self._learning_rate = learning_rate
        self._log_prior = log_prior

    @property
    def weights(self) -> NDArray[np.float32]:
        """float32[P]."""
        return self._state.weights

    def epoch(self, features: NDArray[np.float32], labels: ArrayLike, order: ArrayLike) -> float:
        """Train over the rows of `order`; the mean loss."""
        self._state, loss = self._graph.train_epoch(
            features=features,
            labels=labels,
            order=order,
            state=self._state,
            learning_rate=self._learning_rate,
            log_prior=self._log_prior,
        )
        return loss

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities float32[N, C]."""
        return self._graph.infer(features, self._state.weights)


def log_prior(counts: ArrayLike, tau: float) -> NDArray[np.float32]:
    """tau times the logarithm of each class's share, float32[C]; counts int[C].

    A class that nobody has counts as one row, since a share of 0 has no logarithm; the rounds do the same.
    """
    rows = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    return np.asarray(tau * np.log(rows / rows.sum()), dtype=np.float32)


def untrained(spec: FeatureSpec, hidden: Sequence[int], seed: int, task: str = SEVERITY) -> Bundle:
    """Export a network in a process of its own, about 15 s, so that this one stays free of TensorFlow."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "untrained.samd"
        command = [sys.executable, "-m", "samd_server.model_commands", "export", "--out", str(path)]
        command += ["--task", task]
        command += ["--labels", spec.labels, "--hidden", ",".join(map(str, hidden)), "--seed", str(seed)]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=EXPORT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise TrainError(f"the export took longer than {EXPORT_SECONDS:.0f} s; try again") from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise TrainError(f"the network could not be exported: {lines[-1]}")
        return bundle.read(path)


def train(
    model: Bundle,
    cohort: Cohort,
    settings: Settings,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Bundle:
    """Train `model` on the cohort; the next version, with its scores and provenance.

    `on_epoch` hears of each epoch: its number from 1, and its mean loss. Raises TrainError for a model with
    features or classes of another kind, or when the weights stop being finite.
    """
    manifest = model.manifest
    spec, classes = spec_of(model), len(manifest.classes)
    prior = log_prior(np.bincount(cohort.train.labels, minlength=classes), settings.logit_adjustment)
    trainer = _trainer(model, settings, prior)
    rng = np.random.default_rng(settings.seed)
    loss = math.nan
    complete = encode(cohort.train.values, spec)
    for epoch in range(1, settings.epochs + 1):
        features = hide(complete, _hidden(len(cohort.train), settings.mask_rate, rng), spec)
        order = batches(rng.permutation(len(cohort.train)), manifest.batch_size)
        loss = trainer.epoch(features, cohort.train.labels, order)
        if not (math.isfinite(loss) and np.isfinite(trainer.weights).all()):
            raise TrainError(f"the weights are no longer finite in epoch {epoch}; lower --learning-rate")
        on_epoch(epoch, loss)
    weights = trainer.weights
    found = {"training_loss": loss, **judge(trainer, cohort, spec, settings, manifest.task)}
    return Bundle(
        manifest=msgspec.structs.replace(
            manifest,
            version=manifest.version + 1,
            parent=manifest.version,
            trained=True,
            hashes={},
            metrics=found,
            provenance={
                **manifest.provenance,
                "trained_by": "central",
                "trained_python": platform.python_version(),
                "settings": msgspec.to_builtins(settings),
                "data": cohort.kind,
                "patients": cohort.patients,
                "rows": len(cohort.train),
            },
            signature=None,
        ),
        graph=model.graph,
        weights=weights,
        keras=keras_file.with_weights(model.keras, manifest.layers, weights),
    )


def judge(
    trainer: Trainer, cohort: Cohort, spec: FeatureSpec, settings: Settings, task: str = SEVERITY
) -> dict[str, Any]:
    """The scores on the hold-out and on the patients left out, complete and with signs masked.

    The masks are drawn from a seed of their own: two models are judged by the same ones.
    """
    rate = settings.mask_rate or Settings().mask_rate
    found: dict[str, Any] = {"mask_rate": rate}
    for number, (name, rows) in enumerate((("holdout", cohort.holdout), ("unseen", cohort.unseen))):
        rng = np.random.default_rng([2026, number])
        complete = encode(rows.values, spec)
        masked = hide(complete, _hidden(len(rows), rate, rng), spec)
        found[name] = _scores(trainer, complete, rows, task)
        found[f"{name}_masked"] = _scores(trainer, masked, rows, task)
    return found


def _hidden(rows: int, rate: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    return rng.random((rows, len(COLUMNS))) < rate


def _scores(trainer: Trainer, features: NDArray[np.float32], rows: Rows, task: str) -> dict[str, Any]:
    classes = task_of(task).classes
    given = trainer.predict(features) if len(rows) else np.zeros((0, len(classes)))
    counts = metrics.confusion(rows.labels, given.argmax(axis=1), len(classes))
    found: msgspec.Struct
    if task == DETERIORATION:
        found = ranking.of_rows(given[:, 1], rows.labels, rows.totals)
    else:
        found = metrics.scores(counts, classes)
    return {**msgspec.to_builtins(found), "confusion": counts.tolist()}


def _trainer(model: Bundle, settings: Settings, prior: NDArray[np.float32]) -> Trainer:
    if settings.trainer == "litert":
        return GraphTrainer(model, learning_rate=settings.learning_rate, log_prior=prior)
    from samd_server.keras_trainer import KerasTrainer

    return KerasTrainer(
        model.manifest.layers,
        model.weights,
        learning_rate=settings.learning_rate,
        batch_size=model.manifest.batch_size,
        log_prior=prior,
    )


def spec_of(model: Bundle) -> FeatureSpec:
    """The features that a model reads. Raises TrainError if this version does not make them, or does not
    know the model's task."""
    features, task = model.manifest.features, model.manifest.task
    try:
        spec = FeatureSpec(name=features.name, labels=features.labels)
        classes = task_of(task).classes
    except ValueError as error:
        raise TrainError(f"this model cannot be trained here: {error}") from error
    if spec.size != features.size or tuple(model.manifest.classes) != classes:
        raise TrainError(
            f"this model reads {features.size} features and tells {', '.join(model.manifest.classes)}; this "
            f"version makes {spec.size} features and tells {', '.join(classes)}: export a new one"
        )
    return spec
