"""What the agent shows on the spot: one struct, asked for over its socket, drawn by ``samd-edge top``.

It holds vital signs and never leaves the device: the socket is a file in the data directory, for its owner.
"""

from datetime import datetime
from typing import Literal

import msgspec

from samd_protocol.messages import Deterioration, ModelView, News2


class SignView(msgspec.Struct, frozen=True, kw_only=True):
    """One input: its latest value, how old it is, its points, and why it is not scored.

    ``state``: "valid" is scored, "stale" was seen too long ago, "missing" was never seen. ``value`` and
    ``age_s`` are those of the newest value that was accepted, also of a stale one; ``points`` are None while
    they are not certain. ``flag``: why the newest values are not scored (an artefact, a probe that is off),
    None when nothing is wrong. ``due``: the chart asks for it anew. ``trend``: (seconds before now, value),
    oldest first, of the numeric signs.
    """

    field: str
    unit: str
    value: float | bool | str | None
    age_s: float | None
    points: int | None
    state: Literal["valid", "stale", "missing"]
    due: bool = False
    flag: str | None = None
    trend: list[tuple[float, float]] = []


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """The alert now: its class (0: none), since when in seconds, and what it waits for, in words."""

    active: bool
    severity: int
    since_s: float | None = None
    waiting: str | None = None


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """One source: readings and rejections so far, seconds since its last reading, how it fares."""

    name: str
    readings: int
    rejected: int
    last_s: float | None
    ended: bool
    error: str | None = None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a person at the device wants to see. Ages and durations in seconds of patient time.

    ``admission`` is None while nobody is admitted, ``news2`` is None until something was measured.
    ``score_trend``: (seconds before now, low, high, severity), oldest first. ``advice``: what the chart asks
    for in this band. ``next_due_s``: seconds until the next full set of observations is due, negative when
    overdue, None when the chart asks for continuous monitoring. ``link``: "up", or since when and why not.
    ``deterioration``: the answer of the last full hour, None without a model for it.
    """

    at: datetime
    device: str
    client_version: str
    admission: str | None
    spo2_scale: int = 1
    speed: float = 1.0
    clock: str = "unsynced"
    news2: News2 | None = None
    band_high: str | None = None
    rule_severity: int = 0
    rule_severity_possible: int = 0
    severity: int = 0
    model: ModelView | None = None
    model_error: str | None = None
    deterioration: Deterioration | None = None
    disagreement: bool = False
    disagreements: int = 0
    signs: list[SignView] = []
    score_trend: list[tuple[float, int, int, int]] = []
    advice: str = ""
    next_due_s: float | None = None
    alert: AlertView
    link_up: bool
    link: str
    outbox_depth: int
    dead_letters: int
    model_version: int | None
    sources: list[SourceView] = []
