"""The strategies by name: what may be set in each, and how many replies it needs to be what it promises.

How they average is Flower's business, on the server; what a run may ask for is known here, so that it is
refused before anybody trains.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple


class Setting(NamedTuple):
    """One hyper-parameter: what it is without being given, its range, and whether it is a whole number."""

    default: float
    low: float
    high: float
    text: str
    whole: bool = False


_SERVER_RATE: Final = Setting(0.1, 1e-6, 10.0, "the server's learning rate (eta)")
_BETA_1: Final = Setting(0.9, 0.0, 0.9999, "momentum")
_BETA_2: Final = Setting(0.99, 0.0, 0.9999, "memory of the squared steps")
_TAU: Final = Setting(1e-3, 1e-9, 1.0, "how adaptive: smaller is more")
_MALICIOUS: Final = Setting(1, 0, 10_000, "how many devices may lie (f)", whole=True)

STRATEGIES: Final[Mapping[str, Mapping[str, Setting]]] = {
    "FedAvg": {},
    "FedAvgM": {
        "server_learning_rate": Setting(1.0, 1e-6, 10.0, "step along the averaged update"),
        "server_momentum": Setting(0.9, 0.0, 0.9999, "share of the last step that is kept"),
    },
    "FedAdam": {"eta": _SERVER_RATE, "beta_1": _BETA_1, "beta_2": _BETA_2, "tau": _TAU},
    "FedYogi": {
        "eta": _SERVER_RATE._replace(default=0.01),
        "beta_1": _BETA_1,
        "beta_2": _BETA_2,
        "tau": _TAU,
    },
    "FedProx": {},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": Setting(0.2, 0.0, 0.4999, "share that is cut off on each side")},
    "Krum": {"num_malicious_nodes": _MALICIOUS},
    "MultiKrum": {
        "num_malicious_nodes": _MALICIOUS,
        "num_nodes_to_select": Setting(0, 0, 100_000, "replies that are averaged; 0: n - f - 2", whole=True),
    },
    "Bulyan": {"num_malicious_nodes": _MALICIOUS},
    "QFedAvg": {
        "q": Setting(0.1, 0.0, 10.0, "fairness; 0 is the plain mean"),
        "client_learning_rate": Setting(0.0, 0.0, 10.0, "1 / L of the paper; 0: the run's learning rate"),
    },
}

WEIGHTINGS: Final = ("examples", "severe")
"""A reply counts by its rows, or by one more than its rows of the severe classes."""

UNWEIGHTED: Final = ("FedMedian", "FedTrimmedAvg", "Krum", "Bulyan", "QFedAvg")
"""Strategies that count every reply alike: a weighting would have no effect on the weights."""


def settings_of(name: str, given: Mapping[str, float]) -> dict[str, float]:
    """Every hyper-parameter of a strategy, with what was given in place of the defaults."""
    return {key: given.get(key, setting.default) for key, setting in STRATEGIES[name].items()}


def least_replies(name: str, given: Mapping[str, float]) -> int:
    """How many replies a strategy needs for what it promises; 1 where any number will do.

    Krum and MultiKrum: 2 f + 3 (Blanchard et al., 2017). Bulyan: 4 f + 3 (El Mhamdi et al., 2018).
    FedTrimmedAvg: enough that at least one is cut off on each side, FedMedian: three, since the middle of two
    is their mean.
    """
    settings = settings_of(name, given)
    malicious = int(settings.get("num_malicious_nodes", 0))
    if name in ("Krum", "MultiKrum"):
        return max(2 * malicious + 3, int(settings.get("num_nodes_to_select", 0)) + malicious + 2)
    if name == "Bulyan":
        return 4 * malicious + 3
    if name == "FedMedian":
        return 3
    if name == "FedTrimmedAvg" and settings["beta"] > 0:
        # Flower cuts off int(beta * n) of them
        return max(3, math.ceil(1 / settings["beta"]))
    return 1
