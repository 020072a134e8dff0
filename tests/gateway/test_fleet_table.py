"""The fleet's table, tags, views and bulk actions, with devices on a real broker."""

from collections.abc import Callable

import pytest
from gateway_peers import Device, Gateway, Server, until

from samd_protocol import topics
from samd_protocol.messages import Config, ModelActivate, ModelAnswer, ModelOrder


@pytest.fixture
def fleet(own_broker: str, make_gateway: Callable, peers: Callable) -> tuple[Gateway, dict[str, Device]]:
    gateway = make_gateway(own_broker)
    devices = {name: peers(Device(own_broker, name)) for name in ("bed-01", "bed-02", "bed-03", "spare")}
    until(lambda: gateway.get("/api/fleet")["counts"]["online"] == 4)
    return gateway, devices


def names(gateway: Gateway, **query: object) -> list[str]:
    return [row["name"] for row in gateway.get("/api/fleet", **query)["rows"]]


def test_pages_by_key_and_filters(fleet: tuple[Gateway, dict[str, Device]]) -> None:
    gateway, devices = fleet
    first = gateway.get("/api/fleet", limit=3)
    assert [row["name"] for row in first["rows"]] == ["bed-01", "bed-02", "bed-03"]
    assert first["total"] == 4
    second = gateway.get("/api/fleet", limit=3, after=first["next"])
    assert ([row["name"] for row in second["rows"]], second["next"]) == (["spare"], None)
    devices["bed-02"].die()
    until(lambda: gateway.get("/api/fleet")["counts"]["offline"] == 1)
    gone = gateway.get("/api/fleet", state="offline")
    assert [row["name"] for row in gone["rows"]] == ["bed-02"]
    assert "will" in gone["rows"][0]["reason"]
    # the counts are of all that the other filters find, so that a click on another state tells beforehand
    assert gone["counts"] == {"online": 3, "stale": 0, "offline": 1, "unknown": 0}
    assert names(gateway, sort="state")[0] == "bed-02"
    assert names(gateway, text="BED", state=["online", "stale"]) == ["bed-01", "bed-03"]


def test_last_heartbeat_and_last_data_are_two_facts(fleet: tuple[Gateway, dict[str, Device]]) -> None:
    gateway, devices = fleet
    devices["bed-01"].assess()
    until(lambda: gateway.get("/api/fleet", text="bed-01")["rows"][0]["last_data"])
    heard, silent = gateway.get("/api/fleet", text="bed-0")["rows"][:2]
    assert heard["last_data"] is not None
    assert silent["last_data"] is None
    assert silent["heartbeat_at"] is not None
    assert (silent["outbox_depth"], silent["temperature_c"]) == (0, None)  # told, and not told


def test_tags_and_saved_views(fleet: tuple[Gateway, dict[str, Device]]) -> None:
    gateway, _ = fleet
    tag = {"devices": ["bed-01", "bed-02"], "add": ["ward 3", "<img src=x onerror=alert(1)>"]}
    assert gateway.http.post("/api/fleet/tags", json=tag).json() == {"changed": 4}
    assert gateway.http.post("/api/fleet/tags", json=tag).json() == {"changed": 0}
    assert names(gateway, tag="ward 3") == ["bed-01", "bed-02"]
    less = {"devices": ["bed-02", "bed-03"], "remove": ["ward 3"]}
    assert gateway.http.post("/api/fleet/tags", json=less).json() == {"changed": 1}
    assert gateway.get("/api/fleet/tags")["tags"] == {"<img src=x onerror=alert(1)>": 2, "ward 3": 1}
    refused = gateway.http.post("/api/fleet/tags", json={"devices": ["bed-01"], "add": ["a\nb"]})
    assert (refused.status_code, "tags" in refused.json()["detail"]) == (422, True)
    nobody = gateway.http.post("/api/fleet/tags", json={"devices": ["bed-99"], "add": ["a"]})
    assert (nobody.status_code, "'bed-99'" in nobody.json()["detail"]) == (404, True)

    view = {"name": "away", "query": {"states": ["stale", "offline"], "sort": "state"}}
    saved = gateway.http.post("/api/fleet/views", json=view).json()
    again = gateway.http.post("/api/fleet/views", json=view | {"shared": True}).json()
    assert gateway.get("/api/fleet/views")["views"] == [again]
    assert again["id"] != saved["id"]
    assert again["query"]["states"] == ["stale", "offline"]
    assert gateway.http.delete(f"/api/fleet/views/{again['id']}").status_code == 204
    assert gateway.http.delete(f"/api/fleet/views/{again['id']}").status_code == 404
    assert (
        gateway.http.post("/api/fleet/views", json={"name": "x", "query": {"sort": "y"}}).status_code == 422
    )


