"""The API against its own document: schemathesis, an independent reader of OpenAPI, calls every route with
what the document allows and with what it forbids.

One of its checks is left out: that every request which the schemas allow is accepted. What belongs together
(a start before an end, settings that a strategy has) is said by the answer, a problem document.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway_peers import Device, Gateway, Server, until

from samd_gateway.access.actor import PERMISSIONS
from samd_protocol import envelope
from samd_protocol.messages import Alert

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "use_after_free",
    "ensure_resource_availability",
)


class Obliging(Device):
    """Does all that it is told, so that nobody waits for an answer."""

    def received(self, topic: str, payload: bytes) -> None:
        super().received(topic, payload)
        self.result(envelope.decode(payload).id, "done")


@pytest.fixture
def gateway(own_broker: str, make_gateway: Callable, peers: Callable) -> Gateway:
    """With a device that has an assessment and an alert, and a server: something to answer with."""
    gateway = make_gateway(own_broker)
    peers(Server(own_broker))
    device = peers(Obliging(own_broker, "bed-01"))
    sent = device.assess(7)
    device.send(
        "samd/v1/d/bed-01/up/alert",
        Alert(
            alert_id="alert-1",
            state="raised",
            severity=3,
            observed_at=sent.data.observed_at,
            news2_low=7,
            news2_high=9,
        ),
    )
    until(lambda: gateway.get("/api/server")["status"] == "online" and gateway.get("/api/alerts")["alerts"])
    # with a user of one's own: the document's example makes one, and from then on nobody is let in without
    made = gateway.http.post(
        "/api/users", json={"name": "tester", "role": "admin", "password": "seven quiet herons at dawn"}
    )
    assert made.status_code == 201, made.text
    return gateway


def token(gateway: Gateway) -> str:
    """A token of the user, made in the gateway's folder."""
    path = gateway.data.parent / f"token-{uuid.uuid4().hex[:6]}"
    command = [sys.executable, "-m", "samd_gateway", "tokens", "add", "schemathesis", "--user", "tester"]
    scopes = [f"--scope={scope}" for scope in PERMISSIONS["admin"]]
    subprocess.run([*command, *scopes, f"--data={gateway.data}", f"--out={path}"], check=True, timeout=60)
    return path.read_text().strip()


def document_of(gateway: Gateway) -> dict:
    headers = {"authorization": f"Bearer {token(gateway)}"}
    return gateway.http.get("/openapi.json", headers=headers).json()


def run(gateway: Gateway, folder: Path, phases: str, examples: int) -> dict:
    """Schemathesis's verdict."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{gateway.url}/openapi.json"]
    command += ["--phases", phases, "--max-examples", str(examples), "--generation-deterministic"]
    command += ["--checks", ",".join(CHECKS), "--exclude-path", "/api/events", "--no-color"]
    command += ["--request-timeout", "90"]
    command += ["--header", f"Authorization: Bearer {token(gateway)}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    return {"code": done.returncode, "text": done.stdout + done.stderr}


def test_every_route_keeps_to_the_document(gateway: Gateway, tmp_path: Path) -> None:
    document = document_of(gateway)
    assert sum(len(methods) for methods in document["paths"].values()) > 60
    ran = run(gateway, tmp_path, "examples,coverage", 1)
    assert ran["code"] == 0, ran["text"]


@pytest.mark.long
def test_every_route_keeps_to_the_document_whatever_comes(gateway: Gateway, tmp_path: Path) -> None:
    ran = run(gateway, tmp_path, "examples,coverage,fuzzing", 20)
    assert ran["code"] == 0, ran["text"]


def test_every_body_has_an_example_and_every_answer_a_shape(gateway: Gateway) -> None:
    document = document_of(gateway)
    schemas = document["components"]["schemas"]
    missing = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            for status in ("401", "403", "422", "503"):
                assert (
                    "application/problem+json" in operation["responses"][status]["content"]
                    or path == "/healthz"
                )
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                schema = body["schema"]
                schema = schemas[schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
                fields = schema.get("properties", {})
                shown = all("examples" in fields[name] for name in schema.get("required", fields))
                if not (shown or {"example", "examples"} & (body.keys() | schema.keys())):
                    missing.append((method, path))
    assert missing == []
    assert "HTTPValidationError" not in json.dumps(document)  # FastAPI's own shape, which is never sent
