"""The interpreter, against the same maths written out in numpy, and everything that it must refuse."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samd_edge import runtime
from samd_edge.runtime import Graph, GraphError, RuntimeUnavailable, TrainState, batches, choose
from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(untrained_bundle_path: Path) -> Bundle:
    return bundles.read(untrained_bundle_path)


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> Graph:
    return Graph(bundle.graph)


def data(bundle: Bundle, rows: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, bundle.manifest.features.size)).astype(np.float32)
    return features, rng.integers(0, 4, rows).astype(np.int32)


def split(bundle: Bundle, weights: Any) -> list[Any]:
    parts, start = [], 0
    for layer in bundle.manifest.layers:
        parts.append(weights[start : start + layer.size].reshape(layer.shape).astype(np.float64))
        start += layer.size
    return parts


def forward(parts: list[Any], x: Any) -> list[Any]:
    """Activations of each layer; the last are logits."""
    activations = [x.astype(np.float64)]
    for index in range(0, len(parts), 2):
        z = activations[-1] @ parts[index] + parts[index + 1]
        activations.append(np.maximum(z, 0) if index < len(parts) - 2 else z)
    return activations


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def epoch(
    bundle: Bundle,
    x: Any,
    y: Any,
    order: Any,
    weights: Any,
    rate: float,
    *,
    anchor: Any,
    mu: float,
    prior: Any,
) -> tuple[Any, float]:
    """Mini-batch Adam by hand, in float64."""
    weights, anchor = weights.astype(np.float64), anchor.astype(np.float64)
    m, v, total = np.zeros_like(weights), np.zeros_like(weights), 0.0
    size = bundle.manifest.batch_size
    for t, start in enumerate(range(0, len(order), size), start=1):
        rows = order[start : start + size]
        rows = rows[rows >= 0]
        parts = split(bundle, weights)
        activations = forward(parts, x[rows])
        p = softmax(activations[-1] + prior)
        total += -np.log(p[np.arange(len(rows)), y[rows]]).sum()
        delta = (p - np.eye(4)[y[rows]]) / len(rows)
        gradients: list[Any] = []
        for index in range(len(parts) - 2, -1, -2):
            layer = activations[index // 2]
            gradients = [(layer.T @ delta).ravel(), delta.sum(axis=0), *gradients]
            delta = (delta @ parts[index].T) * (layer > 0)
        gradient = np.concatenate(gradients) + mu * (weights - anchor)
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        weights = weights - rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
    return weights, total / len(x)


def train(
    graph: Graph, bundle: Bundle, x: Any, y: Any, order: Any, **changes: Any
) -> tuple[TrainState, float]:
    ones = np.ones_like(bundle.weights)
    settings: dict[str, Any] = {
        "features": x,
        "labels": y,
        "order": order,
        "state": TrainState.fresh(bundle.weights),
        "learning_rate": 0.01,
        "anchor": bundle.weights,
        "mu": 0.0,
        "trainable": ones,
        "log_prior": np.zeros(4, dtype=np.float32),
    }
    return graph.train_epoch(**{**settings, **changes})


def test_infer_is_the_network(graph: Graph, bundle: Bundle) -> None:
    x, _ = data(bundle, 50)
    expected = softmax(forward(split(bundle, bundle.weights), x)[-1])
    got = graph.infer(x, bundle.weights)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_infer_takes_any_number_of_rows_in_any_order(graph: Graph, bundle: Bundle) -> None:
    x, _ = data(bundle, 7)
    one_by_one = np.concatenate([graph.infer(row[np.newaxis], bundle.weights) for row in x])
    np.testing.assert_allclose(graph.infer(x, bundle.weights), one_by_one, atol=1e-6)
    assert graph.infer(x[:0], bundle.weights).shape == (0, 4)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100])
def test_an_epoch_is_adam_by_hand(graph: Graph, bundle: Bundle, rows: int) -> None:
    x, y = data(bundle, rows, seed=rows)
    order = batches(np.random.default_rng(1).permutation(rows), bundle.manifest.batch_size)
    prior = np.log([0.4, 0.3, 0.2, 0.1])
    anchor = bundle.weights + 0.1
    state, loss = train(graph, bundle, x, y, order, anchor=anchor, mu=0.5, log_prior=prior.astype(np.float32))
    expected, expected_loss = epoch(
        bundle, x, y, order, bundle.weights, 0.01, anchor=anchor, mu=0.5, prior=prior
    )
    np.testing.assert_allclose(state.weights, expected, atol=1e-4)
    assert loss == pytest.approx(expected_loss, abs=1e-4)
    assert state.t == -(-rows // bundle.manifest.batch_size)


def test_weights_that_may_not_move_do_not(graph: Graph, bundle: Bundle) -> None:
    x, y = data(bundle, 64)
    trainable = np.zeros_like(bundle.weights)
    trainable[-4:] = 1
    state, _ = train(graph, bundle, x, y, batches(np.arange(64), 32), trainable=trainable)
    assert np.array_equal(state.weights[:-4], bundle.weights[:-4])
    assert not np.array_equal(state.weights[-4:], bundle.weights[-4:])


def test_state_goes_on_from_epoch_to_epoch(graph: Graph, bundle: Bundle) -> None:
    x, y = data(bundle, 64)
    first, second = batches(np.arange(64), 32), batches(np.arange(64)[::-1], 32)
    halfway, _ = train(graph, bundle, x, y, first)
    twice, _ = train(graph, bundle, x, y, second, state=halfway)
    once, _ = train(graph, bundle, x, y, np.concatenate([first, second]))
    np.testing.assert_allclose(twice.weights, once.weights, atol=1e-6)
    assert twice.t == once.t == 4


def test_evaluate_counts_truth_by_row_and_answer_by_column(graph: Graph, bundle: Bundle) -> None:
    x, y = data(bundle, 40)
    loss, confusion = graph.evaluate(x, y, bundle.weights)
    p = graph.infer(x, bundle.weights).astype(np.float64)
    expected = np.zeros((4, 4), dtype=np.int64)
    np.add.at(expected, (y, p.argmax(axis=1)), 1)
    assert np.array_equal(confusion, expected)
    assert confusion.dtype == np.int64
    assert loss == pytest.approx(-np.log(p[np.arange(40), y]).mean(), abs=1e-5)


def test_padding_fills_whole_batches() -> None:
    assert batches(np.array([2, 0, 1]), 4).tolist() == [2, 0, 1, -1]
    assert batches(np.arange(4), 4).tolist() == [0, 1, 2, 3]
    assert batches(np.arange(4), 4).dtype == np.int32


@pytest.mark.parametrize(
    "call",
    [
        lambda g, b, x, y: g.infer(x[:, :5], b.weights),
        lambda g, b, x, y: g.infer(x[0], b.weights),
        lambda g, b, x, y: g.infer(x, b.weights[:5]),
        lambda g, b, x, y: g.infer(x, np.zeros(len(b.weights) + 1)),
        lambda g, b, x, y: g.evaluate(x, y[:-1], b.weights),
        lambda g, b, x, y: train(g, b, x, y[:-1], batches(np.arange(8), 32)),
        lambda g, b, x, y: train(g, b, x, y, np.full(32, 99)),
        lambda g, b, x, y: train(g, b, x, y, np.full(32, -2)),
        lambda g, b, x, y: train(g, b, x, y, np.zeros(0, np.int32)),
        lambda g, b, x, y: train(g, b, x, y, batches(np.arange(8), 32), log_prior=np.zeros(3)),
        lambda g, b, x, y: train(g, b, x, y, batches(np.arange(8), 32), anchor=np.zeros(3)),
    ],
)
def test_what_does_not_fit_is_refused_and_harms_nothing(
    graph: Graph, bundle: Bundle, call: Callable[..., Any]
) -> None:
    x, y = data(bundle, 8)
    before = graph.infer(x, bundle.weights)
    with pytest.raises(GraphError) as caught:
        call(graph, bundle, x, y)
    assert "\n" not in str(caught.value)
    assert np.array_equal(graph.infer(x, bundle.weights), before)


@pytest.mark.parametrize("junk", [b"", b"\x00\xff junk", b"TFL3" * 20])
def test_bytes_that_are_no_graph_are_refused(junk: bytes) -> None:
    with pytest.raises(GraphError) as caught:
        Graph(junk)
    assert str(caught.value).isprintable()


# -- which interpreter -------------------------------------------------------------------------------------


def importer(*installed: str) -> Callable[[str], Any]:
    def load(name: str) -> Any:
        if name not in installed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
        return types.SimpleNamespace(name=name)

    return load


TFLITE, LITERT, TENSORFLOW = "tflite_runtime.interpreter", "ai_edge_litert.interpreter", "tensorflow.lite"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with numpy 1 and without TensorFlow, whatever was loaded before this test."""
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("installed", "name"),
    [
        ((TFLITE, LITERT, TENSORFLOW), "tflite-runtime"),
        ((LITERT, TENSORFLOW), "ai-edge-litert"),
        ((TENSORFLOW,), "tensorflow"),
    ],
)
def test_the_lightest_that_is_there_is_chosen(installed: tuple[str, ...], name: str) -> None:
    assert choose({}, importer(*installed))[0] == name