def test_a_bulk_action_is_planned_done_and_answered_device_by_device(
    fleet: tuple[Gateway, dict[str, Device]],
) -> None:
    gateway, devices = fleet
    devices["bed-03"].die()
    until(lambda: gateway.get("/api/fleet")["counts"]["offline"] == 1)
    action = {"action": {"type": "model.activate", "version": 2}, "query": {"text": "bed"}}
    plan = gateway.http.post("/api/fleet/plan", json=action).json()
    assert [(each["device"], each["problem"] is None) for each in plan["devices"]] == [
        ("bed-01", True),
        ("bed-02", True),
        ("bed-03", False),
    ]
    assert plan["reachable"] == 2
    assert not devices["bed-01"].commands
    job = gateway.http.post("/api/fleet/jobs", json=action | {"ttl_s": 1.0}).json()
    until(lambda: devices["bed-01"].commands and devices["bed-02"].commands)
    assert devices["bed-01"].commands == [ModelActivate(version=2)]
    commands = {each["device"]: each["command"] for each in job["devices"]}
    devices["bed-01"].result(commands["bed-01"], "done")
    devices["bed-02"].result(commands["bed-02"], "rejected", "it does not hold version 2")

    def ended() -> dict | None:
        found = gateway.get(f"/api/fleet/jobs/{job['id']}")
        return None if "waiting" in found["counts"] else found

    found = until(ended)
    assert {each["device"]: (each["status"], each["reason"]) for each in found["devices"]} == {
        "bed-01": ("done", None),
        "bed-02": ("rejected", "it does not hold version 2"),
        "bed-03": ("expired", "no answer came in time"),
    }
    assert gateway.get("/api/fleet/jobs")["jobs"][0]["counts"] == {"done": 1, "rejected": 1, "expired": 1}


def test_a_configuration_waits_for_a_device_that_is_away(
    fleet: tuple[Gateway, dict[str, Device]], own_broker: str, peers: Callable
) -> None:
    gateway, devices = fleet
    devices["bed-01"].send(topics.up("bed-01", "config"), Config(version=7, heartbeat_s=10.0), retain=True)
    until(lambda: gateway.metric('samd_gateway_messages_total{kind="config"}') == 1)
    change = {"action": {"type": "config", "share_signs": True}, "devices": ["bed-01", "bed-02"]}
    job = gateway.http.post("/api/fleet/jobs", json=change).json()
    assert job["counts"] == {"waiting": 2}

    late = peers(Device(own_broker, "watcher"))
    desired: dict[str, Config] = {}
    late.received = lambda topic, payload: desired.update({topic.split("/")[3]: _config(payload)})
    late.subscribe("samd/v1/d/+/dn/config")
    until(lambda: len(desired) == 2)
    # what the device reported stays, with the change, under a version that is newer than its own
    assert desired["bed-01"] == Config(version=8, heartbeat_s=10.0, share_signs=True)
    assert desired["bed-02"] == Config(version=1, share_signs=True)
    devices["bed-01"].send(topics.up("bed-01", "config"), desired["bed-01"], retain=True)
    until(lambda: gateway.get(f"/api/fleet/jobs/{job['id']}")["counts"] == {"done": 1, "waiting": 1})
    # a later change leaves the earlier job as it was
    gateway.http.post("/api/fleet/jobs", json=change | {"action": {"type": "config", "heartbeat_s": 5.0}})
    assert gateway.get(f"/api/fleet/jobs/{job['id']}")["counts"] == {"done": 1, "waiting": 1}


