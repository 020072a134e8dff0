"""Made-up recordings: repeatable, and close to the demo in what is promised."""

from datetime import UTC, datetime

import numpy as np
import pytest

from samd_data.hourly import hourly
from samd_data.plausibility import check
from samd_data.reading import VITALS
from samd_data.severity import labels
from samd_data.synthetic import generate

# Mean, standard deviation and lag-1 correlation of the hourly rows of the MIMIC-IV demo.
DEMO_MEAN = np.array([90.6, 20.1, 96.7, 116.0, 36.96])
DEMO_SD = np.array([18.5, 5.4, 3.0, 20.3, 0.55])
DEMO_LAG_1 = np.array([0.88, 0.62, 0.67, 0.73, 0.91])
DEMO_CLASSES = np.array([13.1, 63.8, 16.8, 6.3])


def test_a_seed_is_a_set_of_recordings() -> None:
    first = generate(3, 24, seed=1)
    assert first == generate(3, 24, seed=1)
    assert first != generate(3, 24, seed=2)
    assert [recording.readings for recording in first[:2]] == [r.readings for r in generate(2, 24, seed=1)]
    assert [recording.patient for recording in first] == ["synthetic-001", "synthetic-002", "synthetic-003"]


@pytest.mark.parametrize("seed", range(5))
def test_all_classes_occur_and_everything_is_plausible(seed: int) -> None:
    classes = set()
    for recording in generate(10, 72, seed):
        classes |= set(labels(hourly(recording.readings).values, "five").tolist())
        for reading in recording.readings:
            for field in VITALS:
                value = getattr(reading, field)
                assert value is None or check(field, value) is None
            if reading.systolic_bp is not None and reading.diastolic_bp is not None:
                assert reading.diastolic_bp < reading.systolic_bp
    assert {0, 1, 2, 3} <= classes


def test_close_to_the_demo() -> None:
    tables = [hourly(recording.readings) for recording in generate(200, 120, seed=5)]
    values = np.concatenate([table.values[:, :5] for table in tables])
    assert (np.abs(np.nanmean(values, axis=0) - DEMO_MEAN) < [3, 0.7, 0.5, 3, 0.1]).all()
    np.testing.assert_allclose(np.nanstd(values, axis=0), DEMO_SD, rtol=0.15)
    for sign in range(5):
        before = np.concatenate([table.values[:-1, sign] for table in tables])
        after = np.concatenate([table.values[1:, sign] for table in tables])
        both = ~np.isnan(before) & ~np.isnan(after)
        assert np.corrcoef(before[both], after[both])[0, 1] == pytest.approx(DEMO_LAG_1[sign], abs=0.08)
    known = np.concatenate([labels(table.values, "five") for table in tables])
    shares = np.bincount(known[known >= 0], minlength=4) / (known >= 0).sum() * 100
    np.testing.assert_allclose(shares, DEMO_CLASSES, atol=4)
    measured = np.concatenate([table.measured()[:, :5] for table in tables]).mean(axis=0)
    np.testing.assert_allclose(measured, [0.956, 0.953, 0.936, 0.910, 0.287], atol=0.01)


def test_wrong_arguments() -> None:
    for patients, hours, seed in ((0, 1, 1), (1, 0, 1), (1, 1, -1)):
        with pytest.raises(ValueError, match="or more"):
            generate(patients, hours, seed)
    with pytest.raises(ValueError, match="time zone"):
        generate(1, 1, 1, start=datetime(2026, 1, 1))  # noqa: DTZ001
    assert generate(1, 1, 1, start=datetime(2030, 1, 1, tzinfo=UTC))[0].readings[0].observed_at.year == 2030