@pytest.mark.usefixtures("plain")
def test_the_variable_chooses_and_takes_no_other() -> None:
    assert choose({"SAMD_RUNTIME": "tensorflow"}, importer(TFLITE, TENSORFLOW))[0] == "tensorflow"
    with pytest.raises(RuntimeUnavailable, match=r"ai-edge-litert is not installed.*pip install"):
        choose({"SAMD_RUNTIME": "ai-edge-litert"}, importer(TFLITE))
    with pytest.raises(RuntimeUnavailable, match="SAMD_RUNTIME is 'torch'"):
        choose({"SAMD_RUNTIME": "torch"}, importer(TFLITE))


@pytest.mark.usefixtures("plain")
def test_without_any_a_sentence_says_what_to_install() -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        choose({}, importer())
    text = str(caught.value)
    assert "\n" not in text
    assert "pip install" in text
    for name in runtime.RUNTIMES:
        assert f"{name} is not installed" in text


def test_tflite_runtime_under_numpy_2_is_named_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "2.1.3")
    assert choose({}, importer(TFLITE, LITERT))[0] == "ai-edge-litert"
    with pytest.raises(RuntimeUnavailable, match=r"numpy 2\.1\.3 is installed: pip install 'numpy<2'"):
        choose({}, importer(TFLITE))


@pytest.mark.usefixtures("plain")
def test_tflite_runtime_is_not_loaded_after_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    assert choose({}, importer(TFLITE, TENSORFLOW))[0] == "tensorflow"
    with pytest.raises(RuntimeUnavailable, match="another process"):
        choose({"SAMD_RUNTIME": "tflite-runtime"}, importer(TFLITE))


@pytest.mark.usefixtures("plain")
def test_a_wheel_that_cannot_be_loaded_says_why() -> None:
    def broken(name: str) -> Any:
        raise ImportError("libc.so.6: version GLIBC_2.99 not found")

    with pytest.raises(RuntimeUnavailable, match=r"cannot be loaded .*GLIBC_2\.99"):
        choose({}, broken)
