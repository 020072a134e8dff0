"""One patient's readings out of a data set, in a process of its own.

The readers of open data sets load pandas, several times the memory that an agent may use. So an agent that
plays such a data set lets this module read it: ``python -m samd_edge.sources.extract PATH [PATIENT]``
writes a ``Recording`` as MessagePack on standard output, or one line of error and exit code 2.
"""

import sys
from pathlib import Path

import msgspec

from samd_data.errors import DataError
from samd_data.reading import Recording


def recording(path: Path, patient: str | None) -> Recording:
    """The readings of one patient; the patient may be left out when there is only one.

    Raises ``DataError`` when there is no such data set, or no such patient: then some that exist are named.
    """
    from samd_data.datasets import open_dataset

    dataset = open_dataset(path, patients=None if patient is None else [patient])
    if patient is not None and patient in dataset.patients():
        return dataset.recording(patient)
    if patient is not None:
        dataset = open_dataset(path)  # all of it, to name some patients that are there
    names = dataset.patients()
    some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if not names:
        raise DataError(f"{path}: holds no patient with readings; name another data set")
    if patient is not None:
        raise DataError(f"{path}: has no patient {patient!r}; it has {some}")
    if len(names) > 1:
        raise DataError(f"{path}: holds {len(names)} patients; choose one with ?patient=N: {some}")
    return dataset.recording(names[0])


def main(arguments: list[str]) -> int:
    """Read, write, answer with the exit code."""
    path, *rest = arguments
    try:
        found = recording(Path(path), rest[0] if rest else None)
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.buffer.write(msgspec.msgpack.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
