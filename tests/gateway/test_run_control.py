"""Runs: admission, hand-over, lease, stop, restart; devices and the server are peers on a real broker."""

import itertools
import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from gateway_peers import Device, Gateway, Process, Server, own_file, until

from samd_protocol import topics
from samd_protocol.messages import Served, ServerState


class Ward:
    """A server and devices at a broker and a gateway; each test has its own boots of them."""

    boots = itertools.count(1)

    def __init__(self, url: str, gateway: Gateway, peers: Callable) -> None:
        self.url = url
        self.peers = peers
        self.gateway = gateway
        self.boot = next(self.boots)
        self.server = self.serve()
        self.devices: dict[str, Device] = {}

    def serve(self) -> Server:
        server = self.peers(Server(self.url, boot=next(self.boots)))
        until(lambda: self.gateway.metric('samd_gateway_messages_total{kind="server.state"}') >= 1)
        until(lambda: self.gateway.get("/api/server")["status"] == "online")
        return server

    def add(self, **answers: str | None) -> None:
        for name, answer in answers.items():
            self.devices[name] = self.peers(Device(self.url, name, answer=answer, boot=self.boot))
        for name, device in self.devices.items():
            until(
                lambda name=name, device=device: (
                    (found := self.gateway.device(name))
                    and (found["state"], found["boot_id"]) == ("online", device.boot_id)
                )
            )

    def post(self, **body: Any) -> Any:
        return self.gateway.http.post("/api/runs", json={"devices": sorted(self.devices)} | body)

    def start(self, **body: Any) -> str:
        answer = self.post(**body)
        assert answer.status_code == 201, answer.text
        assert answer.json()["state"] in ("admitting", "handed-over")
        return answer.json()["id"]

    def reaches(self, run: str, state: str, seconds: float = 10.0) -> dict[str, Any]:
        return until(
            lambda: (found := self.gateway.run(run))["state"] == state and found,
            seconds,
            f"{run} {state}",
        )

    def close(self) -> None:
        """End the run that a test left going on."""
        run = self.gateway.get("/api/runs")["current"]
        if run is not None:
            self.gateway.http.post(f"/api/runs/{run}/stop")
            self.server.status(run, "stopped")
            until(lambda: self.gateway.get("/api/runs")["current"] is None)
        self.server.die()
        until(lambda: self.gateway.get("/api/server")["status"] == "offline")


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Gateway]]:
    """A broker and a gateway of this module alone."""
    broker = Process("broker", "--port", "0")
    try:
        url = broker.ready()
        gateway = Gateway(url, tmp_path_factory.mktemp("runs") / "gateway", "--admission-grace", "0.3")
        yield url, gateway
        gateway.end()
    finally:
        broker.end()


@pytest.fixture
def ward(station: tuple[str, Gateway], peers: Callable) -> Iterator[Ward]:
    ward = Ward(*station, peers)
    yield ward
    ward.close()


def test_a_run_from_the_trigger_to_the_release(ward: Ward) -> None:
    ward.add(b="accepted", a="accepted", c="too hot")
    run = ward.start(rounds=2, quorum=2, epochs=7, seed=5)
    order = ward.server.order()
    assert (order.action, order.run, order.devices) == ("start", run, ["a", "b"])
    assert (order.spec.rounds, order.spec.epochs, order.spec.seed, order.spec.quorum) == (2, 7, 5, 2)
    handed = ward.gateway.run(run)
    assert handed["rejected"] == [{"device": "c", "reason": "too hot"}]
    assert (handed["accepted"], handed["admitted"], handed["start_version"]) == (["a", "b"], ["a", "b"], 3)

    ward.server.status(run, "training", round=1, rounds=2, quorum=2, replies=0, awaited={"computing": 2})
    ward.devices["a"].train(run, 1, "sent")
    ward.devices["b"].train(run, 1, "training")
    waiting = until(
        lambda: (
            (found := ward.gateway.run(run))["awaited"] == [{"device": "b", "reason": "training"}] and found
        )
    )
    assert waiting["waiting"] == "devices: computing (2); 0 of 2 needed have replied"
    ward.server.status(
        run, "training", round=1, rounds=2, quorum=2, replies=2, metrics={"loss": 0.5}, round_seconds=0.2,
        overhead_seconds=0.1, dropped={"late": 1},
    )  # fmt: skip
    ward.server.status(
        run, "training", round=2, rounds=2, quorum=2, replies=2, metrics={"loss": 0.4}, round_seconds=0.3
    )
    ward.server.status(run, "evaluating", round=2, rounds=2, quorum=2)
    assert ward.reaches(run, "evaluating")["round"] == 2
    ward.server.status(run, "releasing", round=2, rounds=2, quorum=2)
    ward.server.status(
        run, "done", round=2, rounds=2, quorum=2, model_version=4, released=True, metrics={"macro_f1": 0.6}
    )
    done = ward.reaches(run, "done")
    assert (done["model_version"], done["released"], done["metrics"]) == (4, True, {"macro_f1": 0.6})
    assert [
        (each["round"], each["replies"], each["metrics"], each["round_seconds"]) for each in done["history"]
    ] == [
        (1, 2, {"loss": 0.5}, 0.2),
        (2, 2, {"loss": 0.4}, 0.3),
    ]
    assert done["history"][0]["dropped"] == {"late": 1}
    assert (done["waiting"], done["awaited"]) == (None, [])
    # those that took part learn that it is over; the one that refused is left alone
    until(lambda: ward.devices["a"].told_to_stop(run) and ward.devices["b"].told_to_stop(run))
    assert not ward.devices["c"].told_to_stop(run)
    assert ward.gateway.get("/api/runs")["current"] is None


