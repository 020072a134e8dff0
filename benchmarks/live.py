"""A live agent, as a process with a model and a broker: how soon it judges, how much it takes, what it needs.

`start`: from the start of the process to its first assessment in the store. `sustained`: readings a second,
each judged by rule and model and committed, beside a bare loop that does nothing but commit the same readings
to SQLite. `memory`: resident, with three sources open (HL7, MQTT and a file that grows) of which each has
given a reading, and with each kind of source alone. Prints one JSON object.
"""

import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.publish as mqtt_publish
import psutil
from paho.mqtt.enums import MQTTProtocolVersion

from samd_edge.control import ControlError, ask
from samd_scripts.network import untrained

READINGS = 10_000
STARTS = 7
PATIENCE_S = 60.0
HEADER = "observed_at,heart_rate,respiratory_rate,spo2,systolic_bp,temperature\n"


def main() -> int:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, broker() as url:
        folder = Path(name)
        model = str(trained(folder))
        figures = {
            "start": start(folder / "start", url, model),
            "sustained": sustained(folder / "sustained", url, model),
            "memory": memory(folder / "memory", url, model),
        }
    print(json.dumps(figures, indent=2))
    return 0


# -- the three figures -------------------------------------------------------------------------------------


def start(folder: Path, url: str, model: str) -> dict[str, float]:
    """Seconds from the start of the process to the first assessment in the store."""
    found = []
    for number in range(STARTS + 1):
        data = folder / str(number)
        began = time.perf_counter()
        with agent(data, url, model, ["-"]) as process:
            assert process.stdin is not None
            process.stdin.write(f'{{"observed_at":"{datetime.now(UTC).isoformat()}","heart_rate":72}}\n')
            process.stdin.flush()
            until(lambda data=data: count(data, "assessments") > 0, process)
            found.append(time.perf_counter() - began)
    return {
        "starts": STARTS,
        "median_s": round(statistics.median(found[1:]), 3),
        "max_s": round(max(found), 3),
    }


def sustained(folder: Path, url: str, model: str) -> dict[str, float]:
    """Readings a second through standard input, and the bare loop's."""
    rows = list(readings(READINGS))
    with agent(folder / "agent", url, model, ["-"]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        began = time.perf_counter()
        process.stdin.write("".join(rows))
        process.stdin.flush()
        until(lambda: count(folder / "agent", "assessments") >= READINGS, process)
        seconds = time.perf_counter() - began
        used = sum(psutil.Process(process.pid).cpu_times()[:2])
    bare = commits(folder / "bare.sqlite", rows)
    return {
        "readings": READINGS,
        "per_second": round(READINGS / seconds),
        "processor_s": round(used, 2),
        "bare_commits_per_second": round(bare),
        "share_of_bare": round(READINGS / seconds / bare, 3),
    }


def memory(folder: Path, url: str, model: str) -> dict[str, Any]:
    """Resident MB with three sources open, and with each kind alone."""
    folder.mkdir(parents=True)
    file = folder / "grows.csv"
    port = free_port()
    kinds: dict[str, tuple[list[str], Sequence[Callable[[], None]]]] = {
        "csv": ([f"csv:{file}?follow=1"], [lambda: grow(file)]),
        "mqtt": (["mqtt:monitors/bed-01"], [lambda: publish(url)]),
        "hl7": ([f"hl7:{port}"], [lambda: send_hl7(port)]),
        "fhir": ([f"fhir:{port}"], [lambda: post_fhir(port)]),
    }
    kinds["hl7, mqtt, csv"] = (
        [source for kind in ("hl7", "mqtt", "csv") for source in kinds[kind][0]],
        [feed for kind in ("hl7", "mqtt", "csv") for feed in kinds[kind][1]],
    )
    return {
        name: resident(folder / name.replace(", ", "-"), url, model, sources=sources, feeds=feeds, file=file)
        for name, (sources, feeds) in kinds.items()
    }


def resident(
    data: Path,
    url: str,
    model: str,
    *,
    sources: list[str],
    feeds: Sequence[Callable[[], None]],
    file: Path,
) -> float:
    file.write_text(HEADER)
    with agent(data, url, model, sources) as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: bool(view(data).get("link_up")), process)
        for number, feed in enumerate(feeds, start=1):
            until(lambda feed=feed, number=number: fed(data, feed) >= number, process, pause_s=0.2)
        return round(psutil.Process(process.pid).memory_info().rss / 1e6, 1)


