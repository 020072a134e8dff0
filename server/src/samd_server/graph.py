"""The graph of a bundle, run by the bare TFLite interpreter; never by TensorFlow.

`tflite-runtime` for Python 3.11, its successor `ai-edge-litert` from 3.12 on: the same file, the same calls.
`tflite-runtime` cannot be loaded into a process that holds TensorFlow, so the two never meet here.
"""

import sys
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samd_server.errors import ServerError

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class GraphError(ServerError):
    """No interpreter, no graph, or a graph that refuses what it is given."""


class TrainState(NamedTuple):
    """Weights and the state of Adam: float32[P] three times, and the number of steps done."""

    weights: Floats
    m: Floats
    v: Floats
    t: float

    @classmethod
    def fresh(cls, weights: ArrayLike) -> "TrainState":
        """Before the first step."""
        first = _floats(weights)
        return cls(first, np.zeros_like(first), np.zeros_like(first), 0.0)


class Graph:
    """The signatures of a `model.tflite`. One thread at a time; the arithmetic is single-threaded, so the
    same call gives the same bits."""

    def __init__(self, graph: bytes) -> None:
        module = _interpreter()
        try:
            # Without the default delegate: its set-up costs more than these networks do.
            self._interpreter = module.Interpreter(
                model_content=graph,
                num_threads=1,
                experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            absent = {"infer", "train", "evaluate"} - set(self._interpreter.get_signature_list())
        except (ValueError, RuntimeError) as error:
            raise GraphError(f"model.tflite cannot be loaded ({_brief(error)}); export it again") from error
        if absent:
            raise GraphError(
                f"model.tflite lacks the signatures {', '.join(sorted(absent))}; export it again"
            )
        self._runners: dict[str, tuple[Any, dict[str, list[int]]]] = {}

    def infer(self, features: ArrayLike, weights: ArrayLike) -> Floats:
        """Class probabilities float32[N, C] of `features` [N, F] under `weights` [P]."""
        x = _floats(features)
        if x.ndim == 2 and len(x) == 0:
            raise GraphError("infer has no row")
        return np.asarray(
            self._call("infer", features=x, weights=_floats(weights))["probabilities"], dtype=np.float32
        )

    def evaluate(
        self, features: ArrayLike, labels: ArrayLike, weights: ArrayLike
    ) -> tuple[float, NDArray[np.int64]]:
        """The mean cross-entropy, and int64[C, C] counts `[true][predicted]`. Needs a row, labels below C."""
        x, y = _rows(features, labels)
        out = self._call("evaluate", features=x, labels=y, weights=_floats(weights))
        confusion = np.rint(np.asarray(out["confusion"])).astype(np.int64)
        if confusion.sum() != len(y):
            raise GraphError(
                f"labels range from {y.min()} to {y.max()}; the classes are 0 to {len(confusion) - 1}"
            )
        return _number(out["loss"]), confusion

    def train_epoch(
        self,
        *,
        features: ArrayLike,
        labels: ArrayLike,
        order: ArrayLike,
        state: TrainState,
        learning_rate: float,
        anchor: ArrayLike | None = None,
        mu: float = 0.0,
        trainable: ArrayLike | None = None,
        log_prior: ArrayLike | None = None,
    ) -> tuple[TrainState, float]:
        """One epoch of mini-batch Adam in one call; the new state and the mean loss over its rows.

        `features` [N, F], `labels` [N] 0 to C-1, `order` [K * batch]: row numbers, -1 is padding (`batches`);
        `anchor` [P] with `mu`: proximal term; `trainable` [P] of 0 and 1; `log_prior` [C].
        """
        x, y = _rows(features, labels)
        rows = _ints(order)
        if rows.size == 0 or rows.max() >= len(y) or rows.min() < -1:
            raise GraphError(f"order names no row, or rows outside 0 to {len(y) - 1}")
        classes = self._open("train")[1]["log_prior"][0]
        if y[rows[rows >= 0]].min(initial=0) < 0 or y[rows[rows >= 0]].max(initial=0) >= classes:
            raise GraphError(
                f"a row to train on has a label outside 0 to {classes - 1}; drop unlabelled rows first"
            )
        out = self._call(
            "train",
            features=x,
            labels=y,
            order=rows,
            weights=state.weights,
            m=state.m,
            v=state.v,
            t=np.float32(state.t),
            learning_rate=np.float32(learning_rate),
            anchor=state.weights if anchor is None else _floats(anchor),
            mu=np.float32(mu),
            trainable=np.ones_like(state.weights) if trainable is None else _floats(trainable),
            log_prior=np.zeros(classes, np.float32) if log_prior is None else _floats(log_prior),
        )
        weights, m, v = (np.asarray(out[name], dtype=np.float32) for name in ("weights", "m", "v"))
        return TrainState(weights, m, v, _number(out["t"])), _number(out["loss"])

    def _open(self, signature: str) -> tuple[Any, dict[str, list[int]]]:
        """The runner of a signature, and the shape of each input, -1 for any length."""
        if signature not in self._runners:
            runner = self._interpreter.get_signature_runner(signature)
            shapes = {
                name: [int(size) for size in detail["shape_signature"]]
                for name, detail in runner.get_input_details().items()
            }
            self._runners[signature] = runner, shapes
        return self._runners[signature]

    def _call(self, signature: str, **inputs: Any) -> dict[str, Any]:
        try:
            runner, shapes = self._open(signature)
            # The interpreter would resize a vector of another length and compute something from it.
            for name, shape in shapes.items():
                given = np.shape(inputs[name])
                if len(given) != len(shape) or any(
                    fixed not in (-1, size) for fixed, size in zip(shape, given, strict=True)
                ):
                    raise ValueError(f"{name} has the shape {list(given)}, the graph takes {shape}")
                # A rectifier turns NaN into 0: a missing number would pass for a normal one, unseen.
                if not np.isfinite(inputs[name]).all():
                    raise ValueError(f"{name} holds numbers that are not finite")
            return dict(runner(**inputs))
        except (ValueError, RuntimeError, KeyError) as error:
            raise GraphError(f"{signature} refuses its input: {_brief(error)}") from error


def batches(order: ArrayLike, batch_size: int) -> Ints:
    """Row numbers [N], padded with -1 to whole batches."""
    rows = _ints(order)
    return np.pad(rows, (0, -len(rows) % batch_size), constant_values=-1)


def _interpreter() -> Any:
    name = "tflite_runtime" if sys.version_info < (3, 12) else "ai_edge_litert"
    if name == "tflite_runtime" and "tensorflow" in sys.modules:
        raise GraphError("tflite-runtime cannot be loaded after TensorFlow; use a process of its own")
    try:
        return import_module(f"{name}.interpreter")
    except (ImportError, AttributeError) as error:  # AttributeError: built for another numpy
        raise GraphError(f"{name} cannot be loaded ({error}); install samd-server again") from error


def _rows(features: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    x, y = _floats(features), _ints(labels)
    if x.ndim != 2 or y.shape != (len(x),) or len(y) == 0:
        raise GraphError(
            f"features {list(x.shape)} and labels {list(y.shape)} are not N rows, N of 1 or more"
        )
    return x, y


def _floats(values: ArrayLike) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32)


def _ints(values: ArrayLike) -> Ints:
    return np.ascontiguousarray(values, dtype=np.int32)


def _number(value: Any) -> float:
    return float(np.asarray(value).reshape(-1)[0])


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
