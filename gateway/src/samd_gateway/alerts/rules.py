"""What people set about alerts, as settings: when silence counts, and the escalation ladder."""

from typing import Annotated

import msgspec

Severity = Annotated[int, msgspec.Meta(ge=1, le=3)]
Limits = Annotated[tuple[Annotated[float, msgspec.Meta(ge=1, le=86_400)], ...], msgspec.Meta(max_length=8)]

SILENCE, LADDER = "silence", "ladder"
"""The keys of these settings."""


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """When a device that should report does not. `after_s`: so long after it has become stale or offline (a
    short loss of the radio is no news). `reading_age_s`: a device that lives but has had no reading for so
    long; `continuous_age_s` where the chart asks for monitoring without a break. `severity`: that of such an
    alert; where the patient was more severe when last heard of, that."""

    enabled: bool = True
    after_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 20.0
    reading_age_s: Annotated[float, msgspec.Meta(ge=1, le=604_800)] = 3600.0
    continuous_age_s: Annotated[float, msgspec.Meta(ge=1, le=604_800)] = 600.0
    severity: Severity = 2


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """After how many seconds without an acknowledgement an alert goes a step up, by its severity: the first
    number is step 1. No numbers: alerts of that severity stay where they are."""

    enabled: bool = True
    severity_1: Limits = ()
    severity_2: Limits = (900.0, 1800.0)
    severity_3: Limits = (300.0, 900.0)

    def __post_init__(self) -> None:
        for name in ("severity_1", "severity_2", "severity_3"):
            limits = getattr(self, name)
            if list(limits) != sorted(set(limits)):
                raise ValueError(f"{name}: each step comes later than the one before")

    def limits(self, severity: int) -> tuple[float, ...]:
        """The limits of a severity."""
        found: tuple[float, ...] = getattr(self, f"severity_{min(max(severity, 1), 3)}")
        return found

    def due_at(self, severity: int, step: int, waiting_since: float) -> float | None:
        """When the step after `step` is due; None when there is none."""
        limits = self.limits(severity)
        return waiting_since + limits[step] if self.enabled and step < len(limits) else None
