"""One round on one device: train or evaluate. Pure: the same task on the same rows gives the same answer.

Whatever is drawn (the order of the rows, the signs that are hidden) comes from the run's seed, the round and
the device's name, so that both transports and both trainers draw the same.
"""

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from samd_data.features import FeatureSpec, encode, hide
from samd_data.reading import COLUMNS
from samd_edge.personalisation import Epoch, Method, Metrics, State
from samd_edge.personalisation.none import none
from samd_edge.runtime import Floats, Ints, TrainState, batches
from samd_edge.trainer.rows import Rows
from samd_protocol.methods import OPTIMIZERS
from samd_protocol.scorebins import ScoreBins, bins_of
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

    def infer(self, features: Floats, weights: Floats) -> Floats: ...


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
    on_epoch: Callable[[int], None] = lambda _: None,
) -> tuple[Floats, float]:
    """A round without a personal model; see `personal_round`. Returns the new weights and the loss of the
    last epoch."""
    update, _, metrics = personal_round(
        none(),
        trainer,
        rows,
        spec,
        state=State(weights),
        weights=weights,
        settings=settings,
        place=place,
        batch_size=batch_size,
        on_epoch=on_epoch,
    )
    return update, metrics["loss"]


def personal_round(
    method: Method,
    trainer: Trainer,
    rows: Rows,
    spec: FeatureSpec,
    *,
    state: State,
    weights: Floats,
    settings: TrainSettings,
    place: Place,
    batch_size: int,
    rehearsed: Rows | None = None,
    closing: bool = False,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> tuple[Floats, State, Metrics]:
    """One round of a method from the received ``weights`` (``float32[P]``); what to send, to keep, to tell.

    Adam starts afresh. Each epoch has its own order and hides its own signs; labels are those of the complete
    rows. ``rehearsed`` are rows that personal passes train on beside the patient's own. With ``closing`` only
    the personal passes are done, and there is nothing to send. ``on_epoch`` is told after each epoch.

    Raises ``ValueError`` for settings that cannot be used, ``GraphError`` for weights that do not fit,
    ``Diverged`` for a result that is not finite.
    """
    if settings.epochs < 1:
        raise ValueError(f"epochs is {settings.epochs}; it is 1 or more")
    epoch = epochs_of(
        trainer, rows, spec, settings=settings, batch_size=batch_size, rehearsed=rehearsed, on_epoch=on_epoch
    )
    if closing:
        after, metrics = method.personalise(state, weights, epoch, settings, place.generator())
        update = weights
    else:
        update, after, metrics = method.apply(state, weights, epoch, settings, place.generator())
    if not (np.isfinite(update).all() and np.isfinite(after.personal).all()):
        raise Diverged("training diverged: its weights are not finite; lower the learning rate")
    if not closing and not np.isfinite(metrics.get("loss", math.nan)):
        raise Diverged("training diverged: its loss is not finite; lower the learning rate")
    return update, after, metrics


def epochs_of(
    trainer: Trainer,
    rows: Rows,
    spec: FeatureSpec,
    *,
    settings: TrainSettings,
    batch_size: int,
    rehearsed: Rows | None = None,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> Epoch:
    """What a method calls for each of its passes: one epoch over ``rows``, in an order and with hidden signs
    of its own. Raises ``ValueError`` for settings or rows that cannot be used."""
    if not 0 <= settings.mask_rate <= 1:
        raise ValueError(f"rate is {settings.mask_rate}; it is a probability, 0 to 1")
    if not len(rows):
        raise ValueError("there are no rows to train on")
    if settings.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer is {settings.optimizer!r}; it is one of {', '.join(OPTIMIZERS)}")
    prior = np.asarray(settings.log_prior or [0.0] * rows.classes, dtype=np.float32)
    own = encode(rows.values, spec), rows.labels
    both = own
    if rehearsed is not None and len(rehearsed):
        both = (
            np.concatenate([own[0], encode(rehearsed.values, spec)]),
            np.concatenate([own[1], rehearsed.labels]),
        )
    done = 0

    def epoch(
        state: TrainState,
        *,
        learning_rate: float,
        anchor: Floats,
        mu: float,
        trainable: Floats,
        generator: np.random.Generator,
        personal: bool,
    ) -> tuple[TrainState, float]:
        nonlocal done
        complete, labels = both if personal else own
        if settings.optimizer == "sgd":
            state = state.as_sgd()
        order = batches(generator.permutation(len(labels)), batch_size)
        hidden = generator.random((len(labels), len(COLUMNS))) < settings.mask_rate
        after, loss = trainer.train_epoch(
            features=hide(complete, hidden, spec),
            labels=labels,
            order=order,
            state=state,
            learning_rate=learning_rate,
            anchor=anchor,
            mu=mu,
            trainable=trainable,
            log_prior=prior,
        )
        done += 1
        on_epoch(done)
        return after, loss

    return epoch


def evaluate_round(
    trainer: Trainer,
    rows: Rows,
    spec: FeatureSpec,
    *,
    weights: Floats,
    settings: TrainSettings,
    place: Place,
) -> EvaluationReport:
    """Counts of ``weights`` on complete rows, and with signs hidden at ``settings.mask_rate``; of a task that
    is ranked also the scores by bin.

    Which signs are hidden depends on the seed and the device, not on the round: rounds can be compared.
    """
    complete = encode(rows.values, spec)
    loss, confusion = trainer.evaluate(complete, rows.labels, weights)
    drawn = place._replace(round=0).generator().random((len(rows), len(COLUMNS)))
    partial = hide(complete, drawn < settings.mask_rate, spec)
    _, masked = trainer.evaluate(partial, rows.labels, weights)
    if not np.isfinite(loss):
        raise Diverged("the model answers with values that are not finite")
    return EvaluationReport(
        confusion=confusion.tolist(),
        confusion_masked=masked.tolist(),
        loss=loss,
        bins=_binned(trainer, complete, rows, weights),
        bins_masked=_binned(trainer, partial, rows, weights),
    )


def _binned(trainer: Trainer, features: Floats, rows: Rows, weights: Floats) -> ScoreBins | None:
    """The rows by the score that they get; of a task that is ranked."""
    if rows.totals is None:
        return None
    scores = trainer.infer(features, weights)[:, 1].astype(np.float64)
    if not np.isfinite(scores).all():
        raise Diverged("the model answers with values that are not finite")
    return bins_of(scores.clip(0.0, 1.0), rows.labels, rows.totals)
