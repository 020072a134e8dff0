"""``os_list.json``: the images of a folder, as a repository for Raspberry Pi Imager.

In the Imager: ``rpi-imager --repo FILE``, or its settings, "Content repository". The images are then in its
list, and it checks the hash of what it writes.
"""

import fcntl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_scripts.flash.base import Info
from samd_scripts.flash.cache import whole
from samd_scripts.flash.errors import FlashError

FILE: Final = "os_list.json"
DEBIAN_MODELS: Final = ("pi4-64bit", "pi3-64bit")
"""The Imager's own tags. A Zero 2 W counts as a Pi 3."""
RASPIOS_MODELS: Final = ("pi5-64bit", *DEBIAN_MODELS)


def entry(name: str, info: Info, image: Path, *, size: int, sha256: str) -> dict[str, Any]:
    """One image. It is not compressed, so that what is downloaded is what is written."""
    return {
        "name": f"samd {name}",
        "description": f"Bedside device {name}: client {info.version}, {info.system}",
        "url": image.resolve().as_uri(),
        "extract_size": size,
        "extract_sha256": sha256,
        "image_download_size": size,
        "image_download_sha256": sha256,
        "release_date": datetime.now(UTC).date().isoformat(),
        "devices": list(RASPIOS_MODELS if info.raspios else DEBIAN_MODELS),
        # what the Imager would ask for is set already
        "init_format": "none",
    }


def add(folder: Path, new: dict[str, Any]) -> None:
    """Put an entry into the folder's list; one of the same name is replaced. Raises FlashError."""
    path = folder / FILE
    with (folder / f".{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = [old for old in _read(path) if old.get("name") != new["name"]]
        entries = sorted([*entries, new], key=lambda item: str(item["name"]))
        with whole(path) as partial:
            text = msgspec.json.format(msgspec.json.encode({"os_list": entries}), indent=2)
            partial.write_bytes(text + b"\n")
    (folder / f".{FILE}.lock").unlink(missing_ok=True)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, list[dict[str, Any]]])
    except msgspec.DecodeError as error:
        raise FlashError(f"{path}: is no list of Raspberry Pi Imager ({error}); move it away") from error
    return found.get("os_list", [])
