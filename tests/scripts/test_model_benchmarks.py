"""What the tables are measured with: scores as scikit-learn has them, steps and averages by hand."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from samd_server import flower

        with warnings.catch_warnings():
            # Flower's command line, which is never run here, uses what click deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            flower.prepare()
            from models import cohort, learning, scores, severity
        flower.identify(1)

        yield {"cohort": cohort, "learning": learning, "scores": scores, "severity": severity}
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def bundle(untrained_bundle_path: Path) -> Any:
    from samd_protocol import bundle

    return bundle.read(untrained_bundle_path)


@pytest.mark.parametrize("decimals", [1, 9])
def test_scores_agree_with_scikit_learn(models: Any, decimals: int) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(decimals)
    labels = (rng.random(500) < 0.2).astype(int)
    given = np.round(rng.normal(labels, 1.0), decimals)
    scores = models["scores"]
    assert scores.auroc(labels, given) == pytest.approx(peer.roc_auc_score(labels, given), abs=1e-12)
    assert scores.average_precision(labels, given) == pytest.approx(
        peer.average_precision_score(labels, given), abs=1e-12
    )
    assert np.isnan(scores.auroc(np.zeros(3), np.ones(3)))
    assert np.isnan(scores.average_precision(np.zeros(3), np.ones(3)))


def test_an_interval_by_hand(models: Any) -> None:
    found = models["scores"].over_seeds([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found["mean"] == 3.0
    assert found["high"] - 3.0 == pytest.approx(2.776 * np.sqrt(2.5) / np.sqrt(5))
    draws = models["scores"].over_patients(
        lambda at: float(at.mean()), np.array(["a", "a", "b"]), draws=50, seed=0
    )
    assert set(draws) == {0.5, 1.0, 2.0}  # two times a, both in turn, two times b


def device(models: Any, name: str, rows: int, seed: int) -> Any:
    from samd_data.features import FeatureSpec, encode
    from samd_data.severity import labels
    from samd_edge.trainer.rows import Rows

    rng = np.random.default_rng(seed)
    values = rng.normal([85, 19, 96, 118, 37, 0, 0], [18, 5, 2, 20, 0.7, 0, 0], (rows, 7))
    truth = labels(values, "five").astype(np.int32)
    hours = np.datetime64("2026-01-01T00", "s") + np.arange(rows) * np.timedelta64(1, "h")
    return models["cohort"].Device(
        name, Rows(values, truth), encode(values, FeatureSpec()), hours, np.zeros(rows, np.int64)
    )


def bench_of(models: Any, bundle: Any, sgd: bool) -> Any:
    from samd_data.features import FeatureSpec
    from samd_edge.runtime import Graph

    return models["learning"].Bench(Graph(bundle.graph), FeatureSpec(), 4, sgd)


def test_plain_steps_are_the_rate_times_the_averaged_gradient(models: Any, bundle: Any) -> None:
    """One batch of one row: the output layer's gradient is softmax less truth, times a tenth of momentum."""
    bench = bench_of(models, bundle, True)
    one = device(models, "a", 1, 3)
    from samd_protocol.tasks import TrainSettings

    settings = TrainSettings(learning_rate=0.5)
    after = models["learning"].centralise(bench, one, bundle.weights, settings=settings, epochs=1)
    share = bench.graph.infer(one.features, bundle.weights)[0].astype(np.float64)
    share[one.labels[0]] -= 1
    # v takes a thousandth of the squared gradient's distance from 1 in the one step.
    v = 1 + 0.001 * (share**2 - 1)
    assert after[-4:] - bundle.weights[-4:] == pytest.approx(-0.5 * 0.1 * share / np.sqrt(v), rel=1e-3)


def test_a_round_is_the_mean_by_rows(models: Any, bundle: Any) -> None:
    from samd_edge import personalisation
    from samd_protocol.tasks import TrainSettings
    from samd_server.strategies import Averaging, by_name

    bench = bench_of(models, bundle, True)
    devices = [device(models, "a", 40, 1), device(models, "b", 10, 2)]
    settings = TrainSettings(learning_rate=0.3, mask_rate=0.15, seed=4)
    method = personalisation.by_name("none", bundle.manifest.layers)
    sent: list[Any] = []

    def note(number: int, at: int, update: Any, received: Any) -> Any:
        sent.append(update)
        return update

    averaging = Averaging(by_name("FedAvg", 2), 2)
    weights, _ = models["learning"].federate(
        bench,
        devices,
        bundle.weights,
        method=method,
        settings=settings,
        averaging=averaging,
        rounds=1,
        tamper=note,
    )
    assert weights == pytest.approx((40 * sent[0] + 10 * sent[1]) / 50, abs=1e-6)


def test_a_cut_is_purged_on_both_sides(models: Any) -> None:
    first, rest = device(models, "a", 100, 1).cut(0.7)
    assert (len(first), len(rest)) == (65, 24)
    assert (rest.hours[0] - first.hours[-1]) == np.timedelta64(12, "h")