def _config(payload: bytes) -> Config:
    from samd_protocol import envelope

    found = envelope.decode(payload).data
    assert isinstance(found, Config)
    return found


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"action": {"type": "report"}}, 422, "either devices or a query"),
        ({"action": {"type": "report"}, "devices": []}, 422, "at least one"),
        (
            {"action": {"type": "report"}, "devices": ["bed-01"], "query": {}},
            422,
            "either devices or a query",
        ),
        ({"action": {"type": "report"}, "query": {"text": "nowhere"}}, 422, "no device matches"),
        ({"action": {"type": "reboot"}, "devices": ["bed-01"]}, 422, "reboot"),
        ({"action": {"type": "config"}, "devices": ["bed-01"]}, 422, "nothing is to be changed"),
        ({"action": {"type": "config", "heartbeat_s": 0.1}, "devices": ["bed-01"]}, 422, "heartbeat_s"),
        ({"action": {"type": "report"}, "devices": ["bed-01"], "ttl_s": 0}, 422, "ttl_s"),
        ({"action": {"type": "report"}, "devices": ["nobody"]}, 404, "nobody"),
    ],
)
def test_a_bulk_action_that_cannot_be_says_why(
    fleet: tuple[Gateway, dict[str, Device]], request_: dict, status: int, words: str
) -> None:
    gateway, _ = fleet
    answer = gateway.http.post("/api/fleet/jobs", json=request_)
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert gateway.get("/api/fleet/jobs")["jobs"] == []


def test_a_model_is_released_by_order_and_the_answer_is_kept(
    own_broker: str, make_gateway: Callable, peers: Callable
) -> None:
    gateway = make_gateway(own_broker)
    nothing = gateway.http.post("/api/models/releases", json={"version": 3})
    assert (nothing.status_code, "no version 3" in nothing.json()["detail"]) == (404, True)
    server = peers(Server(own_broker))
    orders: list[tuple[str, ModelOrder]] = []
    server.received = lambda topic, payload: (
        orders.append(_order(payload)) if topic == topics.SERVER_MODEL_ORDER else None
    )
    server.subscribe(topics.SERVER_MODEL_ORDER)
    until(lambda: gateway.get("/api/server")["status"] == "online")
    peers(Device(own_broker, "bed-01"))
    _finished_run(gateway, server, peers(Device(own_broker, "bed-02")))
    versions = gateway.get("/api/models/versions")["versions"]
    assert [(each["version"], each["released"], each["in_use"], each["reason"]) for each in versions] == [
        (4, False, False, "macro-F1 fell by .1")
    ]
    assert versions[0]["parent"] == 3
    asked = gateway.http.post("/api/models/releases", json={"version": 4}).json()
    assert (asked["action"], asked["status"]) == ("release", "waiting")
    order, body = until(lambda: orders)[0]
    assert body == ModelOrder(task="severity", version=4)
    server.send(topics.SERVER_MODEL_ANSWER, ModelAnswer(order=order, status="done"))
    until(lambda: gateway.get("/api/models/releases")["releases"][0]["status"] == "done")
    # a second answer to the same order changes nothing
    server.send(topics.SERVER_MODEL_ANSWER, ModelAnswer(order=order, status="rejected", reason="late"))
    until(lambda: gateway.metric('samd_gateway_messages_total{kind="model.answer"}') == 2)
    assert gateway.get("/api/models/releases")["releases"][0]["status"] == "done"


def _order(payload: bytes) -> tuple[str, ModelOrder]:
    from samd_protocol import envelope

    found = envelope.decode(payload)
    assert isinstance(found.data, ModelOrder)
    return found.id, found.data


def _finished_run(gateway: Gateway, server: Server, device: Device) -> None:
    until(lambda: gateway.get("/api/fleet")["counts"]["online"] == 2)
    run = gateway.http.post("/api/runs", json={"quorum": 2}).json()["id"]
    until(lambda: gateway.run(run)["state"] == "handed-over")
    server.status(run, "done", model_version=4, released=False, reason="macro-F1 fell by .1")
    until(lambda: gateway.run(run)["state"] == "done")
