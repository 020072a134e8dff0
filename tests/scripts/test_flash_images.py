"""Images as files: partitions, what is put into them, what lies beside them, cards. Nothing is mounted."""

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from samd_scripts.flash import (
    assemble,
    cache,
    debian,
    disk,
    initrd,
    machine,
    overlay,
    raspios,
    sbom,
    tools,
    write,
)
from samd_scripts.flash.disk import MIB, Put, link, open_disk
from samd_scripts.flash.errors import FlashError

needs_tools = pytest.mark.skipif(
    any(tools.find(tool) is None for tool in (*tools.IMAGE, "e2fsck", "resize2fs", "dumpe2fs")),
    reason="the tools for images are not installed: apt-get install mtools fdisk e2fsprogs zstd",
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small image with the layout of a device's."""
    for name in ("boot", "root/etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "boot/config.txt").write_text("arm_64bit=1\n")
    (tmp_path / "root/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    made = tmp_path / "device.img"
    disk.create(made, tmp_path / "root", tmp_path / "boot", root_mib=16, data_owner=overlay.UID)
    return made


# -- disks ---------------------------------------------------------------------------------------------------


@needs_tools
def test_the_layout_ends_with_the_store(image):
    found = open_disk(image).partitions
    assert [(part.number, part.start // MIB, part.size // MIB, part.type) for part in found] == [
        (1, 1, 256, 0x0C),
        (2, 257, 16, 0x83),
        (3, 273, 64, 0x83),
    ]
    assert image.stat().st_blocks * 512 < 32 * MIB  # the rest are holes


@needs_tools
def test_files_go_in_and_come_out(image):
    found = open_disk(image)
    found.boot.put({"samd.toml": b"device = 'bed-01'\n"})
    assert found.boot.read("samd.toml") == b"device = 'bed-01'\n"
    assert found.boot.names() == {"config.txt", "samd.toml"}
    found.root.put(
        {
            "/etc/samd/password": Put(b"geheim", 0o600, 950),
            "/opt/x": link("releases/y"),
            "/etc/passwd": Put(b"new\n"),
        },
        {"/etc/samd": (0o750, 950)},
    )
    assert found.root.read("/etc/samd/password") == b"geheim"
    assert found.root.read("/etc/passwd") == b"new\n"
    assert found.root.resolve("/opt/x") == "/opt/releases/y"
    assert found.root.names("/etc") == {"passwd", "samd"}
    assert _status(image, "/etc/samd/password") == ("0600", "950", "950")
    assert _status(image, "/etc/samd") == ("0750", "950", "950")
    assert _status(image, "/opt") == ("0755", "0", "0")
    assert _clean(image)


def _status(image: Path, name: str) -> tuple[str, str, str]:
    start = open_disk(image).partitions[1].start
    told = tools.run("debugfs", "-R", f"stat {name}", f"{image}?offset={start}").split()
    return told[told.index("Mode:") + 1], told[told.index("User:") + 1], told[told.index("Group:") + 1]


def _clean(image: Path) -> bool:
    """Whether fsck finds nothing at all to mend in the root."""
    start, size = open_disk(image).partitions[1].start, open_disk(image).partitions[1].size
    part = image.with_suffix(".ext4")
    with image.open("rb") as file:
        file.seek(start)
        part.write_bytes(file.read(size))
    done = subprocess.run([str(tools.find("e2fsck")), "-fn", str(part)], capture_output=True, check=False)
    return done.returncode == 0


@needs_tools
def test_the_store_belongs_to_the_agent(image):
    start = open_disk(image).partitions[2].start
    told = tools.run("debugfs", "-R", "stat /", f"{image}?offset={start}").split()
    assert told[told.index("User:") + 1] == "950"


@needs_tools
def test_what_does_not_fit_is_said_and_what_is_missing_is_said(image):
    root = open_disk(image).root
    with pytest.raises(FlashError, match=r"full|could not be written"):
        root.put({"/large": Put(os.urandom(20 * MIB))})
    with pytest.raises(FlashError, match="holds no /nothing"):
        root.read("/nothing")


@needs_tools
@pytest.mark.parametrize("cut", [1, 40 * MIB, 100 * MIB])
def test_a_truncated_image_is_said_with_what_is_missing(image, cut):
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size - MIB - cut)
    with pytest.raises(FlashError, match=f"{cut:,} bytes are missing"):
        open_disk(image)


@pytest.mark.parametrize("content", [b"", b"\0" * 512, b"text" * 200, b"\0" * 510 + b"\x55\xaa"])
def test_what_is_no_image_is_said(tmp_path, content):
    file = tmp_path / "a.img"
    file.write_bytes(content)
    with pytest.raises(FlashError, match=r"no disk image|no image for a Raspberry Pi"):
        open_disk(file)


# -- the cache -----------------------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "a.img"

    def interrupted() -> None:
        with cache.whole(target) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with cache.whole(target) as partial:
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.img"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / f".a.img.{2**22 + 1}.part"
    left.write_text("half")
    with cache.whole(tmp_path / "a.img") as partial:
        partial.write_text("whole")
    assert not left.exists()


def test_two_builds_of_one_thing_make_it_once(tmp_path):
    made: list[int] = []

    def make(path: Path) -> None:
        made.append(1)
        path.write_text("content")

    store = cache.Cache(tmp_path)
    threads = [threading.Thread(target=store.get, args=("base", "k", ".tar", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert made == [1]


def test_the_oldest_of_a_kind_go(tmp_path):
    store = cache.Cache(tmp_path)
    for number in range(6):
        path = store.get("base", str(number), ".img", lambda path: path.write_text("x"))
        os.utime(path, (number, number))
    assert sorted(path.name for path in tmp_path.glob("base-*")) == [
        f"base-{number}.img" for number in range(2, 6)
    ]


def test_the_key_changes_with_each_part():
    assert len({cache.key_of(*parts) for parts in ((1, 2), (2, 1), (12,), ((1, 2),), ("1", 2))}) == 5


# -- initrd, overlay, packages -----------------------------------------------------------------------------


def module(folder: Path, name: str, depends: str = "") -> None:
    (folder / f"{name}.ko").write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")


def test_modules_are_loaded_after_those_they_need(tmp_path):
    module(tmp_path, "ext4", "jbd2,mbcache")
    module(tmp_path, "jbd2", "crc32c-generic")
    module(tmp_path, "mbcache")
    module(tmp_path, "crc32c_generic")
    order = [name for name, _ in initrd.load_order(["ext4", "built-in"], initrd.find_modules(tmp_path))]
    assert order == ["crc32c_generic", "jbd2", "mbcache", "ext4"]


def test_modules_that_need_each_other_end():
    assert initrd.load_order(["a"], {}) == []


def test_the_initrd_is_an_archive_that_cpio_reads(tmp_path):
    module(tmp_path, "ext4")
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"program")
    made = initrd.build(tmp_path, busybox)
    assert made == initrd.build(tmp_path, busybox)
    if tools.find("cpio") is None:
        pytest.skip("cpio is not installed")
    import gzip

    listed = subprocess.run(
        ["cpio", "-t", "--quiet"], input=gzip.decompress(made), capture_output=True, check=True
    )
    assert {"init", "bin/busybox", "modules/ext4.ko", "modules/order", "dev/console"} <= set(
        listed.stdout.decode().split()
    )


def test_the_initrds_script_is_a_script(tmp_path):
    for script in (initrd.INIT, raspios.FIRSTRUN):
        file = tmp_path / "script"
        file.write_text(script)
        subprocess.run(["sh", "-n", str(file)], check=True)
    for path in (*overlay.HERE.rglob("usr/lib/samd/*"), *overlay.HERE.parent.glob("checks/guest/shell")):
        subprocess.run(["sh", "-n", str(path)], check=True)


def test_every_unit_that_is_enabled_is_there_and_runs_what_is_there():
    files = overlay.files("common", "debian")
    for unit in overlay.ENABLED:
        assert f"{overlay.UNITS}/{unit}" in files
    assert files["/usr/lib/samd/first-boot"].mode == 0o755
    started = [
        line.split("=", 1)[1].split()[0]
        for name, file in files.items()
        if name.endswith(".service")
        for line in file.content.decode().splitlines()
        if line.startswith(("ExecStart=", "ExecStartPre="))
    ]
    assert {name for name in started if name.startswith("/usr/lib/samd/")} == {
        "/usr/lib/samd/first-boot",
        "/usr/lib/samd/wait-for-time",
    }


def test_the_account_is_added_once_and_nobody_can_log_in_by_it():
    texts = ("root:x:0:0::/:/bin/sh\n", "root:x:0:\nbluetooth:x:112:\n", "root:*:1::::::\n")
    once = overlay.account(*texts)
    assert overlay.account(*once) == once
    assert once[0].splitlines()[1] == "samd:x:950:950:samd-edge:/var/lib/samd:/usr/sbin/nologin"
    assert once[1].count("bluetooth") == 1
    assert once[2].splitlines()[1].startswith("samd:!*:")


def test_components_have_version_licence_and_origin(tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: zlib1g\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1:1.2+x-1\n"
        "Maintainer: A <a@b>\nDescription: x\n folded\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
    )
    (tmp_path / "usr/share/doc/zlib1g").mkdir(parents=True)
    (tmp_path / "usr/share/doc/zlib1g/copyright").write_text("Files: *\nLicense: Zlib\n text\n")
    site = tmp_path / "site/samd_edge-0.1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text(
        "Name: samd_edge\nVersion: 0.1.0\nLicense-Expression: Apache-2.0\n\nlong\n"
    )
    found = sbom.of_tree(tmp_path, tmp_path / "site")
    assert [(part["purl"], part["licenses"]) for part in found] == [
        ("pkg:deb/debian/zlib1g@1%3A1.2%2Bx-1?arch=arm64", [{"license": {"name": "Zlib"}}]),
        ("pkg:pypi/samd-edge@0.1.0", [{"expression": "Apache-2.0"}]),
    ]
    document = sbom.document(found, name="x", version="1", sha256="ab" * 32)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert (
        document["serialNumber"]
        == sbom.document(found, name="x", version="1", sha256="ab" * 32)["serialNumber"]
    )


# -- bases ---------------------------------------------------------------------------------------------------


def test_an_archive_for_another_architecture_is_refused(tmp_path):
    (tmp_path / "tree/lib").mkdir(parents=True)
    (tmp_path / "tree/lib/ld-linux-x86-64.so.2").write_text("")
    tools.run("tar", "-C", tmp_path / "tree", "-cf", tmp_path / "root.tar", ".")
    with pytest.raises(FlashError, match="no root file system for arm64"):
        assemble.unpack(tmp_path / "root.tar", tmp_path / "out")


def test_an_archive_that_was_cut_short_is_refused(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(os.urandom(100_000))
    tools.run("tar", "-C", tmp_path / "tree", "-cf", tmp_path / "root.tar", ".")
    whole = (tmp_path / "root.tar").read_bytes()
    (tmp_path / "root.tar").write_bytes(whole[:50_000])
    with pytest.raises(FlashError, match="cut short"):
        assemble.unpack(tmp_path / "root.tar", tmp_path / "out")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["E: Failed to fetch x  Could not resolve 'deb.debian.org'\n"], "is there a network"),
        (["E: Failed to fetch x  Hash Sum mismatch\n"], "cut short or changed"),
        (["tar: x: No space left on device\n"], "make room"),
    ],
)
def test_a_build_that_fails_says_the_remedy(lines, words):
    assert words in debian.explained(lines, 1)


@pytest.mark.parametrize(("number", "name"), [(0xB7, "aarch64"), (0x28, "32-bit arm"), (0x3E, "x86-64")])
def test_the_processor_of_a_program(number, name):
    assert raspios.elf_machine(b"\x7fELF" + bytes(14) + number.to_bytes(2, "little") + bytes(10)) == name


def test_no_wifi_key_stands_in_what_everybody_can_read():
    assert "password" not in raspios.network_config(None, None, None)


# -- machines ------------------------------------------------------------------------------------------------


def test_a_pi_3b_has_the_memory_it_has():
    spec = machine.Spec(image=Path("x.img"), kind="raspi3b", memory_mib=512)
    with pytest.raises(FlashError, match="1024"):
        machine.check(spec)


def test_a_card_of_a_pi_has_a_power_of_two(tmp_path):
    image = tmp_path / "a.img"
    image.write_bytes(b"")
    os.truncate(image, 5 * MIB)
    machine.enlarge(image, "virt")
    assert image.stat().st_size == 5 * MIB
    machine.enlarge(image, "raspi3b")
    assert image.stat().st_size == 8 * MIB
    machine.enlarge(image, "raspi3b", 8)
    assert image.stat().st_size == 8 * MIB


# -- cards ---------------------------------------------------------------------------------------------------

LISTING = json.dumps(
    {
        "blockdevices": [
            {"path": "/dev/nvme0n1", "size": 10**12, "rm": False, "ro": False, "type": "disk", "model": "SSD",
             "hotplug": False, "tran": "nvme", "mountpoints": [None],
             "children": [{"path": "/dev/nvme0n1p1", "mountpoints": ["/"]}]},
            {"path": "/dev/sda", "size": 32 * 10**9, "rm": True, "ro": False, "type": "disk", "model": "SD",
             "hotplug": True, "tran": "usb", "mountpoints": [None],
             "children": [{"path": "/dev/sda1", "mountpoints": ["/media/me/BOOT"]}]},
            {"path": "/dev/sdb", "size": 32 * 10**9, "rm": True, "ro": False, "type": "disk", "model": "SD",
             "hotplug": True, "tran": "usb", "mountpoints": [None],
             "children": [{"path": "/dev/sdb1", "mountpoints": [None]}]},
            {"path": "/dev/sdc", "size": 10**6, "rm": True, "ro": False, "type": "disk", "model": None,
             "hotplug": True, "tran": "usb", "mountpoints": [None]},
            {"path": "/dev/sdd", "size": 10**12, "rm": False, "ro": False, "type": "disk", "model": "HD",
             "hotplug": False, "tran": "sata", "mountpoints": [None]},
            {"path": "/dev/sde", "size": 32 * 10**9, "rm": True, "ro": True, "type": "disk", "model": "SD",
             "hotplug": True, "tran": "usb", "mountpoints": [None]},
            {"path": "/dev/loop0", "size": 10**10, "rm": False, "ro": False, "type": "loop", "model": None,
             "hotplug": False, "tran": None, "mountpoints": []},
        ]
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/nvme0n1", "the running system lies on it"),
        ("/dev/sda", "is mounted at /media/me/BOOT"),
        ("/dev/sdc", "take a larger card"),
        ("/dev/sdd", "is not removable"),
        ("/dev/sde", "write-protected"),
        ("/dev/loop0", "is a loop"),
    ],
)
def test_a_disk_that_must_not_be_written_to_is_refused(path, words):
    assert words in (write.refusal(write.parse(LISTING, path), 2 * 10**9) or "")


def test_a_card_may_be_written_to_and_is_confirmed_by_its_own_name():
    target = write.parse(LISTING, "/dev/sdb")
    assert write.refusal(target, 2 * 10**9) is None
    assert write.confirmed(target, " /dev/sdb\n")
    assert not write.confirmed(target, "yes")


def test_a_partition_is_no_disk():
    with pytest.raises(FlashError, match="is a part of /dev/sdb; name the whole disk"):
        write.parse(LISTING, "/dev/sdb1")


def test_a_file_is_no_disk(tmp_path):
    (tmp_path / "card").write_text("")
    with pytest.raises(FlashError, match="is no disk"):
        write.look_at(tmp_path / "card")


@needs_tools
def test_what_is_written_is_read_back(image, tmp_path):
    card = tmp_path / "card"
    card.write_bytes(os.urandom(MIB))
    os.truncate(card, image.stat().st_size + MIB)
    seen = []
    sha256 = write.write(image, card, progress=lambda what, done, size: seen.append((what, done == size)))
    assert card.read_bytes()[: image.stat().st_size] == image.read_bytes()
    assert sha256 == tools.run("sha256sum", image).split()[0]
    assert ("writing", True) in seen
    assert ("reading back", True) in seen


@needs_tools
def test_an_interrupted_write_leaves_no_card_that_starts(image, tmp_path):
    card = tmp_path / "card"
    card.write_bytes(image.read_bytes())

    def interrupt(what: str, done: int, _size: int) -> None:
        if done > 100 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write.write(image, card, progress=interrupt)
    with pytest.raises(FlashError, match="no disk image"):
        open_disk(card)


@needs_tools
def test_a_card_that_is_full_is_said(image):
    with pytest.raises(FlashError, match="not written whole"):
        write.write(image, Path("/dev/full"))


@needs_tools
def test_a_card_that_forgets_is_found(image, tmp_path, monkeypatch):
    card = tmp_path / "card"
    card.write_bytes(b"")
    os.truncate(card, image.stat().st_size)
    whole = write.read_back

    def worn(target, size, progress):
        with target.open("r+b") as file:
            file.seek(5 * MIB)
            file.write(b"worn")
        return whole(target, size, progress)

    monkeypatch.setattr(write, "read_back", worn)
    with pytest.raises(FlashError, match="differs from the image"):
        write.write(image, card)
