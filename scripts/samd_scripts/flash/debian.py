"""The root file system of Debian for arm64, as one archive, made by mmdebstrap on any Linux computer.

Only here is code of the device's processor run, by qemu-user: the packages' own installation scripts. For
that the kernel has to know the emulator (binfmt_misc). Root registers it for the time of the build alone, in
a mount namespace; another user needs it registered. Where neither is possible an archive that was made
elsewhere is given instead (`--base FILE.tar`).
"""

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from samd_scripts.flash import tools
from samd_scripts.flash.errors import FlashError
from samd_scripts.flash.profiles import EXCLUDED, INCLUDED, SUITE

MIRROR: Final = "http://deb.debian.org/debian"
SECURITY: Final = "http://deb.debian.org/debian-security"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
COMPONENTS: Final = "main non-free-firmware"

_REGISTERED: Final = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
_RULE: Final = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
_WITH_EMULATOR: Final = """
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || exit 111
[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || cat "$0" > /proc/sys/fs/binfmt_misc/register || exit 111
exec "$@"
"""
_NO_BINFMT: Final = 111

# An initrd made under emulation takes longer than all the rest: ours replaces it (see initrd.py).
_BEFORE: Final = (
    'chroot "$1" dpkg-divert --local --rename --divert /usr/sbin/update-initramfs.real '
    '--add /usr/sbin/update-initramfs && ln -s /bin/true "$1"/usr/sbin/update-initramfs'
)
_AFTER: Final = (
    'rm -f "$1"/usr/sbin/update-initramfs "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap '
    '&& chroot "$1" dpkg-divert --local --rename --remove /usr/sbin/update-initramfs '
    '&& sed -i /force-unsafe-io/d "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap '
    '&& rm -rf "$1"/boot/firmware/* "$1"/var/log/*.log "$1"/var/log/apt "$1"/var/cache/debconf/*-old'
)
_STEPS: Final = (
    (r"running apt-get update", "fetching Debian's package lists"),
    (r"downloading packages", "downloading packages"),
    (r"extracting archives", "unpacking the essential packages"),
    (r"installing essential", "installing the essential packages"),
    (r"installing remaining", "downloading and installing the other packages"),
    (r"running --customize-hook", "cleaning up"),
    (r"creating tarball", "writing the archive"),
)


def sources(mirror: str, security: str) -> str:
    """The apt sources of a Debian: its suite, its updates, its security updates."""
    return (
        f"deb {mirror} {SUITE} {COMPONENTS}\n"
        f"deb {mirror} {SUITE}-updates {COMPONENTS}\n"
        f"deb {security} {SUITE}-security {COMPONENTS}\n"
    )


def command(packages: Sequence[str], out: Path, listed: Path, *, mode: str, proxy: str | None) -> list[str]:
    """mmdebstrap's call. `listed` is a file with the apt sources."""
    words = [
        "mmdebstrap", f"--mode={mode}", "--arch=arm64", "--variant=apt", "--format=tar",
        f"--include={','.join(packages)}", "--skip=check/qemu", "--dpkgopt=force-unsafe-io",
        f"--keyring={KEYRING}",
    ]  # fmt: skip
    words += [f"--dpkgopt=path-exclude={path}" for path in EXCLUDED]
    words += [f"--dpkgopt=path-include={path}" for path in INCLUDED]
    words += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
    words += ['--aptopt=Acquire::Retries "3"', '--aptopt=Acquire::http::Timeout "60"']
    if proxy:
        words.append(f'--aptopt=Acquire::http::Proxy "{proxy}"')
    words += ['--setup-hook=mkdir -p "$1"/boot/firmware']
    words += [f"--essential-hook={_BEFORE}", f"--customize-hook={_AFTER}"]
    return [*words, SUITE, str(out), str(listed)]


def build(
    packages: Sequence[str],
    out: Path,
    *,
    mirror: str = MIRROR,
    security: str = SECURITY,
    step: Callable[[str], None] = lambda _text: None,
) -> None:
    """Write the archive to `out`. Raises FlashError."""
    tools.require(*tools.BUILD)
    if not KEYRING.exists():
        raise FlashError(
            f"{KEYRING} is missing: Debian's keys; run: sudo apt-get install debian-archive-keyring"
        )
    work = out.parent / f".{out.name}.build"
    work.mkdir(exist_ok=True)
    listed = work / "sources.list"
    listed.write_text(sources(mirror, security))
    root = os.geteuid() == 0
    words = command(packages, out, listed, mode="root" if root else "unshare", proxy=_proxy())
    try:
        _watch(_emulated(words, root=root), work, step)
    finally:
        tools.run("rm", "-rf", "--one-file-system", work)


def _emulated(words: Sequence[str], *, root: bool) -> list[str]:
    """The call, where aarch64 binaries can be run."""
    if platform.machine() == "aarch64" or _REGISTERED.exists():
        return list(words)
    if not _RULE.exists():
        raise FlashError(
            f"{_RULE} is missing: it tells the kernel of qemu-user; run: "
            "sudo apt-get install --reinstall qemu-user-static"
        )
    if not root:
        raise FlashError(
            "this kernel does not run arm64 programs by qemu-user (binfmt_misc), and only root can change "
            "that; run: sudo systemctl restart systemd-binfmt, or build as root, or give --base FILE.tar "
            "from another computer"
        )
    return ["unshare", "--mount", "--", "sh", "-c", _WITH_EMULATOR, str(_RULE), *words]


def _watch(words: Sequence[str], work: Path, step: Callable[[str], None]) -> None:
    environment = {**os.environ, "INITRD": "No", "LC_ALL": "C.UTF-8", "TMPDIR": str(work)}
    environment["PATH"] = f"{environment.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    told: list[str] = []
    try:
        process = subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", env=environment,
        )  # fmt: skip
    except OSError as error:
        raise FlashError(f"{words[0]}: cannot be run ({error.strerror})") from error
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                told = [*told[-200:], line]
                for pattern, text in _STEPS:
                    if re.search(pattern, line):
                        step(text)
        except BaseException:
            process.terminate()
            raise
    if process.returncode == _NO_BINFMT:
        raise FlashError(
            "binfmt_misc cannot be mounted here (a container without privileges?); build elsewhere, and give "
            "the archive by --base FILE.tar"
        )
    if process.returncode:
        raise FlashError(
            f"Debian's root file system could not be made: {explained(told, process.returncode)}"
        )


def explained(lines: Sequence[str], code: int) -> str:
    """What mmdebstrap says went wrong, with the remedy where it is known."""
    text = "".join(lines)
    wrong = [line.strip() for line in lines if line.startswith(("E:", "Err:", "W: Failed", "dpkg: error"))]
    reason = "; ".join(wrong[-3:]) or tools.told(text, code)
    if re.search(r"Could not resolve|Temporary failure|Could not connect|Network is unreachable", text):
        return f"{reason}; is there a network? Another mirror is given by --mirror"
    if re.search(r"Hash Sum mismatch|unexpected size|Connection failed|File has unexpected", text):
        return f"{reason}; a download was cut short or changed on its way: run it again"
    if "No space left" in text or "enough free space" in text:
        return f"{reason}; make room, or name another folder by --cache"
    return reason


def _proxy() -> str | None:
    """The proxy of this computer's apt, if one is set."""
    if tools.find("apt-config") is None:
        return None
    found = tools.run("apt-config", "shell", "PROXY", "Acquire::http::Proxy")
    words = shlex.split(found.partition("=")[2])
    return words[0] if words and words[0] else None
