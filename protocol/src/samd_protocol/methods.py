"""The personalisation methods by name, and what each asks of a model's layout.

What they compute is the devices' business (`samd_edge.personalisation`); a run names one of them, so the
gateway and the server must know the names, and refuse what a model cannot do before anybody trains.
"""

from collections.abc import Sequence
from typing import Final

from samd_protocol.bundle import Layer

METHODS: Final = ("none", "finetune", "fedprox", "ditto", "fedper", "fedrep", "apfl")
"""`none`: the global model alone (FedAvg's client); `fedprox` too, held back by its proximal term."""

PERSONAL: Final = ("finetune", "ditto", "fedper", "fedrep", "apfl")
"""Those that leave a vector of its own on each device."""

NEEDS_HEAD: Final = ("fedper", "fedrep")
"""Those that keep a part of the network at home, and so need a layout that names a body and a head."""


OPTIMIZERS: Final = ("adam", "sgd")
"""What the passes of every method are made with."""


def refusal(method: str, layers: Sequence[Layer]) -> str | None:
    """Why a model of this layout cannot be trained by a method, with what to do instead; None if it can."""
    if method not in METHODS:
        return f"there is no method {method!r}; choose one of: {', '.join(METHODS)}"
    if method in NEEDS_HEAD and {layer.part for layer in layers} != {"body", "head"}:
        others = ", ".join(name for name in METHODS if name not in NEEDS_HEAD)
        return (
            f"{method} keeps the head of the network on the device, and the model's layout does not name "
            f"both body and head; choose one of: {others}; or export the model again"
        )
    return None


def possible(layers: Sequence[Layer]) -> list[str]:
    """The methods that a model of this layout can be trained by."""
    return [method for method in METHODS if refusal(method, layers) is None]
