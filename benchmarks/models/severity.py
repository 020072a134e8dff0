"""Table 1: severity, complete and with signs masked; table 3 attacks the same training (`attack`).

Five seeds; each leaves another fifth of the patients out. Of the rest, the first 70 % of each recording
trains and the remainder judges ("own"), six hours purged on both sides; the patients left out are the
"others". The logit adjustment is by the class counts of all training devices, as in a run. Rates, epochs and
rounds were chosen within the training part of another seed (2026) and are the same for all contestants
of one kind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import cohort, learning, scores
from models.cohort import Device
from models.learning import Bench
from models.shapes import SEEDS, Shape, shape
from models.store import Store
from samd_data.features import FeatureSpec, hide
from samd_data.reading import COLUMNS
from samd_edge import personalisation
from samd_edge.personalisation import State
from samd_edge.runtime import Floats
from samd_edge.trainer.learning import Place
from samd_protocol.tasks import TrainSettings
from samd_server import metrics
from samd_server.loop import log_prior
from samd_server.strategies import Averaging, by_name

CLASSES = 4
HIDDEN = (32, 16)
SHARE = 0.7
MASK = 0.15
ROUNDS = 60
EPOCHS = 5
CURVE = 5
"""A point of the learning curve every so many rounds."""

ROWS: dict[str, dict[str, Any]] = {
    "local only": {"kind": "local", "rate": 0.3, "epochs": 60},
    "centralised": {"kind": "central", "rate": 0.3, "epochs": 60},
    "FedAvg, Adam on the devices": {"strategy": "FedAvg", "rate": 0.003, "sgd": False},
    "FedAvg": {"strategy": "FedAvg", "rate": 1.0},
    "FedAvgM": {"strategy": "FedAvgM", "rate": 0.3},
    "FedAvgM + finetune": {
        "strategy": "FedAvgM",
        "rate": 0.3,
        "method": "finetune",
        "more": {"personal_epochs": 5, "personal_learning_rate": 0.1},
    },
    "FedAvgM + ditto": {
        "strategy": "FedAvgM",
        "rate": 0.3,
        "method": "ditto",
        "more": {"personal_epochs": 5, "personal_learning_rate": 0.3, "personal_mu": 0.1},
    },
    "FedAvgM + fedper": {"strategy": "FedAvgM", "rate": 0.3, "method": "fedper"},
    "FedAvgM + fedrep": {"strategy": "FedAvgM", "rate": 0.3, "method": "fedrep"},
    "FedAvgM + apfl": {"strategy": "FedAvgM", "rate": 0.3, "method": "apfl"},
    "FedAvgM, by severe cases": {"strategy": "FedAvgM", "rate": 0.3, "weighting": "severe"},
    "FedAdam": {"strategy": "FedAdam", "rate": 0.3, "settings": {"eta": 0.03}},
    "FedProx": {"strategy": "FedProx", "rate": 1.0, "method": "fedprox", "more": {"proximal_mu": 0.01}},
    "FedMedian": {"strategy": "FedMedian", "rate": 1.0},
    "FedTrimmedAvg": {"strategy": "FedTrimmedAvg", "rate": 1.0},
}


@dataclass(frozen=True)
class Cut:
    """One seed's patients: `training` and `own` by device, and the patients left out."""

    training: list[Device]
    own: list[Device]
    others: list[Device]
    prior: list[float]


def cut(devices: list[Device], seed: int) -> Cut:
    """Who trains and who judges."""
    chosen, others = cohort.folds(devices, 5, seed)[0]
    parts = [(first, rest) for first, rest in (device.cut(SHARE) for device in chosen) if len(first)]
    training = [first for first, _ in parts]
    counts = np.bincount(cohort.joined(training).labels, minlength=CLASSES)
    return Cut(training, [rest for _, rest in parts], others, log_prior(counts.tolist(), 1.0))


