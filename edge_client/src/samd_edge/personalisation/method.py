"""What every method is made of: a state, a client, three steps, and the two functions that the steps make.

A device's part in one round is a list of passes (one epoch each), either over the *shared* vector, which is
sent, or over the *personal* one, which stays. Each method's file has the same three steps:

    client_init    from the state and the received weights to a client: where both vectors begin
    client_step    one pass
    client_final   what is sent, the new state, and the metrics

`method` turns them into ``init``, ``apply`` (a whole round), ``personalise`` (the personal passes alone, from
the final global weights) and ``infer_weights`` (what this patient's model is).

Shared passes draw from the generator that is given, personal ones from a child of it: what is sent is the
same to the bit whether or not there are personal passes beside it, unless the method itself mixes the two.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from samd_edge.runtime import Floats, TrainState
from samd_protocol.tasks import TrainSettings

Pass = Literal["shared", "personal"]
Metrics = Mapping[str, float]


class MethodError(ValueError):
    """A method cannot be used with this model or these settings; one sentence with the remedy."""


class Epoch(Protocol):
    """One epoch of mini-batch Adam over the device's rows; see ``samd_edge.runtime.Graph.train_epoch``.

    ``personal`` says that the pass is for the personal vector: other rows (of the forgetting grid) may then
    be among those that are trained on.
    """

    def __call__(
        self,
        state: TrainState,
        *,
        learning_rate: float,
        anchor: Floats,
        mu: float,
        trainable: Floats,
        generator: np.random.Generator,
        personal: bool,
    ) -> tuple[TrainState, float]: ...


@dataclass(frozen=True)
class State:
    """What a device keeps between rounds; it never leaves the device.

    ``personal``: ``float32[P]``; what its numbers mean is the method's own. ``alpha``: the share of the
    personal model in the mixture (APFL). ``rounds``: how many this state has seen.
    """

    personal: Floats
    alpha: float = 1.0
    rounds: int = 0


@dataclass(frozen=True)
class Client:
    """A device within one round. ``received``: the global weights ``float32[P]``, never changed."""

    received: Floats
    shared: TrainState
    personal: TrainState
    alpha: float = 1.0
    shared_loss: float = float("nan")
    personal_loss: float = float("nan")


class Steps(NamedTuple):
    """The three steps of a method, and its passes: ``passes`` of a round, ``closing`` of ``personalise``."""

    passes: Callable[[TrainSettings], list[Pass]]
    closing: Callable[[TrainSettings], list[Pass]]
    client_init: Callable[[State, Floats, TrainSettings], Client]
    client_step: Callable[[Client, Pass, Epoch, TrainSettings, np.random.Generator], Client]
    client_final: Callable[[State, Client], tuple[Floats, State]]


class Method(NamedTuple):
    """A method ready to use: hyper-parameters come with the settings of a round, the layout is closed over.

    ``init(weights)``: the state of a device that never took part. ``apply(state, weights, epoch, settings,
    generator)``: one round from the received weights; the update to send, the new state, the metrics.
    ``personalise(...)``: only the personal passes; the new state and the metrics. ``infer_weights(state,
    weights)``: the vector ``float32[P]`` that this patient is assessed by, given the global weights.
    """

    name: str
    init: Callable[[Floats], State]
    apply: Callable[[State, Floats, Epoch, TrainSettings, np.random.Generator], tuple[Floats, State, Metrics]]
    personalise: Callable[[State, Floats, Epoch, TrainSettings, np.random.Generator], tuple[State, Metrics]]
    infer_weights: Callable[[State, Floats], Floats]


def method(
    name: str,
    steps: Steps,
    *,
    infer_weights: Callable[[State, Floats], Floats],
    init: Callable[[Floats], State] = State,
) -> Method:
    """Make the functions of a method out of its three steps."""

    def run(  # noqa: PLR0917  (the arguments of the functions that it becomes)
        state: State,
        weights: Floats,
        epoch: Epoch,
        settings: TrainSettings,
        generator: np.random.Generator,
        passes: list[Pass],
    ) -> tuple[Floats, State, Metrics]:
        own = generator.spawn(1)[0]
        client = steps.client_init(state, weights, settings)
        for each in passes:
            drawn = generator if each == "shared" else own
            client = steps.client_step(client, each, epoch, settings, drawn)
        update, after = steps.client_final(state, client)
        found = {"loss": client.shared_loss, "personal_loss": client.personal_loss, "alpha": client.alpha}
        return update, after, {key: value for key, value in found.items() if math.isfinite(value)}

    def apply(
        state: State, weights: Floats, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
    ) -> tuple[Floats, State, Metrics]:
        return run(state, weights, epoch, settings, generator, steps.passes(settings))

    def personalise(
        state: State, weights: Floats, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
    ) -> tuple[State, Metrics]:
        _, after, metrics = run(state, weights, epoch, settings, generator, steps.closing(settings))
        return after, metrics

    return Method(name, init, apply, personalise, infer_weights)


# -- what several methods do alike -------------------------------------------------------------------------


def shared_pass(
    client: Client,
    epoch: Epoch,
    settings: TrainSettings,
    generator: np.random.Generator,
    *,
    trainable: Floats | None = None,
) -> tuple[TrainState, float]:
    """FedAvg's local epoch on the shared vector, with FedProx's term towards the received weights."""
    return epoch(
        client.shared,
        learning_rate=settings.learning_rate,
        anchor=client.received,
        mu=settings.proximal_mu,
        trainable=np.ones_like(client.received) if trainable is None else trainable,
        generator=generator,
        personal=False,
    )


def personal_rate(settings: TrainSettings) -> float:
    """Adam's rate in personal passes: the run's own unless another is given."""
    return settings.personal_learning_rate or settings.learning_rate


def shared_passes(settings: TrainSettings) -> list[Pass]:
    """The shared vector, epoch after epoch."""
    return ["shared"] * settings.epochs


def personal_passes(settings: TrainSettings) -> list[Pass]:
    """The personal vector: as many epochs as the shared one unless another number is given."""
    return ["personal"] * (settings.personal_epochs or settings.epochs)


def nothing(settings: TrainSettings) -> list[Pass]:
    """No pass: there is no personal vector."""
    return []
