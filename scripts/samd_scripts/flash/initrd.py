"""A small initrd for arm64, made on any computer: busybox, and the modules that reach the root partition.

No code of the device's processor is run and no depmod is needed: each module names what it depends on. The
order of loading is written down beside them. With initramfs-tools on the device a kernel upgrade there makes
an initrd of its own.
"""

import gzip
import lzma
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from samd_scripts.flash.errors import FlashError

MODULES: Final = (
    "crc32c_generic",  # ext4 of later kernels needs it first
    "virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng",
    "ext4", "vfat", "nls_ascii", "nls_cp437",
    "bcm2835", "sdhci_iproc", "gpio_regulator", "dwc2", "phy_generic", "usbnet", "cdc_ether", "smsc95xx",
    "lan78xx", "autofs4",
    "bcm2835_wdt",  # here, so that systemd finds the watchdog when it starts
)  # fmt: skip

INIT: Final = """\
#!/bin/busybox sh
# Loads the modules in their order, waits for the root partition, and hands over to it.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
root=/dev/vda2
init=/sbin/init
without=
for word in $($b cat /proc/cmdline); do
  case $word in
    root=*) root=${word#root=} ;;
    init=*) init=${word#init=} ;;
    modprobe.blacklist=*) without=,${word#modprobe.blacklist=}, ;;
  esac
done
for module in $($b cat /modules/order); do
  case $without in *,$module,*) continue ;; esac
  $b insmod /modules/$module.ko || echo "initrd: $module cannot be loaded"
done
tries=0
while :; do
  case $root in
    LABEL=*|UUID=*) device=$($b findfs "$root" 2>/dev/null) ;;
    *) device=$root ;;
  esac
  [ -n "$device" ] && [ -b "$device" ] && break
  tries=$((tries + 1))
  if [ $tries -gt 1200 ]; then
    echo "initrd: there is no $root; the machine starts again"
    $b sleep 5
    $b reboot -f
  fi
  $b usleep 50000
done
# What a power cut left half-written is put right by the journal; the rest is fsck's, from the root.
if ! $b mount -t ext4 -o ro "$device" /root; then
  echo "initrd: $device cannot be mounted; the machine starts again"
  $b sleep 5
  $b reboot -f
fi
$b umount /proc
$b umount /sys
$b mount --move /dev /root/dev
exec $b switch_root /root $init
"""

_MODULE: Final = re.compile(r"(.+)\.ko(\.xz)?$")
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")


def load_order(wanted: Iterable[str], files: Mapping[str, Path]) -> list[tuple[str, bytes]]:
    """The modules with all that they depend on, each after its own; those built in are left out."""
    order: dict[str, bytes] = {}
    visited: set[str] = set()

    def add(name: str) -> None:
        key = name.replace("-", "_")
        if key in visited or key not in files:
            return
        visited.add(key)
        content = read_module(files[key])
        depends = _DEPENDS.search(b"\0" + content)
        for other in depends[1].decode().split(",") if depends and depends[1] else ():
            add(other)
        order[key] = content

    for name in wanted:
        add(name)
    return list(order.items())


def read_module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def find_modules(folder: Path) -> dict[str, Path]:
    """All modules of a kernel, by name."""
    found = {}
    for path in folder.rglob("*.ko*"):
        match = _MODULE.fullmatch(path.name)
        if match:
            found[match[1].replace("-", "_")] = path
    return found


def build(modules: Path, busybox: Path) -> bytes:
    """The initrd, gzip-compressed; the same bytes for the same kernel. Raises FlashError."""
    order = load_order(MODULES, find_modules(modules))
    if "ext4" not in dict(order):
        raise FlashError(f"{modules}: holds no ext4 module; is it a kernel for arm64 of Debian?")
    archive = Archive()
    for folder in ("bin", "modules", "proc", "sys", "dev", "root"):
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, INIT.encode())
    for name, content in order:
        archive.add(f"modules/{name}.ko", stat.S_IFREG | 0o644, content)
    archive.add("modules/order", stat.S_IFREG | 0o644, "\n".join(name for name, _ in order).encode())
    return gzip.compress(archive.finish(), 6, mtime=0)


class Archive:
    """A cpio archive of the format "newc", the one that Linux unpacks."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._inode = 0

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        self._bytes += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        self._pad()
        self._bytes += content
        self._pad()

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._bytes)

    def _pad(self) -> None:
        self._bytes += b"\0" * (-len(self._bytes) % 4)
