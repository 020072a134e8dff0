"""A federated run from trigger to inference, with every program real; and what survives a kill -9."""

import pytest

from samd_protocol import bundle as bundles

pytestmark = pytest.mark.system


def devices_by_name(ward):
    return {device["name"]: device for device in ward.stack.api("GET", "/api/devices")["devices"]}


def test_three_devices_train_release_activate_and_infer(ward, eventually):
    run = ward.stack.start_run(rounds=5, epochs=2, quorum=3)
    status = ward.finish(run)

    assert (status["state"], status["round"]) == ("done", 5), status
    assert status["accepted"] == ["bed-01", "bed-02", "bed-03"]
    assert [entry["replies"] for entry in status["history"] if entry["round_seconds"]] == [3] * 5
    assert status["released"], status["reason"]

    def all_infer() -> bool:
        found = devices_by_name(ward)
        views = [device["assessment"] and device["assessment"]["model"] for device in found.values()]
        return all(view and view["version"] == status["model_version"] for view in views)

    eventually(all_infer, timeout=30, what="every device infers with the released model")
    for device in devices_by_name(ward).values():
        model = device["assessment"]["model"]
        assert sum(model["probabilities"]) == pytest.approx(1.0, abs=1e-5)
        assert device["assessment"]["severity"] == max(
            device["assessment"]["rule_severity"], model["severity"]
        )
        assert device["assessment"]["signs"] is None  # the ward has not opted in

    store = ward.stack.folder / "server" / "models" / "severity"
    released = bundles.read(store / f"{status['model_version']:06d}" / "model.samd")
    assert released.manifest.trained
    assert released.manifest.parent == 0
    assert released.manifest.metrics["complete"]["rows"] > 0


def test_a_killed_device_costs_its_part_and_comes_back(ward):
    run = ward.stack.start_run(rounds=40, epochs=2, quorum=2)
    ward.wait_round(run, 3)
    ward.kill("bed-02")
    status = ward.finish(run)
    assert (status["state"], status["round"]) == ("done", 40), status

    ward.start_agent(1)
    ward.stack.wait_online(3)
    again = ward.finish(ward.stack.start_run(rounds=2, epochs=1, quorum=3))
    assert (again["state"], len(again["accepted"])) == ("done", 3), again


def test_a_killed_gateway_goes_on_with_the_run(ward):
    run = ward.stack.start_run(rounds=40, epochs=2, quorum=3)
    ward.wait_round(run, 3)
    ward.kill("gateway")
    ward.start_gateway()
    status = ward.finish(run)
    assert (status["state"], status["round"]) == ("done", 40), status


def test_a_killed_server_goes_on_from_its_checkpoint(ward):
    run = ward.stack.start_run(rounds=40, epochs=2, quorum=3)
    ward.wait_round(run, 3)
    ward.kill("server")
    ward.start_server()
    status = ward.finish(run)
    assert (status["state"], status["round"]) == ("done", 40), status
    store = ward.stack.folder / "server" / "models" / "severity"
    assert sorted(path.name for path in store.iterdir() if path.is_dir()) == ["000000", "000001"]


def test_every_process_ends_and_no_port_stays_open(ward, eventually):
    import socket

    programs = list(ward.stack.programs.values())
    ward.stack.stop()
    assert all(not program.alive for program in programs)
    for url in (ward.stack.broker_url, ward.stack.gateway_url):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1]))) != 0, url
