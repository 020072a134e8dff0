"""The envelope: what is sent comes back the same, and whatever else arrives is a MessageError."""

import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samd_protocol import PROTOCOL_VERSION, envelope, examples, messages
from samd_protocol.envelope import Sealer
from samd_protocol.errors import MessageError
from samd_protocol.messages import CHANNELS, Channel, Message

COUNTERS = st.integers(0, 2**63 - 1)
WHOLE = st.integers(-(2**53), 2**53)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=3))]),
)
PLAIN = st.dictionaries(TEXT, st.one_of(st.none(), st.booleans(), WHOLE, FINITE, TEXT), max_size=3)

st.register_type_strategy(datetime, TIMES)


def strategy(kind: Any) -> st.SearchStrategy[Any]:
    """Values of one annotation of a message, made from what msgspec knows of it."""
    found = msgspec.inspect.type_info(kind) if not isinstance(kind, msgspec.inspect.Type) else kind
    match found:
        case msgspec.inspect.StructType():
            fields = {field.encode_name: field for field in found.fields}
            if found.cls is messages.RunSpec:
                return st.builds(
                    messages.RunSpec,
                    rounds=st.integers(1, 10_000),
                    quorum=st.integers(1, 100_000),
                    mask_rate=st.floats(0.0, 0.9),
                    strategy=TEXT,
                    seed=WHOLE,
                )
            return st.builds(found.cls, **{name: strategy(field.type) for name, field in fields.items()})
        case msgspec.inspect.UnionType():
            return st.one_of([strategy(each) for each in found.types])
        case msgspec.inspect.LiteralType():
            return st.sampled_from(found.values)
        case msgspec.inspect.ListType():
            return st.lists(strategy(found.item_type), max_size=3)
        case msgspec.inspect.DictType():
            return st.dictionaries(strategy(found.key_type), strategy(found.value_type), max_size=3)
        case msgspec.inspect.DateTimeType():
            return TIMES
        case msgspec.inspect.AnyType():
            return PLAIN
        case _:
            return {
                msgspec.inspect.IntType: WHOLE,
                msgspec.inspect.FloatType: FINITE,
                msgspec.inspect.BoolType: st.booleans(),
                msgspec.inspect.StrType: TEXT,
                msgspec.inspect.NoneType: st.none(),
            }[type(found)]


def wire(**changes: Any) -> dict[str, Any]:
    """A gateway's birth as plain JSON values, with some of its fields changed; None leaves a field out."""
    sealed = envelope.encode(
        Sealer("gateway.ward-3", 1, now=examples.start).seal(
            messages.GatewayState(status="online", version="1")
        )
    )
    fields = {**msgspec.json.decode(sealed), **changes}
    return {name: value for name, value in fields.items() if value is not None}


def refusal(payload: bytes, **options: Any) -> str:
    with pytest.raises(MessageError) as caught:
        envelope.decode(payload, **options)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("kind", Message.__args__, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_the_same(kind: type) -> None:
    @settings(max_examples=40, deadline=None)
    @given(strategy(kind), COUNTERS, st.none() | TIMES, TIMES)
    def round_trip(message: Message, boot: int, expires_at: datetime | None, sent_at: datetime) -> None:
        sealed = Sealer("bed-01", boot, now=lambda: sent_at, clock=lambda: "synced").seal(
            message, expires_at=expires_at
        )
        payload = envelope.encode(sealed)
        assert envelope.decode(payload, sender="bed-01") == sealed
        assert envelope.encode(envelope.decode(payload)) == payload

    round_trip()


def test_the_union_holds_every_message_of_the_channels() -> None:
    assert set(Message.__args__) == {channel.message for channel in CHANNELS}


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.topic)
def test_on_the_wire_the_type_stands_beside_the_data(channel: Channel) -> None:
    payload = msgspec.json.decode(envelope.encode(examples.envelope(channel)))
    assert payload["type"] == payload["data"]["type"] == examples.envelope(channel).type
    assert payload["v"] == PROTOCOL_VERSION == 1


