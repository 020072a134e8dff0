"""A disk image as a file: its partitions, and files put into them without mounting anything.

The layout is an MBR, which every Pi starts from: a FAT partition with firmware, kernel and the configuration
that a person may edit, the root, and a partition of its own for the store, the last, so that it can grow.
"""

import re
import shutil
import struct
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from samd_scripts.flash import tools
from samd_scripts.flash.errors import FlashError

MIB: Final = 1024 * 1024
SECTOR: Final = 512
BOOT_MIB: Final = 256
DATA_MIB: Final = 64
BOOT_LABEL: Final = "BOOT"
ROOT_LABEL: Final = "rootfs"
DATA_LABEL: Final = "samd-data"

_NO_COMPLAINTS: Final = ("debugfs ", "debugfs:", "Allocated inode:", "rm: File not found")
_FAT_TYPES: Final = (0x0B, 0x0C, 0x0E)
_LINUX: Final = 0x83


@dataclass(frozen=True)
class Partition:
    """One entry of the table; `start` and `size` in bytes."""

    number: int
    start: int
    size: int
    type: int


@dataclass(frozen=True)
class Disk:
    """An image that was looked at: its partitions are within the file."""

    path: Path
    partitions: tuple[Partition, ...]

    @property
    def boot(self) -> "Fat":
        return Fat(self.path, self.partitions[0].start)

    @property
    def root(self) -> "Ext4":
        return Ext4(self.path, self.partitions[1].start)

    @property
    def data(self) -> "Ext4":
        """The store's partition. Raises FlashError for an image without one."""
        if len(self.partitions) < 3:
            raise FlashError(f"{self.path}: has no partition for the store; is it an image of scripts/flash?")
        return Ext4(self.path, self.partitions[2].start)