def test_a_silent_device_costs_the_grace_only_and_learns_that_it_is_out(ward: Ward) -> None:
    ward.add(a="accepted", b="accepted", silent=None)
    run = ward.start(quorum=2, admission_deadline_s=30)
    assert ward.server.order(5.0).devices == ["a", "b"]
    found = ward.gateway.run(run)
    assert 0.2 < _seconds(found, "created_at", "handed_over_at") < 5.0
    late = ward.devices["silent"]
    command = ward.gateway.get("/api/devices/silent/results")["results"][0]["command"]
    late.result(command, "accepted")
    until(lambda: late.told_to_stop(run))
    assert ward.gateway.run(run)["admitted"] == ["a", "b"]


def _seconds(found: dict[str, Any], first: str, second: str) -> float:
    return (datetime.fromisoformat(found[second]) - datetime.fromisoformat(found[first])).total_seconds()


def test_below_the_quorum_it_fails_at_the_deadline_and_frees_the_lease(ward: Ward) -> None:
    ward.add(a="accepted", b=None, c="no data")
    run = ward.start(quorum=2, admission_deadline_s=0.6)
    awaiting = ward.gateway.run(run)
    assert awaiting["state"] == "failed" or awaiting["waiting"]
    failed = ward.reaches(run, "failed")
    assert failed["reason"] == (
        "1 of 3 asked devices accepted, 2 are needed; rejected: no data (1); no answer within 0.6 s: 1"
    )
    until(lambda: ward.devices["a"].told_to_stop(run))
    assert ward.post(quorum=2, admission_deadline_s=0.3).status_code == 201


def test_one_run_at_a_time(ward: Ward) -> None:
    ward.add(a="accepted")
    run = ward.start(quorum=1)
    second = ward.post(quorum=1)
    assert (second.status_code, second.json()["run"]) == (409, run)
    assert second.headers["content-type"] == "application/problem+json"
    ward.server.order()
    ward.server.status(run, "failed", reason="no quorum in round 1")
    assert ward.reaches(run, "failed")["reason"] == "no quorum in round 1"
    assert ward.post(quorum=1).status_code == 201


