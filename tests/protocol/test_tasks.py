"""Tasks and updates: they come back bit by bit, and whatever is damaged is a MessageError."""

import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from samd_protocol import examples, tasks
from samd_protocol.errors import MessageError
from samd_protocol.tasks import Task, Update, Vector

VECTORS = hnp.arrays(np.float32, st.integers(0, 200), elements=st.floats(width=32))


def reason(payload: bytes) -> str:
    """With which reason both readers refuse a payload."""
    found = set()
    for decode in (tasks.decode_task, tasks.decode_update):
        with pytest.raises(MessageError) as caught:
            decode(payload)
        found.add(caught.value.reason)
        assert "\n" not in str(caught.value)
    assert len(found) == 1, found
    return found.pop()


def changed(item: Task | Update, **changes: Any) -> bytes:
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(tasks.encode(item)), **changes})


@settings(deadline=None)
@given(VECTORS)
def test_a_vector_comes_back_bit_by_bit(values: np.ndarray) -> None:
    vector = Vector.of(values)
    assert vector.size == len(values)
    assert vector.array().tobytes() == values.tobytes()
    update = msgspec.structs.replace(examples.update(), weights=vector)
    assert tasks.decode_update(tasks.encode(update)) == update
    task = msgspec.structs.replace(examples.task(), weights=vector)
    assert tasks.decode_task(tasks.encode(task)) == task


def test_a_vector_is_little_endian_float32_with_the_crc_of_its_bytes() -> None:
    vector = Vector.of(np.array([1.0, -2.0], np.float32))
    assert vector.data == bytes.fromhex("0000803f 000000c0")
    assert vector.crc32 == zlib.crc32(vector.data)
    assert vector.array().dtype == np.float32
    vector.array()[0] = 7.0  # writable, and a copy
    assert vector.array().tolist() == [1.0, -2.0]


def test_a_vector_is_made_of_any_layout_of_memory() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert Vector.of(values[:, ::2]).array().tolist() == [0, 2, 4, 6, 8, 10]
    assert Vector.of(values.astype(">f4")).array().tolist() == values.ravel().tolist()


@pytest.mark.parametrize("size", [-1, 0, 3, 5, 2**40])
def test_a_vector_of_another_size_is_refused(size: int) -> None:
    vector = msgspec.structs.replace(examples.task().weights, size=size)
    with pytest.raises(MessageError) as caught:
        vector.array()
    assert caught.value.reason == "size"
    for item, decode in ((examples.task(), tasks.decode_task), (examples.update(), tasks.decode_update)):
        with pytest.raises(MessageError) as caught:
            decode(tasks.encode(msgspec.structs.replace(item, weights=vector)))
        assert caught.value.reason == "size"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 15), st.integers(1, 255))
def test_a_vector_with_a_changed_byte_is_refused(place: int, difference: int) -> None:
    vector = examples.task().weights
    data = bytearray(vector.data)
    data[place] ^= difference
    damaged = msgspec.structs.replace(vector, data=bytes(data))
    for item, decode in ((examples.task(), tasks.decode_task), (examples.update(), tasks.decode_update)):
        with pytest.raises(MessageError) as caught:
            decode(tasks.encode(msgspec.structs.replace(item, weights=damaged)))
        assert caught.value.reason == "checksum"


def test_a_report_and_an_error_need_no_weights() -> None:
    assert tasks.decode_update(tasks.encode(examples.report())) == examples.report()
    error = msgspec.structs.replace(examples.report(), report=None, error="no data")
    assert tasks.decode_update(tasks.encode(error)) == error


