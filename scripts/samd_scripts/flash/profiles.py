"""What an image consists of: Debian's packages, the client's extras, and how large things are."""

from dataclasses import dataclass
from typing import Final

SUITE: Final = "bookworm"
PYTHON: Final = "3.11"
MACHINE: Final = "aarch64"

MINIMAL: Final = (
    "systemd-sysv", "udev", "dbus", "systemd-timesyncd", "systemd-resolved", "kmod", "iproute2",
    "python3", "ca-certificates", "tzdata", "fdisk", "e2fsprogs", "dosfstools", "busybox-static",
    "initramfs-tools", "linux-image-arm64",
)  # fmt: skip
"""What boots in QEMU and runs the client; for CI and for trying things out. No Pi starts with it."""

BEDSIDE: Final = (
    *MINIMAL, "openssh-server", "wpasupplicant", "wireless-regdb", "bluez", "bluez-firmware",
    "raspi-firmware", "firmware-brcm80211",
)  # fmt: skip
"""With a Pi's firmware, Wi-Fi, Bluetooth sensors, and SSH for who gave a key."""

EXCLUDED: Final = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/lib/modules/*/kernel/sound/*",
    "/lib/modules/*/kernel/drivers/media/*",
    "/lib/modules/*/kernel/drivers/infiniband/*",
    "/lib/modules/*/kernel/drivers/gpu/drm/amd/*",
    "/lib/modules/*/kernel/drivers/gpu/drm/nouveau/*",
    "/lib/modules/*/kernel/drivers/gpu/drm/radeon/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/mellanox/*",
    "/lib/modules/*/kernel/lib/test_*",
    "/usr/lib/linux-image-*/*",
)
"""Paths that dpkg leaves out, now and at an upgrade on the device."""
INCLUDED: Final = ("/usr/share/doc/*/copyright", "/usr/lib/linux-image-*/broadcom/*")
"""Taken after all: the licences, and the device trees of the Pis."""


@dataclass(frozen=True)
class Profile:
    """One kind of image. `extras` are those of samd-edge."""

    name: str
    packages: tuple[str, ...]
    extras: tuple[str, ...]
    max_compressed_mb: int | None


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile("core", BEDSIDE, ("sources", "top"), 300),
        Profile("tensorflow", BEDSIDE, ("sources", "top", "tensorflow"), None),
        Profile("minimal", MINIMAL, ("sources",), None),
    )
}
