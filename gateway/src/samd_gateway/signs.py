"""What a message tells of its device beside its content: that it lives, what time it believes it is, how old
its data are. From a message to the device's record in memory, which is not yet that of the database.
"""

from samd_gateway import flags
from samd_gateway.intake import Item
from samd_gateway.roster import Known, Roster
from samd_protocol import messages as wire

LAG_S = 30.0
"""A message that is older than this when it comes, by its device's clock, was held up at the broker or in an
outbox: it says that the device lived then."""


def lag_s(known: Known, item: Item) -> float:
    """How long ago a message was sent, as far as its device's clock is known; 0 where it is not."""
    if item.kind == "heartbeat" or known.clock_offset_s is None:
        return 0.0
    lag = item.received_at - item.envelope.sent_at.timestamp() + known.clock_offset_s
    return lag if lag > LAG_S else 0.0


def clock(known: Known, item: Item) -> None:
    """Its clock less ours. A heartbeat comes at once or not at all, so it tells the difference; any other
    message may have waited, and tells only that a clock is ahead at least so much."""
    ahead = item.envelope.sent_at.timestamp() - item.received_at
    if item.kind == "heartbeat" or ahead > max(known.clock_offset_s or 0.0, flags.CLOCK_TOLERANCE_S):
        known.clock_offset_s = ahead
    known.clock_synced = item.envelope.clock == "synced"


def take(roster: Roster, known: Known, item: Item) -> None:
    """Take in one new message that is not a state. The roster is held."""
    data = item.envelope.data
    if item.retained:
        return
    at = item.received_at - lag_s(known, item)
    clock(known, item)
    if isinstance(data, wire.Heartbeat):
        if known.interval_s != data.interval_s:
            known.interval_s = data.interval_s
            roster.derive(known)
        known.heartbeat_at, known.source_age_s = item.received_at, data.reading_age_s
        if data.model_version is not None:
            known.model_version = data.model_version
        if data.certificate_expires_at is not None:
            known.certificate_expires_at = data.certificate_expires_at.timestamp()
    elif isinstance(data, wire.Assessment) and newest(known, item):
        known.last_data, known.data_age_s = item.received_at, data.reading_age_s
    roster.heard(known, at)
    earn(roster, known, at=item.received_at)


def newest(known: Known, item: Item) -> bool:
    """Whether nothing later of this kind has come from the device."""
    order = known.orders.get(item.kind)
    return order is None or (item.envelope.boot, item.envelope.seq) >= order


def earn(roster: Roster, known: Known, *, at: float, flag: flags.Flag | None = None) -> None:
    """Put up a flag (the clock's is found here), and take down those that no longer stand."""
    if (
        not known.flags
        and flag is None
        and not flags.clock_is_off(known.clock_offset_s)
        and not known.flagged
    ):
        return
    standing = flags.standing(known.flags, at)
    standing.pop("clock", None)
    if flags.clock_is_off(known.clock_offset_s):
        standing["clock"] = at
    if flag is not None:
        standing[flag] = at
    known.flags = standing
    text = flags.text(standing)
    if text != known.flagged:
        known.flagged = text
        known.flagged_at = None if text is None else at if known.flagged_at is None else known.flagged_at
        roster.note(known)
