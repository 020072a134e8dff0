"""One emulated machine: a QEMU process that boots an image, and what can be done to it from outside.

`virt` is QEMU's own board, quick and with all that a test needs; `raspi3b` is the board of a Pi 3B. Both are
software emulation of another processor, some ten to thirty times slower than a Pi 4.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from samd_scripts.flash import tools
from samd_scripts.flash.disk import MIB, open_disk
from samd_scripts.flash.errors import FlashError
from samd_scripts.stack import StackError, _die_with_parent, wait_until

Kind = Literal["virt", "raspi3b"]
KINDS: Final = ("virt", "raspi3b")
HOST: Final = "10.0.2.2"
"""The host's 127.0.0.1, as the machine sees it (QEMU's user networking)."""
RASPI3B_MIB: Final = 1024
RASPI3B_TREE: Final = "bcm2837-rpi-3-b.dtb"

_COMMON: Final = "rootwait ro net.ifnames=0 quiet samd.clock=kept"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """How a machine is made. The image is written to; `snapshot` throws away what was written."""

    image: Path
    kind: Kind = "virt"
    memory_mib: int = 512
    processors: int = 2
    snapshot: bool = False
    log_journal: bool = True
    append: str = ""


@dataclass(frozen=True)
class Firmware:
    """What QEMU loads, taken out of the image's own FAT partition."""

    kernel: Path
    initrd: Path
    tree: Path | None

    @classmethod
    def of(cls, image: Path, kind: Kind, folder: Path) -> Self:
        """Raises FlashError for an image that holds no such kernel."""
        boot = open_disk(image).boot
        names = boot.names()
        if not {"vmlinuz", "initrd.img"} <= names:
            raise FlashError(
                f"{image}: its first partition holds no vmlinuz and initrd.img; an image of Raspberry Pi OS "
                "starts on a Pi alone"
            )
        if kind == "raspi3b" and RASPI3B_TREE not in names:
            raise FlashError(f"{image}: holds no {RASPI3B_TREE}; it is no image for a Pi (profile minimal?)")
        folder.mkdir(parents=True, exist_ok=True)
        boot.get("vmlinuz", folder / "vmlinuz")
        boot.get("initrd.img", folder / "initrd.img")
        if kind == "raspi3b":
            boot.get(RASPI3B_TREE, folder / RASPI3B_TREE)
        return cls(
            folder / "vmlinuz", folder / "initrd.img", folder / RASPI3B_TREE if kind == "raspi3b" else None
        )


