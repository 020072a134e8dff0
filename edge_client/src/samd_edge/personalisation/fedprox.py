"""FedProx: the device trains the global weights, held near them, so that unlike patients drift less apart.

Li et al., "Federated optimization in heterogeneous networks" (MLSys 2020, arXiv:1812.06127): the local loss
gets mu / 2 * ||w - w_global||^2. This version adds the gradient of the term, mu * (w - w_global), to each
mini-batch's before Adam sees it, does the same number of epochs everywhere (the paper also lets slow clients
do less), and leaves no personal model.
"""

from dataclasses import replace

import numpy as np

from samd_edge.personalisation.method import (
    Client,
    Epoch,
    Method,
    MethodError,
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
    """Begin at the received weights, which are the anchor, too. Raises MethodError without a weight."""
    if settings.proximal_mu <= 0:
        raise MethodError(
            "fedprox needs a proximal_mu above 0: without its term it is none; give one, as 0.01"
        )
    return Client(weights, shared=TrainState.fresh(weights), personal=TrainState.fresh(weights))


def client_step(
    client: Client, each: Pass, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
) -> Client:
    """One epoch on the shared vector, with the proximal term."""
    shared, loss = shared_pass(client, epoch, settings, generator)
    return replace(client, shared=shared, shared_loss=loss)


def client_final(state: State, client: Client) -> tuple[Floats, State]:
    """Send what was trained; keep nothing but the count."""
    return client.shared.weights, replace(state, rounds=state.rounds + 1)


def fedprox() -> Method:
    """The method ``fedprox``."""
    steps = Steps(shared_passes, nothing, client_init, client_step, client_final)
    return method("fedprox", steps, infer_weights=lambda _, weights: weights)