def test_a_sealer_counts_and_gives_each_message_its_own_id() -> None:
    sealer = Sealer("bed-01", 3)
    sealed = [sealer.seal(messages.GatewayState(status="online", version="1")) for _ in range(3)]
    assert [(each.boot, each.seq) for each in sealed] == [(3, 1), (3, 2), (3, 3)]
    assert len({each.id for each in sealed}) == 3
    assert all(each.sent_at.tzinfo is UTC and each.clock == "unsynced" for each in sealed)


@pytest.mark.parametrize("version", [0, -1, 2, 3, 2**40])
def test_only_the_own_version_is_read_while_there_is_none_before(version: int) -> None:
    assert refusal(msgspec.json.encode(wire(v=version))) == "version"


def test_a_message_without_a_version_is_refused() -> None:
    assert refusal(msgspec.json.encode(wire(v=None))) == "version"


@pytest.mark.parametrize(("version", "read"), [(0, False), (4, False), (5, True), (6, True), (7, False)])
def test_the_own_version_and_the_one_before_are_read(
    monkeypatch: pytest.MonkeyPatch, version: int, read: bool
) -> None:
    monkeypatch.setattr(envelope, "PROTOCOL_VERSION", 6)
    payload = msgspec.json.encode(wire(v=version))
    if read:
        assert envelope.decode(payload).v == version
    else:
        assert refusal(payload) == "version"


def test_a_newer_version_is_named_even_when_nothing_else_can_be_read() -> None:
    assert refusal(b'{"v":2,"everything":"else"}') == "version"


def test_a_message_under_another_name_than_its_topic_is_forged() -> None:
    payload = envelope.encode(examples.envelope(CHANNELS[0]))
    assert envelope.decode(payload, sender="bed-01").device == "bed-01"
    assert refusal(payload, sender="bed-02") == "forged"
    assert refusal(payload, sender="bed-01 ") == "forged"


def test_a_message_over_the_size_is_refused_unread() -> None:
    assert refusal(b"x" * (envelope.MAX_BYTES + 1)) == "size"
    assert refusal(b"x" * envelope.MAX_BYTES) == "malformed"


def test_unknown_fields_are_passed_over() -> None:
    fields = wire(later="field")
    fields["data"]["also"] = {"later": [1]}
    assert envelope.decode(msgspec.json.encode(fields)).data == messages.GatewayState(
        status="online", version="1"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "state"},
        {"type": "later"},
        {"data": {"type": "later"}},
        {"data": {"status": "online", "version": "1"}},
        {"data": {"type": "gateway.state", "status": "maybe", "version": "1"}},
        {"data": {"type": "gateway.state", "status": "online", "version": 1}},
        {"data": {"type": "gateway.state", "status": "online"}},
        {"data": []},
        {"clock": "roughly"},
        {"boot": "1"},
        {"seq": 1.5},
        {"seq": True},
        {"id": ""},
        {"id": "x" * 65},
        {"id": "a\nb"},
        {"device": ""},
        {"device": "bed/01"},
        {"device": "bed+"},
        {"device": "b" * 72},
        {"device": "bed\n"},
        {"sent_at": "yesterday"},
        {"sent_at": 1_700_000_000},
        *({name: None} for name in ("id", "device", "boot", "seq", "sent_at", "clock", "type", "data")),
    ],
    ids=str,
)
def test_a_wrong_field_is_refused(changes: dict[str, Any]) -> None:
    assert refusal(msgspec.json.encode(wire(**changes))) == "malformed"


@pytest.mark.parametrize("name", ["boot", "seq"])
@pytest.mark.parametrize("number", [-1, 2**63])
def test_a_counter_that_no_database_holds_is_refused(name: str, number: int) -> None:
    assert refusal(msgspec.json.encode(wire(**{name: number}))) == "range"


@pytest.mark.parametrize("name", ["sent_at", "expires_at"])
def test_a_time_without_a_zone_is_refused_in_the_envelope(name: str) -> None:
    assert refusal(msgspec.json.encode(wire(**{name: "2026-03-01T08:00:00"}))) == "malformed"
    moment = "2026-03-01T08:00:00+01:00"
    assert getattr(envelope.decode(msgspec.json.encode(wire(**{name: moment}))), name) == datetime(
        2026, 3, 1, 7, tzinfo=UTC
    )


