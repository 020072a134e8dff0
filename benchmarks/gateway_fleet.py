"""Ten thousand devices on one gateway: a day of their heartbeats in the database, then a restart.

The day goes through the writer's own code with a clock that is set ahead: each device beats once in each span
of the table `health` (`--beats` for more: the rows are the same, only fuller), with values that wander as
real ones do. At its end most devices live, some have fallen silent, some have said goodbye. Then
`samd-gateway serve` is started on that database as a process of its own, beside a broker, and timed until
`/metrics` tells of every device the state that it is in.

    python benchmarks/gateway_fleet.py [--devices 10000] [--beats 1] [--hours 24]
"""

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import psutil
from gateway_ingest import started
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.progress import track
from sqlalchemy import func, select

from samd_gateway import schema
from samd_gateway.health_buckets import SPAN_S
from samd_gateway.ingest import Ingest
from samd_gateway.intake import Item
from samd_gateway.metrics import Metrics
from samd_gateway.recorder import record, take_in
from samd_gateway.roster import Roster
from samd_gateway.schema import open_database
from samd_gateway.states import Policy
from samd_protocol.envelope import Envelope
from samd_protocol.messages import Heartbeat, Message, State

BATCH = 500
SILENT, GONE = 0.02, 0.01
"""Parts of the fleet that fall silent an hour before the end, and that say goodbye."""


