"""An image onto a card: only onto a removable disk that nothing is mounted from, confirmed, and read back.

The disk that the running system lies on is refused, and so is one that is in use, one that is not removable,
a partition instead of a disk, and a disk that is too small. The bytes are read back from the disk itself,
past the cache, and compared.
"""

import hashlib
import json
import mmap
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from samd_scripts.flash import tools
from samd_scripts.flash.disk import MIB, open_disk
from samd_scripts.flash.errors import FlashError

PIECE: Final = 4 * MIB


@dataclass(frozen=True)
class Target:
    """A disk as lsblk sees it."""

    path: str
    size: int
    removable: bool
    model: str
    read_only: bool
    kind: str
    mounted: tuple[str, ...]

    @property
    def title(self) -> str:
        """For a person who has to recognise it."""
        return f"{self.path}: {self.model or 'no model'}, {self.size / 1e9:.1f} GB"


def look_at(path: Path, *, listing: Callable[[], str] | None = None) -> Target:
    """The disk behind a name. Raises FlashError for what is no disk."""
    try:
        resolved = path.resolve(strict=True)
        if not stat.S_ISBLK(resolved.stat().st_mode):
            raise FlashError(f"--to {path}: is no disk; lsblk lists them, as /dev/sda or /dev/mmcblk0")
    except OSError as error:
        raise FlashError(f"--to {path}: is not there ({error.strerror}); lsblk lists the disks") from error
    return parse((listing or _lsblk)(), str(resolved))


def _lsblk() -> str:
    tools.require("lsblk")
    columns = "PATH,SIZE,RM,RO,TYPE,MODEL,HOTPLUG,TRAN,MOUNTPOINTS"
    return tools.run("lsblk", "--json", "--bytes", "--tree", "--output", columns)


def parse(listing: str, path: str) -> Target:
    """One disk of lsblk's answer. Raises FlashError."""
    nodes: list[dict[str, Any]] = json.loads(listing)["blockdevices"]
    for node in nodes:
        if node["path"] == path:
            return Target(
                path=path,
                size=int(node["size"]),
                removable=bool(node.get("rm") or node.get("hotplug")) or node.get("tran") in ("usb", "mmc"),
                model=(node.get("model") or "").strip(),
                read_only=bool(node.get("ro")),
                kind=str(node.get("type")),
                mounted=tuple(_mounts(node)),
            )
    for node in nodes:
        if any(child["path"] == path for child in _below(node)):
            raise FlashError(f"--to {path}: is a part of {node['path']}; name the whole disk")
    raise FlashError(f"--to {path}: lsblk does not list it; is the card in?")


def _below(node: dict[str, Any]) -> list[dict[str, Any]]:
    children = node.get("children") or []
    return [*children, *(deeper for child in children for deeper in _below(child))]


def _mounts(node: dict[str, Any]) -> list[str]:
    return [point for part in (node, *_below(node)) for point in part.get("mountpoints") or [] if point]


def refusal(target: Target, size: int) -> str | None:
    """Why an image of so many bytes is not written there; None when it may be."""
    if {"/", "/boot", "/boot/efi", "/usr", "[SWAP]"} & set(target.mounted):
        return f"{target.path}: the running system lies on it; it is never written to"
    if target.mounted:
        places = ", ".join(target.mounted)
        return f"{target.path}: is mounted at {places}; unmount it first: umount {target.path}?*"
    if target.kind != "disk":
        return f"{target.path}: is a {target.kind}, and no disk"
    if not target.removable:
        return (
            f"{target.path} ({target.model}): is not removable; an image is written to cards and sticks alone"
        )
    if target.read_only:
        return f"{target.path}: is write-protected; move the card's switch"
    if target.size < size:
        return f"{target.path}: holds {target.size:,} bytes, the image has {size:,}; take a larger card"
    return None


def write(
    image: Path, target: Path, *, progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None
) -> str:
    """Copy and read back; returns the SHA-256. The first piece, with the partition table, goes last: a card
    whose writing was interrupted starts nowhere and is taken for nothing. Raises FlashError."""
    size = open_disk(image).path.stat().st_size
    written = hashlib.sha256()
    try:
        with image.open("rb") as source, _exclusive(target) as sink:
            first = source.read(PIECE)
            written.update(first)
            os.pwrite(sink.fileno(), b"\0" * len(first), 0)
            os.fsync(sink.fileno())
            place = len(first)
            while piece := source.read(PIECE):
                _whole(sink.fileno(), piece, place)
                written.update(piece)
                place += len(piece)
                progress("writing", place, size)
                if place % (64 * MIB) < PIECE:
                    os.fsync(sink.fileno())
            os.fsync(sink.fileno())
            _whole(sink.fileno(), first, 0)
            os.fsync(sink.fileno())
            os.posix_fadvise(sink.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found = read_back(target, size, progress)
    except OSError as error:
        raise FlashError(
            f"{target}: {error.strerror}; the card was not written whole, write it again"
        ) from error
    if found != written.hexdigest():
        raise FlashError(
            f"{target}: what was read back differs from the image; the card is worn out, take another"
        )
    return found


def _exclusive(target: Path) -> Any:
    # O_EXCL on a block device: refused while anything of it is mounted
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if stat.S_ISBLK(target.stat().st_mode) else 0)
    return os.fdopen(os.open(target, flags), "r+b", buffering=0)


def _whole(handle: int, piece: bytes, place: int) -> None:
    view = memoryview(piece)
    while view:
        count = os.pwrite(handle, view, place)
        view, place = view[count:], place + count


def read_back(target: Path, size: int, progress: Callable[[str, int, int], None]) -> str:
    """The hash of what the disk holds, not of what the kernel remembers (O_DIRECT where there is)"""
    digest = hashlib.sha256()
    try:
        handle = os.open(target, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        handle = os.open(target, os.O_RDONLY)
    try:
        with mmap.mmap(-1, PIECE) as page:
            done = 0
            while done < size:
                count = os.preadv(handle, [page], done)
                if count == 0:
                    break
                with memoryview(page) as whole_page, whole_page[: min(count, size - done)] as piece:
                    digest.update(piece)
                    done += len(piece)
                progress("reading back", done, size)
    finally:
        os.close(handle)
    return digest.hexdigest()


def confirmed(target: Target, answer: str) -> bool:
    """A person has typed the disk's own name."""
    return answer.strip() == target.path


__all__: Sequence[str] = ("Target", "confirmed", "look_at", "parse", "read_back", "refusal", "write")