def test_a_time_without_a_zone_is_refused_in_every_message() -> None:
    checked = 0
    for channel in CHANNELS:
        fields = msgspec.json.decode(envelope.encode(examples.envelope(channel)))
        for name, value in fields["data"].items():
            if name.endswith("_at") and value is not None:
                changed = {**fields, "data": {**fields["data"], name: value.removesuffix("Z")}}
                assert refusal(msgspec.json.encode(changed)) == "malformed", (channel.topic, name)
                checked += 1
    assert checked == 6, "both kinds of alert, training and command each carry one time, the assessment two"
    command = next(channel for channel in CHANNELS if channel.message is messages.Command)
    fields = msgspec.json.decode(envelope.encode(examples.envelope(command)))
    fields["data"]["body"] = {"type": "observation.add", "by": "x", "observed_at": "2026-03-01T08:00:00"}
    assert refusal(msgspec.json.encode(fields)) == "malformed"


def test_what_cannot_be_a_number_is_refused_where_a_number_is_required() -> None:
    # JSON has no NaN: it is written as null, and null is never taken for a number.
    item = messages.Training(run="r", round=1, phase="training", progress=float("nan"))
    assert refusal(envelope.encode(Sealer("bed-01", 1).seal(item))) == "malformed"
    beat = messages.Heartbeat(interval_s=1.0, uptime_s=1.0, temperature_c=float("inf"))
    read = envelope.decode(envelope.encode(Sealer("bed-01", 1).seal(beat))).data
    assert isinstance(read, messages.Heartbeat)
    assert read.temperature_c is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("rounds", 0), ("quorum", 0), ("mask_rate", 1.0), ("round_deadline_s", 0.0), ("learning_rate", -1.0)],
)
def test_a_run_outside_its_limits_is_refused(name: str, value: float) -> None:
    order = wire(
        type="run.order", data={"type": "run.order", "action": "start", "run": "r", "spec": {name: value}}
    )
    assert refusal(msgspec.json.encode(order)) == "malformed"


@pytest.mark.parametrize("kind", ["\n2026-03-01 ERROR all is lost", "\x1b[2J", "x" * 200_000, "\u202e"])
def test_what_a_sender_wrote_stands_in_an_error_on_one_short_line(kind: str) -> None:
    with pytest.raises(MessageError) as caught:
        envelope.decode(msgspec.json.encode(wire(data={"type": kind})))
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 600
    assert text.endswith("at `$.type`")


def test_a_very_deep_message_is_refused() -> None:
    depth = sys.getrecursionlimit() * 20
    assert refusal(b'{"v":1,"later":' + b"[" * depth + b"]" * depth + b"}") == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"1",
        b'"v"',
        b"[]",
        b"{",
        b'{"v":1',
        b'{"v":1}x',
        b"\xff\xfe",
        b'{"v":1,"id":"\xff"}',
        b"\x00",
    ],
)
def test_what_is_no_message_is_malformed_or_of_no_version(payload: bytes) -> None:
    assert refusal(payload) == "malformed"


def test_an_invalid_letter_anywhere_is_malformed() -> None:
    payload = envelope.encode(examples.envelope(CHANNELS[0]))
    for place in range(len(payload)):
        assert refusal_or_read(payload[:place] + b"\xff" + payload[place + 1 :])


def refusal_or_read(payload: bytes) -> bool:
    """Whether a payload is read or refused as it should be; any other exception goes through."""
    try:
        return envelope.decode(payload) is not None
    except MessageError as error:
        return error.reason in {"size", "version", "malformed", "range", "forged"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_never_more_than_a_message_error(payload: bytes) -> None:
    assert refusal_or_read(payload)
    assert refusal_or_read(b'{"v":1,' + payload + b"}")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CHANNELS), st.data())
def test_a_damaged_message_is_never_more_than_a_message_error(channel: Channel, data: st.DataObject) -> None:
    payload = bytearray(envelope.encode(examples.envelope(channel)))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    assert refusal_or_read(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    assert refusal_or_read(bytes(payload))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CHANNELS), st.data())
def test_a_message_of_other_values_is_never_more_than_a_message_error(
    channel: Channel, data: st.DataObject
) -> None:
    fields = msgspec.json.decode(envelope.encode(examples.envelope(channel)))
    target = fields["data"] if data.draw(st.booleans()) else fields
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(VALUES)
    assert refusal_or_read(msgspec.json.encode(fields))
