"""FedPer: the body of the network is everybody's, the head stays on the device.

Arivazhagan et al., "Federated learning with personalization layers" (2019, arXiv:1912.00818), algorithm 2:
body and head are trained together, the body is averaged, the head never leaves. This version sends the
received head back unchanged, so that the update is a whole vector to the server, and runs Adam afresh in each
round. ``personalise`` trains the head alone, on the final body.
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
    shared_passes,
)
from samd_edge.runtime import Floats, TrainState
from samd_protocol.tasks import TrainSettings


def fedper(head: Floats) -> Method:
    """The method ``fedper``; ``head`` is ``float32[P]``, 1 for each weight that stays on the device."""

    def client_init(state: State, weights: Floats, settings: TrainSettings) -> Client:
        """The received body under this device's own head."""
        start = np.where(head > 0, state.personal, weights)
        return Client(weights, shared=TrainState.fresh(start), personal=TrainState.fresh(start))

    def client_step(
        client: Client, each: Pass, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
    ) -> Client:
        """One epoch on body and head together; of the closing passes, on the head alone."""
        if each == "shared":
            shared, loss = epoch(
                client.shared,
                learning_rate=settings.learning_rate,
                # the proximal term holds the body only: the head has nothing to be held to
                anchor=np.where(head > 0, client.shared.weights, client.received),
                mu=settings.proximal_mu,
                trainable=np.ones_like(client.received),
                generator=generator,
                personal=False,
            )
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
        trained = client.personal if client.personal.t > 0 else client.shared
        return update, replace(state, personal=trained.weights, rounds=state.rounds + 1)

    def infer_weights(state: State, weights: Floats) -> Floats:
        """The global body under this device's head."""
        return np.where(head > 0, state.personal, weights)

    steps = Steps(shared_passes, personal_passes, client_init, client_step, client_final)
    return method("fedper", steps, infer_weights=infer_weights)
