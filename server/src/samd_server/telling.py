"""What is told of an exchange with the devices: in words for people, in numbers for the curves."""

import math
from collections import Counter
from typing import Any

from samd_server.checks import coarse
from samd_server.grid import Collected, Reply
from samd_server.tracking.records import metrics_of


def reasons(collected: Collected) -> str:
    said = Counter(collected.awaited.values()) + Counter(coarsely(collected))
    return ", ".join(f"{count} {reason}" for reason, count in sorted(said.items())) or "no device answered"


def coarsely(collected: Collected) -> dict[str, int]:
    return dict(Counter(map(coarse, collected.dropped.values())))


def said(reply: Reply) -> dict[str, Any]:
    """What a device's training update says in numbers."""
    update = reply.update
    return {
        **metrics_of(update.metrics),
        "loss": update.loss,
        "examples": update.num_examples,
        "seconds": device_seconds(reply),
        "label_counts": update.label_counts,
    }


def device_seconds(reply: Reply) -> float:
    """A device's own time; one whose clock went mad does not spoil the figures of the round."""
    seconds = reply.update.seconds
    return seconds if math.isfinite(seconds) and seconds > 0.0 else 0.0
