"""The programs of the host that images are made with, and running them.

Everything that is missing is named at once, with the one line that installs it.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from samd_scripts.flash.errors import FlashError

PACKAGES: Final = {
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "arch-test": "arch-test",
    "qemu-system-aarch64": "qemu-system-arm",
    "mcopy": "mtools",
    "mformat": "mtools",
    "sfdisk": "fdisk",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "zstd": "zstd",
    "xz": "xz-utils",
    "tar": "tar",
    "unshare": "util-linux",
    "lsblk": "util-linux",
    "newuidmap": "uidmap",
}
"""By program, its Debian package."""
BUILD: Final = ("mmdebstrap", "qemu-aarch64-static", "arch-test", "unshare", "tar")
IMAGE: Final = ("mcopy", "mformat", "sfdisk", "mke2fs", "debugfs", "zstd")
EMULATE: Final = ("qemu-system-aarch64", "mcopy", "debugfs")

_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"


def find(tool: str) -> str | None:
    """Where a program is; `sbin` is looked through too, which is not on the path of every user."""
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def require(*wanted: str, found: Callable[[str], str | None] = find) -> None:
    """Raises FlashError that names every missing program and the line that installs them."""
    missing = [tool for tool in dict.fromkeys(wanted) if found(tool) is None]
    if not missing:
        return
    packages = " ".join(dict.fromkeys(PACKAGES[tool] for tool in missing))
    noun = "is" if len(missing) == 1 else "are"
    raise FlashError(
        f"{', '.join(missing)} {noun} missing on this computer; run: "
        f"sudo apt-get install --no-install-recommends {packages}"
    )


def run(
    *command: str | Path,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    what: str | None = None,
    complaints: bool = False,
) -> str:
    """Run a program to its end and return what it printed; with `complaints`, on both outputs. Raises
    FlashError with its last lines."""
    words = [str(word) for word in command]
    program = find(words[0]) or words[0]
    try:
        done = subprocess.run(
            [program, *words[1:]],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1", **(environment or {})},
            check=False,
        )
    except OSError as error:
        raise FlashError(f"{words[0]}: cannot be run ({error.strerror})") from error
    if done.returncode:
        raise FlashError(f"{what or words[0]} failed: {told(done.stderr or done.stdout, done.returncode)}")
    return done.stdout + (done.stderr if complaints else "")


def told(text: str, code: int) -> str:
    """The last lines that a program left, as one; "no space" gets its remedy."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = "; ".join(lines[-3:]) or f"exit code {code}"
    if "No space left" in text or "Disk full" in text:
        return f"{reason}; make room, or name another folder by --cache or --out"
    return reason


def as_root(command: Sequence[str]) -> list[str]:
    """The command as it has to be called to own files of several users: as it is for root, else in a user
    namespace with the caller's subordinate ids. Raises FlashError where there are none."""
    if os.geteuid() == 0:
        return list(command)
    require("unshare", "newuidmap")
    if not has_subordinate_ids():
        raise FlashError(
            "this user has no subordinate ids, which a root file system needs; run: "
            'sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER", or be root'
        )
    return ["unshare", "--user", "--map-auto", "--map-root-user", "--mount", "--", *command]


def has_subordinate_ids(files: Sequence[Path] = (Path("/etc/subuid"), Path("/etc/subgid"))) -> bool:
    """Whether this user may use a range of ids of at least 65,536."""
    import pwd

    try:
        names = {str(os.getuid()), pwd.getpwuid(os.getuid()).pw_name}
    except KeyError:
        names = {str(os.getuid())}
    for file in files:
        try:
            rows = [line.split(":") for line in file.read_text().splitlines()]
        except OSError:
            return False
        if not any(len(row) == 3 and row[0] in names and int(row[2]) >= 65_536 for row in rows):
            return False
    return True
