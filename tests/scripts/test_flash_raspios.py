"""The client in an image of Raspberry Pi OS. The image is made here, with the layout of the real ones."""

import lzma
import os
import struct
import subprocess
from pathlib import Path

import pytest

from samd_scripts import release as releases
from samd_scripts.flash import device, disk, overlay, raspios, tools
from samd_scripts.flash.base import Info
from samd_scripts.flash.disk import MIB, Put, open_disk
from samd_scripts.flash.errors import FlashError

needed = (*tools.IMAGE, "e2fsck", "resize2fs", "xz")
pytestmark = pytest.mark.skipif(
    any(tools.find(tool) is None for tool in needed),
    reason="the tools for images are not installed: apt-get install mtools fdisk e2fsprogs zstd",
)

BOOKWORM = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\n'
TRIXIE = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_CODENAME=trixie\n'
CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=4a1c0d3e-02 rootfstype=ext4 fsck.repair=yes rootwait "
    "quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
)
FSTAB = "proc /proc proc defaults 0 0\nPARTUUID=4a1c0d3e-01 /boot/firmware vfat defaults 0 2\n"


def program(machine: int) -> bytes:
    return b"\x7fELF" + bytes([2, 1, 1]) + bytes(9) + struct.pack("<HH", 2, machine) + bytes(100)


