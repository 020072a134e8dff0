"""Table 2, second part: patients who took part, judged on the later rest of their own recordings.

The first 70 % of each recording trains; of that, the first 70 % again trains when hyper-parameters are
chosen, and the rest chooses them (the length of the global training, then those of each method), six hours
purged on both sides of either cut. A patient with nothing after a cut is in no judgement, but still trains.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import cohort, learning, scores
from models.cohort import Device
from models.learning import Bench
from models.shapes import SEEDS, Shape, shape
from models.store import Store
from models.worsening import HIDDEN, MASK
from samd_edge import personalisation
from samd_edge.personalisation import State
from samd_edge.runtime import Floats
from samd_edge.trainer.learning import Place
from samd_protocol.tasks import TrainSettings
from samd_server.strategies import Averaging, by_name

SHARE = 0.7
RATE = 0.1
LENGTHS = (15, 20, 25, 30, 35, 40, 50)
GRID: dict[str, list[dict[str, Any]]] = {
    "none": [{}],
    "finetune": [
        {"personal_epochs": 3, "personal_learning_rate": rate, "personal_mu": mu}
        for rate in (0.03, 0.3)
        for mu in (0.0, 0.1)
    ],
    "fedprox": [{"proximal_mu": 0.1}],
    "ditto": [{"personal_epochs": 1, "personal_learning_rate": 0.1, "personal_mu": mu} for mu in (0.1, 1.0)],
    "fedper": [{"personal_epochs": 1, "personal_learning_rate": 0.1}],
    "fedrep": [{"personal_epochs": 1, "personal_learning_rate": 0.1}],
    "apfl": [{"personal_alpha": alpha, "personal_learning_rate": 0.1} for alpha in (0.25, 0.5)],
}
SHARED = ("none", "finetune")
GAP = 0.03
"""How much average precision a personal model may lose on other patients."""


def global_lengths(net: Shape, bench: Bench, devices: Sequence[Device], seed: int) -> dict[int, Floats]:
    """The global weights after each of `LENGTHS` rounds of FedAvgM."""
    kept: dict[int, Floats] = {}

    def on_round(number: int, weights: Floats, _: Any) -> None:
        if number in LENGTHS:
            kept[number] = weights

    train(net, bench, devices, "none", more={}, rounds=max(LENGTHS), seed=seed, on_round=on_round)
    return kept


def train(
    net: Shape,
    bench: Bench,
    devices: Sequence[Device],
    name: str,
    *,
    more: dict[str, Any],
    rounds: int,
    seed: int,
    on_round: Any = lambda *_: None,
    everyone: Floats | None = None,
) -> tuple[Floats, list[Floats]]:
    """The global weights after so many rounds, and those by which each patient is assessed.

    `everyone`: the global weights where they are known already.
    """
    method = personalisation.by_name(name, net.layers)
    given = TrainSettings(epochs=1, learning_rate=RATE, mask_rate=MASK, seed=seed, method=name, **more)
    averaging = Averaging(by_name("FedAvgM", len(devices)), len(devices))
    if name in SHARED and everyone is not None:
        # Their rounds are the same to the bit: only what comes after them is their own.
        weights, states = everyone, [method.init(everyone) for _ in devices]
    else:
        weights, states = learning.federate(
            bench,
            devices,
            net.weights[seed],
            method=method,
            settings=given,
            averaging=averaging,
            rounds=rounds,
            on_round=on_round,
        )
    own: list[Floats] = []
    for device, state in zip(devices, states, strict=True):
        after: State = state
        if name not in ("none", "fedprox"):
            drawn = Place(seed, rounds + 1, device.name).generator()
            epoch = learning.epoch_of(bench, device, given)
            after, _ = method.personalise(state, weights, epoch, given, drawn)
        own.append(method.infer_weights(after, weights))
    return weights, own


def local(net: Shape, bench: Bench, devices: Sequence[Device], epochs: int, seed: int) -> list[Floats]:
    """Each patient's own network from the first weights, on nothing but its own hours."""
    given = TrainSettings(epochs=1, learning_rate=RATE, mask_rate=MASK, seed=seed)
    start = net.weights[seed]
    return [learning.centralise(bench, device, start, settings=given, epochs=epochs) for device in devices]


def score(net: Shape, devices: Sequence[Device], own: Sequence[Floats]) -> NDArray[np.float64]:
    """The probability of deterioration of every hour, by each patient's own weights."""
    parts = [
        net.graph.infer(device.features, weights)[:, 1]
        for device, weights in zip(devices, own, strict=True)
        if len(device)
    ]
    return np.concatenate(parts).astype(np.float64)


def truth(devices: Sequence[Device]) -> NDArray[np.int32]:
    """The labels of every hour."""
    return np.concatenate([device.labels for device in devices])


