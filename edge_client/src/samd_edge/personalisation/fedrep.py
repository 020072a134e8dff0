"""FedRep: each device first fits its own head to the received body, then improves the body for that head.

Collins et al., "Exploiting shared representations for personalized federated learning" (ICML 2021,
arXiv:2102.07078), algorithm 1: several steps on the head alone, then steps on the body alone; only the body
is averaged. This version counts epochs, ``personal_epochs`` on the head and ``epochs`` on the body (the
paper: one or more on the body), runs Adam where the paper runs SGD, and sends the received head back
unchanged. ``personalise`` fits the head to the final body.
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
    """The head, then the body."""
    return personal_passes(settings) + shared_passes(settings)


def fedrep(head: Floats) -> Method:
    """The method ``fedrep``; ``head`` is ``float32[P]``, 1 for each weight that stays on the device."""

    def client_init(state: State, weights: Floats, settings: TrainSettings) -> Client:
        """The received body under this device's own head."""
        start = np.where(head > 0, state.personal, weights)
        return Client(weights, shared=TrainState.fresh(start), personal=TrainState.fresh(start))

    def client_step(
        client: Client, each: Pass, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
    ) -> Client:
        """One epoch on the head on the received body; or one on the body under the head so found."""
        if each == "shared":
            under = np.where(head > 0, client.personal.weights, client.shared.weights)
            client = replace(client, shared=client.shared._replace(weights=under))
            shared, loss = shared_pass(client, epoch, settings, generator, trainable=1 - head)
            return replace(client, shared=shared, shared_loss=loss)
        personal, loss = epoch(
            client.personal,
            learning_rate=personal_rate(settings),
            anchor=client.received,
            mu=0.0,
            trainable=head,
            generator=generator,
            personal=True,
        )
        return replace(client, personal=personal, personal_loss=loss)

    def client_final(state: State, client: Client) -> tuple[Floats, State]:
        """Send the body with the received head; keep the head."""
        update = np.where(head > 0, client.received, client.shared.weights)
        return update, replace(state, personal=client.personal.weights, rounds=state.rounds + 1)

    def infer_weights(state: State, weights: Floats) -> Floats:
        """The global body under this device's head."""
        return np.where(head > 0, state.personal, weights)

    steps = Steps(passes, personal_passes, client_init, client_step, client_final)
    return method("fedrep", steps, infer_weights=infer_weights)
