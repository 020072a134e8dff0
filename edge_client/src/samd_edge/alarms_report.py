"""The figures of ``samd-edge alarms``: what happened under each policy, as a table to read or as JSON."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from samd_edge.alarms import Tally
from samd_edge.alerts import Change, Policy
from samd_edge.artefacts import ArtefactPolicy

_DAY_S: Final = 86_400.0
_NAMES: Final = {1: "1, a single 3", 2: "2, urgent: 5 or 6", 3: "3, emergency: 7 or more"}
_CHANGES: Final[dict[Change, tuple[str, tuple[int, ...]]]] = {
    "raised": ("raised at level", (1, 2, 3)),
    "escalated": ("escalated to level", (2, 3)),
    "deescalated": ("de-escalated to level", (1, 2)),
    "cleared": ("cleared from level", (1, 2, 3)),
}
_LOWEST: Final = {"low-medium": 1, "medium": 2, "high": 3}


class Candidate(NamedTuple):
    """A policy with its name, and the artefacts that it flags."""

    name: str
    policy: Policy
    artefacts: ArtefactPolicy


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy would have done.

    ``per_day``: per patient-day, by change and level (as text); None where no time passed. Times in seconds.
    ``answered``: how often a certain total of 7 was reached while no alert of level 3 was open, and one
    opened; ``delay_median_s``: how long that took, None for never. ``unanswered``: how often none opened
    before the total fell or the stay ended.
    """

    name: str
    alerts: dict[str, Any]
    artefacts: dict[str, Any]
    raised: int
    per_day: dict[str, dict[str, float] | None]
    in_alert_share: float | None
    in_emergency_share: float | None
    longest_s: float
    open_at_end: int
    silent_patients: int
    answered: int
    delay_median_s: float | None
    unanswered: int


def figures_of(candidate: Candidate, tally: Tally) -> Figures:
    """The figures of one policy."""
    days = tally.observed_s / _DAY_S
    return Figures(
        name=candidate.name,
        alerts=msgspec.to_builtins(candidate.policy),
        artefacts=msgspec.to_builtins(candidate.artefacts),
        raised=tally.raised,
        per_day={
            change: {str(level): tally.changes[change, level] / days for level in levels} if days else None
            for change, (_, levels) in _CHANGES.items()
        },
        in_alert_share=sum(tally.in_alert_s.values()) / tally.observed_s if days else None,
        in_emergency_share=tally.in_alert_s[3] / tally.observed_s if days else None,
        longest_s=tally.longest_s,
        open_at_end=tally.open_at_end,
        silent_patients=tally.silent_patients,
        answered=len(tally.delays_s),
        delay_median_s=statistics.median(tally.delays_s) if tally.delays_s else None,
        unanswered=tally.unanswered,
    )


def as_object(figures: Sequence[Figures], tally: Tally, spo2_scale: int) -> dict[str, Any]:
    """Everything as JSON. ``tally``: any of them, for what all have in common."""
    return {
        "patients": tally.patients,
        "stays": tally.stays,
        "patient_days": tally.observed_s / _DAY_S,
        "spo2_scale": spo2_scale,
        "policies": [msgspec.to_builtins(each) for each in figures],
    }


def as_table(figures: Sequence[Figures], tally: Tally, spo2_scale: int) -> list[str]:
    """Lines to read: a column for each policy."""
    rows: list[tuple[str, list[str]]] = []

    def row(name: str, show: Callable[[Figures], str]) -> None:
        rows.append((name, [show(each) for each in figures]))

    row("alerts", lambda each: str(each.raised))
    row("alerts per patient-day", lambda each: _sum(each, "raised"))
    row("times it rings per patient-day", lambda each: _sum(each, "raised", "escalated"))
    lowest = min(_LOWEST[each.alerts["raise_at"]] for each in figures)
    for change, (words, levels) in _CHANGES.items():
        for level in levels:
            if level >= lowest + (change == "escalated"):
                row(f"  {words} {_NAMES[level]}", partial(_of, change, level))
    row("share of time in alert", lambda each: _share(each.in_alert_share))
    row("  at level 3", lambda each: _share(each.in_emergency_share))
    row("longest alert", lambda each: _span(each.longest_s))
    row("open at the end of a stay", lambda each: str(each.open_at_end))
    row("patients without an alert", lambda each: str(each.silent_patients))
    row("totals of 7 without an alert at level 3", lambda each: str(each.answered + each.unanswered))
    row("  median time until it rang", lambda each: _span(each.delay_median_s))
    row("  it never rang", lambda each: str(each.unanswered))

    wide = max(len(name) for name, _ in rows)
    widths = [max(8, len(each.name), *(len(cells[i]) for _, cells in rows)) for i, each in enumerate(figures)]
    heads = "  ".join(f"{each.name:>{width}}" for each, width in zip(figures, widths, strict=True))
    lines = [
        f"{_many(tally.patients, 'patient')}, {_many(tally.stays, 'stay')}, "
        f"{tally.observed_s / _DAY_S:.1f} patient-days; NEWS2 on SpO2 scale {spo2_scale}",
        "",
        f"{'':<{wide}}  {heads}",
    ]
    for name, cells in rows:
        shown = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{name:<{wide}}  {shown}")
    return lines


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _of(change: Change, level: int, figures: Figures) -> str:
    per_day = figures.per_day[change]
    return "-" if per_day is None else f"{per_day[str(level)]:.2f}"


def _sum(figures: Figures, *changes: Change) -> str:
    per_day = [figures.per_day[change] for change in changes]
    known = [value for by_level in per_day if by_level is not None for value in by_level.values()]
    return f"{sum(known):.2f}" if known else "-"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
