"""The client in an image of Raspberry Pi OS that the user has downloaded: the way to a Pi 5.

Its own first boot goes on as it is meant: cloud-init on trixie (``user-data``, ``network-config``), before it
``firstrun.sh``. What this project adds is the same as on Debian: a partition for the store, the units, a
release of the client for the Python that is there. The store's partition comes last, so that Raspberry Pi OS
leaves its root as it is and ours grows.
"""

import lzma
import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from samd_scripts.flash import disk, overlay, sbom, tools
from samd_scripts.flash.disk import DATA_LABEL, DATA_MIB, MIB, SECTOR, Ext4, Put, open_disk
from samd_scripts.flash.errors import FlashError

ROOM_MIB: Final = 300
_PYTHONS: Final = ("3.11", "3.12", "3.13")
_IMAGES: Final = (".img", ".img.xz", ".img.zst", ".img.gz")
MOUNT: Final = (
    "\n# the store of samd-edge\nLABEL=samd-data  /var/lib/samd  ext4  noatime,nosuid,nodev,noexec  0 2\n"
)

FIRSTRUN: Final = """\
#!/bin/bash
# Run once by Raspberry Pi OS (bookworm and before), before anything else; then the card starts as usual.
set +e
systemctl enable samd-edge.service samd-first-boot.service samd-update-check.service samd-update-check.path
[ -e /root/.ssh/authorized_keys ] && systemctl enable ssh.service
systemctl disable apt-daily.timer apt-daily-upgrade.timer
/usr/lib/samd/first-boot
rm -f /boot/firmware/firstrun.sh /boot/firstrun.sh
for file in /boot/firmware/cmdline.txt /boot/cmdline.txt; do
  [ -f "$file" ] && sed -i 's| systemd.run.*||g' "$file"
done
exit 0
"""
RUN_ONCE: Final = (
    " systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot "
    "systemd.unit=kernel-command-line.target"
)


@dataclass(frozen=True)
class System:
    """What the given image is."""

    name: str
    codename: str
    python: str
    cloud_init: bool


def is_image(name: str) -> bool:
    """Whether this is the name of a disk image, rather than of an archive."""
    return name.endswith(_IMAGES)


def unpack(given: Path, image: Path, *, step: Callable[[str], None]) -> None:
    """The image, uncompressed and writable. Raises FlashError for a download that was cut short."""
    if given.suffix == ".img":
        open_disk(given)
        disk.copy_sparse(given, image)
        return
    step(f"unpacking {given.name}")
    if given.suffix != ".xz":
        raise FlashError(f"{given}: unpack it first; .img and .img.xz are read")
    try:
        with lzma.open(given) as source, image.open("wb") as target:
            while piece := source.read(4 * MIB):
                if piece.count(0) == len(piece):
                    target.seek(len(piece), 1)
                else:
                    target.write(piece)
            target.truncate()
    except (lzma.LZMAError, EOFError) as error:
        raise FlashError(f"{given}: is damaged or was cut short ({error}); download it again") from error
    open_disk(image)


def look_at(image: Path, *, named: Path) -> System:
    """What system it holds. Raises FlashError for another architecture, or one without a Python that fits."""
    root = open_disk(image).root
    system = _fields(root.read("/etc/os-release").decode(errors="replace"))
    name = system.get("PRETTY_NAME", "an unknown system")
    machine = elf_machine(root.read("/usr/bin/dash"))
    if machine != "aarch64":
        raise FlashError(f"{named}: {name} for {machine}; take the 64-bit image (arm64)")
    pythons = [version for version in _PYTHONS if f"python{version}" in root.names("/usr/bin")]
    if not pythons:
        raise FlashError(
            f"{named}: {name} holds none of Python {', '.join(_PYTHONS)}; take bookworm or trixie"
        )
    return System(
        name, system.get("VERSION_CODENAME", ""), pythons[-1], "cloud-init" in root.names("/usr/bin")
    )


def elf_machine(head: bytes) -> str:
    """For which processor a program is."""
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return "an unknown processor"
    (number,) = struct.unpack_from("<H", head, 18)
    return {0xB7: "aarch64", 0x28: "32-bit arm", 0x3E: "x86-64", 0x03: "32-bit x86"}.get(
        number, f"machine {number}"
    )