def counts(
    net: Shape, spec: FeatureSpec, device: Device, weights: Floats, masked: bool = False
) -> NDArray[np.int64]:
    """int64[4, 4] of a device; the masks depend on the device alone."""
    if not len(device):
        return np.zeros((CLASSES, CLASSES), dtype=np.int64)
    features = device.features
    if masked:
        drawn = Place(2026, 0, device.name).generator().random((len(device), len(COLUMNS)))
        features = hide(features, drawn < MASK, spec)
    return metrics.confusion(device.labels, net.graph.infer(features, weights).argmax(axis=1))


def one_seed(
    net: Shape,
    spec: FeatureSpec,
    devices: list[Device],
    how: dict[str, Any],
    *,
    seed: int,
    rounds: int = ROUNDS,
    tamper: Callable[[int, int, Floats, Floats], Floats] | None = None,
    trained_on: Callable[[list[Device]], list[Device]] = lambda training: training,
) -> dict[str, Any]:
    """Train one contestant and count its answers."""
    patients = cut(devices, seed)
    training = trained_on(patients.training)
    bench = Bench(net.graph, spec, CLASSES, how.get("sgd", True))
    start = net.weights[seed]
    curve: list[list[float]] = []
    if how.get("kind") == "local":
        own = []
        for device in training:
            prior = log_prior(np.bincount(device.labels, minlength=CLASSES).tolist(), 1.0)
            given = TrainSettings(learning_rate=how["rate"], mask_rate=MASK, seed=seed, log_prior=prior)
            own.append(learning.centralise(bench, device, start, settings=given, epochs=how["epochs"]))
    elif how.get("kind") == "central":
        given = TrainSettings(learning_rate=how["rate"], mask_rate=MASK, seed=seed, log_prior=patients.prior)
        rows = cohort.joined(training)
        everyone = learning.centralise(bench, rows, start, settings=given, epochs=how["epochs"])
        own = [everyone] * len(training)
    else:
        own = federated(
            net, bench, patients, training, how, seed=seed, rounds=rounds, tamper=tamper, curve=curve
        )
    return {
        "own": [counts(net, spec, d, w).tolist() for d, w in zip(patients.own, own, strict=True)],
        "own_masked": sum(
            counts(net, spec, d, w, masked=True) for d, w in zip(patients.own, own, strict=True)
        ).tolist(),
        "others": on_others(net, spec, patients.others, own if _personal(how) else [own[0]]),
        "others_masked": on_others(net, spec, patients.others, own if _personal(how) else [own[0]], True),
        "curve": curve,
    }


def _personal(how: dict[str, Any]) -> bool:
    return how.get("kind") == "local" or how.get("method", "none") not in ("none", "fedprox")


def federated(
    net: Shape,
    bench: Bench,
    patients: Cut,
    training: list[Device],
    how: dict[str, Any],
    *,
    seed: int,
    rounds: int,
    tamper: Callable[[int, int, Floats, Floats], Floats] | None,
    curve: list[list[float]],
) -> list[Floats]:
    """The weights by which each patient is assessed."""
    name = how.get("method", "none")
    method = personalisation.by_name(name, net.layers)
    given = TrainSettings(
        epochs=EPOCHS,
        learning_rate=how["rate"],
        mask_rate=MASK,
        seed=seed,
        log_prior=patients.prior,
        method=name,
        **how.get("more", {}),
    )
    strategy = by_name(
        how["strategy"],
        len(training),
        settings=how.get("settings"),
        weighting=how.get("weighting", "examples"),
        learning_rate=how["rate"],
        proximal_mu=given.proximal_mu,
    )
    judged = cohort.joined(patients.own)

    def on_round(number: int, weights: Floats, _: list[State]) -> None:
        if number % CURVE == 0:
            answers = net.graph.infer(judged.features, weights).argmax(axis=1)
            found = metrics.scores(metrics.confusion(judged.labels, answers))
            curve.append([number, found.macro_f1 or 0.0, found.recall_high or 0.0])

    more = {} if tamper is None else {"tamper": tamper}
    weights, states = learning.federate(
        bench,
        training,
        net.weights[seed],
        method=method,
        settings=given,
        averaging=Averaging(strategy, len(training)),
        rounds=rounds,
        on_round=on_round,
        **more,
    )
    own = []
    for device, state in zip(training, states, strict=True):
        after = state
        if _personal(how):
            drawn = Place(seed, rounds + 1, device.name).generator()
            epoch = learning.epoch_of(bench, device, given)
            after, _ = method.personalise(state, weights, epoch, given, drawn)
        own.append(method.infer_weights(after, weights))
    return own


