"""Training in one process, by the code of the device and of the server; only the wire is left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """What every training here needs. `sgd`: plain steps (`TrainState.as_sgd`), else Adam.

    Adam's first steps are the signs of the gradient, whatever its size, and it starts afresh in each round: a
    patient of whom there is nothing to learn pulls as hard as any other.
    """

    graph: Graph
    spec: FeatureSpec
    classes: int
    sgd: bool


def epoch_of(bench: Bench, device: Device, settings: TrainSettings) -> Epoch:
    """One epoch over a device's rows, as its trainer does it."""
    given = msgspec.structs.replace(
        settings,
        optimizer="sgd" if bench.sgd else "adam",
        log_prior=settings.log_prior or [0.0] * bench.classes,
    )
    return epochs_of(bench.graph, device.rows, bench.spec, settings=given, batch_size=BATCH)


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
            state = state._replace(t=0.0)  # a new epoch begins with the second moment at 1, too
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
