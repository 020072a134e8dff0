"""The data folder of one gateway: for its owner alone, locked while in use, with an id of its own."""

import fcntl
import os
import secrets
from pathlib import Path
from typing import IO

from samd_gateway.errors import UsageError

ID_FILE = "id"


def prepare_folder(path: Path) -> IO[str]:
    """Create the data folder, for its owner alone, and lock it. Raises UsageError if that fails."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(path, 0o700)
        lock = (path / "lock").open("w")
    except OSError as error:
        raise UsageError(
            f"--data {path}: cannot be used ({error.strerror}); choose a folder of your own"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UsageError(
            f"--data {path}: another gateway uses it; stop that one, or choose another folder"
        ) from error
    return lock


def folder_id(path: Path) -> str:
    """12 hexadecimal digits that name this folder, made when it is first used. Raises UsageError.

    Whoever holds the folder's lock knows by it that an earlier process on this folder is dead."""
    file = path / ID_FILE
    try:
        kept = file.read_text("utf-8").strip() if file.exists() else ""
        if len(kept) == 12 and all(digit in "0123456789abcdef" for digit in kept):
            return kept
        made = secrets.token_hex(6)
        with open(file, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
            out.write(made + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read or written; choose a --data folder of your own") from error
    return made
