"""Features: missing is told, constants are fixed, and every boundary of the chart has its step."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.features import CLIP, FeatureSpec, encode, hide, mask_signs
from samd_data.news2 import CHARTS, points_table
from samd_data.reading import COLUMNS, SIGNS

NORMAL = [70, 16, 98, 120, 37.0, 0, 0]
FIVE, ALL = FeatureSpec(), FeatureSpec(labels="all")


def one(spec: FeatureSpec, **fields: float) -> dict[str, float]:
    values = np.array([NORMAL], dtype=np.float64)
    for field, value in fields.items():
        values[0, COLUMNS.index(field)] = value
    return dict(zip(spec.names, encode(values, spec)[0].tolist(), strict=True))


def test_names_and_sizes() -> None:
    assert (FIVE.size, ALL.size) == (30, 34)
    assert (FIVE.inputs, ALL.inputs) == (SIGNS, COLUMNS)
    assert FIVE.names[:6] == [
        "heart_rate",
        "heart_rate<41",
        "heart_rate<51",
        "heart_rate>90",
        "heart_rate>110",
        "heart_rate>130",
    ]
    assert FIVE.names[-5:] == [f"{field}_missing" for field in SIGNS]
    for spec in (FIVE, ALL):
        assert len(set(spec.names)) == spec.size
        assert encode(np.full((3, 7), np.nan), spec).shape == (3, spec.size)
        assert encode(np.zeros((0, 7)), spec).shape == (0, spec.size)
        assert msgspec.json.decode(msgspec.json.encode(spec), type=FeatureSpec) == spec


def test_exact_numbers() -> None:
    features = one(ALL, heart_rate=100, temperature=38.05, supplemental_oxygen=1)
    assert features["heart_rate"] == 1.0
    assert features["heart_rate>90"] == 1.0
    assert features["heart_rate>110"] == 0.0
    assert features["temperature"] == pytest.approx(1.05)
    assert features["temperature>38"] == pytest.approx(0.5)
    assert features["supplemental_oxygen"] == 1.0
    assert features["consciousness"] == 0.0
    assert one(FIVE, heart_rate=300)["heart_rate"] == CLIP


def test_missing_is_a_mask_and_never_a_value() -> None:
    features = one(ALL, spo2=np.nan, supplemental_oxygen=np.nan)
    assert {name for name in ALL.names if name.endswith("_missing") and features[name]} == {
        "spo2_missing",
        "supplemental_oxygen_missing",
    }
    assert [features[name] for name in ALL.names if name.startswith("spo2") and name != "spo2_missing"] == [
        0.0
    ] * 4


@given(
    st.lists(
        st.tuples(
            *[st.floats(allow_nan=True, allow_infinity=False)] * 5, *[st.sampled_from([0.0, 1.0, np.nan])] * 2
        ),
        max_size=5,
    ),
    st.sampled_from([FIVE, ALL]),
)
def test_every_feature_is_finite_and_bounded(rows: Any, spec: FeatureSpec) -> None:
    values = np.array(rows, dtype=np.float64).reshape(-1, 7)
    features = encode(values, spec)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert (np.abs(features) <= CLIP).all()
    np.testing.assert_array_equal(features[:, -len(spec.inputs) :], np.isnan(values[:, : len(spec.inputs)]))


def test_on_the_values_of_the_chart_the_steps_are_all_or_nothing_and_spell_the_points() -> None:
    """Per sign, equal steps have equal points: a linear layer can read the score."""
    for column, field in enumerate(SIGNS):
        steps = CHARTS[field].steps
        grid = np.arange(20 * steps, 320 * steps) / steps
        values = np.tile(np.array(NORMAL), (len(grid), 1))
        values[:, column] = grid
        features = encode(values, FIVE)
        chosen = [i for i, name in enumerate(FIVE.names) if name.startswith((f"{field}<", f"{field}>"))]
        coded = features[:, chosen].round(4)
        assert set(np.unique(coded)) == {0.0, 1.0}
        points = points_table(values)[:, column]
        for pattern in np.unique(coded, axis=0):
            assert len(set(points[(coded == pattern).all(axis=1)].tolist())) == 1


@pytest.mark.parametrize("values", [np.zeros((2, 5)), np.zeros(7), np.full((1, 7), np.inf)])
def test_wrong_rows(values: Any) -> None:
    with pytest.raises(ValueError, match=r"shape|infinite"):
        encode(values, FIVE)


def test_an_unknown_feature_set_is_refused() -> None:
    with pytest.raises(ValueError, match="not known here"):
        FeatureSpec(name="signs-v9")
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"name":"signs-v9"}', type=FeatureSpec)


def test_mask_signs() -> None:
    values = np.tile(np.array(NORMAL), (2000, 1))
    values[:, 0] = np.nan
    before = values.copy()
    masked = mask_signs(values, 0.2, np.random.default_rng(0))
    np.testing.assert_array_equal(values, before)
    assert np.isnan(masked[:, 0]).all()
    assert np.isnan(masked[:, 1:]).mean() == pytest.approx(0.2, abs=0.02)
    kept = ~np.isnan(masked)
    np.testing.assert_array_equal(masked[kept], values[kept])
    np.testing.assert_array_equal(mask_signs(values, 0.0, np.random.default_rng(0)), values)
    assert np.isnan(mask_signs(values, 1.0, np.random.default_rng(0))).all()
    np.testing.assert_array_equal(masked, mask_signs(values, 0.2, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="probability"):
        mask_signs(values, 1.5, np.random.default_rng(0))


@given(seed=st.integers(0, 2**32 - 1), labels=st.sampled_from(["five", "all"]))
def test_hiding_encoded_rows_is_encoding_rows_with_the_signs_missing(seed: int, labels: Any) -> None:
    rng = np.random.default_rng(seed)
    centre = np.array([80.0, 18.0, 95.0, 120.0, 37.0, 0.5, 0.5])
    values = rng.normal(centre, [40.0, 12.0, 8.0, 50.0, 3.0, 0.0, 0.0], size=(20, 7))
    values[:, 5:] = rng.integers(0, 2, size=(20, 2))
    values[rng.random(values.shape) < 0.1] = np.nan
    hidden = rng.random(values.shape) < 0.3
    spec = FeatureSpec(labels=labels)
    shown = hide(encode(values, spec), hidden, spec)
    np.testing.assert_array_equal(shown, encode(np.where(hidden, np.nan, values), spec))
    assert shown.dtype == np.float32
