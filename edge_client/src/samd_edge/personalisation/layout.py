"""Which weights of the flat vector are body and which are head, from the layout in a bundle's manifest."""

from collections.abc import Sequence

import numpy as np

from samd_edge.runtime import Floats
from samd_protocol.bundle import Layer


def head_of(layers: Sequence[Layer]) -> Floats:
    """``float32[P]``: 1 for each weight of the head, 0 for each of the body.

    All 0 for the layout of an old bundle that names no head: methods that keep one apart then refuse it.
    """
    return np.concatenate([np.full(layer.size, layer.part == "head", dtype=np.float32) for layer in layers])