def command(spec: Spec, firmware: Firmware, *, folder: Path, now: float) -> list[str]:
    """QEMU's call. Sockets are made in `folder`: `qmp` to command it, `check` into the machine (virt)."""
    console = "ttyAMA0" if spec.kind == "virt" else "ttyS1,115200"
    append = f"root=LABEL=rootfs console={console} {_COMMON}"
    if spec.log_journal:
        append += " systemd.show_status=0 systemd.journald.forward_to_console=1"
    words = ["qemu-system-aarch64", "-kernel", str(firmware.kernel), "-initrd", str(firmware.initrd)]
    words += ["-display", "none", "-monitor", "none", "-no-reboot"]
    words += ["-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
    snapshot = ",snapshot=on" if spec.snapshot else ""
    drive = f"file={_escaped(spec.image)},format=raw,cache=writeback{snapshot}"
    if spec.kind == "virt":
        words += [
            "-M",
            "virt,gic-version=3",
            "-cpu",
            "max,pauth-impdef=on",
            "-accel",
            "tcg,thread=multi,tb-size=256",
        ]
        words += ["-smp", str(spec.processors), "-m", str(spec.memory_mib), "-serial", "stdio"]
        words += ["-drive", f"{drive},if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"]
        words += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=,id=nic"]
        words += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        words += ["-chardev", f"socket,id=check,path={folder / 'check'},server=on,wait=off"]
        words += ["-device", "virtserialport,chardev=check,name=samd.check"]
    else:
        # a Pi has no clock; without this the machine would live in the year in which it was built
        append += f" systemd.clock_usec={int(now * 1e6)}"
        # QEMU resets the board the moment its watchdog is started
        append += " modprobe.blacklist=bcm2835_wdt"
        words += ["-M", "raspi3b", "-accel", "tcg,thread=multi", "-dtb", str(firmware.tree)]
        words += ["-serial", "null", "-serial", "stdio", "-drive", f"{drive},if=sd"]
        words += ["-netdev", "user,id=net", "-device", "usb-net,netdev=net"]
    return [*words, "-append", f"{append} {spec.append}".strip()]


def check(spec: Spec) -> None:
    """Raises FlashError for a machine that cannot be."""
    tools.require(*tools.EMULATE)
    if spec.kind == "raspi3b" and spec.memory_mib != RASPI3B_MIB:
        raise FlashError(
            f"--memory {spec.memory_mib}: a Pi 3B has {RASPI3B_MIB} MiB, and QEMU gives it no other"
        )
    if not 256 <= spec.memory_mib <= 16_384:
        raise FlashError(f"--memory {spec.memory_mib}: between 256 and 16384 MiB")


def enlarge(image: Path, kind: Kind, at_least_mib: int = 0) -> None:
    """Give an image the size of a card: raspi3b takes a power of two alone."""
    size = max(image.stat().st_size, at_least_mib * MIB)
    if kind == "raspi3b":
        size = 1 << (size - 1).bit_length()
    with image.open("r+b") as file:
        file.truncate(size)


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


@dataclass
class Machine:
    """A running machine. Leaving the `with` block ends it, without a farewell."""

    spec: Spec
    folder: Path
    wall: Callable[[], float] = time.time
    on_line: Callable[[str], None] | None = None
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    boots: int = field(default=0, init=False)
    _firmware: Firmware | None = field(default=None, init=False)
    _qmp: socket.socket | None = field(default=None, init=False)

    @property
    def console(self) -> Path:
        """What the machine printed, over all its boots."""
        return self.folder / "console.log"

    @property
    def channel(self) -> Path:
        """The socket into the machine."""
        return self.folder / "check"

    def start(self) -> None:
        """Switch it on. Raises FlashError."""
        check(self.spec)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._firmware is None:
            self._firmware = Firmware.of(self.spec.image, self.spec.kind, self.folder / "firmware")
        words = command(self.spec, self._firmware, folder=self.folder, now=self.wall())
        program = tools.find(words[0])
        self.boots += 1
        with self.console.open("ab") as log:
            log.write(f"--- boot {self.boots} ---\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [program or words[0], *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl call, nothing that could dead-lock
            )

    def cut_power(self) -> None:
        """What the machine had not yet given to its disk is lost, as in a power cut."""
        self._close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def switch_off(self, timeout_s: float = 60.0) -> bool:
        """Press the power button, and wait; True if it ended by itself. `virt` alone has such a button."""
        self.tell("system_powerdown")
        assert self.process is not None
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        else:
            return True
        finally:
            self.cut_power()

    def connect_network(self, connected: bool) -> None:
        """Plug the network cable in, or out."""
        self.tell("set_link", name="nic", up=connected)

    def tell(self, order: str, **arguments: Any) -> None:
        """One order by QEMU's own protocol. Raises StackError."""
        if self._qmp is None:
            self._qmp = socket.socket(socket.AF_UNIX)
            self._qmp.settimeout(30)
            wait_until((self.folder / "qmp").exists, timeout=30, what="QEMU's socket")
            self._qmp.connect(str(self.folder / "qmp"))
            self._read_answer()
            self._ask({"execute": "qmp_capabilities"})
        self._ask({"execute": order, **({"arguments": arguments} if arguments else {})})

    def _ask(self, message: dict[str, Any]) -> None:
        assert self._qmp is not None
        self._qmp.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._read_answer()
            if "return" in answer:
                return
            if "error" in answer:
                raise StackError(f"QEMU: {answer['error'].get('desc', answer)}")

    def _read_answer(self) -> dict[str, Any]:
        assert self._qmp is not None
        received = b""
        while not received.endswith(b"\n"):
            piece = self._qmp.recv(1)
            if not piece:
                raise StackError("QEMU closed its socket")
            received += piece
        answer: dict[str, Any] = json.loads(received)
        return answer

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tail(self, lines: int = 25) -> str:
        """The end of what it printed."""
        with contextlib.suppress(OSError):
            return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _close(self) -> None:
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        for name in ("qmp", "check"):
            (self.folder / name).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()


def space_for(folder: Path, mib: int) -> None:
    """Raises FlashError where a folder has no such room."""
    free = shutil.disk_usage(folder).free // MIB
    if free < mib:
        raise FlashError(f"{folder}: {free:,} MiB are free, {mib:,} MiB are needed; make room")


def processors() -> int:
    """How many a machine gets: two, where the host has them."""
    return max(1, min(2, len(os.sched_getaffinity(0))))


__all__: Sequence[str] = (
    "HOST", "KINDS", "Firmware", "Kind", "Machine", "Spec", "check", "command", "enlarge", "processors",
    "space_for",
)  # fmt: skip
