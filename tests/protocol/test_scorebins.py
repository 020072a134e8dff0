"""Scores by bin: counted by hand, and refused where another program's cannot be true."""

import math

import msgspec
import numpy as np
import pytest

from samd_protocol.scorebins import BINS, ScoreBins, bin_numbers, bins_of, problem


def test_counted_by_hand() -> None:
    bins = bins_of([0.5, 0.5, 0.9, 0.0], [0, 1, 1, 0], [2, 6, 3, 0])
    # 0.5 has the logit 0, the lower edge of bin 128; 0.9 has 2.197, 46.9 bins further; 0 is in the first
    assert (bins.negatives[128], bins.positives[128], bins.positives[174], bins.negatives[0]) == (1, 1, 1, 1)
    assert (sum(bins.negatives), sum(bins.positives)) == (2, 2)
    assert (bins.sums[128], bins.sums[174], bins.sums[0]) == (1.0, 0.9, 0.0)
    assert [bins.rule_negatives[total] for total in (0, 2)] == [1, 1]
    assert [bins.rule_positives[total] for total in (3, 6)] == [1, 1]
    assert problem(bins, (2, 2)) is None


def test_edges_are_equal_steps_of_the_logit() -> None:
    logits = (np.arange(BINS) + 0.5) * 12 / 256 - 6
    assert bin_numbers(1 / (1 + np.exp(-logits))).tolist() == list(range(BINS))
    assert bin_numbers(np.array([0.0, 1e-30, 1.0])).tolist() == [0, 0, BINS - 1]


@pytest.mark.parametrize(
    ("scores", "labels", "totals"),
    [
        ([0.5], [2], [0]),
        ([1.5], [0], [0]),
        ([math.nan], [0], [0]),
        ([0.5], [0], [21]),
        ([0.5, 0.5], [0], [0]),
    ],
)
def test_what_is_no_score_is_refused(scores: list[float], labels: list[int], totals: list[int]) -> None:
    with pytest.raises(ValueError, match=r"shapes|probability|NEWS2"):
        bins_of(scores, labels, totals)


def test_what_another_program_says_is_judged() -> None:
    bins = bins_of([0.5, 0.7], [0, 1], [2, 6])
    replace = msgspec.structs.replace
    assert problem(bins, (1, 1)) is None
    assert problem(bins, (2, 0)) == "counts do not add up"
    assert problem(replace(bins, negatives=bins.negatives[1:]), (1, 1)) == "malformed report"
    assert problem(replace(bins, rule_negatives=[0] * 20 + [1, 0]), (1, 1)) == "malformed report"
    assert problem(replace(bins, rule_positives=[0] * 21), (1, 1)) == "counts do not add up"
    for wild in (math.nan, -1.0, 2.5):
        assert problem(replace(bins, sums=[wild, *bins.sums[1:]]), (1, 1)) == "impossible score"
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(
            msgspec.msgpack.encode(replace(bins, negatives=[-1, *bins.negatives[1:]])), type=ScoreBins
        )
