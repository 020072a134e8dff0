"""No device may take the place of the others: each has an allowance of messages, which refills.

The allowance is generous, as a device that was cut off for a day sends what it kept. Beyond it the history of
that device is thinned: of each kind the newest of a batch is kept, so that what is shown stays true, and the
rest is counted and acknowledged (kept back, it would hold up the messages of everybody behind it). Alerts,
births and wills, answers, and all that is rare by its nature are never thinned.
"""

from collections.abc import Sequence

import msgspec

from samd_gateway.backlog import Received
from samd_protocol.topics import ROOT

THINNED = frozenset({"assessment", "heartbeat", "training"})
BYTES_EACH = 4096
"""A message counts once more for each of so many bytes."""
MOST_DEVICES = 50_000
_PREFIX = f"{ROOT}/d/"


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """Messages a second in the long run, and how many at once."""

    rate: float = 100.0
    burst: float = 20_000.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.rate <= 1e6 or not 1 <= self.burst <= 1e9:
            raise ValueError(
                f"an allowance of {self.rate:g} messages a second and {self.burst:g} at once: "
                "the first must lie between 0.1 and 1000000, the second between 1 and 1000000000"
            )


class Bucket(msgspec.Struct, gc=False):
    tokens: float
    at: float


class Flood:
    """The allowances of all devices."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._buckets: dict[str, Bucket] = {}

    def sift(self, batch: Sequence[Received]) -> tuple[list[Received], dict[str, int]]:
        """What is to be looked at, in its order; and how many messages of which devices are not."""
        kept: list[Received | None] = list(batch)
        newest: dict[tuple[str, str], int] = {}
        thinned: dict[str, int] = {}
        for index, received in enumerate(batch):
            topic = received.topic
            if not topic.startswith(_PREFIX):
                continue
            device, _, kind = topic[len(_PREFIX) :].partition("/up/")
            if self._may(device, received) or kind not in THINNED:
                continue
            before = newest.get((device, kind))
            newest[(device, kind)] = index
            if before is not None:
                kept[before] = None
            thinned[device] = thinned.get(device, 0) + (before is not None)
        return [received for received in kept if received is not None], thinned

    def _may(self, device: str, received: Received) -> bool:
        now, allowance = received.received_at, self._allowance
        bucket = self._buckets.get(device)
        if bucket is None:
            if len(self._buckets) >= MOST_DEVICES:
                self._forget(now)
            bucket = self._buckets[device] = Bucket(allowance.burst, now)
        bucket.tokens = min(bucket.tokens + max(now - bucket.at, 0.0) * allowance.rate, allowance.burst)
        bucket.at = now
        cost = 1.0 + len(received.payload) // BYTES_EACH
        if bucket.tokens < cost:
            return False
        bucket.tokens -= cost
        return True

    def _forget(self, now: float) -> None:
        """Those whose allowance is whole again; a flood under ever new names makes no one free of limits."""
        rate, burst = self._allowance.rate, self._allowance.burst
        self._buckets = {
            device: bucket
            for device, bucket in self._buckets.items()
            if bucket.tokens + max(now - bucket.at, 0.0) * rate < burst
        }
        while len(self._buckets) >= MOST_DEVICES:
            del self._buckets[next(iter(self._buckets))]
