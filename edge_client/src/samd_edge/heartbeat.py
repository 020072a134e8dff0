"""The device's own health: what a heartbeat says. What this machine cannot tell is None."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil

from samd_protocol.messages import Heartbeat

_MB = 1e6
HOT_C = 80.0
"""From here on a Pi throttles its processor: no training above it."""


def temperature_c() -> float | None:
    """The hottest sensor of the machine, in °C."""
    read: Callable[[], dict[str, list[object]]] | None = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    try:
        found = [float(getattr(entry, "current", 0)) for entries in read().values() for entry in entries]
    except (OSError, ValueError):
        return None
    return max(found, default=None)


def on_battery() -> bool | None:
    """Whether the machine runs on its battery; None when it has none, or cannot tell."""
    read: Callable[[], object] | None = getattr(psutil, "sensors_battery", None)
    try:
        found = None if read is None else read()
    except (OSError, ValueError):
        return None
    plugged = getattr(found, "power_plugged", None)
    return None if plugged is None else not plugged


def collect(
    folder: Path,
    *,
    interval_s: float,
    uptime_s: float,
    outbox_depth: int,
    dead_letters: int,
    reading_age_s: float | None,
    model_version: int | None,
    disagreements: int,
    rejected: int,
    certificate_expires_at: datetime | None = None,
) -> Heartbeat:
    """One heartbeat, with what the machine says of itself now."""
    try:
        disk: float | None = psutil.disk_usage(str(folder)).free / _MB
    except OSError:
        disk = None
    return Heartbeat(
        interval_s=interval_s,
        uptime_s=uptime_s,
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        memory_available_mb=psutil.virtual_memory().available / _MB,
        resident_mb=psutil.Process().memory_info().rss / _MB,
        temperature_c=temperature_c(),
        disk_free_mb=disk,
        outbox_depth=outbox_depth,
        dead_letters=dead_letters,
        reading_age_s=reading_age_s,
        model_version=model_version,
        disagreements=disagreements,
        rejected=rejected,
        certificate_expires_at=certificate_expires_at,
    )
