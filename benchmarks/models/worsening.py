"""Table 2: deterioration within six hours. First new patients, then known ones with a model of their own.

New patients: five folds of patients, five seeds (of folds, first weights and draws). How long to train is
chosen inside each training fold, by three folds of its patients and their average precision; rates were
chosen on the training patients of one fold of another seed (2026). Known patients: the first 70 % of each
recording trains, the rest judges, six hours purged on both sides.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import cohort, learning, mixer, scores
from models.cohort import Device
from models.learning import Bench
from models.shapes import SEEDS, Shape, shape
from models.store import Store
from samd_data import calibration
from samd_edge import personalisation
from samd_edge.runtime import Floats
from samd_protocol.tasks import TrainSettings
from samd_server.strategies import Averaging, by_name

HIDDEN = (32, 16)
MIXERS = ((32, 16), (16,))
FOLDS, INNER = 5, 3
MASK = 0.15
TARGET = {"auroc": 0.764, "average_precision": 0.321}
"""Of the current NEWS2, as known before; the same run measures it again."""

Scorer = Callable[[list[Device], int, Sequence[int]], dict[int, Callable[[Device], Floats]]]
"""From training patients, a seed and lengths of training to what scores a patient after each length."""

FEDERATED: dict[str, dict[str, Any]] = {
    "FedAvgM": {
        "strategy": "FedAvgM",
        "sgd": True,
        "rate": 0.1,
        "epochs": 1,
        "lengths": (15, 20, 25, 30, 35, 40, 50),
    },
    "FedAvg": {"strategy": "FedAvg", "sgd": True, "rate": 0.5, "epochs": 2, "lengths": (5, 8, 12, 16, 20)},
    "FedAvg, Adam on the devices": {
        "strategy": "FedAvg",
        "sgd": False,
        "rate": 0.003,
        "epochs": 1,
        "lengths": (10, 20, 30, 40),
    },
}
CENTRAL: dict[str, dict[str, Any]] = {
    "centralised": {"sgd": True, "rate": 0.1, "lengths": (1, 2, 3, 5, 8, 12)},
    "centralised, Adam": {"sgd": False, "rate": 0.001, "lengths": (2, 4, 6, 8, 12)},
}


def settings(rate: float, epochs: int, seed: int, **more: Any) -> TrainSettings:
    """Of one round."""
    return TrainSettings(epochs=epochs, learning_rate=rate, mask_rate=MASK, seed=seed, **more)


def federated(net: Shape, spec: Any, how: dict[str, Any]) -> Scorer:
    """All training patients as devices under one strategy."""
    bench = Bench(net.graph, spec, 2, how["sgd"])

    def train(
        devices: list[Device], seed: int, lengths: Sequence[int]
    ) -> dict[int, Callable[[Device], Floats]]:
        kept: dict[int, Floats] = {}

        def on_round(number: int, weights: Floats, _: Any) -> None:
            if number in lengths:
                kept[number] = weights

        averaging = Averaging(by_name(how["strategy"], len(devices)), len(devices))
        method = personalisation.by_name("none", net.layers)
        given = settings(how["rate"], how["epochs"], seed)
        learning.federate(
            bench,
            devices,
            net.weights[seed],
            method=method,
            settings=given,
            averaging=averaging,
            rounds=max(lengths),
            on_round=on_round,
        )
        return {length: scorer(net, weights) for length, weights in kept.items()}

    return train


def central(net: Shape, spec: Any, how: dict[str, Any]) -> Scorer:
    """The same network with all rows in one place."""
    bench = Bench(net.graph, spec, 2, how["sgd"])

    def train(
        devices: list[Device], seed: int, lengths: Sequence[int]
    ) -> dict[int, Callable[[Device], Floats]]:
        kept: dict[int, Floats] = {}

        def on_epoch(number: int, weights: Floats) -> None:
            if number in lengths:
                kept[number] = weights

        given = settings(how["rate"], 1, seed)
        learning.centralise(
            bench,
            cohort.joined(devices),
            net.weights[seed],
            settings=given,
            epochs=max(lengths),
            on_epoch=on_epoch,
        )
        return {length: scorer(net, weights) for length, weights in kept.items()}

    return train


def scorer(net: Shape, weights: Floats) -> Callable[[Device], Floats]:
    """The probability of deterioration of each hour of a patient."""
    return lambda device: net.graph.infer(device.features, weights)[:, 1]


def peer(make: Callable[[int], Any]) -> Scorer:
    """A model of scikit-learn, all rows in one place."""

    def train(
        devices: list[Device], seed: int, lengths: Sequence[int]
    ) -> dict[int, Callable[[Device], Floats]]:
        rows = cohort.joined(devices)
        fitted = make(seed).fit(rows.features, rows.labels)
        return {lengths[0]: lambda device: fitted.predict_proba(device.features)[:, 1]}

    return train


def out_of_fold(
    train: Scorer, devices: list[Device], lengths: Sequence[int], *, folds: int, seed: int, split: int
) -> dict[int, NDArray[np.float64]]:
    """Scores of every row of `devices`, each by a model that never saw the patient, after each length."""
    at = {device.name: number for number, device in enumerate(devices)}
    found: dict[int, list[Any]] = {length: [None] * len(devices) for length in lengths}
    for training, test in cohort.folds(devices, folds, split):
        for length, score in train(training, seed, lengths).items():
            for device in test:
                found[length][at[device.name]] = score(device)
    return {length: np.concatenate(parts).astype(np.float64) for length, parts in found.items()}


def chosen(train: Scorer, devices: list[Device], seed: int, lengths: Sequence[int]) -> tuple[int, Any]:
    """The length of the best average precision over inner folds, and the scores that it had there."""
    if len(lengths) == 1:
        return lengths[0], None
    labels = cohort.joined(devices).labels
    inner = out_of_fold(train, devices, lengths, folds=INNER, seed=seed, split=seed + 1000)
    best = max(lengths, key=lambda length: scores.average_precision(labels, inner[length]))
    return best, inner[best]


def new_patients(devices: list[Device], train: Scorer, lengths: Sequence[int], seed: int) -> dict[str, Any]:
    """One seed: scores of every row by the model of its fold, and what calibration makes of them."""
    at = {device.name: number for number, device in enumerate(devices)}
    raw: list[Any] = [None] * len(devices)
    calibrated: list[Any] = [None] * len(devices)
    sets: list[Any] = [None] * len(devices)
    lengths_chosen = []
    for training, test in cohort.folds(devices, FOLDS, seed):
        length, inner = chosen(train, training, seed, lengths)
        lengths_chosen.append(length)
        score = train(training, seed, [length])[length]
        fitted = None
        if inner is not None:
            fitted = calibration.fit(both(inner), cohort.joined(training).labels)
        for device in test:
            given = np.asarray(score(device), dtype=np.float64)
            raw[at[device.name]] = given
            if fitted is not None:
                calibrated[at[device.name]] = calibration.apply(fitted, both(given))[:, 1]
                sets[at[device.name]] = calibration.sets(fitted, both(given)).astype(int)
    found: dict[str, Any] = {"scores": rounded(raw), "lengths": lengths_chosen}
    if sets[0] is not None:
        found |= {"calibrated": rounded(calibrated), "sets": np.concatenate(sets).tolist()}
    return found


def both(positive: NDArray[Any]) -> NDArray[np.float64]:
    """float64[N, 2] from the probability of the second class."""
    given = np.asarray(positive, dtype=np.float64).clip(0.0, 1.0)
    return np.stack([1 - given, given], axis=1)


def rounded(parts: list[Any]) -> list[float]:
    """Seven digits, to be kept."""
    return [float(f"{value:.7g}") for value in np.concatenate(parts)]


def contestants(net: Shape, spec: Any) -> dict[str, tuple[Scorer, Sequence[int]]]:
    """Name, what trains it, and the lengths to choose from."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    made: dict[str, tuple[Scorer, Sequence[int]]] = {
        "logistic regression": (peer(lambda _: LogisticRegression(C=0.01, max_iter=1000)), (0,)),
        "gradient boosting": (
            peer(
                lambda seed: HistGradientBoostingClassifier(
                    max_iter=100,
                    learning_rate=0.05,
                    max_depth=3,
                    min_samples_leaf=100,
                    max_features=0.2,
                    random_state=seed,
                )
            ),
            (0,),
        ),
    }
    made |= {name: (central(net, spec, how), how["lengths"]) for name, how in CENTRAL.items()}
    for hidden in MIXERS:
        mixed, widths = mixer.shape(spec, hidden, 2), " ".join(map(str, hidden))
        name = f"centralised, mixer over time {widths}"
        made[name] = (central(mixed, spec, CENTRAL["centralised"]), CENTRAL["centralised"]["lengths"])
    made |= {name: (federated(net, spec, how), how["lengths"]) for name, how in FEDERATED.items()}
    return made


