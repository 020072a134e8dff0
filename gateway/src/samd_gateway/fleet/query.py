"""Which devices are asked for: the filter, the order, and the page. Pure."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from samd_gateway.errors import UsageError
from samd_gateway.states import DeviceState

SortKey = Literal[
    "name",
    "state",
    "last_heard",
    "last_data",
    "client_version",
    "model_version",
    "clock_offset_s",
    "certificate_expires_at",
]
Trouble = Literal["flagged", "clock", "certificate"]

CLOCK_OFF_S = 30.0
"""A clock further off than this is shown as trouble: TLS and the order of readings suffer from it."""
CERTIFICATE_SOON_S = 30 * 86_400.0
STATE_ORDER = {"offline": 0, "stale": 1, "unknown": 2, "online": 3}
"""What needs somebody comes first."""


class FleetQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter of the fleet. Lists are alternatives; the filters together all have to hold.

    `text` is looked for in name, bed and tags; `after` is the key that the page before gave."""

    states: list[Literal["online", "stale", "offline", "unknown"]] = msgspec.field(default_factory=list)
    text: str = ""
    tags: list[str] = msgspec.field(default_factory=list)
    client_versions: list[str] = msgspec.field(default_factory=list)
    model_versions: list[int] = msgspec.field(default_factory=list)
    trouble: list[Trouble] = msgspec.field(default_factory=list)
    sort: SortKey = "name"
    descending: bool = False
    after: str | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= 500:
            raise ValueError(f"limit is {self.limit}: it must lie between 1 and 500")
        if len(self.text) > 100:
            raise ValueError("text: at most 100 characters")
        if any(len(each) > 100 for each in (self.tags, self.client_versions, self.model_versions)):
            raise ValueError("at most 100 alternatives of a filter")


def parse(**fields: Any) -> FleetQuery:
    """A query from parts that people gave. Raises UsageError."""
    try:
        return msgspec.convert({k: v for k, v in fields.items() if v is not None}, FleetQuery)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(
            f"no filter of the fleet: {error}; sort by one of {', '.join(get_args(SortKey))}"
        ) from error


class Found(msgspec.Struct, frozen=True):
    """A device that matches, with what it is sorted by (None: not known)."""

    name: str
    value: str | int | float | None


def matches(
    row: Mapping[str, Any], tags: Sequence[str], bed: str | None, query: FleetQuery, now: float
) -> bool:
    """Whether a device's row passes every filter but the one by state."""
    if query.client_versions and row["client_version"] not in query.client_versions:
        return False
    if query.model_versions and row["model_version"] not in query.model_versions:
        return False
    if query.tags and not set(query.tags) & set(tags):
        return False
    if query.trouble and not any(troubled(row, each, now) for each in query.trouble):
        return False
    if query.text:
        wanted = query.text.casefold()
        if not any(wanted in text.casefold() for text in (row["name"], bed or "", *tags)):
            return False
    return True


def troubled(row: Mapping[str, Any], trouble: Trouble, now: float) -> bool:
    """Whether a device has a trouble of that kind. What is not known is none of these."""
    if trouble == "flagged":
        return row["flagged"] is not None
    if trouble == "clock":
        offset = row["clock_offset_s"]
        return row["clock_synced"] is False or (offset is not None and abs(offset) > CLOCK_OFF_S)
    ends = row["certificate_expires_at"]
    return ends is not None and ends - now < CERTIFICATE_SOON_S


def sort_value(row: Mapping[str, Any], states: Mapping[str, DeviceState], query: FleetQuery) -> Any:
    """What a device is sorted by; None where it is not known."""
    if query.sort == "state":
        return STATE_ORDER[states[row["name"]].state]
    return row[query.sort]


def ordered(
    rows: Iterable[Mapping[str, Any]], states: Mapping[str, DeviceState], query: FleetQuery
) -> list[Found]:
    """The devices in the order that was asked for; what is not known comes last, either way round."""
    found = [Found(row["name"], sort_value(row, states, query)) for row in rows]
    known = sorted((each for each in found if each.value is not None), key=lambda each: each.name)
    known.sort(key=_value, reverse=query.descending)
    return known + sorted((each for each in found if each.value is None), key=lambda each: each.name)


def _value(found: Found) -> Any:
    return found.value


def page_of(found: Sequence[Found], query: FleetQuery) -> tuple[list[str], str | None]:
    """The names of the page, and the key of the next one.

    A page begins behind the device that the key names; where that one has left or moved in the order since,
    behind the place where it stood: no device that stayed is skipped."""
    start = 0
    if query.after is not None:
        value, name = _decode(query.after)
        places = [index for index, each in enumerate(found) if each.name == name and each.value == value]
        start = places[0] + 1 if places else _place(found, value, name, descending=query.descending)
    page = found[start : start + query.limit]
    more = start + query.limit < len(found)
    return [each.name for each in page], _encode(page[-1]) if page and more else None


def _place(found: Sequence[Found], value: Any, name: str, *, descending: bool) -> int:
    """Where a device of this value and name would stand."""
    for index, each in enumerate(found):
        if value is None:
            behind = each.value is None and each.name > name
        elif each.value is None:
            behind = True
        elif each.value == value:
            behind = each.name > name
        else:
            try:
                behind = each.value < value if descending else each.value > value
            except TypeError as error:  # the key of a page that was sorted otherwise
                raise UsageError(_NO_KEY) from error
        if behind:
            return index
    return len(found)


_NO_KEY = "after: is no key of a page with this order; leave it out for the first page"


def _encode(found: Found) -> str:
    text = json.dumps([found.value, found.name], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(key: str) -> tuple[Any, str]:
    try:
        value, name = json.loads(base64.urlsafe_b64decode(key + "=" * (-len(key) % 4)))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise UsageError(_NO_KEY) from error
    if not isinstance(name, str) or not (value is None or isinstance(value, str | int | float)):
        raise UsageError(_NO_KEY)
    return value, name
