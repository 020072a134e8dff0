"""Topic names: no wildcard, no further level, nothing that could stand for a person by accident."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_protocol import topics
from samd_protocol.errors import MessageError
from samd_protocol.messages import CHANNELS

GOOD = ["bed-01", "a", "0", "A.b_c-D", "x" * 63, "9.9"]
BAD = [
    "",
    "x" * 64,
    "+",
    "#",
    "bed+",
    "bed#",
    "$SYS",
    "bed/01",
    "/",
    "a/",
    "/a",
    ".",
    "..",
    "-bed",
    "_bed",
    ".bed",
    "bed 01",
    " bed",
    "bed\n",
    "bed\x00",
    "bed\x7f",
    "bett-é",
    "床",
    "bed\u202e",
    "٣",  # a digit, and none of ours
]
ALPHABET = set(string.ascii_letters + string.digits + "._-")


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_goes_there_and_back(name: str) -> None:
    assert topics.check_name(name) == name
    assert topics.up(name, "state") == f"samd/v1/d/{name}/up/state"
    assert topics.down(name, "task") == f"samd/v1/d/{name}/dn/task"
    assert topics.gateway_state(name) == f"samd/v1/gateway/{name}/state"
    assert topics.parse_up(topics.up(name, "update")) == (name, "update")


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_bad_name_gets_no_topic(name: str) -> None:
    assert not topics.valid_name(name)
    for make in (
        lambda: topics.up(name, "state"),
        lambda: topics.down(name, "command"),
        lambda: topics.gateway_state(name),
        lambda: topics.gateway_alert(name),
    ):
        with pytest.raises(MessageError, match="letters, digits") as caught:
            make()
        assert caught.value.reason == "name"
        assert "\n" not in str(caught.value)
    with pytest.raises(MessageError):
        topics.parse_up(f"samd/v1/d/{name}/up/state")


@given(st.text(max_size=70) | st.text("ab.-_0+#/", max_size=70))
def test_a_name_is_good_exactly_by_the_rule(name: str) -> None:
    rule = 1 <= len(name) <= 63 and set(name) <= ALPHABET and name[0].isalnum()
    assert topics.valid_name(name) is rule


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "samd/v1/d/bed/dn/command",
        "samd/v1/d/bed/up",
        "samd/v1/d/bed/up/",
        "samd/v1/d/bed/up/later",
        "samd/v1/d/bed/up/state/more",
        "samd/v1/d/bed/up/state/",
        "/samd/v1/d/bed/up/state",
        "samd/v2/d/bed/up/state",
        "samd/v1/gateway/g/state",
        "samd/v1/server/up/state",
        "samd/v1/d/+/up/state",
        "samd/v1/d/bed/up/#",
        "samd/v1/d/bed/UP/state",
        "samd/v1/d/bed/up/state\n",
        "samd/v1/d//up/state",
    ],
    ids=ascii,
)
def test_any_other_topic_is_not_a_devices(topic: str) -> None:
    with pytest.raises(MessageError) as caught:
        topics.parse_up(topic)
    assert caught.value.reason == "topic"


@given(st.text(max_size=60) | st.text("samd/v1up+#", max_size=40))
def test_parsing_never_raises_anything_else(topic: str) -> None:
    try:
        device, kind = topics.parse_up(topic)
    except MessageError:
        return
    assert topic == f"samd/v1/d/{device}/up/{kind}"


def test_each_task_has_a_topic_for_its_released_model() -> None:
    assert topics.model("severity") == "samd/v1/all/dn/model"
    assert topics.model("deterioration") == "samd/v1/all/dn/model/deterioration"
    assert topics.EVERY_MODEL == ("samd/v1/all/dn/model", "samd/v1/all/dn/model/+")
    assert all(topics.is_model(topics.model(task)) for task in ("severity", "deterioration"))
    assert not topics.is_model("samd/v1/all/dn/models")
    with pytest.raises(MessageError):
        topics.model("a/b")


def test_the_filter_for_all_devices_names_one_level() -> None:
    assert topics.every_up("alert") == "samd/v1/d/+/up/alert"


def test_the_table_of_channels_and_the_functions_agree() -> None:
    assert [f"{topics.ROOT}/{channel.topic}" for channel in CHANNELS] == [
        *(
            topics.up("bed", kind).replace("bed", "{device}")
            for kind in ("state", "heartbeat", "assessment", "alert", "training", "result", "config")
        ),
        topics.down("bed", "command").replace("bed", "{device}"),
        topics.down("bed", "config").replace("bed", "{device}"),
        topics.MODEL,
        topics.model("task").replace("/task", "/{task}"),
        topics.SERVER_ORDER,
        topics.SERVER_RUN,
        topics.SERVER_MODEL_ORDER,
        topics.SERVER_MODEL_ANSWER,
        topics.SERVER_STATE,
        topics.gateway_state("ward").replace("ward", "{gateway}"),
        topics.gateway_alert("ward").replace("ward", "{gateway}"),
    ]