def losses(labels: NDArray[Any], given: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cross-entropy of each hour."""
    right = np.where(labels == 1, given, 1 - given)
    return -np.log(np.maximum(right, 1e-7))


def by_device(devices: Sequence[Device], of_rows: NDArray[np.float64]) -> list[float | None]:
    """The mean of each patient's rows; None without one."""
    found: list[float | None] = []
    start = 0
    for device in devices:
        rows = of_rows[start : start + len(device)]
        found.append(float(rows.mean()) if len(rows) else None)
        start += len(device)
    return found


def on_others(
    net: Shape, test: Sequence[Device], own: Sequence[Floats], everyone: Floats
) -> tuple[float, float]:
    """Mean average precision of each patient's model on all other patients, and of the global one there."""
    rows = cohort.joined([device for device in test if len(device)])
    of = np.repeat(np.arange(len(test)), [len(device) for device in test])
    common = net.graph.infer(rows.features, everyone)[:, 1]
    found = []
    for number, weights in enumerate(own):
        others = of != number
        given = net.graph.infer(rows.features, weights)[:, 1]
        labels = rows.labels[others]
        found.append(
            [
                scores.average_precision(labels, given[others]),
                scores.average_precision(labels, common[others]),
            ]
        )
    mean = np.mean(found, axis=0)
    return float(mean[0]), float(mean[1])


def one_seed(
    net: Shape,
    bench: Bench,
    devices: list[Device],
    name: str,
    *,
    seed: int,
    rounds: int,
    everyone: tuple[Floats, Floats],
) -> Any:
    """A method with one seed: hyper-parameters chosen within the training part, then judged on the rest.

    `everyone`: the global weights trained on the inner training part, and on all of it.
    """
    training, test = cut(devices)
    inner_training, inner_test = cut(training)
    best: tuple[float, dict[str, Any], Any] = (-1.0, {}, None)
    options: list[dict[str, Any]] = (
        [{"epochs": epochs} for epochs in (3, 10, 30)] if name == "local" else GRID[name]
    )
    for more in options:
        if name == "local":
            own = local(net, bench, inner_training, more["epochs"], seed)
        else:
            _, own = train(
                net,
                bench,
                inner_training,
                name,
                more=more,
                rounds=rounds,
                seed=seed,
                everyone=everyone[0],
            )
        given = score(net, inner_test, own)
        value = scores.average_precision(truth(inner_test), given)
        if value > best[0]:
            best = (value, more, by_device(inner_test, losses(truth(inner_test), given)))
    if name == "local":
        own = local(net, bench, training, best[1]["epochs"], seed)
    else:
        _, own = train(
            net,
            bench,
            training,
            name,
            more=best[1],
            rounds=rounds,
            seed=seed,
            everyone=everyone[1],
        )
    given = score(net, test, own)
    own_precision, common_precision = on_others(net, test, own, everyone[1])
    named = {device.name: loss for device, loss in zip(inner_test, best[2], strict=True)}
    return {
        "chosen": best[1],
        "inner_average_precision": best[0],
        "inner_losses": [named.get(device.name) for device in test],
        "scores": [float(f"{value:.7g}") for value in given],
        "others": own_precision,
        "others_global": common_precision,
    }


def cut(devices: list[Device]) -> tuple[list[Device], list[Device]]:
    """The first part and the rest of each device that has a first part."""
    parts = [device.cut(SHARE) for device in devices]
    return [first for first, _ in parts if len(first)], [rest for first, rest in parts if len(first)]


def global_model(net: Shape, bench: Bench, devices: list[Device], seed: int) -> dict[str, Any]:
    """The number of rounds that is best within the training part, and the global weights after so many, of
    that part's first part and of all of it."""
    training, _ = cut(devices)
    inner_training, inner_test = cut(training)
    kept = global_lengths(net, bench, inner_training, seed)
    values = {
        length: scores.average_precision(
            truth(inner_test), score(net, inner_test, [weights] * len(inner_test))
        )
        for length, weights in kept.items()
    }
    rounds = max(values, key=lambda length: values[length])
    weights, _ = train(net, bench, training, "none", more={}, rounds=rounds, seed=seed)
    return {"rounds": rounds, "inner": kept[rounds].tolist(), "all": weights.tolist()}


def run(seeds: int = SEEDS) -> dict[str, Any]:
    """The whole second part."""
    spec, devices = cohort.load("deterioration")
    net = shape(spec.size, HIDDEN, 2)
    bench = Bench(net.graph, spec, 2, sgd=True)
    store = Store(
        "table2-known", {"grid": GRID, "share": SHARE, "rate": RATE, "mask": MASK, "lengths": LENGTHS}
    )
    common = [
        store.unit(f"global-{seed}", lambda seed=seed: global_model(net, bench, devices, seed))
        for seed in range(seeds)
    ]
    shared = [tuple(np.asarray(one[part], np.float32) for part in ("inner", "all")) for one in common]
    rounds = [one["rounds"] for one in common]
    kept = {
        name: [
            store.unit(
                f"{name}-{seed}",
                lambda name=name, seed=seed: one_seed(
                    net, bench, devices, name, seed=seed, rounds=rounds[seed], everyone=shared[seed]
                ),
            )
            for seed in range(seeds)
        ]
        for name in ("none", "finetune", "ditto", "fedper", "fedrep", "apfl", "fedprox", "local")
    }
    _, test = cut(devices)
    return {"rounds": rounds, **judge(test, kept)}


def judge(test: list[Device], kept: dict[str, list[dict[str, Any]]], draws: int = 200) -> dict[str, Any]:
    """Each method's average precision on own and other patients, and its gain over the global model."""
    labels = truth(test)
    names = np.repeat([device.name for device in test], [len(device) for device in test])
    common = [np.asarray(seed["scores"]) for seed in kept["none"]]
    table: dict[str, Any] = {}
    for name, seeds in kept.items():
        variants = {name: [np.asarray(seed["scores"]) for seed in seeds]}
        if name not in ("none", "fedprox", "local"):
            variants[f"{name}, activated where no worse"] = [
                gated(test, seed, other, np.asarray(seed["scores"]), plain)
                for seed, other, plain in zip(seeds, kept["none"], common, strict=True)
            ]
        for variant, given in variants.items():
            own = [scores.average_precision(labels, one) for one in given]
            plainly = [scores.average_precision(labels, one) for one in common]
            gain = [value - plain for value, plain in zip(own, plainly, strict=True)]
            drawn = [
                value
                for number, (one, plain) in enumerate(zip(given, common, strict=True))
                for value in scores.over_patients(
                    lambda at, one=one, plain=plain: (
                        scores.average_precision(labels[at], one[at])
                        - scores.average_precision(labels[at], plain[at])
                    ),
                    names,
                    draws,
                    number,
                )
            ]
            line = {
                "average_precision": scores.over_seeds(own),
                "auroc": scores.over_seeds([scores.auroc(labels, one) for one in given]),
                "loss": scores.over_seeds([float(losses(labels, one).mean()) for one in given]),
                "gain_over_seeds": scores.over_seeds(gain),
                "gain_over_patients": scores.interval(drawn),
                "gain_of_each_patient": gain_of_each(test, labels, given, common),
            }
            if variant == name:
                lost = [seed["others_global"] - seed["others"] for seed in seeds]
                line |= {
                    "others": scores.over_seeds([seed["others"] for seed in seeds]),
                    "lost_on_others": scores.over_seeds(lost),
                    "chosen": [seed["chosen"] for seed in seeds],
                }
                line["earns_its_place"] = bool(
                    line["gain_over_seeds"]["low"] > 0
                    and line["gain_over_patients"]["low"] > 0
                    and np.mean(lost) <= GAP
                )
            table[variant] = line
    return {
        "patients": len([device for device in test if len(device)]),
        "patients_with_a_case": len([device for device in test if device.labels.any()]),
        "hours": len(labels),
        "cases": int(labels.sum()),
        "current NEWS2": {
            "average_precision": scores.average_precision(
                labels, np.concatenate([device.totals for device in test])
            ),
            "auroc": scores.auroc(labels, np.concatenate([device.totals for device in test])),
        },
        "rows": table,
    }


def gated(
    test: list[Device],
    seed: dict[str, Any],
    other: dict[str, Any],
    own: NDArray[np.float64],
    plain: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The personal scores of patients whose personal model was no worse on their inner hold-out."""
    made = plain.copy()
    start = 0
    for number, device in enumerate(test):
        personal, common = seed["inner_losses"][number], other["inner_losses"][number]
        if personal is not None and common is not None and personal <= common:
            made[start : start + len(device)] = own[start : start + len(device)]
        start += len(device)
    return made


def gain_of_each(
    test: list[Device],
    labels: NDArray[Any],
    given: list[NDArray[np.float64]],
    common: list[NDArray[np.float64]],
) -> list[float | None]:
    """By how much the loss of each patient falls, mean of the seeds; None without an hour."""
    per_seed = [
        by_device(test, losses(labels, plain) - losses(labels, one))
        for one, plain in zip(given, common, strict=True)
    ]
    return [
        None if per_seed[0][number] is None else float(np.mean([one[number] for one in per_seed]))
        for number in range(len(test))
    ]
