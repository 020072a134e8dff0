"""What this project adds to a root file system: files, units, the agent's account, one release of the client.

The files lie in ``overlay/``: ``common`` for every base, ``debian`` for ours alone. They are plain data here,
so that they can be put into a folder (``assemble``) or into a given image (``raspios``).
"""

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from samd_scripts.flash.disk import Put, link

HERE: Final = Path(__file__).parent / "overlay"
ACCOUNT: Final = "samd"
UID: Final = 950
"""Of the agent's account, fixed, so that files can be given to it before it exists."""
RELEASES: Final = "/opt/samd/releases"
UNITS: Final = "/etc/systemd/system"

ENABLED: Final = (
    "samd-edge.service", "samd-first-boot.service", "samd-update-check.service", "samd-update-check.path",
)  # fmt: skip
_OURS: Final = {
    "systemd-networkd.service": "multi-user.target",
    "systemd-networkd.socket": "sockets.target",
}
"""Of Debian's units those that nobody has enabled yet, with what wants them."""
MASKED: Final = (
    # nothing is fetched or upgraded by itself, and nothing is written to the card by the clock
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service",
    # nobody has a password here; a screen shows nothing that could be tried
    "getty@tty1.service", "getty-static.service", "serial-getty@ttyAMA0.service",
    "serial-getty@ttyS1.service",
    "systemd-networkd-wait-online.service", "systemd-pstore.service", "remote-fs.target",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount",
    "proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service",
)  # fmt: skip
DISABLED: Final = (
    # enabled again on the device that is given a key, or a Wi-Fi
    f"{UNITS}/multi-user.target.wants/ssh.service",
    f"{UNITS}/sshd.service",
    f"{UNITS}/multi-user.target.wants/wpa_supplicant.service",
    f"{UNITS}/timers.target.wants/apt-daily.timer",
    f"{UNITS}/timers.target.wants/apt-daily-upgrade.timer",
)


def files(*parts: str) -> dict[str, Put]:
    """The files of ``overlay/PART``, by their absolute names on the device."""
    found = {}
    for part in parts:
        base = HERE / part
        for path in sorted(base.rglob("*")):
            if path.is_file():
                executable = path.stat().st_mode & stat.S_IXUSR
                found[f"/{path.relative_to(base)}"] = Put(path.read_bytes(), 0o755 if executable else 0o644)
    return found


def units(*, debian: bool) -> dict[str, Put]:
    """The links that enable and mask units."""
    found = {f"{UNITS}/multi-user.target.wants/{unit}": link(f"{UNITS}/{unit}") for unit in ENABLED}
    if debian:
        found |= {
            f"{UNITS}/{target}.wants/{unit}": link(f"/usr/lib/systemd/system/{unit}")
            for unit, target in _OURS.items()
        }
        found |= {f"{UNITS}/{unit}": link("/dev/null") for unit in MASKED}
    return found


def links(release: str) -> dict[str, Put]:
    """The switch to the first release, and the command on everybody's path."""
    return {
        "/opt/samd/current": link(f"releases/{release}"),
        "/usr/local/bin/samd-edge": link("/opt/samd/current/bin/samd-edge"),
    }


def account(passwd: str, group: str, shadow: str) -> tuple[str, str, str]:
    """The three files with the agent's account; unchanged where it is there. Nobody can log in by it."""
    if not _has(passwd, ACCOUNT):
        passwd += f"{ACCOUNT}:x:{UID}:{UID}:samd-edge:/var/lib/samd:/usr/sbin/nologin\n"
    if not _has(shadow, ACCOUNT):
        shadow += f"{ACCOUNT}:!*:20000::::::\n"
    if not _has(group, ACCOUNT):
        group += f"{ACCOUNT}:x:{UID}:\n"
    if not _has(group, "bluetooth"):
        group += "bluetooth:x:951:\n"  # the unit names it, and bluez may be missing
    return passwd, group, shadow


def _has(text: str, name: str) -> bool:
    return any(line.startswith(f"{name}:") for line in text.splitlines())


def in_folder(root: Path, wanted: dict[str, Put]) -> None:
    """Put files into an unpacked root file system."""
    for name, file in wanted.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if file.link:
            path.symlink_to(file.content.decode())
        else:
            path.write_bytes(file.content)
            path.chmod(file.mode)


def without(root: Path, names: Iterable[str]) -> None:
    """Remove files of an unpacked root file system."""
    for name in names:
        (root / name.lstrip("/")).unlink(missing_ok=True)