def fed(data: Path, feed: Callable[[], None]) -> int:
    """Feed once more, and count the sources that have given a reading."""
    feed()
    return sum(source["readings"] > 0 for source in view(data).get("sources", []))


def view(data: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ask(data, {"ask": "view"})["view"]
    except ControlError:
        return {}
    return found


# -- what feeds it -----------------------------------------------------------------------------------------


def readings(number: int) -> Iterator[str]:
    """JSON lines, a second apart up to now, of a patient who is a little alive."""
    first = datetime.now(UTC) - timedelta(seconds=number)
    for k in range(number):
        yield (
            json.dumps(
                {
                    "observed_at": (first + timedelta(seconds=k)).isoformat(),
                    "heart_rate": 70 + k % 7,
                    "respiratory_rate": 14 + k % 3,
                    "spo2": 95 + k % 4,
                    "systolic_bp": 118 + k % 9,
                    "temperature": 36.8 + k % 5 / 10,
                }
            )
            + "\n"
        )


def grow(file: Path) -> None:
    with file.open("a") as grown:
        grown.write(f"{datetime.now(UTC).isoformat()},72,,,,\n")


def publish(url: str) -> None:
    host, port = url.removeprefix("mqtt://").split(":")
    payload = json.dumps({"observed_at": datetime.now(UTC).isoformat(), "spo2": 97})
    mqtt_publish.single(
        "monitors/bed-01", payload, qos=1, hostname=host, port=int(port), protocol=MQTTProtocolVersion.MQTTv5
    )


def send_hl7(port: int) -> None:
    from hl7.client import MLLPClient

    now = datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")
    segments = (
        f"MSH|^~\\&|MONITOR|WARD|SAMD|BED|{now}||ORU^R01^ORU_R01|{time.monotonic_ns()}|P|2.6",
        "PID|||4711",
        f"OBR|1|||VITALS|||{now}",
        f"OBX|1|NM|9279-1^Respiratory rate^LN||16|/min|||||F|||{now}",
    )
    with MLLPClient("127.0.0.1", port) as client:
        client.send_message("\r".join(segments))


def post_fhir(port: int) -> None:
    import httpx

    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "effectiveDateTime": datetime.now(UTC).isoformat(),
        "valueQuantity": {"value": 72, "system": "http://unitsofmeasure.org", "code": "/min"},
    }
    httpx.post(f"http://127.0.0.1:{port}/Observation", json=observation, timeout=10).raise_for_status()


def commits(path: Path, rows: Sequence[str]) -> float:
    """Rows a second that a bare loop commits, each for itself, as the agent's store is set."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, body BLOB)")
    began = time.perf_counter()
    for row in rows:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO readings (body) VALUES (?)", (row,))
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return len(rows) / seconds


# -- processes ---------------------------------------------------------------------------------------------


def trained(folder: Path) -> Path:
    """The default network, marked as trained: its answers are noise, and cost what a trained one's do."""
    import msgspec

    from samd_protocol import bundle as bundles

    source = bundles.read(untrained())
    manifest = msgspec.structs.replace(source.manifest, trained=True, hashes={})
    path = folder / "model.samd"
    bundles.write(path, msgspec.structs.replace(source, manifest=manifest))
    return path


@contextmanager
def broker() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "samd_gateway", "broker", "--port", str(port)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def agent(data: Path, url: str, model: str, sources: list[str]) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "samd_edge", "run", "--device", "bed-01", "--data-dir", str(data)]
    command += ["--broker", url, "--model", model, "--no-prefork", "--log-level", "error"]
    for source in sources:
        command += ["--source", source]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def until(check: Callable[[], bool], process: "subprocess.Popen[str]", pause_s: float = 0.005) -> None:
    end = time.monotonic() + PATIENCE_S
    while not check():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the agent ended with {process.poll()}, or took longer than {PATIENCE_S:g} s")
        time.sleep(pause_s)


def count(data: Path, table: str) -> int:
    store = data / "admissions" / "local" / "store.sqlite"
    if not store.exists():
        return 0
    connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute(f"SELECT COALESCE(MAX(id), 0) FROM {table}").fetchone()[0])  # noqa: S608
    except sqlite3.Error:
        return 0  # it is just being made
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
