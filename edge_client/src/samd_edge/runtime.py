"""The graph of a bundle, run by whichever interpreter this device has. The one place that chooses it.

First choice is ``tflite-runtime`` (Python 3.11), then its successor ``ai-edge-litert`` (3.12 and later),
then the interpreter inside TensorFlow. All three run the same file. The environment variable
``SAMD_RUNTIME`` (tflite-runtime, ai-edge-litert or tensorflow) asks for one of them and takes no other.

Two traps are met with a sentence instead of a crash: ``tflite-runtime`` 2.14 was built for numpy 1, imports
under numpy 2 and fails at the first tensor; and it cannot be loaded into a process that holds TensorFlow.
"""

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

VARIABLE: Final = "SAMD_RUNTIME"
_MODULES: Final = {
    "tflite-runtime": "tflite_runtime.interpreter",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tensorflow": "tensorflow.lite",
}
RUNTIMES: Final = tuple(_MODULES)


class RuntimeUnavailable(Exception):  # noqa: N818  (its name is what a user reads)
    """No interpreter can be used; the text says why and what to install."""


class GraphError(Exception):
    """A graph cannot be loaded, or refuses what it is given: shapes, types, indices."""


SGD_STEPS: Final = 1e5


class TrainState(NamedTuple):
    """Weights and the state of Adam: ``float32[P]`` three times, and the number of steps done."""

    weights: Floats
    m: Floats
    v: Floats
    t: float

    @classmethod
    def fresh(cls, weights: Floats) -> "TrainState":
        """Before the first step of a round."""
        return cls(weights, np.zeros_like(weights), np.zeros_like(weights), 0.0)

    def as_sgd(self) -> "TrainState":
        """The same weights for steps of plain SGD by the same graph; leaves a state that has begun as it is.

        With the second moment at 1 and so many steps done that nothing is corrected for a beginning, Adam's
        step is rate * m: SGD with an averaged momentum of 0.9. The second moment leaves 1 by at most a
        thousandth a step, so over some hundred steps of a round the rate is what it says.
        """
        return self._replace(v=np.ones_like(self.v), t=SGD_STEPS) if self.t == 0 else self


def _unusable(name: str) -> str | None:
    """Why an interpreter that may well be installed must not even be imported."""
    if name != "tflite-runtime":
        return None
    if int(np.__version__.split(".")[0]) >= 2:
        return (
            f"tflite-runtime was built for numpy 1 and numpy {np.__version__} is installed: "
            "pip install 'numpy<2'"
        )
    if "tensorflow" in sys.modules:
        return "tflite-runtime cannot be loaded after TensorFlow: use another process"
    return None


def _load(name: str, importer: Callable[[str], Any]) -> Any:
    """The interpreter's module; raises RuntimeUnavailable with the reason."""
    reason = _unusable(name)
    if reason is not None:
        raise RuntimeUnavailable(reason)
    try:
        return importer(_MODULES[name])
    except (ImportError, AttributeError, OSError) as error:
        # AttributeError and OSError: a wheel built for another numpy or another machine
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in _MODULES[name]:
            raise RuntimeUnavailable(f"{name} is not installed") from error
        raise RuntimeUnavailable(f"{name} cannot be loaded ({error})") from error


def choose(
    environment: Mapping[str, str] = os.environ, importer: Callable[[str], Any] = import_module
) -> tuple[str, Any]:
    """The name and module of the interpreter to use; raises RuntimeUnavailable when there is none."""
    asked = environment.get(VARIABLE, "").strip()
    if asked and asked not in _MODULES:
        raise RuntimeUnavailable(f"{VARIABLE} is {asked!r}: it is one of {', '.join(RUNTIMES)}")
    reasons = []
    for name in [asked] if asked else RUNTIMES:
        try:
            return name, _load(name, importer)
        except RuntimeUnavailable as error:
            reasons.append(str(error))
    wheel = "tflite-runtime 'numpy<2'" if sys.version_info < (3, 12) else "ai-edge-litert"
    raise RuntimeUnavailable(
        f"no interpreter for the model ({'; '.join(reasons)}); install one: pip install {wheel}"
    )


def runtime_name() -> str:
    """The interpreter that ``Graph`` will use; raises RuntimeUnavailable when there is none."""
    return choose()[0]


