"""The command line's side of the HTTP API. Errors of every kind become one sentence with the remedy."""

import json
import ssl
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from samd_gateway import __version__
from samd_gateway.access.hosts import is_loopback
from samd_gateway.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    SignInError,
    UnavailableError,
    UsageError,
)
from samd_protocol.broker import read_secret

DEFAULT_URL = "http://127.0.0.1:8080"


def say(text: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Client:
    """Calls one gateway. Raises GatewayError, whose text is the gateway's own where it gave one.

    `token_file`: a file of mode 0600 with the token to send; `ca_file`: what the gateway's certificate is
    checked against, by default the authorities of the system.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        token_file: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--gateway {url!r}: write http://HOST:PORT")
        self.url = url.rstrip("/")
        headers = {"user-agent": f"samd-gateway/{__version__}"}
        if token_file is not None:
            headers["authorization"] = f"Bearer {self._read_token(token_file)}"
        # trust_env off: a proxy of the environment has no business between this machine and itself
        self._http = httpx.Client(
            base_url=self.url,
            timeout=timeout_s,
            trust_env=False,
            headers=headers,
            verify=_context(ca_file) if url.startswith("https://") else True,
        )

    def _read_token(self, token_file: str) -> str:
        try:
            host = httpx.URL(self.url).host
        except httpx.InvalidURL as error:
            raise UsageError(f"--gateway {self.url!r}: write https://HOST:PORT ({error})") from error
        if self.url.startswith("http://") and not is_loopback(host):
            raise UsageError(
                f"--gateway {self.url}: the token would cross the network in clear; write https://HOST:PORT"
            )
        token = read_secret(token_file)
        if not token.isascii():
            raise UsageError(f"{token_file}: holds no token; samd-gateway tokens add makes one")
        return token

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | bool | list[str]) -> dict[str, Any]:
        return self._call("GET", path, params=query)

    def post(
        self, path: str, body: dict[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        return self._call("POST", path, json=body, timeout=timeout)

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("PUT", path, json=body)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> dict[str, Any]:
        return self._call("DELETE", path)

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        self._check(response)
        if response.status_code == 204:
            return {}
        try:
            answer: dict[str, Any] = response.json()
        except ValueError as error:
            raise UsageError(
                f"{self.url} is no gateway of this project; give its address by --gateway"
            ) from error
        return answer

    @contextmanager
    def download(
        self, method: str, path: str, query: Mapping[str, str] | None = None, *, wait_s: float = 60.0
    ) -> Iterator[httpx.Response]:
        """An answer that is read in pieces, each within `wait_s`. Raises GatewayError also while it is read:
        an answer that breaks off is none."""
        try:
            timeout = httpx.Timeout(10.0, read=wait_s)
            with self._http.stream(method, path, params=query, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                self._check(response)
                yield response
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def upload(self, path: str, content: Iterable[bytes], *, wait_s: float) -> dict[str, Any]:
        """Send a file in pieces; its answer comes within `wait_s` of the last one."""
        timeout = httpx.Timeout(60.0, read=wait_s)
        headers = {"content-type": "application/gzip"}
        return self._call("POST", path, content=content, headers=headers, timeout=timeout)

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, data) of each event, until the gateway ends the stream."""
        try:
            with self._http.stream("GET", "/api/events", timeout=httpx.Timeout(10.0, read=40.0)) as response:
                if response.is_error:
                    response.read()
                self._check(response)
                name = ""
                for line in response.iter_lines():
                    if line.startswith("event:"):
                        name = line[6:].strip()
                    elif line.startswith("data:"):
                        yield name, json.loads(line[5:])
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> UnavailableError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UnavailableError(
                f"the certificate of {self.url} is not one that is trusted here; give its authority: "
                "--gateway-ca-file FILE, or SAMD_GATEWAY_CA_FILE"
            )
        return UnavailableError(
            f"no gateway answers at {self.url} ({type(error).__name__}); start it: samd-gateway serve, "
            "or give its address: --gateway URL, or SAMD_GATEWAY"
        )

    @staticmethod
    def _check(response: httpx.Response) -> None:
        if not response.is_error:
            return
        try:
            document = response.json()
            detail = str(document["detail"])
        except (ValueError, KeyError, TypeError):
            detail = f"the gateway answered {response.status_code} {response.reason_phrase}"
        if response.status_code == 401:
            raise SignInError(
                f"{detail}; the command takes it by --token-file FILE, or SAMD_GATEWAY_TOKEN_FILE"
            )
        if response.status_code == 403:
            raise ForbiddenError(detail)
        if response.status_code == 404:
            raise NotFoundError(detail)
        if response.status_code == 409:
            raise ConflictError(detail)
        if response.status_code >= 500:
            raise UnavailableError(detail)
        raise UsageError(detail)


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise UsageError(f"{ca_file}: cannot be used as the gateway's authority ({error})") from error