def test_what_cannot_begin_says_why(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    gateway = make_gateway(own_broker)

    def refusal(**body: Any) -> tuple[int, str]:
        answer = gateway.http.post("/api/runs", json=body)
        return answer.status_code, answer.json()["detail"]

    assert refusal() == (409, "no server is online, and a run needs one; start it: samd-server run")
    server = peers(Server(own_broker))
    until(lambda: gateway.get("/api/server")["status"] == "online")
    assert refusal(quorum=2)[0] == 409
    assert "0 devices are online and the quorum is 2" in refusal(quorum=2)[1]
    assert refusal(devices=["bed-99"])[0] == 404
    assert refusal(task="deterioration") == (
        409,
        "the server trains 'severity', not 'deterioration'; choose --task severity",
    )
    assert refusal(rounds=0) == (422, "rounds is 0: it must lie between 1 and 10000")
    assert refusal(rounds="many")[0] == 422
    assert refusal(round=3)[0] == 422
    device = peers(Device(own_broker, "bed-01"))
    peers(Device(own_broker, "bed-02")).die()
    until(lambda: [each["state"] for each in gateway.get("/api/devices")["devices"]] == ["online", "offline"])
    answer = gateway.http.post("/api/runs", json={})
    assert answer.json()["asked"] == ["bed-01"]  # without a list: all that are online
    until(lambda: device.commands)
    server.die()
    until(lambda: refusal()[1].startswith("no server"))


def test_a_server_of_two_tasks_is_asked_for_either(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable
) -> None:
    gateway = make_gateway(own_broker)
    server = peers(Server(own_broker))
    device = peers(Device(own_broker, "bed-01"))
    ahead = Served(task="deterioration", model_version=7, graph_sha256="b" * 64, methods=["none", "ditto"])
    both = ServerState(
        status="online",
        version="0.1.0",
        model_version=3,
        graph_sha256="a" * 64,
        task="severity",
        methods=["none", "fedper"],
        others=[ahead],
    )
    server.send(topics.SERVER_STATE, both, retain=True)
    until(lambda: gateway.get("/api/server")["others"])
    assert gateway.get("/api/server")["others"][0]["model_version"] == 7
    until(lambda: gateway.device("bed-01"))
    asked = gateway.http.post("/api/runs", json={"task": "deterioration", "method": "fedper"})
    assert "choose one of: none, ditto" in asked.json()["detail"], "its own model's methods count"
    asked = gateway.http.post("/api/runs", json={"task": "mood"})
    assert asked.json()["detail"] == (
        "the server trains 'severity' and 'deterioration', not 'mood'; choose --task severity"
    )
    started = gateway.http.post("/api/runs", json={"task": "deterioration"})
    assert started.status_code == 201, started.text
    run = started.json()
    assert (run["spec"]["task"], run["start_version"]) == ("deterioration", 7)
    assert run["spec"]["logit_adjustment"] == 0.0, "unless it is asked for"
    until(lambda: device.commands)
    start = device.commands[0]
    assert (start.task, start.model_version, start.graph_sha256) == ("deterioration", 7, "b" * 64)


def test_only_the_named_devices_are_asked(ward: Ward) -> None:
    ward.add(a="accepted", b="accepted", c="accepted")
    ward.start(quorum=1, devices=["b"])
    assert ward.server.order().devices == ["b"]
    assert ward.devices["a"].commands == ward.devices["c"].commands == []


def test_stop_in_admission_and_while_training(ward: Ward) -> None:
    ward.add(a="accepted", b=None)
    first = ward.start(quorum=2, admission_deadline_s=60)
    until(lambda: ward.gateway.run(first)["accepted"] == ["a"])
    assert ward.gateway.http.post(f"/api/runs/{first}/stop").status_code == 202
    assert ward.reaches(first, "stopped")["reason"] == "stopped by an operator before it began"
    until(lambda: ward.devices["a"].told_to_stop(first))
    assert ward.gateway.http.post(f"/api/runs/{first}/stop").status_code == 409

    second = ward.start(quorum=1)
    ward.server.order()
    ward.server.status(second, "training", round=1, rounds=20)
    ward.reaches(second, "training")
    ward.gateway.http.post(f"/api/runs/{second}/stop")
    stop = ward.server.order()
    assert (stop.action, stop.run) == ("stop", second)
    assert ward.gateway.run(second)["waiting"] == "the server has been told to stop"
    ward.server.status(second, "stopped", round=1, rounds=20, reason="by order")
    ward.reaches(second, "stopped")
    until(lambda: ward.devices["a"].told_to_stop(second))


def test_a_server_that_goes_away_is_the_reason_for_waiting(ward: Ward) -> None:
    ward.add(a="accepted")
    run = ward.start(quorum=1)
    ward.server.order()
    ward.server.status(run, "training", round=1, rounds=3, replies=0, awaited={"computing": 1})
    ward.reaches(run, "training")
    ward.server.die()
    until(lambda: (ward.gateway.run(run)["waiting"] or "").startswith("the server is offline"))
    ward.server = server = ward.serve()
    server.status(run, "training", round=2, rounds=3)
    until(lambda: ward.gateway.run(run)["round"] == 2)
    server.status(run, "done", round=3, rounds=3)
    ward.reaches(run, "done")


def test_a_gateway_killed_in_admission_goes_on_with_it(ward: Ward) -> None:
    ward.add(a="accepted", b=None)
    run = ward.start(quorum=2, admission_deadline_s=30)
    until(lambda: ward.gateway.run(run)["accepted"] == ["a"])
    command = ward.gateway.get("/api/devices/b/results")["results"][0]["command"]
    ward.gateway.end(signal.SIGKILL)
    ward.devices["b"].result(command, "accepted")  # while nobody listens
    ward.gateway.start()
    assert ward.server.order().devices == ["a", "b"]


def test_a_gateway_that_is_away_past_the_deadline_fails_the_run_plainly(ward: Ward) -> None:
    ward.add(a="accepted", b=None)
    run = ward.start(quorum=2, admission_deadline_s=1.0)
    until(lambda: ward.gateway.run(run)["accepted"] == ["a"])
    ward.gateway.end(signal.SIGKILL)
    ward.gateway.start()
    assert "no answer within 1 s: 1" in ward.reaches(run, "failed")["reason"]


def test_a_gateway_killed_during_training_follows_on(ward: Ward) -> None:
    ward.add(a="accepted")
    run = ward.start(quorum=1, rounds=3)
    ward.server.order()
    ward.server.status(run, "training", round=1, rounds=3, round_seconds=0.1, metrics={"loss": 3.0})
    ward.reaches(run, "training")
    ward.gateway.end(signal.SIGKILL)
    ward.server.status(run, "training", round=2, rounds=3, round_seconds=0.1, metrics={"loss": 2.0})
    ward.server.status(run, "training", round=3, rounds=3, round_seconds=0.1, metrics={"loss": 1.0})
    ward.server.status(run, "done", round=3, rounds=3, model_version=4, released=False, reason="not better")
    ward.gateway.start()
    done = ward.reaches(run, "done")
    assert [each["metrics"]["loss"] for each in done["history"]] == [3.0, 2.0, 1.0]
    assert (done["released"], done["reason"]) == (False, "not better")
    until(lambda: ward.devices["a"].told_to_stop(run))


def test_a_gateway_killed_before_its_question_was_out_asks_again(ward: Ward) -> None:
    ward.add(a=None, b="accepted")
    run = ward.start(quorum=2, admission_deadline_s=60)
    until(lambda: ward.gateway.run(run)["accepted"] == ["b"])
    until(lambda: len(ward.devices["a"].commands) == 1)
    command = ward.gateway.get("/api/devices/a/results")["results"][0]["command"]
    ward.gateway.end(signal.SIGKILL)
    ward.gateway.start()
    until(lambda: len(ward.devices["a"].commands) == 2)
    assert ward.devices["a"].commands[0] == ward.devices["a"].commands[1]
    assert len(ward.devices["b"].commands) == 1, "who has answered is not asked again"
    ward.devices["a"].result(command, "accepted")
    assert ward.server.order().devices == ["a", "b"]


def test_a_gateway_killed_after_the_hand_over_orders_once(ward: Ward) -> None:
    ward.add(a="accepted")
    run = ward.start(quorum=1)
    assert ward.server.order().run == run
    ward.reaches(run, "handed-over")
    ward.gateway.end(signal.SIGKILL)
    ward.gateway.start()
    ward.server.status(run, "training", round=1, rounds=2)
    ward.reaches(run, "training")
    ward.server.status(run, "done", round=2, rounds=2)
    ward.reaches(run, "done")
    until(lambda: ward.devices["a"].told_to_stop(run))
    again = [ward.server.orders.get_nowait() for _ in range(ward.server.orders.qsize())]
    assert {(order.action, order.run) for order in again} <= {("start", run)}, "its id makes it one"


@own_file
def test_a_gateway_killed_before_it_has_ordered_does_so_later(ward: Ward) -> None:
    ward.add(a="accepted")
    run = ward.start(quorum=1)
    ward.server.order()
    ward.reaches(run, "handed-over")
    ward.gateway.end(signal.SIGKILL)
    with sqlite3.connect(ward.gateway.data / "gateway.sqlite3") as connection:
        connection.execute("UPDATE runs SET ordered_at = NULL")
    connection.close()
    ward.gateway.start()
    order = ward.server.order()
    assert (order.action, order.run, order.devices) == ("start", run, ["a"])


def test_a_gateway_killed_while_a_run_stops_goes_on_stopping_it(ward: Ward) -> None:
    ward.add(a="accepted")
    run = ward.start(quorum=1)
    ward.server.order()
    ward.server.status(run, "training", round=1, rounds=20)
    ward.reaches(run, "training")
    assert ward.gateway.http.post(f"/api/runs/{run}/stop").status_code == 202
    ward.gateway.end(signal.SIGKILL)
    ward.gateway.start()
    stop = ward.server.order()
    assert (stop.action, stop.run) == ("stop", run)
    ward.server.status(run, "stopped", round=1, rounds=20, reason="by order")
    assert ward.reaches(run, "stopped")["reason"] == "by order"
    until(lambda: ward.devices["a"].told_to_stop(run))


def test_who_starts_stops_and_commands_is_on_record(ward: Ward) -> None:
    ward.add(a="accepted", b=None)
    run = ward.start(quorum=2, admission_deadline_s=60, rounds=7)
    ward.gateway.http.post(f"/api/runs/{run}/stop")
    ward.reaches(run, "stopped")
    sent = ward.gateway.http.post("/api/devices/a/commands", json={"body": {"type": "report"}}).json()
    entries = ward.gateway.get("/api/audit")["entries"]
    rows = {
        row["action"]: row
        for row in entries
        if row["target"] == f"run/{run}" or (row["after"] or {}).get("command") == sent["id"]
    }
    assert set(rows) == {"run.start", "run.stop", "device.command"}
    assert rows["run.start"]["after"]["devices"] == ["a", "b"]
    assert rows["run.start"]["after"]["spec"]["rounds"] == 7
    assert rows["run.stop"]["before"] == {"state": "admitting"}
    assert rows["device.command"]["after"] == {"type": "report", "command": sent["id"]}
    assert {row["actor"] for row in rows.values()} == {"local"}
