"""Durable messages a second into the gateway, beside a plain paho loop that stores nothing.

Starts the embedded broker and `samd-gateway serve` as processes; a publisher process sends assessments of a
number of devices at QoS 1. A message counts once its transaction is committed (synced to disk). The peer is a
subscriber of the same messages that counts and acknowledges automatically. Both sides run in the same minute
on the same machine, in turns, and the publisher shares its cores: `per_cpu_second` divides by the processor
time of the receiving process alone, which is what one core of its own would reach. Where SAMD_NODE_RED names
a Node-RED (see `node_red.py`), its consumer is measured in the same turns.

    python benchmarks/gateway_ingest.py [--messages 20000] [--devices 10] [--repeat 3]
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import node_red
import psutil

from samd_protocol import broker as brokers
from samd_protocol import envelope, topics
from samd_protocol.messages import Assessment, ModelView, News2

SIGNS = ("respiratory_rate", "spo2", "systolic_bp", "heart_rate", "temperature")


def message() -> Assessment:
    """An assessment of the usual size, about 700 bytes on the wire."""
    return Assessment(
        observed_at=datetime.now(UTC),
        news2=News2(
            total=None,
            low=4,
            high=9,
            band="low",
            points=dict.fromkeys(SIGNS, 1),
            missing=["consciousness", "supplemental_oxygen"],
        ),
        rule_severity=1,
        rule_severity_possible=3,
        severity=1,
        disagreement=False,
        model=ModelView(severity=1, probabilities=[0.2, 0.5, 0.2, 0.1], version=3),
        missing=["consciousness", "supplemental_oxygen"],
        reading_age_s=2.0,
    )


def publish(url: str, count: int, devices: int, prefix: str) -> None:
    """The publisher process: everything sealed beforehand, then sent as fast as the broker takes it."""
    names = [f"{prefix}-{index}" for index in range(devices)]
    sealers = {name: envelope.Sealer(name, 1) for name in names}
    body = message()
    sealed = [
        (names[i % devices], envelope.encode(sealers[names[i % devices]].seal(body))) for i in range(count)
    ]
    broker = brokers.Broker(url=url)
    client = brokers.make_client(broker, f"publisher-{prefix}", max_inflight=1000)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    brokers.connect(client, broker, clean_start=True)
    client.loop_start()
    if not connected.wait(10):
        raise SystemExit("no broker")
    print("go", flush=True)
    last = None
    for name, payload in sealed:
        last = client.publish(topics.up(name, "assessment"), payload, qos=1)
    if last is not None:
        last.wait_for_publish(300)
    client.disconnect()
    client.loop_stop()


def listen(url: str, count: int) -> None:
    """The plain loop: counts, stores nothing; prints its seconds and its processor seconds."""
    broker = brokers.Broker(url=url)
    client = brokers.make_client(broker, "plain-listener")
    done, subscribed = threading.Event(), threading.Event()
    seen: list[float] = []

    def on_message(*_: Any) -> None:
        seen.append(time.perf_counter())
        if len(seen) == count:
            done.set()

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_connect = lambda *_: client.subscribe(topics.every_up("assessment"), 1)
    brokers.connect(client, broker, clean_start=True)
    client.loop_start()
    if not subscribed.wait(10):
        raise SystemExit("no broker")
    cpu = time.process_time()
    print("go", flush=True)
    if not done.wait(300):
        raise SystemExit(f"only {len(seen)} of {count} arrived")
    print(json.dumps({"seconds": seen[-1] - seen[0], "cpu_seconds": time.process_time() - cpu}), flush=True)
    client.disconnect()
    client.loop_stop()


@contextmanager
def started(
    *command: str, stdin: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and the first line that it printed; ended at the end."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        line = process.stdout.readline().strip() if process.stdout else ""
        if not line:
            raise SystemExit(f"{command[2:4]} did not start")
        yield process, line
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def itself(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, __file__, *arguments)


def plain(url: str, count: int, devices: int, prefix: str) -> dict[str, float]:
    with (
        started(*itself("--listen", url, "--messages", str(count))) as (listener, _),
        started(
            *itself("--publish", url, "--messages", str(count), "--devices", str(devices), "--prefix", prefix)
        ),
    ):
        line = listener.stdout.readline() if listener.stdout else ""
    answer: dict[str, float] = json.loads(line)
    return answer


def durable(url: str, count: int, devices: int, prefix: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        serve = (
            sys.executable,
            "-m",
            "samd_gateway",
            "serve",
            "--broker",
            url,
            "--port",
            "0",
            "--data",
            folder,
        )
        with (
            started(*serve) as (gateway, line),
            httpx.Client(base_url=line.split()[1], trust_env=False) as http,
        ):

            def committed() -> float:
                text = http.get("/metrics").text
                wanted = 'samd_gateway_messages_total{kind="assessment"} '
                return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(wanted))

            before = psutil.Process(gateway.pid).cpu_times()
            with started(
                *itself(
                    "--publish", url, "--messages", str(count), "--devices", str(devices), "--prefix", prefix
                )
            ):
                began = time.perf_counter()
                deadline = began + 300
                while committed() < count:
                    if time.perf_counter() > deadline:
                        raise SystemExit(f"only {committed():.0f} of {count} were committed")
                    time.sleep(0.05)
                seconds = time.perf_counter() - began
            after = psutil.Process(gateway.pid).cpu_times()
    return {
        "seconds": seconds,
        "cpu_seconds": after.user + after.system - before.user - before.system,
    }


def node_red_writes(url: str, count: int, devices: int, prefix: str) -> dict[str, float]:
    """Node-RED's consumer: received, appended to a file, not synced."""
    program = node_red.installed()
    if program is None:
        raise SystemExit("SAMD_NODE_RED names no program")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with node_red.running(program, url, port) as peer:
        before = peer.cpu_seconds()
        with started(
            *itself("--publish", url, "--messages", str(count), "--devices", str(devices), "--prefix", prefix)
        ):
            began = time.perf_counter()
            while peer.count() < count:
                if time.perf_counter() - began > 300:
                    raise SystemExit(f"only {peer.count()} of {count} were written by Node-RED")
                time.sleep(0.05)
            seconds = time.perf_counter() - began
        return {"seconds": seconds, "cpu_seconds": peer.cpu_seconds() - before}


def figures(results: list[dict[str, float]], count: int) -> dict[str, float]:
    return {
        "messages_per_second": round(count / statistics.median(each["seconds"] for each in results)),
        "per_cpu_second": round(count / statistics.median(each["cpu_seconds"] for each in results)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--publish", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--listen", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--prefix", default="bench", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        publish(arguments.publish, arguments.messages, arguments.devices, arguments.prefix)
        return 0
    if arguments.listen:
        listen(arguments.listen, arguments.messages)
        return 0
    count, devices = arguments.messages, arguments.devices
    measures = {"plain_paho_loop": plain, "durable": durable}
    if node_red.installed():
        measures["node_red_file"] = node_red_writes
    results: dict[str, list[dict[str, float]]] = {name: [] for name in measures}
    for index in range(arguments.repeat):
        for name, measure in measures.items():
            with started(sys.executable, "-m", "samd_gateway", "broker", "--port", "0") as (_, line):
                results[name].append(measure(line.split()[1], count, devices, f"r{index}"))
    print(
        json.dumps(
            {
                "benchmark": "gateway_ingest",
                "messages": count,
                "devices": devices,
                "bytes_each": len(envelope.encode(envelope.Sealer("bench-0", 1).seal(message()))),
                "repeats": arguments.repeat,
                **{name: figures(found, count) for name, found in results.items()},
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
