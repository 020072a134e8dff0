"""Every personalisation method and every strategy, on real devices over MQTT: one stack for all of them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from samd_protocol.methods import METHODS, PERSONAL
from samd_scripts.recordings import prepare
from samd_scripts.stack import Stack, wait_until

pytestmark = pytest.mark.system

DEVICES = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, untrained_bundle_path: Path) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("methods")
    recordings = prepare("synthetic", folder / "recordings", DEVICES)
    with Stack(folder / "stack") as made:
        made.broker()
        made.wait_ready(made.gateway(), 60)
        made.wait_ready(made.server(untrained_bundle_path), 60)
        for number, taking_part in enumerate(recordings.taking_part[:DEVICES], start=1):
            source = f"replay:{recordings.folder}?patient={taking_part.patient}&speed=60&from=70%"
            made.wait_ready(made.agent(f"bed-{number:02d}", source, "--train-during-alert"), 60)
        made.wait_online(DEVICES)
        yield made


def finish(stack: Stack, **spec: object) -> dict:
    run = stack.start_run(**({"rounds": 2, "epochs": 2, "quorum": DEVICES} | spec))
    *_, status = stack.follow_run(run, timeout=60)
    return status


def records(stack: Stack, run: str) -> list[dict]:
    lines = (stack.folder / "server" / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_devices(stack: Stack, method: str) -> None:
    status = finish(stack, method=method, personal_mu=0.1, proximal_mu=0.01)
    assert (status["state"], status["round"]) == ("done", 2), status
    assert [entry["replies"] for entry in status["history"] if entry["round_seconds"]] == [DEVICES] * 2
    told = records(stack, status["id"])
    rounds = [record for record in told if record["event"] == "round"]
    assert [sorted(record["by_device"]) for record in rounds] == [["bed-01", "bed-02", "bed-03"]] * 2
    for record in rounds:
        for said in record["by_device"].values():
            assert sum(said["label_counts"]) == said["examples"] > 0
            assert ("personal_loss" in said) == (method in ("ditto", "fedrep", "apfl"))
    personalised = [record for record in told if record["event"] == "personalised"]
    assert len(personalised) == (method in PERSONAL)
    for record in personalised:
        assert record["method"] == method
        assert sorted(record["by_device"]) == ["bed-01", "bed-02", "bed-03"]
        assert all(said["reason"] for said in record["by_device"].values())
    kept = list((stack.folder / "devices").rglob("personal-state.msgpack"))
    assert len(kept) == (DEVICES if method in PERSONAL else len(kept))


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("FedAvgM", {"server_momentum": 0.5}),
        ("FedAdam", {"eta": 0.05}),
        ("FedYogi", {}),
        ("FedProx", {}),
        ("FedMedian", {}),
        ("FedTrimmedAvg", {"beta": 0.34}),
        ("Krum", {"num_malicious_nodes": 0}),
        ("MultiKrum", {"num_malicious_nodes": 0}),
        ("Bulyan", {"num_malicious_nodes": 0}),
        ("QFedAvg", {}),
    ],
)
def test_every_strategy_averages_what_devices_send(
    stack: Stack, strategy: str, settings: dict[str, float]
) -> None:
    status = finish(
        stack, strategy=strategy, strategy_settings=settings, proximal_mu=0.01, rounds=2, epochs=1
    )
    assert (status["state"], status["round"]) == ("done", 2), status


def test_a_run_file_is_run_kept_and_shown(stack: Stack, tmp_path: Path) -> None:
    described = tmp_path / "run.toml"
    described.write_text(
        f'name = "severe rows count"\nrounds = 2\nquorum = {DEVICES}\n'
        '[training]\nepochs = 1\n[strategy]\nname = "FedAdam"\nweighting = "severe"\neta = 0.05\n'
        '[personalisation]\nmethod = "ditto"\nmu = 0.1\n'
    )

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, "runs", *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    at = ["--gateway", stack.gateway_url]
    done = run("samd_gateway", "start", "--run", str(described), "--watch", "--json", *at)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])
    assert status["spec"]["strategy_settings"] == {"eta": 0.05}
    data = ["--data", str(stack.folder / "server")]
    page = tmp_path / "run.html"
    shown = json.loads(run("samd_server", "show", status["id"], "--json", "--html", str(page), *data).stdout)
    assert shown["spec"]["weighting"] == "severe"
    assert shown["phase"] == "done"
    assert "<svg" in page.read_text()
    result = json.loads((stack.folder / "server" / "runs" / status["id"] / "result.json").read_text())
    assert result["spec"]["name"] == "severe rows count"

    described.write_text("[personalisation]\nmethod = 'dito'")
    refused = run("samd_gateway", "start", "--run", str(described), *at)
    assert refused.returncode == 2
    assert "[personalisation] method 'dito' is not offered; did you mean 'ditto'?" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_personal_model_that_passes_assesses_its_patient(stack: Stack) -> None:
    """With the forgetting grid rehearsed, a personal model knows the chart and is used on its device."""
    status = finish(
        stack,
        rounds=10,
        epochs=5,
        method="finetune",
        personal_epochs=60,
        personal_learning_rate=0.003,
        rehearsal=2048,
    )
    assert status["state"] == "done", status
    (told,) = [record for record in records(stack, status["id"]) if record["event"] == "personalised"]
    assert any(said["adopted"] for said in told["by_device"].values()), told

    def assessed_by_their_own() -> bool:
        found = {
            device["name"]: device["assessment"] for device in stack.api("GET", "/api/devices")["devices"]
        }
        return all(
            found[device]
            and found[device]["model"]
            and found[device]["model"].get("personal") is said["adopted"]
            for device, said in told["by_device"].items()
        )

    wait_until(assessed_by_their_own, timeout=30, what="devices assess by what they adopted")
