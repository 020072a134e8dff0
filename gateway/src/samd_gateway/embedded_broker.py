"""The embedded broker, for a first try on one machine: rumqttd of the wheel `iotcore`, in a child process.

It speaks MQTT 5 on 127.0.0.1 without authentication and keeps nothing on disk. Verified by tests: retained
messages, last wills, message expiry, user properties, sessions that outlive a connection, manual
acknowledgement, payloads of 1 MiB. Not to be used with it: shared subscriptions (`$share` stops the broker)
and acknowledgements out of order (it drops the connection).

The broker has no way to be stopped from inside its process; so this process starts it, watches it, and ends
it with itself. The child ends by itself when its standard input closes, even if this process is killed.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from samd_gateway.errors import UsageError
from samd_gateway.listen import bind, check_loopback

MAX_PAYLOAD_BYTES = 1_048_576
MAX_INFLIGHT = 100
"""Messages that the broker sends to one client ahead of its acknowledgements; rumqttd goes no higher."""

SEGMENT_BYTES, SEGMENTS = 8 * 1024 * 1024, 8
"""What is kept in memory for each subscribed filter, for clients that are away: the oldest goes first."""

ALIASES = 4096
"""What rumqttd says of topic aliases, whatever it is configured to."""

REMEDY = "for other machines use Mosquitto with a certificate for each device"

_CHILD = """
import logging, os, sys, threading
logging.getLogger("rumqttd").disabled = True
logging.basicConfig(level=logging.CRITICAL)
def leave():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=leave, daemon=True).start()
from iotcore.iotcore import IotCoreBroker
IotCoreBroker(config_path=sys.argv[1]).run_forever()
"""
# The chatter of the router is one record for each packet, all of them at level ERROR: it is switched off.


def config(host: str, port: int) -> str:
    """The TOML that rumqttd reads: one listener, MQTT 5 only."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"""id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = {MAX_INFLIGHT}
max_segment_size = {SEGMENT_BYTES}
max_segment_count = {SEGMENTS}

[v5.1]
name = "samd"
listen = "{address}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {MAX_PAYLOAD_BYTES}
max_inflight_count = {MAX_INFLIGHT}
dynamic_filters = true
"""


def is_embedded(connack: Any) -> bool:
    """Whether the properties of a CONNACK are those of this broker: it names nothing but 4096 aliases."""
    return getattr(connack, "TopicAliasMaximum", None) == ALIASES and not hasattr(connack, "ReceiveMaximum")


def accepts(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _child(host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory(prefix="samd-broker-") as folder:
        path = Path(folder) / "rumqttd.toml"
        path.write_text(config(host, port))
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CHILD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if not os.environ.get("SAMD_BROKER_LOG") else None,
            start_new_session=True,  # a Ctrl-C reaches this process alone, which ends the child
        )
        try:
            yield process
        finally:
            process.kill()  # it keeps nothing on disk, so there is nothing to finish
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def run(host: str, port: int, announce: Callable[[str], None], *, start_timeout_s: float = 20.0) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `announce` gets the one line of readiness.

    Port 0 takes a free one. Raises UsageError for a host beyond loopback and a port in use.
    """
    host = check_loopback(host, REMEDY)
    probe = bind(host, port, "broker")
    port = probe.getsockname()[1]
    probe.close()
    stopped = threading.Event()
    received: list[int] = []

    def stop(signum: int, _frame: object) -> None:
        received.append(signum)
        stopped.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _child(host, port) as process:
            deadline = time.monotonic() + start_timeout_s
            while not stopped.is_set() and not accepts(host, port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise UsageError(
                        "the embedded broker did not start; is the wheel iotcore complete? "
                        "Try: python -m iotcore --listen 127.0.0.1, or use Mosquitto"
                    )
                stopped.wait(0.02)
            if not stopped.is_set():
                announce(f"ready mqtt://{f'[{host}]' if ':' in host else host}:{port}")
            while not stopped.wait(0.5):
                if process.poll() is not None:
                    raise UsageError(
                        f"the embedded broker ended by itself (exit {process.returncode}); start it again."
                        " Shared subscriptions ($share) stop it: those need Mosquitto"
                    )
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 130 if received and received[0] == signal.SIGINT else 0
