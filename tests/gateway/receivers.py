"""Real receivers of notifications: a web server that can fail, hang or kill, and a mail server with TLS."""

import base64
import hashlib
import hmac
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from email.message import Message as Mail
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import AuthResult, LoginPassword
from gateway_peers import free_port


class Request(NamedTuple):
    """A request as it came."""

    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.body)


class Receiver:
    """A web server on this machine. `answer` is called with each request and returns the status, or None to
    close the connection without one."""

    def __init__(self, answer: Callable[[Request], int | None] = lambda request: 204) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                request = Request(
                    {name.lower(): value for name, value in self.headers.items()}, self.rfile.read(length)
                )
                receiver.requests.append(request)
                status = receiver.answer(request)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                if status in (301, 302, 307, 308):
                    self.send_header("location", f"{receiver.url}/elsewhere")
                if status == 503:
                    self.send_header("retry-after", "1")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(5.0)
        self._server.server_close()


def verified(request: Request, key: bytes) -> bool:
    """Whether a request is signed as the Standard Webhooks specification says, and is recent."""
    signed = b".".join((request.key.encode(), request.headers["webhook-timestamp"].encode(), request.body))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    recent = abs(time.time() - int(request.headers["webhook-timestamp"])) < 60
    return recent and f"v1,{expected}" in request.headers["webhook-signature"].split(" ")


class MailServer:
    """A mail server that speaks STARTTLS and wants a password."""

    def __init__(self, folder: Path, password: str) -> None:
        self.mails: list[Mail] = []
        self.certificate = folder / "mail.pem"
        key = folder / "mail.key"
        make_certificate(self.certificate, key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, key)

        mails, self.port = self.mails, free_port()

        class Handler(Message):
            def handle_message(self, message: Mail) -> None:
                mails.append(message)

        def authenticate(_server: Any, _session: Any, _envelope: Any, _how: str, said: Any) -> AuthResult:
            right = isinstance(said, LoginPassword) and said.password == password.encode()
            return AuthResult(success=right, handled=False)

        self._controller = Controller(
            Handler(),
            hostname="127.0.0.1",
            port=self.port,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticate,
        )
        self._controller.start()

    def close(self) -> None:
        self._controller.stop()


def make_certificate(certificate: Path, key: Path) -> None:
    """A certificate of this machine, signed by itself."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
