"""From Debian's archive and a release of the client to an image.

A process of its own, so that it can be started in a user namespace in which the caller is root: files of
several users have to lie on the disk before mke2fs takes them over. Reads one JSON object, `Order`, on stdin;
prints a line for each step, and the last, which begins with "{", is the result.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from samd_scripts.flash import disk, initrd, overlay, sbom, tools
from samd_scripts.flash.errors import FlashError

ROOM_MIB: Final = 200
"""In the root partition beyond what is there and two more releases of the client."""

CONFIG: Final = """\
# Read by the firmware of a Raspberry Pi 3, 4 or Zero 2 W.
arm_64bit=1
enable_uart=1
upstream_kernel=1
kernel=vmlinuz
initramfs initrd.img followkernel
dtparam=watchdog=on
"""
CMDLINE: Final = (
    "console=tty0 console=ttyS1,115200 root=LABEL=rootfs rw rootwait fsck.repair=yes net.ifnames=0 "
    "quiet systemd.show_status=auto\n"
)
README: Final = """\
samd: severity of illness at the bedside

samd.toml is this device's configuration; any editor will do. It is read when the device starts.
No secret belongs onto this partition: everybody can read it.

This is research software and no certified medical device.
"""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to make of what. Paths are absolute."""

    archive: str
    release: str
    name: str
    image: str
    work: str
    packages: str


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """The result: MiB of the root's content and partition, and the kernel."""

    used_mib: int
    root_mib: int
    kernel: str


def main() -> int:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    root = Path(order.work) / "root"
    try:
        made = assemble(order, root)
    except FlashError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(msgspec.json.encode(made).decode(), flush=True)
    return 0


def assemble(order: Order, root: Path) -> Made:
    """The steps. Raises FlashError."""
    _say("unpacking Debian's archive")
    unpack(Path(order.archive), root)
    kernel = kernel_of(root)
    _say("adding the client")
    furnish(root, Path(order.release), order.name)
    Path(order.packages).write_bytes(
        sbom.encode(sbom.of_tree(root, root / "opt/samd/releases" / order.name / "site"))
    )
    boot = Path(order.work) / "boot"
    boot.mkdir()
    fill_boot(root, boot, kernel)
    used = _mib(root)
    client = _mib(Path(order.release))
    root_mib = used * 108 // 100 + 2 * client + ROOM_MIB
    _say("writing the partitions")
    disk.create(Path(order.image), root, boot, root_mib=root_mib, data_owner=overlay.UID)
    return Made(used_mib=used, root_mib=root_mib, kernel=kernel)


def unpack(archive: Path, root: Path) -> None:
    """The archive as a folder; device files are left out, since the kernel makes them."""
    root.mkdir()
    command = ["tar", "--extract", "--file", str(archive), "--directory", str(root), "--numeric-owner"]
    done = subprocess.run(
        [*command, "--preserve-permissions", "--same-owner", "--exclude=./dev/*"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise FlashError(
            f"{archive}: cannot be unpacked ({tools.told(done.stderr, done.returncode)}); was it cut short?"
        )
    library = root / "lib/ld-linux-aarch64.so.1"
    if not library.exists() and not library.is_symlink():
        raise FlashError(f"{archive}: holds no root file system for arm64; give one for aarch64")


def kernel_of(root: Path) -> str:
    """The newest kernel in a root file system. Raises FlashError without one."""
    found = sorted((root / "usr/lib/modules").glob("*"), key=lambda path: _version(path.name))
    if not found or not (root / "boot" / f"vmlinuz-{found[-1].name}").exists():
        raise FlashError("the root file system holds no kernel; add linux-image-arm64 to it")
    return found[-1].name


def _version(name: str) -> list[int]:
    return [int(part) for part in "".join(c if c.isdigit() else " " for c in name).split()]


def furnish(root: Path, release: Path, name: str) -> None:
    """Everything of this project, into the unpacked root."""
    overlay.without(root, overlay.DISABLED)
    overlay.in_folder(root, overlay.files("common", "debian"))
    overlay.in_folder(root, overlay.units(debian=True))
    overlay.in_folder(root, overlay.links(name))
    texts = [(root / "etc" / file).read_text() for file in ("passwd", "group", "shadow")]
    for file, text in zip(("passwd", "group", "shadow"), overlay.account(*texts), strict=True):
        (root / "etc" / file).write_text(text)
    # Each device makes its own; the empty file has systemd write one down at the first boot.
    (root / "etc/machine-id").write_text("")
    for path in (root / "etc/apt/sources.list.d").glob("*"):
        path.unlink()
    for path in (root / "etc/ssh").glob("ssh_host_*"):
        path.unlink()
    for folder in ("boot/firmware", "var/lib/samd", "opt/samd/releases"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    secrets = root / "etc/samd"
    secrets.mkdir(exist_ok=True)
    secrets.chmod(0o755)
    target = root / "opt/samd/releases" / name
    shutil.copytree(release, target, symlinks=True)
    for path in (target, *target.rglob("*")):
        shutil.chown(path, 0, 0)


def fill_boot(root: Path, boot: Path, kernel: str) -> None:
    """The FAT partition: firmware, device trees, kernel, initrd. As Debian's own hook would fill it, which
    cannot be run here."""
    firmware = root / "usr/lib/raspi-firmware"
    if firmware.is_dir():
        for path in firmware.iterdir():
            shutil.copyfile(path, boot / path.name)
        (boot / "config.txt").write_text(CONFIG)
        (boot / "cmdline.txt").write_text(CMDLINE)
    for path in (root / f"usr/lib/linux-image-{kernel}" / "broadcom").glob("*.dtb"):
        shutil.copyfile(path, boot / path.name)
    shutil.copyfile(root / f"boot/vmlinuz-{kernel}", boot / "vmlinuz")
    busybox = next(
        (root / name for name in ("usr/bin/busybox", "bin/busybox") if (root / name).exists()), None
    )
    if busybox is None:
        raise FlashError("the root file system holds no busybox; add busybox-static to it")
    (boot / "initrd.img").write_bytes(initrd.build(root / "usr/lib/modules" / kernel, busybox))
    (boot / "README.txt").write_text(README.replace("\n", "\r\n"), newline="")


def _mib(folder: Path) -> int:
    """What a folder takes in blocks of 4 KiB, with an inode for each file."""
    total = 0
    for path in folder.rglob("*"):
        status = path.lstat()
        total += -(-status.st_size // 4096) * 4096 + 256
    return total // disk.MIB + 1


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