def test_the_size_is_limited_both_ways() -> None:
    most = 249_000
    task = msgspec.structs.replace(examples.task(), weights=Vector.of(np.zeros(most, np.float32)))
    payload = tasks.encode(task)
    assert len(payload) < tasks.MAX_TASK_BYTES < 2**20
    assert tasks.decode_task(payload).weights.size == most
    large = msgspec.structs.replace(task, weights=Vector.of(np.zeros(250_000, np.float32)))
    with pytest.raises(MessageError) as caught:
        tasks.encode(large)
    assert caught.value.reason == "size"
    assert reason(msgspec.msgpack.encode(large)) == "size"
    assert reason(b"\x00" * (tasks.MAX_TASK_BYTES + 1)) == "size"


@pytest.mark.parametrize("version", [0, -1, 2, 2**40])
def test_only_the_own_version_is_read_while_there_is_none_before(version: int) -> None:
    assert reason(changed(examples.task(), v=version)) == "version"


@pytest.mark.parametrize(("version", "read"), [(0, False), (4, False), (5, True), (6, True), (7, False)])
def test_the_own_version_and_the_one_before_are_read(
    monkeypatch: pytest.MonkeyPatch, version: int, read: bool
) -> None:
    monkeypatch.setattr(tasks, "TASK_VERSION", 6)
    payload = changed(examples.update(), v=version)
    if read:
        assert tasks.decode_update(payload).v == version
    else:
        assert reason(payload) == "version"


def test_unknown_fields_are_passed_over() -> None:
    assert tasks.decode_task(changed(examples.task(), later={"a": [1]})) == examples.task()
    assert tasks.decode_update(changed(examples.update(), later=None)) == examples.update()


def test_a_task_is_no_update_and_an_update_no_task() -> None:
    with pytest.raises(MessageError):
        tasks.decode_update(tasks.encode(examples.task()))
    with pytest.raises(MessageError):
        tasks.decode_task(tasks.encode(examples.update()))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "run"},
        {"kind": None},
        {"round": "2"},
        {"round": 1.5},
        {"weights": [1.0]},
        {"weights": {"size": 1, "crc32": 0}},
        {"weights": {"size": 1, "crc32": 0, "data": "text"}},
        {"device": 7},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused(changes: dict[str, Any]) -> None:
    assert reason(changed(examples.task(), **changes)) == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc0",
        b"\xc1",
        b"\x81",
        b"\x81\xa1v",
        b"\x81\xa1v\xa1\xff",
        b'{"v": 1}',
        b"\x93NUMPY",
        b"\x82\xa1v\x01\xa1x\xdd\xff\xff\xff\xff",  # an array of four thousand million values, and no value
        b"\x82\xa1v\x01\xa1x\xc6\xff\xff\xff\xff",  # as many bytes
        b"\x82\xa1v\x01\xa1x" + b"\x91" * 200_000,  # an array in an array, and so on
    ],
    ids=lambda payload: payload[:12].hex(),
)
def test_what_is_no_messagepack_of_ours_is_malformed(payload: bytes) -> None:
    assert reason(payload) == "malformed"


def never_more_than_a_message_error(payload: bytes) -> None:
    for decode in (tasks.decode_task, tasks.decode_update):
        try:
            decode(payload)
        except MessageError as error:
            if error.reason not in {"size", "version", "malformed", "checksum"}:
                raise


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_never_more_than_a_message_error(payload: bytes) -> None:
    never_more_than_a_message_error(payload)
    never_more_than_a_message_error(b"\x82\xa1v\x01" + payload)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([examples.task(), examples.update(), examples.report()]), st.data())
def test_a_damaged_message_is_never_more_than_a_message_error(
    item: Task | Update, data: st.DataObject
) -> None:
    payload = bytearray(tasks.encode(item))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    never_more_than_a_message_error(bytes(payload))
    never_more_than_a_message_error(bytes(payload[: data.draw(st.integers(0, len(payload)))]))


def test_every_truncation_is_refused() -> None:
    for item in (examples.task(), examples.update(), examples.report()):
        payload = tasks.encode(item)
        for length in range(len(payload)):
            assert reason(payload[:length]) == "malformed"
        assert reason(payload + b"\x00") == "malformed"
