"""Patients of whom there is little to learn or nothing: each gets its answer, and no run is lost."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samd_scripts.recordings import prepare
from samd_scripts.stack import Stack, wait_until

pytestmark = pytest.mark.system

HEADER = "observed_at,heart_rate,respiratory_rate,spo2,systolic_bp,temperature\n"
WELL = "70,16,98,120,37.0"
PULSE = "70,,,,"
ODD = {"one-class": (WELL, 100), "no-labels": (PULSE, 60), "three": (WELL, 3), "nobody": (WELL, 0)}
"""What each hour says, and how many hours there are."""


def table(row: str, hours: int) -> str:
    first = datetime.now(UTC) - timedelta(hours=hours)
    times = [(first + timedelta(hours=hour)).isoformat(timespec="seconds") for hour in range(hours)]
    return HEADER + "".join(f"{at},{row}\n" for at in times)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, untrained_bundle_path: Path) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("poor")
    recordings = prepare("synthetic", folder / "recordings", 2)
    with Stack(folder / "stack") as made:
        made.broker()
        made.wait_ready(made.gateway(), 60)
        made.wait_ready(made.server(untrained_bundle_path), 60)
        for number, taking_part in enumerate(recordings.taking_part[:2], start=1):
            source = f"replay:{recordings.folder}?patient={taking_part.patient}&speed=60&from=70%"
            made.wait_ready(made.agent(f"bed-{number:02d}", source, "--train-during-alert"), 60)
        for name, (row, hours) in ODD.items():
            file = folder / f"{name}.csv"
            file.write_text(table(row, hours))
            made.wait_ready(made.agent(name, f"csv:{file}", "--train-during-alert", "--consent"), 60)
            log = made.programs[name].log
            wait_until(
                lambda log=log: "no more readings come" in log.read_text(), timeout=60, what=f"{name} is read"
            )
        made.wait_online(2 + len(ODD))
        yield made


@pytest.mark.parametrize("method", ["none", "ditto", "fedrep"])
def test_each_gets_its_answer_and_the_run_is_done(stack: Stack, method: str) -> None:
    run = stack.start_run(rounds=2, epochs=1, quorum=2, method=method, personal_mu=0.1)
    *_, status = stack.follow_run(run, timeout=60)
    assert (status["state"], status["round"]) == ("done", 2), status
    assert status["accepted"] == ["bed-01", "bed-02", "no-labels", "one-class"]
    assert {each["device"]: each["reason"] for each in status["rejected"]} == {
        "nobody": "no data",
        "three": "too few rows: 3 of 8",
    }
    lines = (stack.folder / "server" / "runs" / run / "metrics.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    for record in [record for record in told if record["event"] == "round"]:
        assert record["dropped"]["no-labels"].startswith("device: no labels yet: none of 6")
        counts = record["by_device"]["one-class"]["label_counts"]
        assert counts[0] > 50
        assert counts[1:] == [0, 0, 0]
    for record in [record for record in told if record["event"] == "personalised"]:
        said = record["by_device"]["one-class"]
        assert not said["adopted"]
        assert said["reason"].startswith("too little data: all ")
