"""Fine-tuning: FedAvg during the rounds, then each device trains the final global weights a little further.

Wang et al., "Federated evaluation of on-device personalization" (2019, arXiv:1910.10252); Cheng, Chadha and
Duchi, "Fine-tuning is fine in federated learning" (2021, arXiv:2108.07313). This version fine-tunes with the
pull ``settings.personal_mu`` towards the global weights (0: none, as in the papers), and anew from the global
weights each time: nothing personal is carried from round to round.
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


def client_init(state: State, weights: Floats, settings: TrainSettings) -> Client:
    """Both begin at the received weights."""
    return Client(weights, shared=TrainState.fresh(weights), personal=TrainState.fresh(weights))


def client_step(
    client: Client, each: Pass, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
) -> Client:
    """One epoch on either vector."""
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
    """Send the shared vector; keep the fine-tuned one."""
    return client.shared.weights, replace(state, personal=client.personal.weights, rounds=state.rounds + 1)


def finetune() -> Method:
    """The method ``finetune``."""
    steps = Steps(shared_passes, personal_passes, client_init, client_step, client_final)
    return method("finetune", steps, infer_weights=lambda state, _: state.personal)
