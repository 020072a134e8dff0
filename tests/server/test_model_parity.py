"""The graph against Keras, against numpy, and against numbers worked out by hand.

Keras runs once, in a process of its own: tflite-runtime cannot be loaded beside TensorFlow.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from samd_protocol import bundle
from samd_server import keras_file, network
from samd_server.graph import Graph, GraphError, TrainState, batches


class Case(NamedTuple):
    model: bundle.Bundle
    graph: Graph
    given: dict[str, np.ndarray]
    keras: dict[str, np.ndarray]
    released: np.ndarray


@pytest.fixture(scope="module")
def case(untrained_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = bundle.read(untrained_bundle_path)
    rng = np.random.default_rng(7)
    features = rng.standard_normal((203, model.manifest.features.size)).astype(np.float32)
    order = batches(rng.permutation(203), model.manifest.batch_size)
    order = np.concatenate([order, np.full(32, -1, np.int32), rng.permutation(203)[:32].astype(np.int32)])
    order[40:45] = -1  # padding in the middle counts no more than padding at the end
    given = {
        "features": features,
        "labels": rng.integers(0, 4, 203).astype(np.int32),
        "order": order,
        "log_prior": np.log(np.array([0.13, 0.64, 0.17, 0.06], np.float32)),
    }
    released = model.weights + rng.standard_normal(model.weights.shape).astype(np.float32) * 0.2
    folder = tmp_path_factory.mktemp("keras")
    np.savez(folder / "in.npz", **given)
    archive = keras_file.with_weights(model.keras, model.manifest.layers, released)
    (folder / "released.keras").write_bytes(archive)
    script = Path(__file__).with_name("keras_reference.py")
    command = [sys.executable, str(script), str(folder / "in.npz"), str(untrained_bundle_path)]
    ran = subprocess.run(
        [*command, str(folder / "released.keras"), str(folder / "out.npz")],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    return Case(model, Graph(model.graph), given, dict(np.load(folder / "out.npz")), released)


def epoch(case: Case, **changes: object) -> tuple[TrainState, float]:
    settings: dict[str, object] = {
        **{name: case.given[name] for name in ("features", "labels", "order")},
        "state": TrainState.fresh(case.model.weights),
        "learning_rate": 0.01,
    }
    return case.graph.train_epoch(**(settings | changes))  # type: ignore[arg-type]


def log_softmax(case: Case, weights: np.ndarray) -> np.ndarray:
    x = case.given["features"].astype(np.float64)
    arrays = network.unflatten(weights.astype(np.float64), case.model.manifest.layers)
    for kernel, bias in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    z = x @ arrays[-2] + arrays[-1]
    z -= z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def test_infer_is_what_keras_predicts(case: Case) -> None:
    found = case.graph.infer(case.given["features"], case.model.weights)
    np.testing.assert_allclose(found, case.keras["untrained"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_a_released_keras_file_predicts_what_the_graph_does(case: Case) -> None:
    found = case.graph.infer(case.given["features"], case.released)
    np.testing.assert_allclose(found, case.keras["released"], atol=1e-6, rtol=0)
    assert np.abs(found - case.keras["untrained"]).max() > 0.05


def test_an_epoch_is_what_keras_does(case: Case) -> None:
    layers = case.model.manifest.layers
    prior = case.given["log_prior"]
    for name, options in (
        ("plain", {}),
        ("full", {"mu": 0.1, "log_prior": prior}),
        ("head", {"trainable": network.trainable(layers, "head"), "log_prior": prior}),
        ("body", {"trainable": network.trainable(layers, "body"), "mu": 0.1}),
    ):
        state, loss = epoch(case, anchor=case.model.weights, **options)
        expected = case.keras[f"weights_{name}"]
        np.testing.assert_allclose(state.weights, expected, atol=1e-4, rtol=0, err_msg=name)
        assert loss == pytest.approx(float(case.keras[f"loss_{name}"]), abs=1e-5), name
        assert state.t == 8, "nine batches, of which one is padding alone"
        assert np.abs(expected - case.model.weights).max() > 0.01, name


def test_what_is_frozen_does_not_move_at_all(case: Case) -> None:
    layers = case.model.manifest.layers
    for part in ("body", "head"):
        free = network.trainable(layers, part).astype(bool)
        start = TrainState(case.model.weights, case.released, np.abs(case.released), 5.0)
        state, _ = epoch(case, state=start, trainable=free, mu=0.1, anchor=case.released)
        for after, before in ((state.weights, start.weights), (state.m, start.m), (state.v, start.v)):
            assert (after[~free] == before[~free]).all()
        assert (state.weights[free] != start.weights[free]).mean() > 0.9


def test_an_epoch_repeats_bit_for_bit(case: Case) -> None:
    first, first_loss = epoch(case, mu=0.1, log_prior=case.given["log_prior"])
    case.graph.infer(case.given["features"][:3], case.released)
    case.graph.train_epoch(
        features=case.given["features"][:5],
        labels=case.given["labels"][:5],
        order=batches(np.arange(5), 32),
        state=TrainState.fresh(case.released),
        learning_rate=0.1,
    )
    for graph in (case.graph, Graph(case.model.graph)):
        again, loss = epoch(case._replace(graph=graph), mu=0.1, log_prior=case.given["log_prior"])
        for one, other in zip(first[:3], again[:3], strict=True):
            assert one.tobytes() == other.tobytes()
        assert loss == first_loss


def test_two_epochs_are_one_of_twice_the_order(case: Case) -> None:
    first, _ = epoch(case)
    second, _ = epoch(case, state=first)
    whole, _ = epoch(case, order=np.tile(case.given["order"], 2))
    assert second.weights.tobytes() == whole.weights.tobytes()
    assert second.t == whole.t == 16


def test_evaluate_counts_and_loss(case: Case) -> None:
    loss, confusion = case.graph.evaluate(case.given["features"], case.given["labels"], case.released)
    log_p = log_softmax(case, case.released)
    labels = case.given["labels"]
    assert loss == pytest.approx(-log_p[np.arange(len(labels)), labels].mean(), abs=1e-5)
    expected = np.zeros((4, 4), np.int64)
    np.add.at(expected, (labels, log_p.argmax(axis=1)), 1)
    assert confusion.tolist() == expected.tolist()
    one_loss, one = case.graph.evaluate(case.given["features"][:1], labels[:1], case.released)
    assert one.sum() == 1
    assert one_loss == pytest.approx(-log_p[0, labels[0]], abs=1e-5)


def test_fewer_rows_than_a_batch_give_numbers(case: Case) -> None:
    for count in (1, 2, 31, 32, 33):
        state, loss = epoch(case, order=batches(np.arange(count), 32))
        assert np.isfinite(state.weights).all()
        assert np.isfinite(loss)
        assert state.t == -(-count // 32)
        log_p = log_softmax(case, case.model.weights)
        if count <= 32:
            expected = -log_p[np.arange(count), case.given["labels"][:count]].mean()
            assert loss == pytest.approx(expected, abs=1e-5)


def test_a_batch_of_padding_changes_nothing(case: Case) -> None:
    start = TrainState(case.model.weights, case.released, np.abs(case.released), 3.0)
    state, loss = epoch(case, state=start, order=np.full(64, -1), mu=1.0, anchor=case.released)
    for one, other in zip(start[:3], state[:3], strict=True):
        assert one.tobytes() == other.tobytes()
    assert (state.t, loss) == (3.0, 0.0)


def test_padding_never_sees_a_row(case: Case) -> None:
    features = case.given["features"].copy()
    features[0] = 3e38  # the row that an index of padding would fall on; it would overflow
    order = batches(np.arange(1, 20), 32)
    state, loss = epoch(case, features=features, order=order)
    clean, clean_loss = epoch(case, order=order)
    assert state.weights.tobytes() == clean.weights.tobytes()
    assert loss == clean_loss


def test_extreme_weights_give_no_nan(case: Case) -> None:
    huge = case.model.weights * 1e4
    assert np.isfinite(case.graph.infer(case.given["features"], huge)).all()
    state, loss = epoch(case, state=TrainState.fresh(huge))
    assert np.isfinite(state.weights).all()
    assert np.isfinite(loss)


@pytest.mark.parametrize("order", [[-1, 0], [0, -1]])
def test_one_step_of_adam_by_hand(case: Case, order: list[int]) -> None:
    """One feature of 2, class 1, all weights 0: probabilities 1/4, so dL/dz = (1, -3, 1, 1)/4 and
    dL/dW = 2 dL/dz. Adam's first step is the rate, against the sign of the gradient."""
    graph = Graph(case.keras["tiny"].tobytes())
    settings = {"features": [[2.0]], "labels": [1], "order": order, "learning_rate": 0.1}
    state, loss = graph.train_epoch(state=TrainState.fresh(np.zeros(8)), **settings)  # type: ignore[arg-type]
    gradient = np.array([0.5, -1.5, 0.5, 0.5, 0.25, -0.75, 0.25, 0.25])
    assert loss == pytest.approx(np.log(4), abs=1e-6)
    np.testing.assert_allclose(state.m, 0.1 * gradient, rtol=1e-6)
    np.testing.assert_allclose(state.v, 0.001 * gradient**2, rtol=1e-5)
    np.testing.assert_allclose(state.weights, -0.1 * np.sign(gradient), rtol=2e-5)
    # mu (w - anchor) joins the gradient: 1/2 of (0 - 1) turns 0.5 into 0 and 0.25 into -0.25
    state, _ = graph.train_epoch(
        state=TrainState.fresh(np.zeros(8)),
        anchor=np.ones(8),
        mu=0.5,
        **settings,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(state.m, 0.1 * (gradient - 0.5), atol=1e-8)
    # the prior is part of the loss alone: logits log(1, 3, 1, 1) give probabilities (1, 3, 1, 1)/6
    state, loss = graph.train_epoch(
        state=TrainState.fresh(np.zeros(8)),
        log_prior=np.log([1, 3, 1, 1]),
        **settings,  # type: ignore[arg-type]
    )
    assert loss == pytest.approx(np.log(2), abs=1e-6)
    np.testing.assert_allclose(state.m[4:], 0.1 * np.array([1, -3, 1, 1]) / 6, rtol=1e-5)
    np.testing.assert_allclose(graph.infer([[2.0]], np.zeros(8)), np.full((1, 4), 0.25), atol=1e-7)


def test_the_same_layout_gives_the_same_graph(case: Case) -> None:
    assert bool(case.keras["same_graph"])


def test_what_does_not_fit_is_refused(case: Case) -> None:
    with pytest.raises(GraphError, match="refuses"):
        case.graph.infer(case.given["features"][:, :-1], case.model.weights)
    with pytest.raises(GraphError, match="refuses"):
        case.graph.infer(case.given["features"], case.model.weights[:-1])
    unknown = case.given["features"].copy()
    unknown[3, 2] = np.nan
    with pytest.raises(GraphError, match="features holds numbers that are not finite"):
        case.graph.infer(unknown, case.model.weights)
    with pytest.raises(GraphError, match="holds numbers that are not finite"):
        epoch(case, state=TrainState.fresh(np.full_like(case.model.weights, np.nan)))
    with pytest.raises(GraphError, match="no row"):
        case.graph.infer(case.given["features"][:0], case.model.weights)
    with pytest.raises(GraphError, match="order names"):
        epoch(case, order=np.full(32, 203))
    with pytest.raises(GraphError, match="label outside"):
        epoch(case, labels=np.full(203, -1))
    with pytest.raises(GraphError, match="classes are 0 to 3"):
        case.graph.evaluate(case.given["features"], np.full(203, -1), case.model.weights)
    with pytest.raises(GraphError, match="cannot be loaded"):
        Graph(b"no graph")
