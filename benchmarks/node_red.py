"""Node-RED as a peer of the gateway's ingest: its MQTT consumer, with each message appended to a file.

Not installed by this project: `npm install --prefix DIR node-red`, then name `DIR/node_modules/.bin/node-red`
by SAMD_NODE_RED. It acknowledges when it has received, not when it has written, and syncs nothing to disk.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from samd_protocol import topics


def installed() -> str | None:
    """The program, where one is named; it is not looked for."""
    program = os.environ.get("SAMD_NODE_RED")
    return program if program and Path(program).exists() else None


# Node-RED takes any value that is another node's id for a link to it: so the ids are like no other word here.
def flow(url: str, target: Path) -> list[dict[str, Any]]:
    """Subscribe, append, count, and tell the count at /count."""
    parts = urlsplit(url)
    return [
        {"id": "its-tab", "type": "tab", "label": "ingest"},
        {
            "id": "its-broker",
            "type": "mqtt-broker",
            "broker": parts.hostname,
            "port": str(parts.port),
            "clientid": "node-red",
            "autoConnect": True,
            "usetls": False,
            "protocolVersion": "5",
            "keepalive": "60",
            "cleansession": True,
        },
        {
            "id": "its-in",
            "type": "mqtt in",
            "z": "its-tab",
            "topic": topics.every_up("assessment"),
            "qos": "1",
            "datatype": "utf8",
            "broker": "its-broker",
            "wires": [["its-file"]],
        },
        {
            "id": "its-file",
            "type": "file",
            "z": "its-tab",
            "filename": str(target),
            "filenameType": "str",
            "appendNewline": True,
            "createDir": False,
            "overwriteFile": "false",
            "encoding": "utf8",
            "wires": [["its-count"]],
        },
        {
            "id": "its-count",
            "type": "function",
            "z": "its-tab",
            "func": "global.set('n', (global.get('n') || 0) + 1);\nreturn null;",
            "outputs": 1,
            "wires": [[]],
        },
        {
            "id": "its-http",
            "type": "http in",
            "z": "its-tab",
            "url": "/count",
            "method": "get",
            "wires": [["its-tell"]],
        },
        {
            "id": "its-tell",
            "type": "function",
            "z": "its-tab",
            "func": "msg.payload = {n: global.get('n') || 0};\nreturn msg;",
            "outputs": 1,
            "wires": [["its-answer"]],
        },
        {"id": "its-answer", "type": "http response", "z": "its-tab", "wires": []},
    ]


class NodeRed:
    """A running one."""

    def __init__(self, process: psutil.Process, http: httpx.Client) -> None:
        self._process = process
        self._http = http

    def count(self) -> int:
        """How many messages it has written."""
        return int(self._http.get("/count").json()["n"])

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def running(program: str, url: str, port: int) -> Iterator[NodeRed]:
    """Started with an empty folder, and ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "flow.json").write_text(json.dumps(flow(url, folder / "messages")))
        (folder / "settings.js").write_text(
            "module.exports = {uiHost: '127.0.0.1', httpAdminRoot: false, flowFile: 'flow.json', "
            "telemetry: {enabled: false}, logging: {console: {level: 'warn'}}};"
        )
        process = subprocess.Popen(
            ["node", os.path.realpath(program), "--userDir", name, "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30.0) as http:
                _wait(http)
                yield NodeRed(psutil.Process(process.pid), http)
        finally:
            process.terminate()
            process.wait(20)


def _wait(http: httpx.Client, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if http.get("/count").status_code == 200:
                time.sleep(2.0)  # its flows run; whether it has subscribed it does not tell
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("Node-RED did not start; try: node-red --help")
