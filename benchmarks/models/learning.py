"""Training in one process, by the code of the device and of the server; only the wire is left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from models.cohort import Device
from samd_data.features import FeatureSpec
from samd_edge.personalisation import Epoch, Method, State
from samd_edge.runtime import Floats, Graph, TrainState
from samd_edge.trainer.learning import Place, epochs_of
from samd_protocol.tasks import TrainSettings
from samd_server.strategies import Averaging, Result

BATCH = 32


@dataclass(frozen=True)
class Bench:
    """What every training here needs. `sgd`: local steps without Adam's normalisation (see `plain`)."""

    graph: Graph
    spec: FeatureSpec
    classes: int
    sgd: bool


def plain(state: TrainState) -> TrainState:
    """The state with which the graph's Adam is plain stochastic gradient descent with momentum .9.

    Its divisor sqrt(v) stays near 1 and its corrections of the start are over: a step is the learning rate
    times the mean gradient. Adam's own first steps are the signs of the gradient, whatever its size, so that
    a patient of whom there is nothing to learn pulls as hard as any other.
    """
    return state._replace(v=np.ones_like(state.v), t=1e5)


class Plain:
    """The graph, with a fresh Adam turned into plain descent."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.evaluate = graph.evaluate

    def train_epoch(self, *, state: TrainState, **inputs: Any) -> tuple[TrainState, float]:
        """As `Graph.train_epoch`."""
        return self._graph.train_epoch(state=plain(state) if state.t == 0 else state, **inputs)


def epoch_of(bench: Bench, device: Device, settings: TrainSettings) -> Epoch:
    """One epoch over a device's rows, as its trainer does it."""
    if not settings.log_prior:
        settings = msgspec.structs.replace(settings, log_prior=[0.0] * bench.classes)
    return epochs_of(
        Plain(bench.graph) if bench.sgd else bench.graph,
        device.rows,
        bench.spec,
        settings=settings,
        batch_size=BATCH,
    )


def centralise(
    bench: Bench,
    device: Device,
    start: Floats,
    *,
    settings: TrainSettings,
    epochs: int,
    on_epoch: Callable[[int, Floats], None] = lambda *_: None,
) -> Floats:
    """`epochs` epochs over all rows in one place, with one state of the optimiser throughout."""
    epoch, generator = epoch_of(bench, device, settings), np.random.default_rng([settings.seed, 77])
    state, ones = TrainState.fresh(start), np.ones_like(start)
    for number in range(1, epochs + 1):
        if bench.sgd:
            state = plain(state)
        state, _ = epoch(
            state,
            learning_rate=settings.learning_rate,
            anchor=start,
            mu=0.0,
            trainable=ones,
            generator=generator,
            personal=False,
        )
        on_epoch(number, state.weights)
    return state.weights


def federate(
    bench: Bench,
    devices: Sequence[Device],
    start: Floats,
    *,
    method: Method,
    settings: TrainSettings,
    averaging: Averaging,
    rounds: int,
    on_round: Callable[[int, Floats, list[State]], None] = lambda *_: None,
    tamper: Callable[[int, int, Floats, Floats], Floats] = lambda number, at, sent, got: sent,
) -> tuple[Floats, list[State]]:
    """`rounds` rounds of every device; the global weights and what each device keeps.

    `tamper(round, device, update, received)` is what a device really sends.
    """
    epochs = [epoch_of(bench, device, settings) for device in devices]
    states = [method.init(start) for _ in devices]
    weights = start
    for number in range(1, rounds + 1):
        results = []
        for at, device in enumerate(devices):
            drawn = Place(settings.seed, number, device.name).generator()
            update, states[at], told = method.apply(states[at], weights, epochs[at], settings, drawn)
            severe = int((device.labels >= bench.classes // 2).sum())
            sent = tamper(number, at, update, weights)
            results.append(Result(sent, len(device), severe, told.get("loss", 0.0)))
        weights = averaging.round(number, weights, results)
        on_round(number, weights, states)
    return weights, states
