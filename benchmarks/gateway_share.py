"""Two gateways that share the messages of one Mosquitto by `$share`, beside one that has them all.

All of them write into one PostgreSQL of their own, as gateways of one ward do. A publisher process sends
assessments of a number of devices at QoS 1; a message counts once a gateway has committed it. Broker,
database and publisher need processor time too: `cores_busy` says how much of this machine's was in use, and
where that is all of it, the second gateway has nothing left to gain.

    python benchmarks/gateway_share.py [--messages 20000] [--devices 100] [--repeat 3]

Needs `mosquitto`, and PostgreSQL's server programs (apt install mosquitto postgresql).
"""

import argparse
import json
import os
import platform
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import gateway_ingest
import httpx
import psutil

MOSQUITTO = """listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 1000000
max_inflight_messages 100
persistence false
"""
COUNTED = 'samd_gateway_messages_total{kind="assessment"} '


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(port: int, seconds: float = 20.0) -> None:
    """Wait until something accepts connections there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def mosquitto() -> Iterator[str]:
    """An open broker on a free port of this machine; its address."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise SystemExit("no Mosquitto is installed here; apt install mosquitto")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        configuration = Path(folder) / "mosquitto.conf"
        configuration.write_text(MOSQUITTO.format(port=port))
        Path(folder).chmod(0o755)
        quiet = subprocess.DEVNULL
        with ended(subprocess.Popen([program, "-c", str(configuration)], stdout=quiet, stderr=quiet)):
            answers(port)
            yield f"mqtt://127.0.0.1:{port}"


@contextmanager
def postgresql() -> Iterator[str]:
    """An empty database on a free port of this machine, which trusts whoever is on it; its URL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise SystemExit("no PostgreSQL server is installed here; apt install postgresql")
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to be root
        entry = pwd.getpwnam("postgres")
        who = {"user": entry.pw_uid, "group": entry.pw_gid}
    with tempfile.TemporaryDirectory() as folder:
        if who:
            os.chown(folder, who["user"], who["group"])
        data, port, quiet = f"{folder}/data", free_port(), subprocess.DEVNULL
        make = (
            "--pgdata",
            data,
            "--username",
            "samd",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--auth",
            "trust",
        )
        subprocess.run([found[-1] / "initdb", *make], check=True, stdout=quiet, cwd=folder, **who)
        command = (found[-1] / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder)
        with ended(subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=folder, **who)):
            answers(port)
            make_database = ("--host", "127.0.0.1", "--port", str(port), "--username", "samd", "bench")
            subprocess.run([found[-1] / "createdb", *make_database], check=True)
            yield f"postgresql+psycopg://samd@127.0.0.1:{port}/bench"


def committed(http: httpx.Client) -> int:
    text = http.get("/metrics").text
    return int(sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(COUNTED)))


def measure(gateways: int, count: int, devices: int, prefix: str) -> dict[str, Any]:
    """One turn: so many gateways on an empty database and a broker without a past."""
    with ExitStack() as stack:
        broker, database = stack.enter_context(mosquitto()), stack.enter_context(postgresql())
        processes, pages = [], []
        for index in range(gateways):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            process, line = stack.enter_context(
                gateway_ingest.started(
                    *(sys.executable, "-m", "samd_gateway", "serve", "--broker", broker, "--port", "0"),
                    *("--data", folder, "--name", f"gateway-{index}", "--share", "ward"),
                    env={"SAMD_DATABASE_URL": database},
                )
            )
            processes.append(psutil.Process(process.pid))
            pages.append(
                stack.enter_context(httpx.Client(base_url=line.split()[1], trust_env=False, timeout=30.0))
            )
        deadline = time.monotonic() + 60
        while not all(page.get("/healthz").status_code == 200 for page in pages):
            if time.monotonic() > deadline:
                raise SystemExit(
                    "a gateway is not well: " + str([page.get("/healthz").json() for page in pages])
                )
            time.sleep(0.1)
        before = [process.cpu_times() for process in processes]
        psutil.cpu_percent()
        publisher = ("--messages", str(count), "--devices", str(devices), "--prefix", prefix)
        with gateway_ingest.started(*gateway_ingest.itself("--publish", broker, *publisher)):
            began = time.perf_counter()
            while (done := [committed(page) for page in pages]) and sum(done) < count:
                if time.perf_counter() - began > 300:
                    raise SystemExit(f"only {sum(done)} of {count} were committed")
                time.sleep(0.1)
            seconds = time.perf_counter() - began
        busy = psutil.cpu_percent() / 100 * (os.cpu_count() or 1)
        after = [process.cpu_times() for process in processes]
        spent = [b.user + b.system - a.user - a.system for a, b in zip(before, after, strict=True)]
    return {"seconds": seconds, "cpu_seconds": spent, "busy": busy, "shares": [each / count for each in done]}


def figures(found: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """`if_the_gateways_had_cores_of_their_own`: by the time of the one that was busiest."""
    busiest = statistics.median(max(each["cpu_seconds"]) for each in found)
    return {
        "messages_per_second": round(count / statistics.median(each["seconds"] for each in found)),
        "if_the_gateways_had_cores_of_their_own": round(count / busiest),
        "largest_share": round(statistics.median(max(each["shares"]) for each in found), 3),
        "cores_busy": round(statistics.median(each["busy"] for each in found), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.messages
    results: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for index in range(arguments.repeat):
        for gateways, found in results.items():
            found.append(measure(gateways, count, arguments.devices, f"r{index}"))
    one, two = figures(results[1], count), figures(results[2], count)
    ratios = {key: round(two[key] / one[key], 2) for key in list(one)[:2]}
    print(
        json.dumps(
            {
                "benchmark": "gateway_share",
                "messages": count,
                "devices": arguments.devices,
                "repeats": arguments.repeat,
                "one_gateway": one,
                "two_gateways": two,
                "two_over_one": ratios,
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
