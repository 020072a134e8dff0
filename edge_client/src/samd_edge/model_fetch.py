"""Fetching a released model over HTTP(S): resumed after an interruption, verified before it is kept.

A release says length and SHA-256. What is already on the disk is not fetched again; an interrupted fetch goes
on where it ended (a range request); more bytes than announced, or other bytes, are thrown away.
"""

import hashlib
import http.client
import logging
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from samd_edge.models import Held, ModelError, Shelf, same_file, sync_folder
from samd_protocol import bundle as bundles
from samd_protocol.errors import BundleError
from samd_protocol.messages import ModelRelease

log = logging.getLogger(__name__)

CHUNK: Final = 65_536
TIMEOUT_S: Final = 10.0
RETRY_S: Final = (0.5, 60.0)
"""First and longest pause between attempts; each attempt goes on where the last one ended."""
MAX_ATTEMPTS: Final = 20


class Transient(ModelError):  # noqa: N818  (the type is the retry policy)
    """A fetch was interrupted; it will likely succeed soon, from where it stopped."""


def check_release(release: ModelRelease) -> None:
    """Refuse an announcement that cannot be true. Raises ModelError."""
    if urlsplit(release.url).scheme not in ("http", "https"):
        raise ModelError(f"model {release.version}: its address is neither http nor https; it is not fetched")
    if not 0 < release.size <= bundles.MAX_BYTES:
        raise ModelError(
            f"model {release.version}: {release.size} bytes are announced, "
            f"at most {bundles.MAX_BYTES} are fetched"
        )
    if len(release.sha256) != 64 or set(release.sha256) - set("0123456789abcdef"):
        raise ModelError(f"model {release.version}: its SHA-256 is none")


def fetch_once(release: ModelRelease, part: Path, *, timeout_s: float = TIMEOUT_S) -> None:
    """Bring `part` to its full length, going on where it ends.

    Raises Transient when it was interrupted, ModelError when what came is not what was announced; `part` is
    then removed, so that the next attempt begins anew.
    """
    digest = hashlib.sha256()
    have = 0
    if part.exists():
        with part.open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
                have += len(piece)
    if have < release.size:
        # the scheme was checked by check_release: nothing but http and https is opened
        request = urllib.request.Request(release.url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
                if urlsplit(response.url).scheme not in ("http", "https"):
                    raise ModelError(f"model {release.version}: was led away from http; it is not fetched")
                if have and not (
                    response.status == 206
                    and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
                ):
                    digest, have = hashlib.sha256(), 0  # a server without ranges sends all of it again
                have = _receive(response, part, digest, have, release)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:
                    part.unlink(missing_ok=True)
            raise Transient(f"model {release.version}: the server answers {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Transient(f"model {release.version}: the fetch was interrupted ({error})") from error
    if have < release.size:
        raise Transient(f"model {release.version}: {have} of {release.size} bytes came")
    if have > release.size or digest.hexdigest() != release.sha256:
        part.unlink(missing_ok=True)
        raise ModelError(
            f"model {release.version}: what came does not match the announced size and hash; it is not loaded"
        )


def _receive(response: Any, part: Path, digest: Any, have: int, release: ModelRelease) -> int:
    with part.open("ab" if have else "wb") as file:
        while piece := response.read(CHUNK):
            have += len(piece)
            if have > release.size:
                break
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return have


class Fetcher:
    """Fetches what is announced, one release at a time, in a thread of its own; of each task the newest.

    `done(release, held)` is called in that thread when a verified bundle is kept, `failed(release, text)`
    when it has to be given up.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        done: Callable[[ModelRelease, Held], None],
        failed: Callable[[ModelRelease, str], None],
        retry_s: tuple[float, float] = RETRY_S,
        max_attempts: int = MAX_ATTEMPTS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._shelf = shelf
        self._done = done
        self._failed = failed
        self._retry_s = retry_s
        self._max_attempts = max_attempts
        self._now = now
        self._wanted: dict[str, ModelRelease] = {}
        self._attempts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model-fetcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def want(self, release: ModelRelease) -> None:
        """Fetch this one; a fetch of another one of its task that is going on is given up."""
        with self._changed:
            self._wanted[release.task] = release
            self._attempts.pop(release.sha256, None)
            self._changed.notify_all()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread; what was fetched so far stays, and is gone on with at the next announcement."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._wanted)
                if self._stopping:
                    return
                release = self._wanted.pop(next(iter(self._wanted)))
            try:
                held = self._get(release)
            except (ModelError, BundleError, OSError) as error:
                self._failed(release, str(error))
            else:
                if held is not None:
                    self._done(release, held)

    def _get(self, release: ModelRelease) -> Held | None:
        check_release(release)
        held = self._shelf.find(release.version, release.sha256)
        if held is not None and same_file(held.path, held.sha256):
            return held
        self._shelf.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._shelf.folder / f".{release.version}-{release.sha256}.part"
        begin = time.monotonic()
        while True:
            try:
                fetch_once(release, part)
                break
            except Transient as error:
                if not self._again(release, str(error)):
                    return None
        try:
            bundle = bundles.read(part, sha256=release.sha256)
        except BundleError:
            part.unlink(missing_ok=True)
            raise
        if bundle.manifest.version != release.version:
            part.unlink(missing_ok=True)
            raise ModelError(
                f"model {release.version} was announced, the file says {bundle.manifest.version}; "
                "it is not loaded"
            )
        if bundle.manifest.task != release.task:
            part.unlink(missing_ok=True)
            raise ModelError(
                f"model {release.version} was announced for {release.task!r}, the file is for "
                f"{bundle.manifest.task!r}; it is not loaded"
            )
        target = self._shelf.path_of(release.version, release.sha256)
        part.replace(target)
        sync_folder(self._shelf.folder)
        log.info("model %d fetched in %.2f s", release.version, time.monotonic() - begin)
        return self._shelf.record(bundle, target, now=self._now())

    def _again(self, release: ModelRelease, reason: str) -> bool:
        """Pause; whether to go on with this one now. Another task that waits has its turn first."""
        number = self._attempts[release.sha256]
        self._attempts[release.sha256] += 1
        if number + 1 >= self._max_attempts:
            raise ModelError(f"model {release.version}: given up after {self._max_attempts} attempts")
        pause = min(self._retry_s[1], self._retry_s[0] * 2**number) * random.uniform(0.5, 1.0)  # noqa: S311
        log.info("%s; again in %.1f s", reason, pause)
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or release.task in self._wanted, pause)
            if self._stopping:
                return False
            if self._wanted:
                self._wanted.setdefault(release.task, release)
                return False
        return True
