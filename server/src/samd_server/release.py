"""Putting a model where devices can fetch it: upload to the gateway, then announce, retained."""

import hashlib
import logging
import ssl
import threading
import time
from collections.abc import Callable

import httpx

from samd_protocol.broker import read_secret
from samd_protocol.bundle import Bundle, pack
from samd_protocol.messages import ModelRelease
from samd_server.errors import ServerError

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Releaser:
    """Uploads in the background until the gateway has it, then announces; of each task the newest wish wins.

    A gateway that is away delays a release and stops nothing else.
    """

    def __init__(
        self,
        gateway: str,
        announce: Callable[[ModelRelease], None],
        *,
        token_file: str | None = None,
        ca_file: str | None = None,
        retry_s: float = 1.0,
    ) -> None:
        """`token_file`: a file of mode 0600 with the token for a gateway that has users; `ca_file`: what its
        certificate is checked against. Raises ServerError for an address that is no http:// or https:// URL,
        for a token that would cross a network in clear, and for files that cannot be used."""
        self._gateway = gateway.rstrip("/")
        self._trust_env = check_url(gateway) not in LOOPBACK
        self._token = check_token(gateway, token_file)
        self._verify = _context(ca_file)
        self._announce = announce
        self._retry_s = retry_s
        self._wishes: dict[str, Bundle] = {}
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._announced: dict[str, int] = {}
        self._thread = threading.Thread(target=self._work, name="releaser", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(5.0)

    def release(self, bundle: Bundle) -> None:
        """Wish that this bundle be the released one of its task; returns at once."""
        with self._changed:
            self._wishes[bundle.manifest.task] = bundle
            self._changed.notify_all()

    def wait_announced(
        self,
        version: int,
        timeout: float,
        *,
        task: str = "severity",
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Whether this version was announced within `timeout` seconds; gives up once `stop` says so."""
        closes = time.monotonic() + timeout
        with self._changed:
            while self._announced.get(task) != version:
                left = closes - time.monotonic()
                if left <= 0 or stop() or self._ended.is_set():
                    return False
                self._changed.wait(min(left, 0.25))
        return True

    def _work(self) -> None:
        warned = False
        while not self._ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._wishes or self._ended.is_set())
                if not self._wishes:
                    return
                # the next in turn: one that the gateway refuses does not stand in the way of another
                task = next(iter(self._wishes))
                bundle = self._wishes[task] = self._wishes.pop(task)
            data = pack(bundle)
            sha256 = hashlib.sha256(data).hexdigest()
            url = f"{self._gateway}/api/models/{sha256}.samd"
            try:
                # A proxy of the environment is no way to our own machine.
                with httpx.Client(trust_env=self._trust_env, timeout=10.0, verify=self._verify) as client:
                    headers = {"content-type": "application/zip"}
                    if self._token is not None:
                        headers["authorization"] = f"Bearer {self._token}"
                    answer = client.put(url, content=data, headers=headers).raise_for_status()
                url += _query(answer)
            except httpx.HTTPError as error:
                if not warned:
                    log.warning("the gateway does not take the model yet (%s); trying again", _told(error))
                    warned = True
                self._ended.wait(self._retry_s)
                continue
            warned = False
            with self._changed:
                if self._wishes.get(task) is not bundle:
                    continue
            manifest = bundle.manifest
            self._announce(
                ModelRelease(
                    version=manifest.version,
                    sha256=sha256,
                    size=len(data),
                    url=url,
                    task=manifest.task,
                    trained=manifest.trained,
                )
            )
            log.info("model %d for %s announced", manifest.version, task)
            with self._changed:
                self._announced[task] = manifest.version
                if self._wishes.get(task) is bundle:
                    del self._wishes[task]
                self._changed.notify_all()


def _query(answer: httpx.Response) -> str:
    """What the gateway wants to see of who fetches the file, with its `?`. Of its answer's address this part
    alone: the gateway may be known by other names to itself than to us and the devices."""
    try:
        query = httpx.URL(str(answer.json()["url"])).query.decode("ascii")
    except (ValueError, KeyError, TypeError, httpx.InvalidURL):
        return ""
    return f"?{query}" if query else ""


def _told(error: httpx.HTTPError) -> str:
    """The fault, with the remedy where we know one."""
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
        return (
            f"it answers {error.response.status_code}: it wants a token with the scope 'models'; "
            "samd-gateway tokens add server --scope models, then --gateway-token-file FILE"
        )
    return str(error)


def check_token(gateway: str, token_file: str | None) -> str | None:
    """The token of the file. Raises ServerError, and BrokerError for a file that others can read."""
    host = check_url(gateway)
    if token_file is None:
        return None
    if httpx.URL(gateway).scheme == "http" and host not in LOOPBACK:
        raise ServerError(f"gateway {gateway!r}: the token would cross the network in clear; write https://")
    token = read_secret(token_file)
    if not token.isascii():
        raise ServerError(f"{token_file}: holds no token; samd-gateway tokens add makes one")
    return token


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ServerError(f"{ca_file}: cannot be used as the gateway's authority ({error})") from error


def check_url(gateway: str) -> str:
    """The host of the gateway's address. Raises ServerError."""
    remedy = f"gateway {gateway!r}: write http://HOST:PORT"
    try:
        url = httpx.URL(gateway)
    except httpx.InvalidURL as error:
        raise ServerError(f"{remedy} ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ServerError(remedy)
    return url.host