def open_disk(path: Path) -> Disk:
    """Look at an image. Raises FlashError for what is none, or was cut short."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(SECTOR)
    except OSError as error:
        raise FlashError(f"{path}: cannot be read ({error.strerror})") from error
    found = read_table(head)
    if found is None:
        raise FlashError(f"{path}: is no disk image (it has no partition table); give an .img file")
    if len(found) < 2 or found[0].type not in _FAT_TYPES or found[1].type != _LINUX:
        raise FlashError(
            f"{path}: does not begin with a FAT and a Linux partition; it is no image for a Raspberry Pi"
        )
    missing = max(part.start + part.size for part in found) - size
    if missing > 0:
        raise FlashError(f"{path}: {missing:,} bytes are missing at its end; download or make it anew")
    return Disk(path, tuple(found))


def read_table(head: bytes) -> list[Partition] | None:
    """The partitions of an MBR; None where there is none."""
    if len(head) < SECTOR or head[510:512] != b"\x55\xaa":
        return None
    found = []
    for number in range(4):
        kind, first, count = struct.unpack_from("<4xB3xII", head, 446 + 16 * number)
        if kind and count:
            found.append(Partition(number + 1, first * SECTOR, count * SECTOR, kind))
    return found


def table(sizes_mib: Sequence[tuple[int, str]]) -> str:
    """What sfdisk is told: partitions of these sizes and types, one after the other, on whole MiB."""
    lines = ["label: dos", "label-id: 0x53414d44"]
    start = 1
    for number, (size, kind) in enumerate(sizes_mib):
        boot = ", bootable" if number == 0 else ""
        lines.append(f"start={start}MiB, size={size}MiB, type={kind}{boot}")
        start += size
    return "\n".join(lines) + "\n"


def create(image: Path, root_tree: Path, boot_tree: Path, *, root_mib: int, data_owner: int) -> None:
    """Write an image: `boot_tree` becomes the FAT, `root_tree` the root, and an empty store beside them."""
    sizes = ((BOOT_MIB, "c"), (root_mib, "83"), (DATA_MIB, "83"))
    with image.open("wb") as file:
        file.truncate((1 + sum(size for size, _ in sizes) + 1) * MIB)
    tools.run("sfdisk", "--quiet", image, stdin=table(sizes))
    boot, root, data = open_disk(image).partitions
    make_ext4(image, root.start, root_mib, ROOT_LABEL, "-d", str(root_tree))
    # The store is the agent's alone: its root folder belongs to it.
    make_ext4(image, data.start, DATA_MIB, DATA_LABEL, owner=data_owner)
    target = f"{image}@@{boot.start}"
    tools.run(
        "mformat", "-i", target, "-F", "-v", BOOT_LABEL, "-T", str(boot.size // SECTOR),
        "-h", "255", "-s", "63", "::",
    )  # fmt: skip
    tools.run("mcopy", "-i", target, "-s", "-Q", "-m", *sorted(boot_tree.iterdir()), "::")


def make_ext4(
    image: Path, start: int, mib: int, label: str, *arguments: str, owner: int | None = None
) -> None:
    """An ext4 within an image. Features that the fsck of Debian 12 does not know are left out."""
    options = f"offset={start},lazy_itable_init=1,lazy_journal_init=1"
    if owner is not None:
        options += f",root_owner={owner}:{owner}"
    tools.run(
        "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", label, "-m", "1",
        "-O", "^metadata_csum_seed,^orphan_file",
        "-E", options, *arguments, image, f"{mib}M",
    )  # fmt: skip


@dataclass(frozen=True)
class Fat:
    """The FAT partition of an image."""

    image: Path
    start: int

    def put(self, files: dict[str, bytes]) -> None:
        """Write files into its root folder."""
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for name, content in files.items():
                path = Path(folder, name)
                path.write_bytes(content)
                paths.append(path)
            tools.run("mcopy", "-i", self._target, "-o", "-Q", *paths, "::")

    def get(self, name: str, target: Path) -> None:
        """Copy one file out. Raises FlashError when it is not there."""
        tools.run("mcopy", "-i", self._target, "-n", "-Q", f"::{name}", target, what=f"{self.image}: {name}")

    def read(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "file")
            self.get(name, target)
            return target.read_bytes()

    def names(self) -> set[str]:
        """The names in its root folder."""
        listed = tools.run("mdir", "-i", self._target, "-b", "::")
        return {line.strip().removeprefix("::/").rstrip("/") for line in listed.splitlines() if line.strip()}

    @property
    def _target(self) -> str:
        return f"{self.image}@@{self.start}"


@dataclass(frozen=True)
class Put:
    """One file for the ext4: content, mode (with 0o120777: a link, whose content is its target), owner."""

    content: bytes
    mode: int = 0o644
    owner: int = 0

    @property
    def link(self) -> bool:
        return self.mode & 0o170000 == 0o120000


def link(target: str) -> Put:
    """A symbolic link."""
    return Put(target.encode(), 0o120777)


@dataclass(frozen=True)
class Ext4:
    """An ext4 partition of an image."""

    image: Path
    start: int

    def put(self, files: dict[str, Put], folders: dict[str, tuple[int, int]] | None = None) -> None:
        """Write files; what lies there under the same name is replaced. Missing folders are made, with mode
        755 for root, or as `folders` says (mode, owner). Raises FlashError."""
        modes = folders or {}
        wanted = _ancestors([*files, *(f"{name}/x" for name in modes)])
        missing = {name: modes.get(name, (0o755, 0)) for name in wanted if not self.exists(name)}
        self._write(missing, files, replace=True)

    def put_new(self, files: dict[str, Put]) -> None:
        """Write many files into folders that are not there yet, below one that is."""
        top = min((name.count("/"), name) for name in files)[1].rpartition("/")[0]
        folders = [name for name in _ancestors(files) if name == top or name.startswith(f"{top}/")]
        self._write(dict.fromkeys(folders, (493, 0)), files, replace=False)

    def _write(self, folders: dict[str, tuple[int, int]], files: dict[str, Put], *, replace: bool) -> None:
        with tempfile.TemporaryDirectory() as work:
            script: list[str] = []
            for folder, (mode, owner) in folders.items():
                script.append(f"mkdir {_quoted(folder)}")
                script += _attributes(folder, 0o040000 | mode, owner)
            for number, (name, file) in enumerate(sorted(files.items())):
                if replace:
                    script.append(f"rm {_quoted(name)}")
                if file.link:
                    script.append(f"symlink {_quoted(name)} {_quoted(file.content.decode())}")
                    continue
                source = Path(work, str(number))
                source.write_bytes(file.content)
                script.append(f"write {_quoted(str(source))} {_quoted(name)}")
                script += _attributes(name, 0o100000 | file.mode, file.owner)
            self._script(script)
        last = max(files, default=None)
        for name in files if replace else filter(None, [last]):
            if not self.exists(name):
                raise FlashError(f"{self.image}: {name} could not be written; is its partition full?")

    def remove(self, names: Iterable[str]) -> None:
        self._script([f"rm {_quoted(name)}" for name in names])

    def exists(self, name: str) -> bool:
        return "Inode:" in self._ask(f"stat {_quoted(name)}")

    def names(self, folder: str) -> set[str]:
        """What lies in a folder; empty when it is not there."""
        listed = self._ask(f"ls -p {_quoted(folder)}")
        found = {line.split("/")[5] for line in listed.splitlines() if line.startswith("/")}
        return found - {".", "..", ""}

    def read(self, name: str) -> bytes:
        """The content of a file; links are followed within the partition. Raises FlashError."""
        with tempfile.TemporaryDirectory() as work:
            target = Path(work, "file")
            self._ask(f"dump {_quoted(self.resolve(name))} {target}")
            if not target.exists():
                raise FlashError(f"{self.image}: holds no {name}")
            return target.read_bytes()

    def resolve(self, name: str, depth: int = 8) -> str:
        """The name behind a link of the last component."""
        target = re.search(r'Fast link dest: "(.*)"', self._ask(f"stat {_quoted(name)}"))
        if target is None or not depth:
            return name
        parent = name.rpartition("/")[0]
        return self.resolve(target[1] if target[1].startswith("/") else f"{parent}/{target[1]}", depth - 1)

    def _ask(self, question: str) -> str:
        return tools.run("debugfs", "-R", question, self._target)

    def _script(self, lines: Sequence[str]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as script:
            script.write("\n".join(lines) + "\n")
            script.flush()
            told = tools.run("debugfs", "-w", "-f", script.name, self._target, complaints=True)
        # debugfs goes on after an error and ends with 0; removing what is not there is none
        wrong = [line for line in told.splitlines() if line and not line.startswith(_NO_COMPLAINTS)]
        if wrong:
            raise FlashError(f"{self.image}: {wrong[0].strip()}; is its partition full?")

    @property
    def _target(self) -> str:
        return f"{self.image}?offset={self.start}"


def _quoted(name: str) -> str:
    if '"' in name or "\n" in name:
        raise FlashError(f"{name!r}: a file of this name cannot be put into an image")
    return f'"{name}"'


def _attributes(name: str, mode: int, owner: int) -> list[str]:
    fields = {"mode": f"0{mode:o}", "uid": str(owner), "gid": str(owner)}
    return [f"set_inode_field {_quoted(name)} {field} {value}" for field, value in fields.items()]


def _ancestors(names: Iterable[str]) -> list[str]:
    found = {str(parent) for name in names for parent in Path(name).parents}
    return sorted(found - {"/", "."})


def copy_sparse(source: Path, target: Path) -> None:
    """Copy an image; holes stay holes, and a file system that shares blocks shares them."""
    free = shutil.disk_usage(target.parent).free
    needed = source.stat().st_blocks * 512
    if free < needed:
        raise FlashError(
            f"{target.parent}: {free // MIB:,} MiB are free, {needed // MIB:,} MiB are needed; make room"
        )
    tools.run("cp", "--sparse=always", "--reflink=auto", source, target)
