"""The scenarios of ``sim:``: what happens to an invented patient, hour by hour.

Nothing learned from them says anything of patients. How the signs move between the anchors, and at what rate
they are sent, stands in ``invented``.

``sepsis``, with the total on SpO2 scale 1 that the anchors have without the unrest:

====  =====  ======  ====  ========  ===========  =============================  =====
hour  heart  breath  SpO2  systolic  temperature  a person                       NEWS2
====  =====  ======  ====  ========  ===========  =============================  =====
0     74     15      98    126       36.9         sees: on air, alert            0
2     76     15      98    124       37.0                                        0
5     94     17      96    116       37.9                                        1
6     100    18      95    107       38.3                                        4
7     104    19      95    105       38.5                                        4
7.5   106    22      95    105       38.6                                        6
9     114    24      93    102       38.8         gives oxygen                   10
11    122    27      92    96        39.2         sees: newly confused           16
12    126    28      92    92        39.3         gives fluids and antibiotics   16
14    112    24      94    103       38.6         sees: alert                    9
15    104    22      95    107       38.2                                        8
16    98     21      95    113       37.9                                        6
16.5  97     18      95    116       37.8                                        4
17.5  95     18      95    119       37.7                                        4
18    92     16      97    121       37.5                                        3
18.5  84     16      98    122       37.4                                        2
19.5                                              takes the oxygen off           0
24    78     15      98    125       37.0                                        0
====  =====  ======  ====  ========  ===========  =============================  =====

So an alert of the default policy is raised (5 or more) about hour 7, escalated (7 or more) between the hours
7.5 and 9, goes down to urgent after hour 16 and is cleared after hour 17.5.

``copd``: on scale 1 the saturation that is right for this patient alerts all day; on scale 2 only the hour of
too much oxygen does. ``probe-off``: an alert that is open must stay open while its SpO2 is not known.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.sources import SourceError, invented
from samd_edge.sources.invented import Anchor, Observed, Scenario, Timed, Trouble

SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "sepsis",
            "well, septic within 12 hours, treated, well again: the alert rises, falls and is cleared",
            (
                Anchor(0, 74, 15, 98, 126, 36.9),
                Anchor(2, 76, 15, 98, 124, 37.0),
                Anchor(5, 94, 17, 96, 116, 37.9),
                Anchor(6, 100, 18, 95, 107, 38.3),
                Anchor(7, 104, 19, 95, 105, 38.5),
                Anchor(7.5, 106, 22, 95, 105, 38.6),
                Anchor(9, 114, 24, 93, 102, 38.8),
                Anchor(11, 122, 27, 92, 96, 39.2),
                Anchor(12, 126, 28, 92, 92, 39.3),
                Anchor(14, 112, 24, 94, 103, 38.6),
                Anchor(15, 104, 22, 95, 107, 38.2),
                Anchor(16, 98, 21, 95, 113, 37.9),
                Anchor(16.5, 97, 18, 95, 116, 37.8),
                Anchor(17.5, 95, 18, 95, 119, 37.7),
                Anchor(18, 92, 16, 97, 121, 37.5),
                Anchor(18.5, 84, 16, 98, 122, 37.4),
                Anchor(24, 78, 15, 98, 125, 37.0),
            ),
            (
                Observed(0, supplemental_oxygen=False),
                Observed(9, supplemental_oxygen=True),
                Observed(11, supplemental_oxygen=True, consciousness="C"),
                Observed(14, supplemental_oxygen=True),
                Observed(19.5, supplemental_oxygen=False),
            ),
        ),
        Scenario(
            "copd",
            "COPD on controlled oxygen at 88-92 %, right on scale 2; too much of it from hour 4 to 5.5",
            (
                Anchor(0, 82, 16, 90, 132, 36.8),
                Anchor(4, 82, 16, 90, 132, 36.8),
                Anchor(4.25, 82, 16, 98, 132, 36.8),
                Anchor(5.25, 82, 16, 98, 132, 36.8),
                Anchor(5.5, 82, 16, 90, 132, 36.8),
            ),
            (Observed(0, supplemental_oxygen=True),),
        ),
        Scenario(
            "probe-off",
            "a total of 5, and the SpO2 probe falls off in hour 1 for 20 minutes, in hour 3 for 4 hours",
            (Anchor(0, 97, 16, 92.5, 122, 37.4),),
            (Observed(0, supplemental_oxygen=True),),
            (Trouble(1, 4 / 3, "spo2", "off"), Trouble(3, 7, "spo2", "off")),
        ),
        Scenario(
            "artefacts",
            "a healthy person and bad sensors: jumps, flat lines, motion, a cuff on a moving arm",
            (Anchor(0, 70, 15, 98, 126, 36.8),),
            (Observed(0, supplemental_oxygen=False),),
            (
                Trouble(0.5, 1.5, "heart_rate", "jumps"),
                Trouble(0.75, 1.75, "spo2", "jumps"),
                Trouble(2, 3, "respiratory_rate", "flat"),
                Trouble(2.5, 3.5, "heart_rate", "flat"),
                Trouble(4, 5, "spo2", "motion"),
                Trouble(5, 7, "systolic_bp", "cuff"),
                Trouble(6, 6.5, "respiratory_rate", "jumps"),
            ),
        ),
        Scenario(
            "well",
            "a healthy person: nothing to alert",
            (Anchor(0, 68, 15, 98, 128, 36.8),),
            (Observed(0, supplemental_oxygen=False),),
        ),
    )
}


def play(
    name: str, *, seed: int, start: datetime, hours: float, every: float = 5.0
) -> Iterator[Reading | Rejection]:
    """The whole scenario from ``start`` (aware) on, in its order, without waiting.

    Raises SourceError for an unknown one, with a line for each that there is.
    """
    return (timed.item for timed in timeline(name, seed=seed, start=start, hours=hours, every=every))


def timeline(name: str, *, seed: int, start: datetime, hours: float, every: float = 5.0) -> Iterator[Timed]:
    """The same, each item with the time at which it is sent (a rejection has none of its own)."""
    scenario = SCENARIOS.get(name)
    if scenario is None:
        known = "\n".join(f"  {each.name:<10} {each.text}" for each in SCENARIOS.values())
        raise SourceError(f"no scenario {name!r}; there are\n{known}")
    return invented.timeline(scenario, seed=seed, start=start, hours=hours, every=every)
