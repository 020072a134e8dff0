"""What a source takes back: values that it said before and that were wrong, and what it says instead.

They are struck through as by a person's correction: kept, never scored or trained on again.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from samd_data.reading import Reading

BY_HAND: Final = "if something wrong stands there, correct it by hand: samd-edge observe --correct"


class Withdrawn(NamedTuple):
    """One value that a source takes back, by the time when it was measured.

    ``value``: which one; None where the source does not say: then whatever sources said of ``field`` at that
    time, save what it says now. ``reason``: half a sentence, as in "the sender marks the value as wrong".
    """

    field: str
    measured_at: datetime
    value: float | bool | str | None
    reason: str


class Retraction(msgspec.Struct, frozen=True, kw_only=True):
    """What one message takes back. ``by``: the name of the source, as people read it beside the correction.

    ``instead``: the readings of the same message. They are taken in the same step: between the two an alert
    might be cleared, and would have to ring anew.
    """

    values: tuple[Withdrawn, ...]
    by: str
    instead: tuple[Reading, ...] = ()

    def spared(self, value: Withdrawn) -> float | bool | str | None:
        """What is said now of the same sign at the same time, if anything is."""
        for reading in self.instead:
            found: float | bool | str | None = getattr(reading, value.field)
            if reading.observed_at == value.measured_at and found is not None:
                return found
        return None

    def wrong(self, value: Withdrawn, said: float | bool | str) -> bool:
        """Whether ``said``, which was taken of that sign and time, is what is taken back."""
        return said == value.value if value.value is not None else said != self.spared(value)


def retraction_of(values: Iterable[Withdrawn], by: str, instead: Iterable[Reading]) -> Retraction | None:
    """What a message takes back, without what it still says itself; None if nothing is left."""
    found = Retraction(values=tuple(dict.fromkeys(values)), by=by, instead=tuple(instead))
    left = tuple(one for one in found.values if one.value is None or found.spared(one) != one.value)
    return msgspec.structs.replace(found, values=left) if left else None
