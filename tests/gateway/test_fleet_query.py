"""Filters, order and pages of the fleet, on rows made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_gateway.errors import UsageError
from samd_gateway.fleet.query import FleetQuery, Found, matches, ordered, page_of, parse
from samd_gateway.states import DeviceState

NOW = 1_000_000.0


def row(name: str, **fields: object) -> dict:
    return {
        "name": name,
        "client_version": "0.1.0",
        "model_version": 3,
        "last_heard": NOW,
        "last_data": None,
        "clock_offset_s": 0.0,
        "clock_synced": True,
        "certificate_expires_at": None,
        "flagged": None,
    } | fields


@pytest.mark.parametrize(
    ("query", "fields", "found"),
    [
        ({}, {}, True),
        ({"text": "ED-0"}, {}, True),
        ({"text": "window"}, {}, True),  # a tag
        ({"text": "7b"}, {}, True),  # the bed
        ({"text": "nowhere"}, {}, False),
        ({"tags": ["ward-3", "other"]}, {}, True),
        ({"tags": ["other"]}, {}, False),
        ({"model_versions": [2, 3]}, {}, True),
        ({"model_versions": [2]}, {}, False),
        ({"model_versions": [3]}, {"model_version": None}, False),
        ({"client_versions": ["0.2.0"]}, {}, False),
        ({"trouble": ["flagged"]}, {}, False),
        ({"trouble": ["flagged"]}, {"flagged": "a flood"}, True),
        ({"trouble": ["clock"]}, {"clock_offset_s": -30.0}, False),
        ({"trouble": ["clock"]}, {"clock_offset_s": -30.1}, True),
        ({"trouble": ["clock"]}, {"clock_synced": False}, True),
        ({"trouble": ["clock"]}, {"clock_offset_s": None, "clock_synced": None}, False),
        ({"trouble": ["certificate"]}, {"certificate_expires_at": NOW + 30 * 86_400}, False),
        ({"trouble": ["certificate"]}, {"certificate_expires_at": NOW + 29.9 * 86_400}, True),
        ({"trouble": ["certificate"]}, {"certificate_expires_at": NOW - 1}, True),
        ({"trouble": ["certificate", "clock"]}, {"clock_offset_s": 90.0}, True),
        ({"trouble": ["clock"], "text": "nowhere"}, {"clock_offset_s": 90.0}, False),
    ],
)
def test_filters(query: dict, fields: dict, found: bool) -> None:
    assert matches(row("bed-01", **fields), ["ward-3", "window"], "7B", parse(**query), NOW) is found


def test_what_needs_somebody_comes_first_and_what_is_not_known_last() -> None:
    states = {
        name: DeviceState(state=state, reason="", since=None)
        for name, state in (("a", "online"), ("b", "offline"), ("c", "unknown"), ("d", "stale"))
    }
    rows = [
        row("a", last_heard=5.0),
        row("b", last_heard=None),
        row("c", last_heard=7.0),
        row("d", last_heard=6.0),
    ]

    def names(**query: object) -> list[str]:
        return [each.name for each in ordered(rows, states, parse(**query))]

    assert names(sort="state") == ["b", "d", "c", "a"]
    assert names(sort="last_heard") == ["a", "d", "c", "b"]
    assert names(sort="last_heard", descending=True) == ["c", "d", "a", "b"]


VALUES = st.none() | st.integers(0, 5)


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), VALUES, max_size=30),
    st.integers(1, 7),
    st.booleans(),
)
def test_the_pages_together_are_the_list(values: dict, limit: int, descending: bool) -> None:
    rows = [row(name, model_version=value) for name, value in values.items()]
    query = FleetQuery(sort="model_version", descending=descending, limit=limit)
    found = ordered(rows, {}, query)
    pages, after = [], None
    for _ in range(len(values) + 1):
        page, after = page_of(
            found, FleetQuery(sort="model_version", descending=descending, limit=limit, after=after)
        )
        pages += page
        if after is None:
            break
    assert pages == [each.name for each in found]


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), VALUES, min_size=3, max_size=30),
    st.booleans(),
    st.data(),
)
def test_no_device_is_skipped_when_the_one_of_the_key_has_left(
    values: dict, descending: bool, data: st.DataObject
) -> None:
    rows = [row(name, model_version=value) for name, value in values.items()]
    query = FleetQuery(sort="model_version", descending=descending, limit=1)
    found = ordered(rows, {}, query)
    at = data.draw(st.integers(0, len(found) - 2))
    _, key = page_of(found[at : at + 2], query)
    left = [each for index, each in enumerate(found) if index != at]
    page, _ = page_of(left, FleetQuery(sort="model_version", descending=descending, limit=500, after=key))
    assert page == [each.name for each in found[at + 1 :]]


@pytest.mark.parametrize("key", ["", "x", "!!!", "bnVsbA", "WzEsMl0", "W10", "eyJhIjoxfQ", "WyJ4IiwiYSJd"])
def test_a_key_that_no_page_gave_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="no key of a page"):
        page_of([Found("a", 1), Found("b", 2)], FleetQuery(sort="model_version", after=key))


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 501},
        {"sort": "nothing"},
        {"states": ["dead"]},
        {"text": "x" * 101},
        {"what": 1},
    ],
)
def test_a_filter_that_is_none_says_why(query: dict) -> None:
    with pytest.raises(UsageError, match="no filter of the fleet"):
        parse(**query)
