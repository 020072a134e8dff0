"""A file that grows, read as ``tail -F`` does: whole lines, as soon as they are complete.

A line is taken only with its end: a number that is cut off looks like another number. When the file is
replaced (a new one under its name) or becomes shorter, that is said, and reading goes on at the beginning of
what lies there now, header included; what stood there without an end of line is rejected. A file that is not
there yet, or is gone, is waited for.

A writer may go on in the old file for a moment after the new one has appeared: the old one is left once it
has not grown for a quarter of a second. What is written to it later is lost.
"""

import io
import logging
import os
import stat
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, Literal

from samd_data.errors import DataError
from samd_data.plausibility import Rejection, shown
from samd_data.reading import Reading
from samd_data.table import read_rows
from samd_edge.clock import Clock
from samd_edge.sources import SourceError
from samd_edge.sources.rows import RowSource

log = logging.getLogger(__name__)

POLL_S: Final = 0.25
"""How often the file is looked at: four times a second."""

_CHUNK: Final = 65_536
_LONGEST: Final = 262_144  # bytes; a longer line is handed on in pieces, and rejected as too long
_KNOWN: Final = 64  # bytes before the place of reading, to see that they are still the same

End = Literal["", "replaced", "shortened", "stopped"]


class FollowSource(RowSource):
    """The rows of a file that grows; see the module. It never ends by itself."""

    def __init__(self, path: Path, clock: Clock) -> None:
        stop = threading.Event()
        rows = _rows(path, stop)
        super().__init__(rows, clock, stop=stop.set, close=rows.close)


def check(path: Path) -> None:
    """Look at what is there already. Raises SourceError or DataError when it cannot be followed."""
    try:
        fd = _open(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        first, end, _ = os.pread(fd, _CHUNK, 0).partition(b"\n")
    finally:
        os.close(fd)
    if end and first.strip():
        next(read_rows(io.StringIO(f"{first.decode(errors='replace')}\n"), str(path)), None)


def _rows(path: Path, stop: threading.Event) -> Generator[Reading | Rejection, None, None]:
    """The rows of one file after the other under the same name, until stopped."""
    while (fd := _wait_for(path, stop)) is not None:
        tail = _Tail(fd, path, stop)
        # Bytes that are no UTF-8 spoil the value that they stand in, not the source.
        with io.TextIOWrapper(io.BufferedReader(tail), encoding="utf-8", errors="replace") as text:
            try:
                yield from read_rows(text, str(path))
            except DataError as error:
                if tail.lines:
                    yield _no_table(path, error)
                    tail.skip()
            if tail.rest and tail.end != "stopped":
                yield _torn(path, tail)
        if tail.end == "replaced":
            log.warning("%s was replaced; reading goes on at the beginning of the new file", path.name)
        elif tail.end == "shortened":
            log.warning("%s was cut or written anew; it is read again from its beginning", path.name)


def _no_table(path: Path, error: DataError) -> Rejection:
    reason, _, remedy = str(error).removeprefix(f"{path}:1: ").partition("; ")
    why = f" ({reason})" if "'" not in reason else ""  # without what the file's own words are
    log.error(
        "%s: the file is no table%s and is left out until it is replaced or written anew", path.name, why
    )
    return Rejection(str(path), 1, "", "", reason, f"{remedy}; the file was left out")


def _torn(path: Path, tail: "_Tail") -> Rejection:
    reason = "the file ends within this line, so its last value may be cut off"
    return Rejection(
        str(path),
        tail.lines + 1,
        "",
        shown(tail.rest[:_KNOWN].decode(errors="replace")),
        reason,
        "end each line before the file is replaced; the line was left out",
    )


def _open(path: Path) -> int:
    """The file for reading. Raises OSError, and SourceError for what is no file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its writer
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceError(f"{path}: is no file that can grow; name a file, or read a pipe by the source -")
    return fd


def _wait_for(path: Path, stop: threading.Event) -> int | None:
    """The file, as soon as it is there; None once stopped."""
    said = ""
    while not stop.is_set():
        try:
            return _open(path)
        except FileNotFoundError:
            reason = "is not there yet"
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
        except SourceError:
            reason = "is no file"
        if reason != said:
            log.warning("%s %s; it is waited for", path.name, reason)
            said = reason
        stop.wait(POLL_S)
    return None


class _Tail(io.RawIOBase):
    """One file from its beginning until it is replaced, cut, or nobody wants more. Gives whole lines only.

    Owns ``fd``. ``lines``: how many were given. ``end``: why there are no more. ``rest``: what then stood
    there without an end of line.
    """

    def __init__(self, fd: int, path: Path, stop: threading.Event) -> None:
        super().__init__()
        self.lines = 0
        self.end: End = ""
        self.rest = b""
        self._fd = fd
        self._path = path
        self._stop = stop
        self._place = 0
        self._known = b""
        self._gone = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while (ready := self._ready()) == 0:
            if not self._grow():
                return 0
        data = self.rest[: min(ready, len(buffer))]
        self.rest = self.rest[len(data) :]
        self.lines += data.count(b"\n")
        buffer[: len(data)] = data
        return len(data)

    def skip(self) -> None:
        """Give no more of this file: wait until it ends."""
        while self._grow():
            self.rest = b""
        self.rest = b""

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()

    def _ready(self) -> int:
        """How many of the bytes at hand may be given."""
        whole = self.rest.rfind(b"\n") + 1
        return whole or (len(self.rest) if len(self.rest) > _LONGEST else 0)

    def _grow(self) -> bool:
        """Wait for more and read it; False when this file has ended."""
        quiet = False  # replaced, and not grown since the last look
        while not self.end:
            if self._stop.is_set():
                self.end = "stopped"
                break
            size = os.fstat(self._fd).st_size
            if size < self._place or (size > self._place and not self._same()):
                self.end = "shortened"
                break
            if size > self._place:
                self._read()
                return True
            if self._replaced():
                if quiet:
                    self.end = "replaced"
                    break
                quiet = True
            self._stop.wait(POLL_S)
        return False

    def _read(self) -> None:
        data = os.pread(self._fd, _CHUNK, self._place)
        self._place += len(data)
        self._known = (self._known + data)[-_KNOWN:]
        self.rest += data

    def _same(self) -> bool:
        """Whether the bytes before the place are those that were read: cut and grown again between two looks,
        a file may be as long as before."""
        return os.pread(self._fd, len(self._known), self._place - len(self._known)) == self._known

    def _replaced(self) -> bool:
        try:
            there = os.stat(self._path)
        except OSError:
            if not self._gone:
                log.warning("%s is gone; a new one is waited for", self._path.name)
            self._gone = True
            return False
        own = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino)