def judge_new(
    devices: list[Device], kept: dict[str, list[dict[str, Any]]], draws: int = 200
) -> dict[str, Any]:
    """The table: each contestant's scores over seeds, beside NEWS2's and the centralised network's."""
    rows = cohort.joined(devices)
    labels = rows.labels
    names = np.concatenate([np.full(len(device), device.name) for device in devices])
    metrics: dict[str, Callable[[Any, Any], float]] = {
        "auroc": scores.auroc,
        "average_precision": scores.average_precision,
    }
    news2 = {name: metric(labels, rows.totals) for name, metric in metrics.items()}
    table: dict[str, Any] = {"current NEWS2": news2}
    for contestant, seeds in kept.items():
        line: dict[str, Any] = {"lengths": [seed["lengths"] for seed in seeds]}
        for name, metric in metrics.items():
            values = [metric(labels, seed["scores"]) for seed in seeds]
            line[name] = scores.over_seeds(values)
            drawn: list[float] = []
            for number, seed in enumerate(seeds):
                given = np.asarray(seed["scores"])
                drawn += scores.over_patients(
                    lambda at, given=given, of=metric: (
                        of(labels[at], given[at]) - of(labels[at], rows.totals[at])
                    ),
                    names,
                    draws,
                    number,
                )
            line[f"{name}_above_news2_over_patients"] = scores.interval(drawn)
            if contestant != "centralised" and "centralised" in kept:
                line[f"{name}_less_centralised"] = scores.over_seeds(
                    [
                        value - metric(labels, other["scores"])
                        for value, other in zip(values, kept["centralised"], strict=True)
                    ]
                )
        if "calibrated" in seeds[0]:
            line["calibration"] = judge_calibration(labels, seeds)
        table[contestant] = line
    return table


