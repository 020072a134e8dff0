"""What the NEWS2 chart asks of the ward: how soon the next observations are due, and who is called.

Source: Royal College of Physicians. National Early Warning Score (NEWS) 2: Standardising the assessment of
acute-illness severity in the NHS. London: RCP, 2017. Chart 3 (the observation chart with its thresholds) and
chart 4 (clinical response to the NEWS trigger thresholds). The sentences are in our own words; a ward that
has agreed on another response follows its own.

==========  ===========  ==================  ================================================================
total       band         observations        who
==========  ===========  ==================  ================================================================
0           low          every 12 h          nobody: routine
1-4         low          every 4 to 6 h      a registered nurse assesses
a single 3  low-medium   every hour          the patient's medical team reviews
5-6         medium       every hour          the medical team at once; urgent assessment of acute illness
7 or more   high         without a break     the medical team at once, a senior; a critical-care team comes
==========  ===========  ==================  ================================================================
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from samd_data.news2 import BANDS, band_of

_HOUR: Final = 3600.0

INTERVAL_SECONDS: Final[Mapping[str, float | None]] = MappingProxyType(
    {"low": 4 * _HOUR, "low-medium": _HOUR, "medium": _HOUR, "high": None}
)
"""Seconds from one full set of observations to the next, by band; None asks for continuous monitoring.

The chart gives 4 to 6 hours for 1-4: the shorter end stands here, so that nobody is seen later than the chart
allows (the longest interval is ``news2.monitoring_hours``). A total of 0 has ``INTERVAL_AT_0_SECONDS``.
"""

INTERVAL_AT_0_SECONDS: Final = 12 * _HOUR

_ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "low": "A registered nurse assesses the patient and decides whether to observe more often or to "
        "call for help; observe at least every 4 to 6 hours.",
        "low-medium": "A single sign scores 3: a registered nurse tells the patient's medical team, who "
        "review the patient and decide on escalation; observe at least every hour.",
        "medium": "Urgent: a registered nurse tells the medical team at once and asks for an urgent "
        "assessment by a team that knows acute illness; observe at least every hour, where monitors are.",
        "high": "Emergency: call the medical team at once, at specialist registrar level or above, and a "
        "critical-care team with airway skills; monitor without a break and consider intensive care.",
    }
)
_ADVICE_AT_0: Final = "Routine: go on with the observations, at least every 12 hours."


def interval_s(total: int, band: str) -> float | None:
    """Seconds within which the next full set of observations is due; None asks for continuous monitoring.

    Of a range, give its certain end. Raises ``ValueError`` for a total and a band that do not go together.
    """
    _check(total, band)
    return INTERVAL_AT_0_SECONDS if total == 0 else INTERVAL_SECONDS[band]


def advice(total: int, band: str) -> str:
    """Who is to be called, how soon, and how often to observe: one sentence.

    Raises ``ValueError`` for a total and a band that do not go together.
    """
    _check(total, band)
    return _ADVICE_AT_0 if total == 0 else _ADVICE[band]


def _check(total: int, band: str) -> None:
    if band not in BANDS:
        raise ValueError(f"band is {band!r}; it is one of {', '.join(BANDS)}")
    if not 0 <= total <= 20:
        raise ValueError(f"a NEWS2 total is 0 to 20, not {total}")
    # A single 3 makes a total of 3 at least.
    if band != band_of(total, has_three=band == "low-medium") or (band == "low-medium" and total < 3):
        raise ValueError(f"a total of {total} is not in the band {band}")
