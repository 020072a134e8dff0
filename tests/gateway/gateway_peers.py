"""A real broker, real gateway processes, and devices and a server that speak the protocol by raw paho."""

import os
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import httpx
import paho.mqtt.client as mqtt
import pytest

from samd_protocol import broker as brokers
from samd_protocol import envelope, topics
from samd_protocol.messages import (
    Assessment,
    Command,
    Heartbeat,
    Message,
    News2,
    Result,
    RunOrder,
    RunStatus,
    ServerState,
    State,
    Training,
    TrainingStart,
)

T = TypeVar("T")

own_file = pytest.mark.skipif(
    "SAMD_TEST_DATABASE" in os.environ, reason="of the database file in the gateway's own folder"
)
"""For tests that look into the file itself, in a run that uses another database."""


def until(condition: Callable[[], T], seconds: float = 10.0, what: str = "") -> T:
    """Wait on a condition; its first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        threading.Event().wait(0.02)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    """A program of the package under test, started as a user would."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "samd_gateway", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.errors: list[str] = []
        self.lines: queue.Queue[str] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._read_errors, daemon=True),
            threading.Thread(target=self._read_lines, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_errors(self) -> None:
        for line in self.popen.stderr:
            self.errors.append(line)

    def _read_lines(self) -> None:
        for line in self.popen.stdout:
            self.lines.put(line.rstrip("\n"))

    def ready(self) -> str:
        """The address in the line `ready ADDRESS`."""
        try:
            word, address = self.lines.get(timeout=30.0).split()
        except queue.Empty:
            self.end(signal.SIGKILL)
            raise AssertionError(f"not ready: {''.join(self.errors)}") from None
        assert word == "ready"
        return address

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            code = self.popen.wait(15.0)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(5.0)
            raise
        finally:
            for thread in self._threads:
                thread.join(5.0)
            self.popen.stdout.close()
            self.popen.stderr.close()
        return code


class Gateway:
    """A gateway process with its data folder, which can be killed and started again. `elsewhere` gives the
    environment of a database that is not in that folder, where the whole run is to use one."""

    elsewhere: ClassVar[Callable[[Path], dict[str, str]] | None] = None

    def __init__(self, broker: str, data: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.arguments = ("serve", "--broker", broker, "--port", "0", "--data", str(data), *options)
        self.data = data
        self.env = env
        if env is None and Gateway.elsewhere is not None:
            self.env = Gateway.elsewhere(data)
        self.start()

    def start(self) -> None:
        self.process = Process(*self.arguments, env=self.env)
        self.url = self.process.ready()
        self.http = httpx.Client(base_url=self.url, timeout=10.0, trust_env=False)
        until(lambda: self.get("/healthz")["broker"] == "ok", seconds=30.0, what="broker")

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self.http.get(path, params=query).json()

    def device(self, name: str) -> dict[str, Any] | None:
        response = self.http.get(f"/api/devices/{name}")
        return response.json() if response.status_code == 200 else None

    def run(self, name: str) -> dict[str, Any]:
        return self.get(f"/api/runs/{name}")

    def metric(self, name: str) -> float:
        text = self.http.get("/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.http.close()
        return self.process.end(number)


class Peer:
    """An MQTT client that seals what it sends; the base of the device and of the server."""

    def __init__(
        self, url: str, name: str, *, boot: int = 1, client_id: str | None = None, will: Any = None
    ) -> None:
        self.name = name
        self.sealer = envelope.Sealer(name, boot, clock=lambda: "synced")
        self.inbox: queue.Queue[tuple[str, bytes]] = queue.Queue()
        broker = brokers.Broker(url=url)
        self.client = brokers.make_client(broker, client_id or f"{name}-{uuid.uuid4().hex[:6]}")
        self._connected = threading.Event()
        self._subscribed = threading.Event()
        self.client.on_connect = lambda *_: self._connected.set()
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda _c, _d, message: self.arrived(message)
        if will is not None:
            topic, message = will
            self.client.will_set(topic, envelope.encode(self.sealer.seal(message)), qos=1, retain=True)
        brokers.connect(self.client, broker)
        self.client.loop_start()
        assert self._connected.wait(10.0)

    def subscribe(self, *filters: str) -> None:
        self._subscribed.clear()
        self.client.subscribe([(one, 1) for one in filters])
        assert self._subscribed.wait(10.0)

    def arrived(self, message: mqtt.MQTTMessage) -> None:
        self.received(message.topic, message.payload)

    def received(self, topic: str, payload: bytes) -> None:
        self.inbox.put((topic, payload))

    def publish(
        self, topic: str, payload: bytes, qos: int = 1, *, retain: bool = False
    ) -> mqtt.MQTTMessageInfo:
        return self.client.publish(topic, payload, qos, retain)

    def send(self, topic: str, message: Message, qos: int = 1, *, retain: bool = False) -> envelope.Envelope:
        sealed = self.sealer.seal(message)
        self.publish(topic, envelope.encode(sealed), qos, retain=retain)
        return sealed

    def die(self) -> None:
        """Drop the connection without a word, so that the broker sends the will."""
        self.client.loop_stop()
        self.client.socket().close()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Device(Peer):
    """Answers `training.start` by `answer`: accepted, a reason to reject, or None for silence."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        answer: str | None = "accepted",
        boot: int = 1,
        connection: int = 1,
        boot_id: str | None = None,
        interval_s: float = 30.0,
    ) -> None:
        self.answer = answer
        self.connection = connection
        self.boot_id = boot_id or f"{name}-boot-{boot}"
        self.interval_s = interval_s
        self.commands: list[Any] = []
        super().__init__(url, name, boot=boot, will=(topics.up(name, "state"), self.state("offline")))
        self.subscribe(topics.down(name, "command"))
        self.born = self.send(topics.up(name, "state"), self.state("online"), retain=True)
        self.beat()

    def state(self, status: str) -> State:
        return State(
            status=status,
            boot_id=self.boot_id,
            connection=self.connection,
            client_version="0.1.0",
            model_version=3,
        )

    def beat(self) -> None:
        self.send(
            topics.up(self.name, "heartbeat"), Heartbeat(interval_s=self.interval_s, uptime_s=1.0), qos=0
        )

    def received(self, topic: str, payload: bytes) -> None:
        sealed = envelope.decode(payload)
        assert isinstance(sealed.data, Command)
        self.commands.append(sealed.data.body)
        if isinstance(sealed.data.body, TrainingStart):
            if self.answer is None:
                return
            accepted = self.answer == "accepted"
            self.result(sealed.id, "accepted" if accepted else "rejected", None if accepted else self.answer)

    def result(self, command: str, status: str, reason: str | None = None) -> None:
        self.send(topics.up(self.name, "result"), Result(command=command, status=status, reason=reason))

    def assess(self, total: int = 3, **changes: Any) -> envelope.Envelope:
        return self.send(topics.up(self.name, "assessment"), assessment(total, **changes))

    def train(self, run: str, round_: int, phase: str) -> None:
        self.send(topics.up(self.name, "training"), Training(run=run, round=round_, phase=phase))

    def told_to_stop(self, run: str) -> bool:
        return any(type(body).__name__ == "TrainingStop" and body.run == run for body in self.commands)


class Server(Peer):
    """A Flower server as the wire sees it."""

    def __init__(self, url: str, *, boot: int = 1) -> None:
        self.orders: queue.Queue[RunOrder] = queue.Queue()
        super().__init__(
            url,
            "server",
            boot=boot,
            client_id=f"server-{uuid.uuid4().hex[:6]}",
            will=(topics.SERVER_STATE, ServerState(status="offline", version="0.1.0")),
        )
        self.subscribe(topics.SERVER_ORDER)
        self.send(
            topics.SERVER_STATE,
            ServerState(
                status="online", version="0.1.0", model_version=3, graph_sha256="a" * 64, task="severity"
            ),
            retain=True,
        )

    def received(self, topic: str, payload: bytes) -> None:
        self.orders.put(envelope.decode(payload).data)

    def order(self, seconds: float = 10.0) -> RunOrder:
        return self.orders.get(timeout=seconds)

    def status(self, run: str, phase: str, **fields: Any) -> None:
        self.send(topics.SERVER_RUN, RunStatus(run=run, phase=phase, **fields), retain=True)


def assessment(total: int = 3, **changes: Any) -> Assessment:
    fields: dict[str, Any] = {
        "observed_at": datetime.now(UTC),
        "news2": News2(
            total=None,
            low=total,
            high=total + 5,
            band="low",
            points={"heart_rate": 1, "spo2": total - 1},
            missing=["consciousness"],
        ),
        "rule_severity": 1,
        "rule_severity_possible": 3,
        "severity": 1,
        "disagreement": False,
        "missing": ["consciousness"],
        "reading_age_s": 2.0,
    }
    return Assessment(**(fields | changes))


def stored(data: Path, kind: str = "assessment") -> list[tuple[str, int]]:
    """Device and number of each message that is in a gateway's database."""
    if Gateway.elsewhere is not None:
        from postgres import connect_as

        with connect_as(Gateway.elsewhere(data)) as database:
            return database.execute("SELECT device, seq FROM messages WHERE kind = %s", (kind,)).fetchall()
    with sqlite3.connect(f"file:{data}/gateway.sqlite3?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT device, seq FROM messages WHERE kind = ?", (kind,)).fetchall()
    connection.close()
    return rows
