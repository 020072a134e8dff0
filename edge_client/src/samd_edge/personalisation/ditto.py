"""Ditto: beside its part in the global model, a device trains a model of its own that is pulled towards it.

Li et al., "Ditto: fair and robust federated learning through personalization" (ICML 2021, arXiv:2012.04221),
algorithm 1: v minimises F_k(v) + lambda / 2 * ||v - w||^2 with w the weights received in this round, beside
FedAvg on w. lambda is ``settings.personal_mu``. This version runs Adam afresh in each round where the paper
runs SGD, and takes whole epochs (``personal_epochs``) where the paper counts single steps.
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
    personal_passes,
    personal_rate,
    shared_pass,
    shared_passes,
)
from samd_edge.runtime import Floats, TrainState
from samd_protocol.tasks import TrainSettings


def passes(settings: TrainSettings) -> list[Pass]:
    """The shared vector, then the personal one: neither sees the other within a round."""
    return shared_passes(settings) + personal_passes(settings)


def client_init(state: State, weights: Floats, settings: TrainSettings) -> Client:
    """The shared vector begins at the received weights, the personal one where it ended."""
    return Client(weights, shared=TrainState.fresh(weights), personal=TrainState.fresh(state.personal))


def client_step(
    client: Client, each: Pass, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
) -> Client:
    """One epoch on either vector; the personal one is pulled towards the received weights."""
    if each == "shared":
        shared, loss = shared_pass(client, epoch, settings, generator)
        return replace(client, shared=shared, shared_loss=loss)
    personal, loss = epoch(
        client.personal,
        learning_rate=personal_rate(settings),
        anchor=client.received,
        mu=settings.personal_mu,
        trainable=np.ones_like(client.received),
        generator=generator,
        personal=True,
    )
    return replace(client, personal=personal, personal_loss=loss)


def client_final(state: State, client: Client) -> tuple[Floats, State]:
    """Send the shared vector; keep the personal one."""
    return client.shared.weights, replace(state, personal=client.personal.weights, rounds=state.rounds + 1)


def ditto() -> Method:
    """The method ``ditto``."""
    steps = Steps(passes, personal_passes, client_init, client_step, client_final)
    return method("ditto", steps, infer_weights=lambda state, _: state.personal)