def runtime_version(name: str) -> str:
    """The installed version of one of ``RUNTIMES``, or "unknown"."""
    for distribution in (name, f"{name}-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def open_interpreter(module: Any, graph: bytes) -> Any:
    """An interpreter of ``module`` (from ``choose``), with one thread and the plain operators.

    Without the default delegate (XNNPACK): for networks this small it only adds time to each call.
    """
    resolver = getattr(module, "OpResolverType", None) or module.experimental.OpResolverType
    return module.Interpreter(
        model_content=graph,
        num_threads=1,
        experimental_op_resolver_type=resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )


class Graph:
    """The three signatures of a bundle's ``model.tflite``. Not safe to share between threads.

    Raises RuntimeUnavailable without an interpreter and GraphError for bytes that are no such graph.
    """

    def __init__(self, graph: bytes) -> None:
        self.runtime, module = choose()
        # The interpreter follows the first offset unchecked, and out of the buffer if it points there.
        if graph[4:8] != b"TFL3" or int.from_bytes(graph[:4], "little") >= len(graph) - 4:
            raise GraphError("no TFLite graph: its first bytes are not those of one; fetch the model again")
        try:
            self._interpreter = open_interpreter(module, graph)
            found = set(self._interpreter.get_signature_list())
        except (ValueError, RuntimeError) as error:
            raise GraphError(f"no graph that {self.runtime} can load: {_first_line(error)}") from error
        absent = {"infer", "train", "evaluate"} - found
        if absent:
            raise GraphError(f"the graph lacks the signatures {', '.join(sorted(absent))}")
        self._runners: dict[str, tuple[Any, dict[str, tuple[int, ...]]]] = {}

    def infer(self, features: Floats, weights: Floats) -> Floats:
        """Class probabilities ``float32[N, C]`` of ``features`` ``float32[N, F]``."""
        out = self._call("infer", features=_floats(features), weights=_floats(weights))
        return np.asarray(out["probabilities"], dtype=np.float32)

    def train_epoch(
        self,
        *,
        features: Floats,
        labels: Ints,
        order: Ints,
        state: TrainState,
        learning_rate: float,
        anchor: Floats,
        mu: float,
        trainable: Floats,
        log_prior: Floats,
    ) -> tuple[TrainState, float]:
        """One epoch of mini-batch Adam, all of it in one call; the new state and the mean loss.

        ``features`` ``[N, F]``, ``labels`` ``[N]`` below C, ``order`` ``[K * batch]`` row numbers with -1 as
        padding (see ``batches``), ``anchor`` and ``trainable`` ``[P]``, ``log_prior`` ``[C]``.
        """
        order = _ints(order)
        if order.size == 0 or order.max(initial=-1) >= len(features) or order.min(initial=0) < -1:
            raise GraphError(f"order names rows outside 0 to {len(features) - 1}, or none")
        _check_labels(features, labels)
        out = self._call(
            "train",
            features=_floats(features),
            labels=_ints(labels),
            order=order,
            weights=_floats(state.weights),
            m=_floats(state.m),
            v=_floats(state.v),
            t=np.float32(state.t),
            learning_rate=np.float32(learning_rate),
            anchor=_floats(anchor),
            mu=np.float32(mu),
            trainable=_floats(trainable),
            log_prior=_floats(log_prior),
        )
        new = TrainState(
            weights=np.asarray(out["weights"], dtype=np.float32),
            m=np.asarray(out["m"], dtype=np.float32),
            v=np.asarray(out["v"], dtype=np.float32),
            t=_number(out["t"]),
        )
        return new, _number(out["loss"])

    def evaluate(self, features: Floats, labels: Ints, weights: Floats) -> tuple[float, NDArray[np.int64]]:
        """The mean loss, and counts ``int64[C, C]`` as ``[true][predicted]``."""
        _check_labels(features, labels)
        out = self._call(
            "evaluate", features=_floats(features), labels=_ints(labels), weights=_floats(weights)
        )
        return _number(out["loss"]), np.rint(np.asarray(out["confusion"])).astype(np.int64)

    def _call(self, signature: str, **inputs: Any) -> dict[str, Any]:
        try:
            if signature not in self._runners:
                self._runners[signature] = self._open(signature)
            runner, shapes = self._runners[signature]
            if inputs.keys() != shapes.keys():
                raise GraphError(f"{signature} takes {', '.join(shapes)}, not {', '.join(inputs)}")
            for name, wanted in shapes.items():
                shape = inputs[name].shape
                if not _fits(shape, wanted):
                    raise GraphError(f"{signature} takes {name} of shape {_shown(wanted)}, not {shape}")
            # A rectifier turns NaN into 0: a missing number would pass for a normal one, unseen.
            if not np.isfinite(inputs["features"]).all():
                raise GraphError(f"{signature} got features that are not finite")
            return dict(runner(**inputs))
        except (ValueError, RuntimeError, KeyError) as error:
            raise GraphError(f"{signature} failed in {self.runtime}: {_first_line(error)}") from error

    def _open(self, signature: str) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """The runner, and the shape of each input with -1 for any length.

        Shapes are checked here because the interpreter resizes whatever it is given: a weight vector that is
        too short does not fail there, it reads beyond its end.
        """
        runner = self._interpreter.get_signature_runner(signature)
        details = runner.get_input_details()
        return runner, {
            name: tuple(int(n) for n in detail["shape_signature"]) for name, detail in details.items()
        }


def batches(order: NDArray[np.integer[Any]], batch_size: int) -> Ints:
    """Row numbers padded with -1 to whole batches; a graph without padding gives NaN for a short batch."""
    padded = np.full(-(-len(order) // batch_size) * batch_size, -1, dtype=np.int32)
    padded[: len(order)] = order
    return padded


def _check_labels(features: Floats, labels: Ints) -> None:
    if len(features) != len(labels):
        raise GraphError(f"{len(labels)} labels for {len(features)} rows")


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, n) for n, w in zip(shape, wanted, strict=True))


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join('N' if n == -1 else str(n) for n in shape)})"


def _floats(values: Any) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32)


def _ints(values: Any) -> Ints:
    return np.ascontiguousarray(values, dtype=np.int32)


def _number(value: Any) -> float:
    return float(np.asarray(value).reshape(-1)[0])


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "".join(letter for letter in lines[0] if letter.isprintable())