def image_of(folder: Path, release: str, python: str, *, cloud_init: bool, machine: int = 0xB7) -> Path:
    """A FAT of 64 MiB and a root of 48, as the first two partitions of an MBR."""
    root = folder / "root"
    for name in ("usr/bin", "etc", "var/lib/dpkg", "opt"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text(release)
    (root / "usr/bin/dash").write_bytes(program(machine))
    (root / "usr/bin" / python).write_bytes(program(machine))
    if cloud_init:
        (root / "usr/bin/cloud-init").write_text("#!/usr/bin/python3\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\nbluetooth:x:112:\n")
    (root / "etc/shadow").write_text("root:*:20000:0:99999:7:::\n")
    (root / "etc/fstab").write_text(FSTAB)
    (root / "etc/hostname").write_text("raspberrypi\n")
    (root / "var/lib/dpkg/status").write_text(
        "Package: dash\nStatus: install ok installed\nArchitecture: arm64\nVersion: 0.5\nMaintainer: x\n"
    )
    boot = folder / "boot"
    boot.mkdir()
    (boot / "cmdline.txt").write_text(CMDLINE)
    (boot / "config.txt").write_text("[all]\n")
    made = folder / "raspios.img"
    os.truncate(os.open(made, os.O_CREAT | os.O_WRONLY), 116 * MIB)
    tools.run(
        "sfdisk",
        "--quiet",
        made,
        stdin="label: dos\nlabel-id: 0x4a1c0d3e\nstart=4MiB,size=64MiB,type=c\nstart=68MiB,size=48MiB\n",
    )
    disk.make_ext4(made, 68 * MIB, 48, "rootfs", "-d", str(root))
    tools.run(
        "mformat",
        "-i",
        f"{made}@@{4 * MIB}",
        "-F",
        "-v",
        "bootfs",
        "-T",
        str(64 * 2048),
        "-h",
        "255",
        "-s",
        "63",
        "::",
    )
    tools.run("mcopy", "-i", f"{made}@@{4 * MIB}", *sorted(boot.iterdir()), "::")
    return made


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder of the form of a release; what it computes is of no interest here."""
    tree = tmp_path / "client"
    (tree / "site/samd_edge").mkdir(parents=True)
    (tree / "site/samd_edge/__init__.py").write_text("")
    (tree / "site/samd_edge-0.1.0.dist-info").mkdir()
    (tree / "site/samd_edge-0.1.0.dist-info/METADATA").write_text("Name: samd-edge\nVersion: 0.1.0\n")
    releases.seal(tree, version="0.1.0", machine="aarch64", python="3.11", schemas={"device": 1, "store": 1})
    return tree


def partuuid(image: Path) -> str:
    return tools.run("sfdisk", "--disk-id", image).strip()


@pytest.mark.parametrize("cloud_init", [False, True])
def test_the_client_and_a_store_are_added_and_the_rest_stays(tmp_path, release, cloud_init):
    image = image_of(
        tmp_path,
        TRIXIE if cloud_init else BOOKWORM,
        "python3.13" if cloud_init else "python3.11",
        cloud_init=cloud_init,
    )
    system = raspios.look_at(image, named=image)
    assert (system.python, system.cloud_init) == ("3.13" if cloud_init else "3.11", cloud_init)
    before = partuuid(image)
    raspios.furnish(image, system, release, "0.1.0-12345678")

    found = open_disk(image)
    assert partuuid(image) == before  # its boot loader finds the root by it
    assert [(part.start // MIB, part.type) for part in found.partitions[:2]] == [(4, 0x0C), (68, 0x83)]
    assert found.partitions[1].size > 48 * MIB
    assert found.partitions[2].start >= found.partitions[1].start + found.partitions[1].size
    assert found.root.read("/opt/samd/current/bin/samd-edge".replace("current", "releases/0.1.0-12345678"))
    assert found.root.resolve("/opt/samd/current") == "/opt/samd/releases/0.1.0-12345678"
    assert b"\nsamd:x:950:950:" in found.root.read("/etc/passwd")
    assert found.root.read("/etc/fstab").decode().startswith(FSTAB.rstrip())
    assert b"LABEL=samd-data" in found.root.read("/etc/fstab")
    cmdline = found.boot.read("cmdline.txt").decode()
    if cloud_init:
        assert cmdline == CMDLINE
    else:
        assert "systemd.run=/boot/firmware/firstrun.sh" in cmdline
        assert "init=" not in cmdline
        assert cmdline.count("\n") == 1
        assert b"systemctl enable samd-edge.service" in found.boot.read("firstrun.sh")
    _fsck(image, 1)
    _fsck(image, 2)


def _fsck(image: Path, number: int) -> None:
    part = open_disk(image).partitions[number]
    copy = image.with_suffix(f".{number}")
    with image.open("rb") as file:
        file.seek(part.start)
        copy.write_bytes(file.read(part.size))
    done = subprocess.run(
        [str(tools.find("e2fsck")), "-fn", str(copy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_device_of_it_is_named_by_its_own_first_boot(tmp_path, release):
    image = image_of(tmp_path, TRIXIE, "python3.13", cloud_init=True)
    raspios.furnish(image, raspios.look_at(image, named=image), release, "0.1.0-12345678")
    info = Info(
        profile="core", base="raspios.img", release="0.1.0-12345678", version="0.1.0", system="trixie",
        root_mib=0, cloud_init=True,
    )  # fmt: skip
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0x3mZkq7Q8E1v9v5n7m0Zt3uYw0b3s8s4m5k6q7r8t ward\n"
    wanted = device.Device(
        name="bed-07",
        broker=device.broker_of("broker.ward", name="bed-07", credentials={"password": b"geheim"}),
        credentials={"password": b"geheim"},
        wifi=device.wifi_of("ward", "password", "DE"),
        ssh_keys=key,
    )
    device.personalise(open_disk(image), wanted, info, wanted.config)
    found = open_disk(image)
    import yaml

    user_data = found.boot.read("user-data").decode()
    assert user_data.startswith("#cloud-config\n")
    told = yaml.safe_load(user_data)
    assert told["hostname"] == "bed-07"
    assert told["growpart"] == {"mode": "off"}
    assert told["users"][0]["ssh_authorized_keys"] == [key.strip()]
    network = yaml.safe_load(found.root.read("/etc/netplan/80-samd.yaml"))["network"]
    assert list(network["wifis"]["wlan0"]["access-points"]) == ["ward"]
    everything = b"".join(found.boot.read(name) for name in found.boot.names())
    assert b"geheim" not in everything
    assert wanted.wifi is not None
    assert wanted.wifi.psk.encode() not in everything
    assert found.root.read("/etc/samd/password") == b"geheim"


def test_another_architecture_and_another_python_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    image = image_of(tmp_path / "a", BOOKWORM, "python3.11", cloud_init=False, machine=0x28)
    with pytest.raises(FlashError, match=r"for 32-bit arm; take the 64-bit image"):
        raspios.look_at(image, named=image)
    image = image_of(tmp_path / "b", BOOKWORM, "python3.9", cloud_init=False)
    with pytest.raises(FlashError, match=r"holds none of Python 3.11"):
        raspios.look_at(image, named=image)


def test_a_download_that_was_cut_short_is_refused(tmp_path):
    image = image_of(tmp_path, BOOKWORM, "python3.11", cloud_init=False)
    packed = lzma.compress(image.read_bytes(), preset=0)
    file = tmp_path / "raspios.img.xz"
    file.write_bytes(packed)
    raspios.unpack(file, tmp_path / "whole.img", step=lambda _text: None)
    assert (tmp_path / "whole.img").read_bytes() == image.read_bytes()
    file.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(FlashError, match="cut short"):
        raspios.unpack(file, tmp_path / "half.img", step=lambda _text: None)


def test_a_file_is_replaced_where_it_was(tmp_path):
    image = image_of(tmp_path, BOOKWORM, "python3.11", cloud_init=False)
    root = open_disk(image).root
    root.put({"/etc/hostname": Put(b"bed-01\n")})
    assert root.read("/etc/hostname") == b"bed-01\n"
    assert overlay.UID == 950