def judge_calibration(labels: NDArray[Any], seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Expected calibration error and Brier score before and after; how often sets hold the truth."""
    found: dict[str, Any] = {}
    for name in ("scores", "calibrated"):
        pairs = [calibration.reliability(np.asarray(seed[name]), labels) for seed in seeds]
        found[f"{name}_error"] = scores.over_seeds([error for _, error in pairs])
        found[f"{name}_brier"] = scores.over_seeds(
            [float(((np.asarray(seed[name]) - labels) ** 2).mean()) for seed in seeds]
        )
        found[f"{name}_bins"] = [[one.rows, one.mean_probability, one.share] for one in pairs[0][0]]
    held = [np.asarray(seed["sets"], dtype=bool) for seed in seeds]
    for label, name in ((0, "stable"), (1, "deteriorates")):
        found[f"set_holds_{name}"] = scores.over_seeds(
            [float(one[labels == label, label].mean()) for one in held]
        )
    found["set_of_one"] = scores.over_seeds([float((one.sum(axis=1) == 1).mean()) for one in held])
    return found


def run(seeds: int = SEEDS) -> dict[str, Any]:
    """Table 2, first part."""
    spec, devices = cohort.load("deterioration")
    net = shape(spec.size, HIDDEN, 2)
    store = Store("table2-new", {"federated": FEDERATED, "central": CENTRAL, "mask": MASK, "net": HIDDEN})
    kept: dict[str, list[dict[str, Any]]] = {}
    for name, (train, lengths) in contestants(net, spec).items():
        kept[name] = [
            store.unit(
                f"{name.replace(' ', '-')}-{seed}",
                lambda train=train, lengths=lengths, seed=seed: new_patients(devices, train, lengths, seed),
            )
            for seed in range(seeds)
        ]
    labels = cohort.joined(devices).labels
    return {
        "patients": len(devices),
        "patients_with_a_case": sum(1 for device in devices if device.labels.any()),
        "hours": len(labels),
        "cases": int(labels.sum()),
        "weights": len(net.weights[0]),
        "target": TARGET,
        "rows": judge_new(devices, kept),
    }
