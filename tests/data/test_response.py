"""The chart's response, band by band."""

from datetime import UTC, datetime

import pytest

from samd_data.news2 import BANDS, band_of, monitoring_hours, score
from samd_data.reading import Reading
from samd_data.response import INTERVAL_SECONDS, advice, interval_s

HOUR = 3600.0


@pytest.mark.parametrize(
    ("total", "band", "seconds"),
    [
        (0, "low", 12 * HOUR),
        (1, "low", 4 * HOUR),
        (4, "low", 4 * HOUR),
        (3, "low-medium", HOUR),
        (4, "low-medium", HOUR),
        (5, "medium", HOUR),
        (6, "medium", HOUR),
        (7, "high", None),
        (20, "high", None),
    ],
)
def test_intervals_of_chart_4(total: int, band: str, seconds: float | None) -> None:
    assert interval_s(total, band) == seconds


def test_no_interval_is_longer_than_the_chart_allows() -> None:
    for total in range(21):
        for has_three in (False, True) if total >= 3 else (False,):
            band = band_of(total, has_three=has_three)
            assert (interval_s(total, band) or 0.0) <= monitoring_hours(total, band) * HOUR


def test_every_band_has_an_interval_and_no_two_bands_the_same_advice() -> None:
    assert tuple(INTERVAL_SECONDS) == BANDS
    said = [advice(*at) for at in ((0, "low"), (1, "low"), (3, "low-medium"), (5, "medium"), (7, "high"))]
    assert len(set(said)) == 5
    assert all(text.endswith(".") and "\n" not in text for text in said)


@pytest.mark.parametrize(
    ("total", "band", "words"),
    [
        (0, "low", ("Routine", "12 hours")),
        (2, "low", ("registered nurse", "4 to 6 hours")),
        (3, "low-medium", ("scores 3", "medical team", "every hour")),
        (5, "medium", ("Urgent", "at once", "every hour")),
        (7, "high", ("Emergency", "at once", "critical-care team", "without a break")),
    ],
)
def test_who_is_called_how_soon(total: int, band: str, words: tuple[str, ...]) -> None:
    assert all(word in advice(total, band) for word in words)


def test_the_certain_end_of_a_range_has_a_response() -> None:
    found = score(Reading(observed_at=datetime(2026, 1, 1, tzinfo=UTC), respiratory_rate=26))
    assert (found.low, found.band) == (3, "low-medium")
    assert interval_s(found.low, found.band) == HOUR


@pytest.mark.parametrize(
    ("total", "band", "text"),
    [
        (0, "green", "band is 'green'"),
        (21, "high", "0 to 20"),
        (-1, "low", "0 to 20"),
        (7, "low", "not in the band low"),
        (5, "low-medium", "not in the band low-medium"),
        (2, "low-medium", "not in the band low-medium"),
        (0, "high", "not in the band high"),
    ],
)
def test_a_band_that_does_not_fit_is_no_silent_routine(total: int, band: str, text: str) -> None:
    for function in (interval_s, advice):
        with pytest.raises(ValueError, match=text):
            function(total, band)