def on_others(
    net: Shape, spec: FeatureSpec, others: list[Device], models: Sequence[Floats], masked: bool = False
) -> dict[str, float]:
    """Mean scores of these models on patients of whom none was trained on."""
    found = [told(sum(counts(net, spec, device, weights, masked) for device in others)) for weights in models]
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def told(confusion: Any) -> dict[str, float]:
    """What the table tells of counts; NaN where it is undefined."""
    found = metrics.scores(np.asarray(confusion))
    values = {
        "macro_f1": found.macro_f1,
        "recall_urgent": found.recall_urgent,
        "recall_high": found.recall_high,
    }
    return {key: float("nan") if value is None else value for key, value in values.items()}


def worst_decile(own: Sequence[Any]) -> float:
    """The mean macro-F1 of the tenth of patients that fare worst."""
    each = sorted(told(one)["macro_f1"] for one in own if np.asarray(one).sum())
    return float(np.mean(each[: max(1, len(each) // 10)]))


def line(seeds: Sequence[dict[str, Any]], central: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """One row of the table over seeds."""
    found: dict[str, Any] = {}
    pooled = [told(np.sum(seed["own"], axis=0)) for seed in seeds]
    masked = [told(seed["own_masked"]) for seed in seeds]
    for where, values in (
        ("own", pooled),
        ("own_masked", masked),
        ("others", [seed["others"] for seed in seeds]),
        ("others_masked", [seed["others_masked"] for seed in seeds]),
    ):
        found[where] = {
            key: scores.over_seeds([value[key] for value in values])
            for key in ("macro_f1", "recall_urgent", "recall_high")
        }
    found["worst_decile_macro_f1"] = scores.over_seeds([worst_decile(seed["own"]) for seed in seeds])
    if central is not None:
        theirs = [told(np.sum(seed["own"], axis=0)) for seed in central]
        pairs = zip(pooled, theirs, strict=True)
        found["less_centralised"] = scores.over_seeds(
            [one["macro_f1"] - other["macro_f1"] for one, other in pairs]
        )
        both = zip(seeds, central, strict=True)
        found["less_centralised_on_others"] = scores.over_seeds(
            [one["others"]["macro_f1"] - other["others"]["macro_f1"] for one, other in both]
        )
    if seeds[0]["curve"]:
        found["curve"] = np.mean([seed["curve"] for seed in seeds], axis=0).round(4).tolist()
    return found


def run(seeds: int = SEEDS) -> dict[str, Any]:
    """Table 1."""
    spec, devices = cohort.load("severity")
    net = shape(spec.size, HIDDEN, CLASSES)
    kept: dict[str, Any] = {}
    for name, how in ROWS.items():
        store = Store("table1", {"how": how, "rounds": ROUNDS, "epochs": EPOCHS, "mask": MASK})
        kept[name] = [
            store.unit(
                f"{name.replace(' ', '-')}-{seed}",
                lambda how=how, seed=seed: one_seed(net, spec, devices, how, seed=seed),
            )
            for seed in range(seeds)
        ]
    return {
        "patients": len(devices),
        "hours": sum(map(len, devices)),
        "weights": len(net.weights[0]),
        "rounds": ROUNDS,
        "epochs_a_round": EPOCHS,
        "rows": {
            name: line(found, None if name == "centralised" else kept["centralised"])
            for name, found in kept.items()
        },
    }
