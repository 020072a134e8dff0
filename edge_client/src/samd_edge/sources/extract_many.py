"""The readings of many patients out of a data set, one patient after the other, from a process of its own.

As in ``extract``: the readers of open data sets load pandas, which a device may lack, and need more memory
than it has to spare. ``python -m samd_edge.sources.extract_many PATH [PATIENT ...]`` writes frames on
standard output (4 bytes of length, big-endian, and MessagePack): first a ``Contents``, then each
``Recording``. Or one line of error on standard error, and exit code 2.
"""

import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO, Final, TypeVar

import msgspec

from samd_data.errors import DataError
from samd_data.plausibility import printable
from samd_data.reading import Recording

_LENGTH: Final = struct.Struct(">I")
_SHOWN: Final = 5  # patients that an error names


class Contents(msgspec.Struct, frozen=True):
    """How many recordings follow."""

    patients: int


FrameT = TypeVar("FrameT", Contents, Recording)


class Recordings:
    """The recordings of a data set; a context, since a process may be running behind it.

    ``patients`` tells how many there are; iterating gives each once. Raises DataError, one line, for what
    cannot be read, also in the middle.
    """

    def __init__(self, path: Path, patients: Sequence[str] = ()) -> None:
        self._path = path
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the context)
        command = [sys.executable, "-m", "samd_edge.sources.extract_many", str(path), *patients]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors)
        try:
            self.patients = self._next(Contents).patients
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Recordings":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Recording]:
        for _ in range(self.patients):
            yield self._next(Recording)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdout is not None  # noqa: S101  (it was asked for)
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _next(self, kind: type[FrameT]) -> FrameT:
        assert self._process.stdout is not None  # noqa: S101
        body = _read(self._process.stdout)
        if body is None:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise DataError(printable(lines[-1] if lines else f"{self._path}: cannot be read"))
        return msgspec.msgpack.decode(body, type=kind)


def _read(stream: IO[bytes]) -> bytes | None:
    """The next frame; None when the stream has ended, even within one."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


def _write(stream: BinaryIO, message: Contents | Recording) -> None:
    body = msgspec.msgpack.encode(message)
    stream.write(_LENGTH.pack(len(body)) + body)


def write_all(path: Path, patients: Sequence[str], stream: BinaryIO) -> None:
    """Write the chosen patients, or all. Raises DataError for a data set or a patient that is not there."""
    from samd_data.datasets import open_dataset

    dataset = open_dataset(path, patients=patients or None)
    names = dataset.patients()
    absent = [patient for patient in patients if patient not in names]
    if absent:
        names = open_dataset(path).patients()  # all of it, to name some patients that are there
        some = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise DataError(f"{path}: has no patient {absent[0]!r}; it has {some}")
    if not names:
        raise DataError(f"{path}: holds no patient with readings; name another data set")
    _write(stream, Contents(len(names)))
    for name in names:
        _write(stream, dataset.recording(name))


def main(arguments: list[str]) -> int:
    """Read, write, answer with the exit code."""
    path, *patients = arguments
    try:
        write_all(Path(path), patients, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
