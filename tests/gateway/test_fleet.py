"""Devices, alerts, commands, events and the system's own pages, over real connections."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from gateway_peers import Device, Gateway, Server, stored, until

from samd_protocol import envelope, topics
from samd_protocol.messages import Alert, RunSpec


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    return shared_gateway


def state(gateway: Gateway, name: str) -> str | None:
    found = gateway.device(name)
    return None if found is None else found["state"]


def test_birth_silence_death_and_birth(gateway: Gateway, broker_url: str, peers: Callable, name: str) -> None:
    device = peers(Device(broker_url, name, interval_s=0.1))
    until(lambda: state(gateway, name) == "online")
    until(lambda: state(gateway, name) == "stale")
    until(lambda: state(gateway, name) == "offline")
    assert "10 heartbeat intervals" in gateway.device(name)["reason"]
    device.beat()
    until(lambda: state(gateway, name) == "online")
    device.die()
    until(lambda: "will" in gateway.device(name)["reason"])
    assert state(gateway, name) == "offline"
    peers(Device(broker_url, name, connection=2))
    until(lambda: state(gateway, name) == "online")
    assert gateway.device(name)["model_version"] == 3


def test_a_will_that_arrives_after_the_next_birth_is_dropped(
    gateway: Gateway, broker_url: str, peers: Callable, name: str
) -> None:
    first = peers(Device(broker_url, name, connection=1))
    will = first.sealer.seal(first.state("offline"))
    peers(Device(broker_url, name, connection=2))
    until(lambda: sum(device == name for device, _ in stored(gateway.data, "state")) == 2)
    first.publish(topics.up(name, "state"), envelope.encode(will))
    until(lambda: (name, will.seq) in stored(gateway.data, "state"))
    assert state(gateway, name) == "online"


def test_a_device_set_up_anew_counts_from_one(
    gateway: Gateway, broker_url: str, peers: Callable, name: str
) -> None:
    old = peers(Device(broker_url, name, boot=40))
    old.assess(6)
    until(lambda: gateway.device(name) and gateway.device(name)["assessment"])
    old.die()
    until(lambda: state(gateway, name) == "offline")
    new = peers(Device(broker_url, name, boot=1, boot_id="fresh"))
    until(lambda: state(gateway, name) == "online")
    new.assess(2)
    until(lambda: gateway.device(name)["assessment"]["news2"]["low"] == 2)


def test_states_are_kept_over_a_restart(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, name))
    gone = peers(Device(own_broker, f"{name}-gone"))
    device.assess(5)
    gone.die()
    until(lambda: state(gateway, gone.name) == "offline")
    until(lambda: gateway.device(name)["assessment"])
    before = gateway.device(name), gateway.device(gone.name)
    gateway.end()
    gateway.start()
    after = gateway.device(name), gateway.device(gone.name)
    for key in ("state", "since", "last_heard", "model_version"):
        assert [each[key] for each in after] == [each[key] for each in before]
    assert after[0]["data_age_s"] > before[0]["data_age_s"]


def test_a_device_as_the_api_shows_it(gateway: Gateway, broker_url: str, peers: Callable, name: str) -> None:
    device = peers(Device(broker_url, name))
    device.assess(4, reading_age_s=50.0)
    found = until(lambda: (one := gateway.device(name)) and one["assessment"] and one)
    assert found["assessment"]["news2"]["total"] is None
    assert found["assessment"]["news2"]["missing"] == ["consciousness"]
    assert found["assessment"]["signs"] is None
    assert 50.0 <= found["data_age_s"] < 70.0
    assert found["silent_s"] < 20.0
    assert name in [each["name"] for each in gateway.get("/api/devices")["devices"]]


def test_a_command_and_its_answer(gateway: Gateway, broker_url: str, peers: Callable, name: str) -> None:
    device = peers(Device(broker_url, name))
    until(lambda: state(gateway, name) == "online")
    url = f"/api/devices/{name}/commands"
    answer = gateway.http.post(url, json={"body": {"type": "model.activate", "version": 2}, "ttl_s": 5})
    assert answer.status_code == 202
    command = answer.json()["id"]
    until(lambda: device.commands)
    assert device.commands[0].version == 2
    other = peers(Device(broker_url, f"{name}-x"))
    other.result(command, "done")  # not the device that was asked
    device.result(command, "rejected", "no such version")
    results = until(
        lambda: [each for each in gateway.get(f"/api/devices/{name}/results")["results"] if each["status"]]
    )
    assert [(each["command"], each["status"], each["reason"]) for each in results] == [
        (command, "rejected", "no such version")
    ]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "command"),
        (b"{}", "body"),
        (b'{"body":{"type":"reboot"}}', "reboot"),
        (b'{"body":{"type":"model.activate"}}', "version"),
        (b'{"body":{"type":"report"},"ttl_s":0}', "ttl_s"),
        (b'{"body":{"type":"report"},"tll_s":5}', "tll_s"),
        (
            b'{"body":{"type":"training.start","run":"r","task":"t","model_version":1,"graph_sha256":"x"}}',
            "/api/runs",
        ),
    ],
)
def test_a_bad_command_is_a_problem_document(gateway: Gateway, name: str, body: bytes, word: str) -> None:
    answer = gateway.http.post(f"/api/devices/{name}/commands", content=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert {"type", "title", "status", "detail"} <= set(document)
    assert word in document["detail"]


def test_problem_documents(gateway: Gateway) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/api/devices/none", 404),
        ("GET", "/api/runs/none", 404),
        ("POST", "/api/runs/none/stop", 404),
        ("DELETE", "/api/devices", 405),
        ("GET", "/api/alerts?limit=0", 422),
        ("POST", "/api/devices/none/commands", 422),
    ):
        answer = gateway.http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
            path
        )
        assert answer.json()["status"] == status
        assert len(answer.json()["detail"]) > 10


def test_the_api_describes_itself(gateway: Gateway) -> None:
    document = gateway.get("/openapi.json")
    assert {
        "/api/devices",
        "/api/devices/{name}",
        "/api/devices/{name}/commands",
        "/api/devices/{name}/results",
        "/api/alerts",
        "/api/server",
        "/api/runs",
        "/api/runs/{run}",
        "/api/runs/{run}/stop",
        "/api/models",
        "/api/models/{sha256}.samd",
        "/api/events",
        "/metrics",
        "/healthz",
    } <= set(document["paths"])
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas
    # the request of a run is the wire's RunSpec, and has its defaults
    properties = dict(schemas["RunRequest"]["properties"])
    properties.pop("devices")
    assert {key: value["default"] for key, value in properties.items()} == {
        field: getattr(RunSpec(), field) for field in RunSpec.__struct_fields__
    }


def test_events_arrive(gateway: Gateway, broker_url: str, peers: Callable, name: str) -> None:
    got: list[tuple[str, dict]] = []
    listening = threading.Event()

    def read() -> None:
        with gateway.http.stream("GET", "/api/events", timeout=20) as response:
            event = ""
            for line in response.iter_lines():
                if line.startswith("event:"):
                    event = line[6:].strip()
                    if event == "hello":
                        listening.set()
                elif line.startswith("data:"):
                    got.append((event, json.loads(line[5:])))
                if {"device", "assessment", "training", "alert"} <= {kind for kind, _ in got}:
                    return

    thread = threading.Thread(target=read)
    thread.start()
    assert listening.wait(10)
    device = peers(Device(broker_url, name))
    device.assess(4)
    device.train("r1", 1, "training")
    device.send(
        topics.up(name, "alert"),
        Alert(
            alert_id="a",
            state="raised",
            severity=3,
            observed_at=datetime.now(UTC),
            news2_low=7,
            news2_high=7,
        ),
    )
    thread.join(15)
    assert not thread.is_alive()
    by_kind = dict(got)
    assert by_kind["device"]["name"] == name
    assert by_kind["assessment"]["news2"]["low"] == 4
    assert by_kind["training"]["phase"] == "training"
    assert by_kind["alert"]["severity"] == 3
    until(lambda: gateway.metric("samd_gateway_event_clients ") == 0)


def test_the_server_comes_and_goes(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    gateway = make_gateway(own_broker)
    assert gateway.get("/api/server")["status"] == "unknown"
    server = peers(Server(own_broker))
    until(lambda: gateway.get("/api/server")["status"] == "online")
    assert gateway.get("/api/server")["model_version"] == 3
    server.die()
    until(lambda: gateway.get("/api/server")["status"] == "offline")
    peers(Server(own_broker))  # its counter begins anew: a birth counts all the same
    until(lambda: gateway.get("/api/server")["status"] == "online")
