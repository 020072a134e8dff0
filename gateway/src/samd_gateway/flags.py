"""Why a device is limited, or not believed in some point: in a word, and as a sentence for people.

A flag is taken down by itself: that of the clock with the first heartbeat that tells the right time, the
others once nothing of the kind has come for a while.
"""

from collections.abc import Mapping
from typing import Literal

Flag = Literal["flood", "clock", "rubbish"]

CLOCK_TOLERANCE_S = 60.0
"""A clock that is further off is flagged. Nothing here depends on it: order and ages are by our own clock."""
STANDS_S: Mapping[Flag, float] = {"flood": 60.0, "rubbish": 600.0}
TEXT: Mapping[Flag, str] = {
    "flood": "flood: it sends more than it may; of its assessments and heartbeats the newest alone are kept",
    "clock": "clock: its clock is more than a minute off; set it",
    "rubbish": "rubbish: some of its messages cannot be read; is its program of another version?",
}


def standing(flags: Mapping[Flag, float], now: float) -> dict[Flag, float]:
    """Those that still stand, of flags with the time at which each was last earned."""
    return {flag: at for flag, at in flags.items() if now - at < STANDS_S.get(flag, float("inf"))}


def text(flags: Mapping[Flag, float]) -> str | None:
    """For the column `flagged`; None where all is well."""
    return "; ".join(TEXT[flag] for flag in sorted(flags)) or None


def clock_is_off(offset_s: float | None) -> bool:
    return offset_s is not None and abs(offset_s) > CLOCK_TOLERANCE_S
