"""Putting a model where devices can fetch it: upload to the gateway, then announce, retained."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable

import httpx

from samd_protocol.bundle import Bundle, pack
from samd_protocol.messages import ModelRelease
from samd_server.errors import ServerError

log = logging.getLogger(__name__)


class Releaser:
    """Uploads in the background until the gateway has it, then announces; of each task the newest wish wins.

    A gateway that is away delays a release and stops nothing else.
    """

    def __init__(
        self, gateway: str, announce: Callable[[ModelRelease], None], *, retry_s: float = 1.0
    ) -> None:
        """Raises ServerError for an address that is no http:// or https:// URL."""
        self._gateway = gateway.rstrip("/")
        self._trust_env = check_url(gateway) not in ("127.0.0.1", "localhost", "::1")
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
                with httpx.Client(trust_env=self._trust_env, timeout=10.0) as client:
                    headers = {"content-type": "application/zip"}
                    client.put(url, content=data, headers=headers).raise_for_status()
            except httpx.HTTPError as error:
                if not warned:
                    log.warning("the gateway does not take the model yet (%s); trying again", error)
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
