"""AUROC, average precision and calibration: numbers worked out by hand, scikit-learn, rows against bins."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from samd_protocol.scorebins import bins_of
from samd_server.ranking import Ranking, of_bins, of_rows


def test_exact_numbers() -> None:
    found = of_rows([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1], [1, 2, 2, 6])
    # pairs: .4 beats .1 and ties with .4, .8 beats both: 3.5 of 4
    assert found == Ranking(
        rows=4,
        positives=2,
        auroc=3.5 / 4,
        # .8: precision 1, recall 1/2; .4: two rows more, 2 of 3, recall 1
        average_precision=0.5 * 1 + 0.5 * 2 / 3,
        # stretches: .1 said .1 was 0; .4 said .8 was 1; .8 said .8 was 1
        calibration_error=pytest.approx((0.1 + 0.2 + 0.2) / 4, abs=1e-15),
        mean_probability=pytest.approx(1.7 / 4, abs=1e-15),
        rule_auroc=3.5 / 4,
        rule_average_precision=pytest.approx(0.5 + 1 / 3, abs=1e-15),
    )


def test_what_is_undefined_is_none() -> None:
    none = of_rows([], [], [])
    assert (none.rows, none.auroc, none.average_precision, none.calibration_error) == (0, None, None, None)
    assert of_bins([]) == none
    alone = of_rows([0.2, 0.3], [0, 0], [0, 1])
    assert (alone.positives, alone.auroc, alone.average_precision) == (0, None, None)
    assert alone.calibration_error == pytest.approx(0.25, abs=1e-15)


def test_like_scikit_learn_and_bins_nearly_like_rows() -> None:
    rng = np.random.default_rng(5)
    truth = (rng.random(3000) < 0.15).astype(np.int64)
    score = 1 / (1 + np.exp(2 - 1.5 * truth - rng.standard_normal(3000)))
    totals = rng.integers(0, 7, 3000) + truth
    found = of_rows(score, truth, totals)
    assert found.auroc == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(truth, score), abs=1e-12)
    assert found.rule_auroc == pytest.approx(roc_auc_score(truth, totals), abs=1e-12)
    assert found.rule_average_precision == pytest.approx(average_precision_score(truth, totals), abs=1e-12)
    half = [bins_of(score[part], truth[part], totals[part]) for part in (slice(1000), slice(1000, None))]
    told = of_bins(half)
    assert (told.rows, told.positives) == (3000, int(truth.sum()))
    assert told.auroc == pytest.approx(found.auroc, abs=0.001)
    assert told.average_precision == pytest.approx(found.average_precision, abs=0.01)
    assert told.calibration_error == pytest.approx(found.calibration_error, abs=0.005)
    assert told.mean_probability == pytest.approx(score.mean(), abs=1e-12)
    assert (told.rule_auroc, told.rule_average_precision) == (
        found.rule_auroc,
        found.rule_average_precision,
    )