def furnish(image: Path, system: System, release: Path, name: str) -> int:
    """Make room, add the store's partition, and put everything in; returns the root's size in MiB."""
    client = sum(
        -(-path.stat().st_size // 4096) * 4096 + 256 for path in release.rglob("*") if path.is_file()
    )
    root_mib = _make_room(image, 3 * client // MIB + ROOM_MIB)
    found = open_disk(image)
    files = overlay.files("common") | overlay.links(name) | overlay.units(debian=False)
    texts = [found.root.read(f"/etc/{file}").decode() for file in ("passwd", "group", "shadow")]
    modes = (0o644, 0o644, 0o640)
    for file, text, mode in zip(("passwd", "group", "shadow"), overlay.account(*texts), modes, strict=True):
        files[f"/etc/{file}"] = Put(text.encode(), mode)
    fstab = found.root.read("/etc/fstab").decode()
    if DATA_LABEL not in fstab:
        files["/etc/fstab"] = Put(fstab.rstrip().encode() + MOUNT.encode())
    files["/etc/apt/apt.conf.d/20samd"] = overlay.files("debian")["/etc/apt/apt.conf.d/20samd"]
    folders = {"/var/lib/samd": (0o755, 0), "/etc/samd": (0o755, 0), overlay.RELEASES: (0o755, 0)}
    found.root.put(files, {name: mode for name, mode in folders.items() if not found.root.exists(name)})
    _put_tree(found.root, release, f"{overlay.RELEASES}/{name}")
    _first_boot(found, system)
    return root_mib


def _make_room(image: Path, more_mib: int) -> int:
    """Enlarge the root partition, and add one for the store behind it."""
    boot, root = open_disk(image).partitions[:2]
    root_mib = root.size // MIB + more_mib
    data_start = (root.start + root_mib * MIB + MIB - 1) // MIB * MIB
    with image.open("r+b") as file:
        file.truncate(data_start + (DATA_MIB + 1) * MIB)
    listed = tools.run("sfdisk", "--dump", image)
    lines = [line for line in listed.splitlines() if not line.startswith(("device:", str(image)))]
    lines.append(f"start={boot.start // SECTOR}, size={boot.size // SECTOR}, type={boot.type:x}")
    lines.append(f"start={root.start // SECTOR}, size={root_mib * MIB // SECTOR}, type=83")
    lines.append(f"start={data_start // SECTOR}, size={DATA_MIB * MIB // SECTOR}, type=83")
    tools.run("sfdisk", "--quiet", "--no-reread", "--force", image, stdin="\n".join(lines) + "\n")
    _resize(image, root.start, root.size, root_mib)
    disk.make_ext4(image, data_start, DATA_MIB, DATA_LABEL, owner=overlay.UID)
    return root_mib


def _resize(image: Path, start: int, size: int, mib: int) -> None:
    """resize2fs takes no offset: the file system is taken out, resized, and put back."""
    with tempfile.TemporaryDirectory(dir=image.parent) as work:
        part = Path(work, "root.ext4")
        copy = ("dd", f"bs={MIB}", "conv=sparse,notrunc", "status=none", "iflag=skip_bytes,count_bytes")
        tools.run(*copy, f"if={image}", f"of={part}", f"skip={start}", f"count={size}")
        with part.open("r+b") as file:
            file.truncate(mib * MIB)
        # exit code 1: it was mended
        try:
            tools.run("e2fsck", "-f", "-p", part)
        except FlashError as error:
            raise FlashError(
                f"{image}: its root file system is damaged ({error}); download it again"
            ) from error
        tools.run("resize2fs", part, f"{mib}M")
        tools.run(
            "dd", f"bs={MIB}", "conv=notrunc", "status=none", f"if={part}", f"of={image}",
            "oflag=seek_bytes", f"seek={start}",
        )  # fmt: skip


def _put_tree(root: Ext4, tree: Path, target: str) -> None:
    files = {}
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            files[f"{target}/{path.relative_to(tree)}"] = Put(path.read_bytes(), path.stat().st_mode & 0o777)
    root.put_new(files)


def _first_boot(found: disk.Disk, system: System) -> None:
    """What the system's own first boot is told; names and secrets come with the device."""
    if system.cloud_init:
        return  # written with the device, whose name stands in it
    cmdline = found.boot.read("cmdline.txt").decode().strip()
    if "systemd.run=" not in cmdline:
        # its own script would grow the root, which is not the last partition any more
        cmdline = re.sub(r" init=\S+", "", cmdline) + RUN_ONCE
    found.boot.put({"cmdline.txt": cmdline.encode() + b"\n", "firstrun.sh": FIRSTRUN.encode()})


def user_data(name: str, keys: str | None) -> str:
    """For cloud-init at the first boot: the name, who may come in, and the units."""
    lines = [
        "#cloud-config",
        f"hostname: {name}",
        "manage_etc_hosts: true",
        'growpart: {mode: "off"}',
        "resize_rootfs: false",
        "package_update: false",
        "package_upgrade: false",
        "ssh_pwauth: false",
    ]
    if keys is not None:
        lines += ["disable_root: false", "users:", "  - name: root", "    ssh_authorized_keys:"]
        lines += [f"      - {key}" for key in keys.splitlines() if key.strip()]
    else:
        lines += ["users: []"]
    lines += ["runcmd:", "  - [systemctl, disable, --now, apt-daily.timer, apt-daily-upgrade.timer]"]
    lines += ["  - [systemctl, enable, --now, samd-first-boot.service, samd-edge.service]"]
    if keys is not None:
        lines += ["  - [systemctl, enable, --now, ssh.service]"]
    return "\n".join(lines) + "\n"


def network_config(ssid: str | None, psk: str | None, country: str | None) -> str:
    """For cloud-init (netplan, version 2): Ethernet, and Wi-Fi with the key that was derived."""
    lines = ["version: 2", "ethernets:", "  eth0: {dhcp4: true, optional: true}"]
    if ssid is not None and psk is not None:
        lines += ["wifis:", "  wlan0:", "    dhcp4: true", "    optional: true"]
        if country:
            lines.append(f"    regulatory-domain: {country}")
        quoted = ssid.replace("\\", "\\\\").replace('"', '\\"')
        lines += ["    access-points:", f'      "{quoted}":', f'        password: "{psk}"']
    return "\n".join(lines) + "\n"


def packages(image: Path, release: Path) -> bytes:
    """The components of the image: its packages by dpkg's list, and the client's."""
    root = open_disk(image).root
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work)
        (tree / "var/lib/dpkg").mkdir(parents=True)
        (tree / "var/lib/dpkg/status").write_bytes(root.read("/var/lib/dpkg/status"))
        for fields in sbom.paragraphs((tree / "var/lib/dpkg/status").read_text(errors="replace")):
            folder = f"usr/share/doc/{fields['Package']}"
            if root.exists(f"/{folder}/copyright"):
                (tree / folder).mkdir(parents=True)
                (tree / folder / "copyright").write_bytes(root.read(f"/{folder}/copyright"))
        return sbom.encode(sbom.of_tree(tree, release / "site"))


def _fields(text: str) -> dict[str, str]:
    return {
        name: value.strip().strip('"')
        for name, _, value in (line.partition("=") for line in text.splitlines())
    }
