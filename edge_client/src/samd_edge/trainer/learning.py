"""One round on one device: train or evaluate. Pure: the same task on the same rows gives the same answer.

Whatever is drawn (the order of the rows, the signs that are hidden) comes from the run's seed, the round and
the device's name, so that both transports and both trainers draw the same.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from samd_data.features import FeatureSpec, encode, hide, mask_signs
from samd_data.severity import CLASSES
from samd_edge.runtime import Floats, Ints, TrainState, batches
from samd_edge.trainer.rows import Rows
from samd_protocol.tasks import EvaluationReport, TrainSettings


class Trainer(Protocol):
    """The maths of one epoch; see ``samd_edge.runtime.Graph`` for shapes."""

    def train_epoch(
        self,
        *,
        features: Floats,
        labels: Ints,
        order: Ints,
        state: TrainState,
        learning_rate: float,
        anchor: Floats,
        mu: float,
        trainable: Floats,
        log_prior: Floats,
    ) -> tuple[TrainState, float]: ...

    def evaluate(
        self, features: Floats, labels: Ints, weights: Floats
    ) -> tuple[float, NDArray[np.int64]]: ...


class Place(NamedTuple):
    """Which draw this is: the run's seed, the round (0 or more), the device."""

    seed: int
    round: int
    device: str

    def generator(self) -> np.random.Generator:
        """Random numbers of this place alone. Raises ``ValueError`` for a negative seed or round."""
        return np.random.default_rng([self.seed, self.round, zlib.crc32(self.device.encode())])


class Diverged(Exception):  # noqa: N818
    """Training ended in weights that are no numbers."""


def train_round(
    trainer: Trainer,
    rows: Rows,
    spec: FeatureSpec,
    *,
    weights: Floats,
    settings: TrainSettings,
    place: Place,
    batch_size: int,
    trainable: Floats | None = None,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> tuple[Floats, float]:
    """``settings.epochs`` epochs from ``weights`` (``float32[P]``, also the anchor of the proximal term).

    Adam starts afresh. Each epoch has its own order and hides its own signs; labels are those of the complete
    rows. Returns the new weights and the loss of the last epoch; ``on_epoch`` is told after each.

    Raises ``ValueError`` for settings that cannot be used, ``GraphError`` for weights that do not fit,
    ``Diverged`` for a result that is not finite.
    """
    if settings.epochs < 1:
        raise ValueError(f"epochs is {settings.epochs}; it is 1 or more")
    if not 0 <= settings.mask_rate <= 1:
        raise ValueError(f"rate is {settings.mask_rate}; it is a probability, 0 to 1")
    if not len(rows):
        raise ValueError("there are no rows to train on")
    generator = place.generator()
    state = TrainState.fresh(weights)
    movable = np.ones_like(weights) if trainable is None else trainable
    prior = np.asarray(settings.log_prior or [0.0] * len(CLASSES), dtype=np.float32)
    loss = float("nan")
    complete = encode(rows.values, spec)
    for epoch in range(1, settings.epochs + 1):
        order = batches(generator.permutation(len(rows)), batch_size)
        state, loss = trainer.train_epoch(
            features=hide(complete, generator.random(rows.values.shape) < settings.mask_rate, spec),
            labels=rows.labels,
            order=order,
            state=state,
            learning_rate=settings.learning_rate,
            anchor=weights,
            mu=settings.proximal_mu,
            trainable=movable,
            log_prior=prior,
        )
        on_epoch(epoch)
    if not (np.isfinite(state.weights).all() and np.isfinite(loss)):
        raise Diverged("training diverged: its weights are not finite; lower the learning rate")
    return state.weights, loss


def evaluate_round(
    trainer: Trainer,
    rows: Rows,
    spec: FeatureSpec,
    *,
    weights: Floats,
    settings: TrainSettings,
    place: Place,
) -> EvaluationReport:
    """Counts of ``weights`` on complete rows, and with signs hidden at ``settings.mask_rate``.

    Which signs are hidden depends on the seed and the device, not on the round: rounds can be compared.
    """
    loss, confusion = trainer.evaluate(encode(rows.values, spec), rows.labels, weights)
    hidden = mask_signs(rows.values, settings.mask_rate, place._replace(round=0).generator())
    _, masked = trainer.evaluate(encode(hidden, spec), rows.labels, weights)
    if not np.isfinite(loss):
        raise Diverged("the model answers with values that are not finite")
    return EvaluationReport(confusion=confusion.tolist(), confusion_masked=masked.tolist(), loss=loss)
