"""No personal model: the device trains the global weights and everybody uses their average.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data" (AISTATS 2017,
arXiv:1602.05629), the client of FedAvg. This version runs Adam afresh in each round where the paper runs SGD,
and adds the proximal term of ``settings.proximal_mu`` where one is asked for (see ``fedprox``).
"""

from dataclasses import replace

import numpy as np

from samd_edge.personalisation.method import (
    Client,
    Epoch,
    Method,
    Pass,
    State,
    Steps,
    method,
    nothing,
    shared_pass,
    shared_passes,
)
from samd_edge.runtime import Floats, TrainState
from samd_protocol.tasks import TrainSettings


def client_init(state: State, weights: Floats, settings: TrainSettings) -> Client:
    """Begin at the received weights."""
    return Client(weights, shared=TrainState.fresh(weights), personal=TrainState.fresh(weights))


def client_step(
    client: Client, each: Pass, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
) -> Client:
    """One epoch on the shared vector."""
    shared, loss = shared_pass(client, epoch, settings, generator)
    return replace(client, shared=shared, shared_loss=loss)


def client_final(state: State, client: Client) -> tuple[Floats, State]:
    """Send what was trained; keep nothing but the count."""
    return client.shared.weights, replace(state, rounds=state.rounds + 1)


def none() -> Method:
    """The method ``none``."""
    steps = Steps(shared_passes, nothing, client_init, client_step, client_final)
    return method("none", steps, infer_weights=lambda _, weights: weights)
