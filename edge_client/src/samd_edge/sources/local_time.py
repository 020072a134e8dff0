"""Times without a zone, as the clock on a wall or on a cuff shows them, in a zone that was told."""

from datetime import UTC, datetime, tzinfo
from typing import Final

LOCAL: Final = "local"
"""The name that stands for the zone of this machine."""


class LocalZone:
    """A zone whose clock shows times without naming it; None: the zone of this machine."""

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone

    def in_utc(self, moment: datetime) -> datetime:
        """A naive ``moment`` of this zone, in UTC. Raises ValueError outside the calendar.

        An hour that is there twice, or not at all, is taken for the older of the two: what may be older
        never passes for fresh.
        """
        if moment.tzinfo is not None:
            raise ValueError("the moment has a zone already")
        try:
            return min(moment.replace(fold=fold, tzinfo=self._zone).astimezone(UTC) for fold in (0, 1))
        except OverflowError as error:
            raise ValueError(f"{moment.isoformat()} is outside the calendar") from error


def zone_named(name: str) -> LocalZone:
    """A zone of the IANA data base, or ``local``. Raises ValueError for one that is not known here."""
    import zoneinfo

    if name == LOCAL:
        return LocalZone(None)
    try:
        return LocalZone(zoneinfo.ZoneInfo(name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"zone: no time zone {name!r} is known here; write it as in Europe/Berlin, or local for the zone "
            "of this machine (if Europe/Berlin is not known either, install tzdata)"
        ) from error
