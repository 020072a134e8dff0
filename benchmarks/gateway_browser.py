"""From a message to the browser: how long until the ward's page shows it, at 500 messages a second.

Starts the embedded broker, `samd-gateway serve` and a real Chromium with the ward's page open. A publisher
process sends assessments of a ward of devices, each with the next score of a cycle; an observer in the page
notes when a card shows another score. Of each message counts the time until its card showed it or a later one
of the same device. Both clocks are this machine's.

    python benchmarks/gateway_browser.py [--rate 500] [--devices 50] [--seconds 20]
"""

import argparse
import bisect
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from typing import Any

from gateway_ingest import SIGNS, started
from playwright.sync_api import sync_playwright

from samd_protocol import broker as brokers
from samd_protocol import envelope, topics
from samd_protocol.messages import Assessment, Heartbeat, ModelView, News2, State

CYCLE = 21
"""Totals of NEWS2 that are sent one after another, 0 to 20."""
FLAGS = ["--headless", "--no-sandbox", "--disable-background-networking", "--disable-gpu"]
OBSERVER = """() => {
  window.seen = [];
  const last = {};
  const look = () => {
    const now = Date.now();
    for (const card of document.querySelectorAll("article[data-device]")) {
      const device = card.dataset.device, score = card.querySelector(".score")?.textContent.trim();
      if (last[device] !== score) { last[device] = score; window.seen.push([device, score, now]); }
    }
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true, characterData: true });
  look();
}"""


def assessment(total: int) -> Assessment:
    return Assessment(
        observed_at=datetime.now(UTC),
        news2=News2(
            total=total,
            low=total,
            high=total,
            band="high" if total >= 7 else "medium" if total >= 5 else "low",
            points=dict.fromkeys(SIGNS, 1),
            missing=[],
        ),
        rule_severity=1,
        rule_severity_possible=1,
        severity=1,
        disagreement=False,
        model=ModelView(severity=1, probabilities=[0.2, 0.5, 0.2, 0.1], version=3),
        reading_age_s=1.0,
    )


def publish(url: str, devices: int, rate: float, seconds: float) -> None:
    """The publisher process: births, then at the word `go` the messages; prints when each was sent."""
    names = [f"bed-{index:03d}" for index in range(devices)]
    sealers = {name: envelope.Sealer(name, 1, clock=lambda: "synced") for name in names}
    broker = brokers.Broker(url=url)
    client = brokers.make_client(broker, "browser-publisher", max_inflight=1000)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    brokers.connect(client, broker, clean_start=True)
    client.loop_start()
    if not connected.wait(10):
        raise SystemExit("no broker")
    for name in names:
        born = State(status="online", boot_id=f"boot-{name}", connection=1, client_version="0.1.0")
        client.publish(topics.up(name, "state"), envelope.encode(sealers[name].seal(born)), qos=1)
        beat = Heartbeat(interval_s=60.0, uptime_s=1.0, reading_age_s=1.0)
        client.publish(topics.up(name, "heartbeat"), envelope.encode(sealers[name].seal(beat)), qos=1)
        first = envelope.encode(sealers[name].seal(assessment(0)))
        client.publish(topics.up(name, "assessment"), first, qos=1)
    print("ready", flush=True)
    sys.stdin.readline()
    sent: list[tuple[str, int, float]] = []
    began = time.perf_counter()
    for index in range(int(rate * seconds)):
        wait = began + index / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        name, turn = names[index % devices], index // devices + 1
        payload = envelope.encode(sealers[name].seal(assessment(turn % CYCLE)))
        sent.append((name, turn, time.time()))
        client.publish(topics.up(name, "assessment"), payload, qos=1)
    took = time.perf_counter() - began
    print(json.dumps({"sent": sent, "seconds": took}), flush=True)
    sys.stdin.readline()
    client.disconnect()
    client.loop_stop()


def latencies(
    sent: list[tuple[str, int, float]], seen: list[tuple[str, str, float]]
) -> tuple[list[float], int]:
    """Seconds from each message to the moment its card showed it or a later one; and how many never were."""
    shown: dict[str, tuple[list[int], list[float]]] = {}
    for device, score, at_ms in seen:
        if not score.isdigit():
            continue
        turns, times = shown.setdefault(device, ([0], [0.0]))
        turn = turns[-1] + (int(score) - turns[-1]) % CYCLE  # the cycle is longer than any lag
        if turn > turns[-1]:
            turns.append(turn)
            times.append(at_ms / 1000)
    found, missed = [], 0
    for device, turn, at in sent:
        turns, times = shown.get(device, ([], []))
        place = bisect.bisect_left(turns, turn)
        if place == len(turns):
            missed += 1
        else:
            found.append(max(times[place] - at, 0.0))
    return found, missed


def measure(rate: float, devices: int, seconds: float) -> dict[str, Any]:
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("no chromium is installed here; apt install chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        started(sys.executable, "-m", "samd_gateway", "broker", "--port", "0") as (_, broker),
        started(
            *(sys.executable, "-m", "samd_gateway", "serve", "--broker", broker.split()[1]),
            *("--port", "0", "--data", folder),
        ) as (_, gateway),
        started(
            *(sys.executable, __file__, "--publish", broker.split()[1], "--devices", str(devices)),
            *("--rate", str(rate), "--seconds", str(seconds)),
            stdin=True,
        ) as (publisher, _),
        sync_playwright() as playwright,
    ):
        if publisher.stdin is None or publisher.stdout is None:
            raise SystemExit("the publisher has no pipes")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.set_default_timeout(120_000)
        page.goto(gateway.split()[1])
        page.wait_for_function(f"document.querySelectorAll('article[data-device]').length >= {devices}")
        page.evaluate(OBSERVER)
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        told = json.loads(publisher.stdout.readline())
        last = {name: turn % CYCLE for name, turn, _ in told["sent"]}
        # until the last of each is shown, so that none counts as missed that was only on its way
        page.wait_for_function(
            """last => Object.entries(last).every(([name, score]) =>
                 document.querySelector(`article[data-device="${name}"] .score`)
                   ?.textContent.trim() == score)""",
            arg=last,
        )
        seen = page.evaluate("window.seen")
        publisher.stdin.write("end\n")
        publisher.stdin.flush()
        browser.close()
    found, missed = latencies([tuple(each) for each in told["sent"]], seen)
    cuts = statistics.quantiles(found, n=100)
    return {
        "messages": len(told["sent"]),
        "sent_per_second": round(len(told["sent"]) / told["seconds"], 1),
        "changes_shown": len(seen),
        "never_shown": missed,
        "p50_ms": round(cuts[49] * 1000),
        "p95_ms": round(cuts[94] * 1000),
        "p99_ms": round(cuts[98] * 1000),
        "max_ms": round(max(found) * 1000),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rate", type=float, default=500.0, help="messages a second, of all devices together"
    )
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--publish", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        publish(arguments.publish, arguments.devices, arguments.rate, arguments.seconds)
        return 0
    figures = measure(arguments.rate, arguments.devices, arguments.seconds)
    print(
        json.dumps(
            {
                "benchmark": "gateway_browser",
                "rate": arguments.rate,
                "devices": arguments.devices,
                **figures,
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
