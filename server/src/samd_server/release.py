"""Putting a model where devices can fetch it: upload to the gateway, then announce, retained."""

import logging
import threading
from collections.abc import Callable

import httpx

from samd_protocol.bundle import Bundle, pack
from samd_protocol.messages import ModelRelease

log = logging.getLogger(__name__)


class Releaser:
    """Uploads in the background until the gateway has it, then announces; the newest wish wins.

    A gateway that is away delays a release and stops nothing else.
    """

    def __init__(
        self, gateway: str, announce: Callable[[ModelRelease], None], *, retry_s: float = 1.0
    ) -> None:
        self._gateway = gateway.rstrip("/")
        self._announce = announce
        self._retry_s = retry_s
        self._wish: Bundle | None = None
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._announced: int | None = None
        self._thread = threading.Thread(target=self._work, name="releaser", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(5.0)

    def release(self, bundle: Bundle) -> None:
        """Wish that this bundle be the released one; returns at once."""
        with self._changed:
            self._wish = bundle
            self._changed.notify_all()

    def wait_announced(self, version: int, timeout: float) -> bool:
        """Whether this version was announced within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._announced == version or self._ended.is_set(), timeout)

    def _work(self) -> None:
        warned = False
        while not self._ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._wish is not None or self._ended.is_set())
                bundle = self._wish
            if bundle is None:
                return
            url = f"{self._gateway}/api/models/{bundle.sha256}.samd"
            try:
                data = pack(bundle)
                httpx.put(
                    url, content=data, headers={"content-type": "application/zip"}, timeout=10.0
                ).raise_for_status()
            except httpx.HTTPError as error:
                if not warned:
                    log.warning("the gateway does not take the model yet (%s); trying again", error)
                    warned = True
                self._ended.wait(self._retry_s)
                continue
            warned = False
            manifest = bundle.manifest
            self._announce(
                ModelRelease(
                    version=manifest.version,
                    sha256=bundle.sha256,
                    size=bundle.size,
                    url=url,
                    task=manifest.task,
                    trained=manifest.trained,
                )
            )
            log.info("model %d announced", manifest.version)
            with self._changed:
                self._announced = manifest.version
                if self._wish is bundle:
                    self._wish = None
                self._changed.notify_all()
