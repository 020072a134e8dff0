"""From rows to the numbers that a network reads."""

from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from samd_data.reading import COLUMNS, SIGNS

# Centre: the middle of the chart's 0-point band (SpO2: its lower end). Scale: one step is about one point.
_SCALING: Final = {
    "heart_rate": (70.0, 30.0),
    "respiratory_rate": (16.0, 6.0),
    "spo2": (96.0, 3.0),
    "systolic_bp": (125.0, 25.0),
    "temperature": (37.0, 1.0),
}
_CLIP: Final = 4.0


class FeatureSpec(msgspec.Struct, frozen=True):
    """Which features a model reads."""

    name: str = "signs-v1"
    labels: Literal["five", "all"] = "five"

    @property
    def inputs(self) -> tuple[str, ...]:
        return SIGNS if self.labels == "five" else COLUMNS

    @property
    def names(self) -> list[str]:
        return [*self.inputs, *(f"{field}_missing" for field in self.inputs)]

    @property
    def size(self) -> int:
        return len(self.names)


def encode(values: NDArray[np.float64], spec: FeatureSpec) -> NDArray[np.float32]:
    """Encode rows ``float64[N, 7]`` as ``float32[N, spec.size]``."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(COLUMNS):
        raise ValueError(f"values have the shape {values.shape}; expected (N, {len(COLUMNS)})")
    if np.isinf(values).any():
        raise ValueError("values hold an infinite number; a missing value is NaN")
    columns = []
    masks = []
    for column, field in enumerate(spec.inputs):
        centre, scale = _SCALING.get(field, (0.0, 1.0))
        scaled = np.clip((values[:, column] - centre) / scale, -_CLIP, _CLIP)
        mask = np.isnan(scaled)
        columns.append(np.where(mask, 0.0, scaled))
        masks.append(mask.astype(np.float64))
    return np.stack([*columns, *masks], axis=1).astype(np.float32)


def mask_signs(values: NDArray[np.float64], rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A copy of ``values`` with each present entry set to NaN with probability ``rate``."""
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; it is a probability")
    masked = np.array(values, dtype=np.float64)
    masked[rng.random(masked.shape) < rate] = np.nan
    return masked
