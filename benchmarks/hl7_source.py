"""HL7 messages a second through MLLP to a committed assessment, beside a listener that only acknowledges.

Starts `samd-edge run --source hl7:PORT` (rule and model; no broker is reachable, so the outbox fills up) as a
process. A second process sends ORU^R01 with five OBX each by python-hl7's client, which waits for the
acknowledgement of a message before it sends the next on that connection: once over one connection, once over
several. Afterwards the assessments in the agent's store are counted: one for each message, or the figure does
not count. The peer gets the same messages from the same sender: python-hl7's own MLLP server, which parses
each and acknowledges it, and does nothing else. `per_cpu_second` divides by the processor time of the
receiving process alone, since sender and receiver share the cores.

    python benchmarks/hl7_source.py [--messages 3000] [--connections 4] [--repeat 3]
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil
from hl7.client import MLLPClient
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

from samd_protocol import bundle as bundles
from samd_scripts.network import untrained

WARM_UP = 200
VALUES = (
    ("147842^MDC_ECG_HEART_RATE^MDC", 70, 20, "264864^MDC_DIM_BEAT_PER_MIN^MDC"),
    ("151562^MDC_RESP_RATE^MDC", 13, 6, "264928^MDC_DIM_RESP_PER_MIN^MDC"),
    ("150456^MDC_PULS_OXIM_SAT_O2^MDC", 96, 4, "262688^MDC_DIM_PERCENT^MDC"),
    ("150021^MDC_PRESS_BLD_NONINV_SYS^MDC", 115, 10, "266016^MDC_DIM_MMHG^MDC"),
    ("150392^MDC_TEMP_TYMP^MDC", 36.5, 1, "268192^MDC_DIM_DEGC^MDC"),
)


# --- the sender --------------------------------------------------------------------------------------------


def message(number: int, at: datetime) -> bytes:
    """As a bedside monitor sends it; the values wander within what is normal."""
    time_ = f"{at:%Y%m%d%H%M%S.%f}"[:-2] + "+0000"
    segments = [
        rf"MSH|^~\&|MONITOR|ICU|SAMD|BENCH|{time_}||ORU^R01^ORU_R01|{number}|P|2.6|||NE|AL||UNICODE UTF-8",
        "PID|||10006^^^WARD^MR||DOE^JANE",
        "PV1||I|ICU^^BED-01",
        f"OBR|1|||182777000^monitoring of patient^SCT|||{time_}",
    ]
    for sequence, (code, base, width, unit) in enumerate(VALUES, start=1):
        value = base + (number * (2 * sequence + 1) // 7) % width
        segments.append(f"OBX|{sequence}|NM|{code}|1.1.1.{sequence}|{value}|{unit}|||||F")
    return ("\r".join(segments) + "\r").encode()


def send(port: int, count: int, connections: int) -> None:
    """The sender process: prints seconds and the round trips in milliseconds as one JSON line."""
    begin = datetime.now(UTC) - timedelta(hours=1)
    step = timedelta(seconds=3500) / (WARM_UP + count)
    messages = [message(number, begin + number * step) for number in range(WARM_UP + count)]

    def converse(mine: list[bytes]) -> list[float]:
        took = []
        with MLLPClient("127.0.0.1", port) as client:
            for data in mine:
                began = time.perf_counter()
                answer = client.send_message(data)
                took.append((time.perf_counter() - began) * 1e3)
                if b"MSA|AA|" not in answer:
                    raise SystemExit(f"not acknowledged: {answer!r}")
        return took

    converse(messages[:WARM_UP])
    shares = [messages[WARM_UP + number :: connections] for number in range(connections)]
    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        round_trips = sorted(took for share in pool.map(converse, shares) for took in share)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "round_trips_ms": round_trips}), flush=True)


# --- what receives -----------------------------------------------------------------------------------------


def acknowledge() -> None:
    """The peer: python-hl7's server, which parses and acknowledges. Prints its port."""

    async def serve(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                received = await reader.readmessage()
                writer.writemessage(received.create_ack())
                await writer.drain()
        writer.close()

    async def run() -> None:
        server = await start_hl7_server(serve, "127.0.0.1", 0, encoding="utf-8")
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def through_the_agent(folder: Path, model: Path, count: int, connections: int) -> dict[str, float]:
    port = free_port()
    command = ["-m", "samd_edge", "run", "--device", "bench", "--source", f"hl7:{port}", "--no-prefork"]
    command += ["--broker", "mqtt://127.0.0.1:1", "--data-dir", str(folder), "--model", str(model)]
    with ended(started(*command, "--log-level", "error")) as agent:
        if agent.stdout is None or agent.stdout.readline() != "ready bench\n":
            raise SystemExit("the agent did not get ready")
        figures = measured(port, agent.pid, count, connections)
    (store,) = folder.glob("admissions/*/store.sqlite")
    with contextlib.closing(sqlite3.connect(store)) as database:
        query = (
            "SELECT count(*), sum(json_extract(CAST(body AS TEXT), '$.data.model') IS NOT NULL) "
            "FROM assessments WHERE reading IS NOT NULL"
        )
        assessed, with_model = database.execute(query).fetchone()
    if assessed != WARM_UP + count or with_model != assessed:
        raise SystemExit(f"{assessed} assessments, {with_model} by the model, of {WARM_UP + count} messages")
    return figures


def only_acknowledged(count: int, connections: int) -> dict[str, float]:
    with ended(started("-W", "ignore", __file__, "acknowledge")) as peer:
        if peer.stdout is None:
            raise SystemExit("the peer did not start")
        return measured(int(peer.stdout.readline()), peer.pid, count, connections)


def measured(port: int, pid: int, count: int, connections: int) -> dict[str, float]:
    """The sender's figures, and the processor time of the receiver meanwhile."""
    before = sum(psutil.Process(pid).cpu_times()[:2])
    arguments = ["send", "--port", str(port), "--messages", str(count), "--connections", str(connections)]
    sent = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE)
    used = sum(psutil.Process(pid).cpu_times()[:2]) - before
    got = json.loads(sent.stdout)
    trips = got["round_trips_ms"]
    return {
        "per_second": round(count / got["seconds"]),
        "per_cpu_second": round((WARM_UP + count) / used),
        "p50_ms": round(trips[len(trips) // 2], 2),
        "p99_ms": round(trips[len(trips) * 99 // 100], 2),
    }


def median(figures: list[dict[str, float]]) -> dict[str, Any]:
    """The run of median speed, with the range of all."""
    speeds = [figure["per_second"] for figure in figures]
    middle = statistics.median_low(speeds)
    chosen = next(figure for figure in figures if figure["per_second"] == middle)
    return chosen | {"range": [min(speeds), max(speeds)]}


def compare(count: int, connections: int, repeat: int) -> dict[str, Any]:
    ways = {"one_connection": 1, f"{connections}_connections": connections}
    agent: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    peer: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        source = bundles.read(untrained())
        model = folder / "model.samd"
        manifest = msgspec.structs.replace(source.manifest, trained=True, hashes={})
        bundles.write(model, msgspec.structs.replace(source, manifest=manifest))
        for turn in range(repeat):
            for way, number in ways.items():
                agent[way].append(through_the_agent(folder / f"{way}-{turn}", model, count, number))
                peer[way].append(only_acknowledged(count, number))
    return {
        "messages": count,
        "to_a_committed_assessment": {way: median(figures) for way, figures in agent.items()},
        "peer": "python-hl7's MLLP server: parses and acknowledges, nothing else",
        "only_acknowledged": {way: median(figures) for way, figures in peer.items()},
        "cores": os.cpu_count(),
        "runtime": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("compare", "send", "acknowledge"), default="compare")
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "send":
        send(options.port, options.messages, options.connections)
    elif options.part == "acknowledge":
        warnings.simplefilter("ignore", DeprecationWarning)
        acknowledge()
    else:
        print(json.dumps(compare(options.messages, options.connections, options.repeat), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