class Day:
    """The writer's code without its thread, and a clock that this program sets."""

    def __init__(self, folder: Path, devices: int, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.database = open_database(None, folder)
        self.policy = Policy()
        self.roster = Roster(self.database, self.policy, now=lambda: self.now)
        self.ingest = Ingest(
            self.database,
            Metrics(),
            self.policy,
            self.roster,
            acknowledge=lambda batch: None,
            committed=lambda recorded: None,
            now=lambda: self.now,
        )
        self.names = [f"bed-{index:05d}" for index in range(devices)]
        self.seq = 0
        self.silent = set(self.names[: int(devices * SILENT)])
        self.gone = set(self.names[-int(devices * GONE) :]) if devices * GONE >= 1 else set()

    def item(self, name: str, message: Message) -> Item:
        self.seq += 1
        envelope = Envelope(
            v=1,
            id=f"{self.seq:032x}",
            device=name,
            boot=1,
            seq=self.seq,
            sent_at=datetime.fromtimestamp(self.now, UTC),
            clock="synced",
            data=message,
        )
        return Item(sender=name, kind=envelope.type, envelope=envelope, received_at=self.now)

    def commit(self, items: list[Item]) -> None:
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            with self.database.append({item.sender for item in batch}) as connection:
                recorded = record(connection, batch, self.policy, self.roster)
            take_in(recorded, self.roster, self.ingest.beats)

    def flush(self) -> None:
        while self.ingest.flush():
            pass

    def beat(self, interval_s: float) -> Heartbeat:
        value = self.random.random
        return Heartbeat(
            interval_s=interval_s,
            uptime_s=self.now % 1e6,
            load_1m=round(value() * 4, 2),
            memory_available_mb=round(200 + value() * 600, 1),
            resident_mb=round(50 + value() * 20, 1),
            temperature_c=round(40 + value() * 30, 1),
            disk_free_mb=round(8000 + value() * 1000, 1),
            outbox_depth=int(value() * 5),
            reading_age_s=round(value() * 60, 1),
            model_version=3,
        )

    def status(self, name: str, status: Literal["online", "offline"]) -> State:
        return State(status=status, boot_id=f"boot-{name}", connection=1, client_version="0.1.0")


def simulate(folder: Path, devices: int, beats: int, hours: float, console: Console) -> dict[str, float]:
    """Write the day; it ends now."""
    day = Day(folder, devices, seed=1)
    spans = max(int(hours * 3600 / SPAN_S), 1)
    end = time.time()
    begin = end - spans * SPAN_S
    interval = SPAN_S / beats
    count = 0
    wall, cpu = time.perf_counter(), time.process_time()
    day.now = begin
    day.commit([day.item(name, day.status(name, "online")) for name in day.names])
    for span in track(range(spans), "a day of heartbeats", console=console):
        for part in range(beats):
            # of the last ones some time has passed already when the gateway is started
            day.now = begin + span * SPAN_S + part * interval
            if span == spans - 1:
                day.now = max(day.now, end - 5.0)
            sending = day.names if day.now < end - 3600.0 else [n for n in day.names if n not in day.silent]
            day.commit([day.item(name, day.beat(interval)) for name in sending])
            count += len(sending)
            day.flush()
    day.now = end
    day.commit([day.item(name, day.status(name, "offline")) for name in sorted(day.gone)])
    day.ingest.beats.close()
    day.flush()
    seconds, cpu = time.perf_counter() - wall, time.process_time() - cpu
    with day.database.read() as connection:
        rows = connection.scalar(select(func.count()).select_from(schema.health)) or 0
    day.database.close()
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return {
        "heartbeats": count,
        "health_rows": rows,
        "database_mb": round(size / 1e6, 1),
        "seconds": round(seconds, 1),
        "heartbeats_per_cpu_second": round(count / cpu),
        "silent": len(day.silent),
        "gone": len(day.gone),
    }


def states(http: httpx.Client) -> dict[str, int]:
    """How many devices are in which state, as Prometheus is told."""
    found = {}
    for line in http.get("/metrics").text.splitlines():
        if line.startswith("samd_gateway_devices{"):
            found[line.split('"')[1]] = int(float(line.split()[-1]))
    return found


def restart(folder: Path, expected: dict[str, int]) -> dict[str, float]:
    """Start a gateway on the database; seconds until every state is right."""
    with started(sys.executable, "-m", "samd_gateway", "broker", "--port", "0") as (_, line):
        command = (sys.executable, "-m", "samd_gateway", "serve", "--broker", line.split()[1])
        began = time.perf_counter()
        with started(*command, "--port", "0", "--data", str(folder)) as (gateway, address):
            ready = time.perf_counter() - began
            with httpx.Client(base_url=address.split()[1], trust_env=False, timeout=30.0) as http:
                deadline = began + 120
                while (found := states(http)) != expected:
                    if time.perf_counter() > deadline:
                        raise SystemExit(f"the states are {found}, expected were {expected}")
                    time.sleep(0.02)
                right = time.perf_counter() - began
                process = psutil.Process(gateway.pid)
                resident = process.memory_info().rss
                listed = time.perf_counter()
                devices = len(http.get("/api/devices").json()["devices"])
                listed = time.perf_counter() - listed
                if devices != sum(expected.values()):
                    raise SystemExit(f"{devices} devices are listed, expected were {sum(expected.values())}")
                pages = answers(http)
                first_paint = first_rows(address.split()[1])
                return {
                    **pages,
                    "fleet_page_first_rows_s": first_paint,
                    "ready_s": round(ready, 2),
                    "states_right_s": round(right, 2),
                    "resident_mb": round(resident / 1e6, 1),
                    "resident_after_listing_all_mb": round(process.memory_info().rss / 1e6, 1),
                    "list_all_s": round(listed, 2),
                }


QUERIES = {
    "fleet_first_page_ms": {},
    "fleet_filter_state_ms": {"state": "offline"},
    "fleet_filter_text_ms": {"text": "99"},
    "fleet_sorted_ms": {"sort": "last_heard", "descending": True},
}


def answers(http: httpx.Client) -> dict[str, float]:
    """The slowest of ten answers of the fleet's API to each query, milliseconds."""
    found = {}
    for name, query in QUERIES.items():
        times = []
        for _ in range(10):
            began = time.perf_counter()
            answer = http.get("/api/fleet", params={"limit": 50, **query}).json()
            times.append(time.perf_counter() - began)
            if not answer["rows"]:
                raise SystemExit(f"{name}: no device was found")
        found[name] = round(max(times) * 1000, 1)
    return found


def first_rows(url: str) -> float:
    """Seconds from the call of the fleet's page in a browser to its fifty rows; without a browser none."""
    browser = shutil.which("chromium")
    if browser is None:
        return float("nan")
    flags = ["--headless", "--no-sandbox", "--disable-background-networking", "--disable-gpu"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=flags)
        times = []
        for _ in range(2):  # the first one fetches what a browser keeps
            page = opened.new_page()
            began = time.perf_counter()
            page.goto(f"{url}/fleet")
            page.wait_for_function("document.querySelectorAll('tr[data-device]').length === 50")
            times.append(time.perf_counter() - began)
            page.close()
        opened.close()
    return round(min(times), 2)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--beats", type=int, default=1, help="heartbeats of a device in each 5 minutes")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--repeat", type=int, default=3, help="restarts")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o700)
        day = simulate(folder, arguments.devices, arguments.beats, arguments.hours, console)
        expected = {
            "online": arguments.devices - int(day["silent"]) - int(day["gone"]),
            "stale": 0,
            "offline": int(day["silent"]) + int(day["gone"]),
            "unknown": 0,
        }
        restarts = [restart(folder, expected) for _ in range(arguments.repeat)]
    print(
        json.dumps(
            {
                "benchmark": "gateway_fleet",
                "devices": arguments.devices,
                "hours": arguments.hours,
                "beats_per_span": arguments.beats,
                "day": day,
                "restart": {key: sorted(each[key] for each in restarts) for key in restarts[0]},
                "cores": os.cpu_count(),
                "load_1m": os.getloadavg()[0],
                "python": platform.python_version(),
            },
            indent=2,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
