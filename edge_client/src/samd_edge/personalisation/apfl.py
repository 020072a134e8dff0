"""APFL: each device mixes the global model with one of its own, and trains its own within the mixture.

Deng, Kamani and Mahdavi, "Adaptive personalized federated learning" (2020, arXiv:2003.13461), algorithm 1:
the personal model is alpha * v + (1 - alpha) * w; w is trained as in FedAvg, v by the gradient taken at the
mixture. This version alternates whole epochs where the paper alternates single steps: an epoch of Adam from
the mixture gives its change D, and v moves by D (Adam takes the factor alpha of the chain rule out by itself;
with SGD, v's rate is thereby 1 / alpha times the paper's). The adaptive alpha of the paper's equation 10
moves along <grad, v - w>; without a gradient at hand, this version moves it by ``personal_alpha_rate`` times
the cosine between D and v - w, within 0 to 1 (rate 0: alpha stays as it was given).
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
)
from samd_edge.runtime import Floats, TrainState
from samd_protocol.tasks import TrainSettings


def passes(settings: TrainSettings) -> list[Pass]:
    """One epoch of the shared vector, one of the mixture, in turn."""
    return ["shared", "personal"] * settings.epochs


def client_init(state: State, weights: Floats, settings: TrainSettings) -> Client:
    """The shared vector begins at the received weights, v where it ended, alpha too."""
    return Client(
        weights,
        shared=TrainState.fresh(weights),
        personal=TrainState.fresh(state.personal),
        alpha=state.alpha if state.rounds else settings.personal_alpha,
    )


def client_step(
    client: Client, each: Pass, epoch: Epoch, settings: TrainSettings, generator: np.random.Generator
) -> Client:
    """One epoch on the shared vector; or one from the mixture, whose change moves v."""
    if each == "shared":
        shared, loss = shared_pass(client, epoch, settings, generator)
        return replace(client, shared=shared, shared_loss=loss)
    own, others = client.personal.weights, client.shared.weights
    start = mixture(client.alpha, own, others)
    trained, loss = epoch(
        client.personal._replace(weights=start),
        learning_rate=personal_rate(settings),
        anchor=start,
        mu=0.0,
        trainable=np.ones_like(start),
        generator=generator,
        personal=True,
    )
    change = trained.weights - start
    alpha = client.alpha + settings.personal_alpha_rate * cosine(change, own - others)
    return replace(
        client,
        personal=trained._replace(weights=own + change),
        alpha=min(max(alpha, 0.0), 1.0),
        personal_loss=loss,
    )


def client_final(state: State, client: Client) -> tuple[Floats, State]:
    """Send the shared vector; keep v and alpha."""
    kept = replace(state, personal=client.personal.weights, alpha=client.alpha, rounds=state.rounds + 1)
    return client.shared.weights, kept


def mixture(alpha: float, own: Floats, others: Floats) -> Floats:
    """``float32[P]``: alpha of ``own``, the rest of ``others``."""
    return (np.float32(alpha) * own + np.float32(1 - alpha) * others).astype(np.float32)


def cosine(one: Floats, other: Floats) -> float:
    """Of the angle between two vectors; 0 when one of them has no length."""
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(np.dot(one, other)) / lengths if lengths else 0.0


def apfl() -> Method:
    """The method ``apfl``."""
    steps = Steps(passes, personal_passes, client_init, client_step, client_final)
    return method(
        "apfl",
        steps,
        infer_weights=lambda state, weights: mixture(
            state.alpha if state.rounds else 0.0, state.personal, weights
        ),
    )
