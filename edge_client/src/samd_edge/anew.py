"""Taking fields over again from the store, once values of them were struck.

Only those fields, and no more of the past than it takes to tell artefacts: sources may take back often, and
twelve hours of readings each second are two seconds of work.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from samd_data.carry import CARRY_SECONDS
from samd_data.reading import FIELDS, without
from samd_edge.assessment import Assessor
from samd_edge.clock import AHEAD
from samd_edge.store import AdmissionStore

_BEFORE: Final = timedelta(hours=1)
"""So much before a value that was struck is looked at: a line is flat after half an hour, and a jump is
confirmed within a quarter."""


def take_again(
    assessor: Assessor, store: AdmissionStore, struck: Mapping[str, datetime], now: datetime
) -> None:
    """Make the assessor forget these fields and take them over again; ``struck``: when the oldest value of
    each that was struck was measured."""
    left = set(struck)
    for since in (
        min(struck.values(), default=now) - _BEFORE,
        now - timedelta(seconds=max(CARRY_SECONDS.values())),
    ):
        if not left:
            return
        assessor.forget_fields(left)
        flagged = store.flagged(since)
        known: set[str] = set()
        for kept in store.recent(since):
            fields = left & set(kept.reading.present())
            # What was an artefact beside the values before it would be none as the first.
            fields -= flagged.get(kept.row, set()) - known
            if fields and kept.reading.observed_at <= now + AHEAD:
                known |= fields
                assessor.take(without(kept.reading, set(FIELDS) - fields), observed=kept.observed)
        left -= known
