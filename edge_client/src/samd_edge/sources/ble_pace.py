"""How long the radio scans, rests and waits.

A cuff or a thermometer announces itself for half a minute or so after it has measured: scan and rest together
must be shorter than that.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. ``retry_longest_s``: between attempts at a sensor that cannot be connected to."""

    scan_s: float = 8.0
    rest_s: float = 6.0
    connect_s: float = 30.0
    read_s: float = 5.0
    retry_s: float = 2.0
    retry_longest_s: float = 60.0
    unusable_s: float = 30.0
