"""Home Assistant's discovery: what it requires of each message, and that nothing of a patient is in any."""

import json
import queue
from collections.abc import Callable
from typing import Any

from gateway_peers import Device, Gateway, Peer, until

from samd_gateway.homeassistant import Beat, config, config_topic, object_id, state, state_topic
from samd_gateway.roster import Known
from samd_gateway.states import DeviceState
from samd_protocol import topics
from samd_protocol.messages import Heartbeat

# What https://www.home-assistant.io/integrations/mqtt/ and sensor.mqtt ask for: units by device class,
# options for `enum` alone, no unit and no state class where the value is a time or a word.
UNITS = {"temperature": {"°C", "°F", "K"}, "data_size": {"B", "kB", "MB", "GB", "MiB", "GiB"}}
CLASSES = {"sensor": {"enum", "timestamp", *UNITS}, "binary_sensor": {"problem", "connectivity"}}
LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
PATIENT = (
    "heart_rate", "spo2", "respiratory", "blood", "systolic", "consciousness", "oxygen", "news2", "severity",
    "admission", "pseudonym", "alert",
)  # fmt: skip


def check(document: dict[str, Any]) -> None:
    assert set(document) == {"device", "origin", "components"}
    assert document["device"]["identifiers"]
    assert document["device"]["name"]
    assert document["origin"]["name"]
    ids = [each["unique_id"] for each in document["components"].values()]
    assert len(ids) == len(set(ids))
    for each in document["components"].values():
        assert each["platform"] in CLASSES
        assert each["state_topic"]
        kind = each.get("device_class")
        assert kind is None or kind in CLASSES[each["platform"]]
        assert ("options" in each) == (kind == "enum")
        if kind in ("enum", "timestamp"):
            assert "unit_of_measurement" not in each
            assert "state_class" not in each
        if kind in UNITS:
            assert each["unit_of_measurement"] in UNITS[kind]
        if each["platform"] == "binary_sensor":
            assert each["payload_on"] != each["payload_off"]
            assert "state_class" not in each
        assert each["entity_category"] == "diagnostic"
        assert each["expire_after"] > 0, "what is old is unavailable"


def test_a_device_as_home_assistant_wants_it() -> None:
    document = config("bed-01", "0.1.0", "0.2.0")
    check(document)
    keys = {each["value_template"][len("{{ value_json.") : -3] for each in document["components"].values()}
    known = Known(name="bed-01", state=DeviceState(state="online", reason="", since=None, code="heard"))
    assert keys == set(state(known, Beat())), "each template asks for what is sent"
    assert document["device"]["sw_version"] == "0.1.0"
    assert "sw_version" not in config("bed-01", None, "0.2.0")["device"]


def test_names_stay_apart() -> None:
    found = {object_id(name) for name in ("bed-01", "bed.01", "bed_01", "bed:01")}
    assert len(found) == 4
    assert all(set(each) <= LETTERS for each in found)


def test_what_is_not_known_is_not_told() -> None:
    online = DeviceState(state="online", reason="", since=None, code="heard")
    beat = Beat(temperature_c=51.5, disk_free_mb=900.0, outbox_depth=0)
    told = state(Known(name="a", state=online, heartbeat_at=1_800_000_000.0), beat)
    assert (told["temperature_c"], told["disk_free_mb"], told["outbox_depth"]) == (51.5, 900.0, 0)
    assert told["last_heartbeat"] == "2027-01-15T08:00:00+00:00"
    assert (told["model_version"], told["limited"]) == (None, "OFF")
    gone = state(
        Known(name="a", state=DeviceState(state="offline", reason="", since=None, code="will")), beat
    )
    assert (gone["state"], gone["temperature_c"], gone["disk_free_mb"], gone["outbox_depth"]) == (
        "offline", None, None, None,
    )  # fmt: skip
    assert state(Known(name="a", flagged="a flood"), None)["limited"] == "ON"


class Home(Peer):
    """What Home Assistant would receive, with the retained flag."""

    def __init__(self, url: str) -> None:
        self.got: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        self.seen: dict[str, tuple[dict[str, Any], bool]] = {}
        super().__init__(url, "home")
        self.subscribe("homeassistant/#")

    def arrived(self, message: Any) -> None:
        self.seen[message.topic] = (json.loads(message.payload), message.retain)


def test_a_gateway_tells_home_assistant(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    gateway = make_gateway(own_broker, "--home-assistant", "--no-pages")
    device = peers(Device(own_broker, "bed.01", interval_s=5.0))
    device.send(
        topics.up("bed.01", "heartbeat"),
        Heartbeat(interval_s=5.0, uptime_s=9.0, temperature_c=48.0, disk_free_mb=1234.5, outbox_depth=2),
        qos=0,
    )
    device.assess(9, signs={"heart_rate": 171.0})
    home = peers(Home(own_broker))
    until(lambda: home.seen.get(state_topic("bed.01"), ({}, False))[0].get("state") == "online")
    later = peers(Home(own_broker))
    until(lambda: config_topic("bed.01") in later.seen)
    document, retained = later.seen[config_topic("bed.01")]
    assert retained
    check(document)
    assert state_topic("bed.01") not in later.seen, "no state is retained"
    device.die()
    until(lambda: home.seen[state_topic("bed.01")][0]["state"] == "offline")
    assert home.seen[state_topic("bed.01")][0]["temperature_c"] is None
    everything = json.dumps([home.seen, later.seen]).lower()
    assert [word for word in PATIENT if word in everything] == []
    assert "171" not in everything
    assert gateway.get("/healthz")["status"] == "ok"


def test_it_is_off_unless_asked_for(
    shared_gateway: Gateway, broker_url: str, peers: Callable, name: str
) -> None:
    device = peers(Device(broker_url, name))
    home = peers(Home(broker_url))
    device.assess(3)
    until(lambda: (shared_gateway.device(name) or {}).get("assessment"))
    assert home.seen == {}
