"""``scripts/flash``: one image for a Raspberry Pi and for an emulated one."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from samd_scripts import release as releases
from samd_scripts.flash import base, debian, device, fleet, machine, tools, write
from samd_scripts.flash.cache import Cache, default_folder, whole
from samd_scripts.flash.disk import copy_sparse, open_disk
from samd_scripts.flash.errors import CheckFailed, FlashError
from samd_scripts.flash.profiles import PROFILES, PYTHON
from samd_scripts.flash.steps import Steps
from samd_scripts.stack import StackError

CARD_MIB: Final = 4096
"""The size of the card that an emulated machine is given."""

EPILOG: Final = """\
examples:
  scripts/flash device --name bed-01 --server 10.0.2.2 --source 'sim:?scenario=sepsis&speed=60'
  scripts/flash run bed-01.img                      # in QEMU; 10.0.2.2 is this computer, seen from inside
  scripts/flash test bed-01.img
  sudo scripts/flash write bed-01.img --to /dev/sdX

exit codes: 0 done, 1 a check failed, 2 bad input or a missing tool, 130 interrupted. See docs/flash.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = parser().parse_args(argv)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        return int(arguments.function(arguments, console))
    except FlashError as error:
        print(f"scripts/flash {arguments.command}: {error}", file=sys.stderr)
        return 2
    except (CheckFailed, StackError) as error:
        print(f"scripts/flash {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing half-done was left behind.", file=sys.stderr)
        return 130


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="scripts/flash", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _build(commands)
    _device(commands)
    _fleet(commands)
    _run(commands)
    _test(commands)
    _write(commands)
    _package(commands)
    return made


Commands = Any  # argparse's own type of what add_subparsers returns is private


def _command(commands: Commands, name: str, text: str, function: Any) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    made.set_defaults(function=function)
    return made


def _basing(made: argparse.ArgumentParser) -> None:
    made.add_argument("--profile", choices=tuple(PROFILES), default="core", help="default: %(default)s")
    made.add_argument(
        "--base", default=base.DEBIAN, metavar="debian|FILE",
        help="an image of Raspberry Pi OS (64-bit, .img or .img.xz), or an archive by 'build --archive'",
    )  # fmt: skip
    made.add_argument(
        "--mirror", default=debian.MIRROR, metavar="URL", help="of Debian; default: %(default)s"
    )
    made.add_argument(
        "--security-mirror", default=debian.SECURITY, metavar="URL", help="default: %(default)s"
    )
    made.add_argument("--refresh", action="store_true", help="fetch Debian's packages anew")
    made.add_argument("--cache", type=Path, metavar="DIR", help=f"default: {default_folder()}")
    made.add_argument("--json", action="store_true", help="print the result as JSON")


def _build(commands: Commands) -> None:
    made = _command(commands, "build", "the base image of all devices, kept in the cache", build)
    _basing(made)
    made.add_argument(
        "--out", type=Path, metavar="FILE", help="write it out too: .img, or .img.zst, compressed"
    )
    made.add_argument(
        "--archive", type=Path, metavar="FILE.tar", help="write Debian's root file system out, for --base"
    )


def _describing(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--source", metavar="URL", help=f"vital signs, as samd-edge run; default: {device.SOURCE}"
    )
    made.add_argument("--wifi", metavar="SSID", help="a Wi-Fi besides Ethernet; its password is asked for")
    made.add_argument("--wifi-password-file", type=Path, metavar="FILE", help="instead of asking")
    made.add_argument("--wifi-country", metavar="CC", help="two letters: which channels are allowed")
    made.add_argument(
        "--ssh-key", type=Path, metavar="FILE", help="who may log in as root: a public key; default: nobody"
    )
    made.add_argument("--model", type=Path, metavar="FILE", help="a model to begin with")
    made.add_argument(
        "--credentials", type=Path, metavar="DIR",
        help="for the broker: password, username, ca.crt, client.crt, client.key; any of them",
    )  # fmt: skip
    made.add_argument("--settings", type=Path, metavar="FILE", help="further settings of the agent, TOML")


def _device(commands: Commands) -> None:
    made = _command(commands, "device", "an image for one named device", make_device)
    made.add_argument(
        "--name", required=True, help="of the device and the host, as in bed-01; never a patient's"
    )
    made.add_argument(
        "--server", required=True, metavar="HOST", help="the broker: HOST, HOST:PORT or mqtts://HOST:PORT"
    )
    made.add_argument("--out", type=Path, metavar="FILE", help="default: NAME.img")
    _describing(made)
    _basing(made)


def _fleet(commands: Commands) -> None:
    made = _command(commands, "fleet", "images for all devices of a table", make_fleet)
    made.add_argument("table", type=Path, metavar="devices.csv", help=f"columns: {', '.join(fleet.COLUMNS)}")
    made.add_argument("--out", type=Path, required=True, metavar="DIR")
    made.add_argument("--server", metavar="HOST", help="where the table names none")
    _describing(made)
    _basing(made)


def _run(commands: Commands) -> None:
    made = _command(commands, "run", "boot an image in QEMU and show its log; Ctrl-C ends it", run_machine)
    made.add_argument("image", type=Path)
    made.add_argument("--machine", choices=machine.KINDS, default="virt", help="default: %(default)s")
    made.add_argument("--memory", type=int, metavar="MB", help="default: 512; raspi3b has 1024")
    made.add_argument(
        "--keep", action="store_true", help="write to the image itself; else what it wrote is thrown away"
    )
    made.add_argument("--seconds", type=float, metavar="S", help="end after so long")


def _test(commands: Commands) -> None:
    made = _command(
        commands, "test", "boot an image in QEMU against a real stack, and say pass or fail", test_image
    )
    made.add_argument("image", type=Path)
    made.add_argument("--machine", choices=machine.KINDS, default="virt", help="default: %(default)s")
    made.add_argument("--memory", type=int, metavar="MB", help="default: 512; raspi3b has 1024")
    made.add_argument("--steps", metavar="1,2,3", help="default: all (raspi3b: 1,2)")
    made.add_argument(
        "--data",
        default="clif-demo",
        metavar="PATH",
        help="whose recordings are replayed; default: %(default)s",
    )
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="keep logs there; else they are kept after a failure alone"
    )
    made.add_argument("--json", action="store_true", help="print what was measured as JSON")


def _write(commands: Commands) -> None:
    made = _command(commands, "write", "an image onto a card or stick, read back and compared", write_card)
    made.add_argument("image", type=Path)
    made.add_argument(
        "--to", type=Path, required=True, metavar="/dev/sdX", help="a removable disk, not mounted"
    )
    made.add_argument(
        "--yes", metavar="/dev/sdX", help="confirm without being asked, by naming the disk again"
    )


def _package(commands: Commands) -> None:
    made = _command(commands, "package", "the client of this project as an update for devices", package)
    made.add_argument("--out", type=Path, required=True, metavar="DIR")
    made.add_argument(
        "--profile", choices=tuple(PROFILES), default="core", help="of the devices; default: %(default)s"
    )
    made.add_argument("--python", default=PYTHON, metavar="X.Y", help="of the devices; default: %(default)s")
    made.add_argument("--cache", type=Path, metavar="DIR", help=f"default: {default_folder()}")
    made.add_argument("--json", action="store_true", help="print the result as JSON")


# -- what the commands do ------------------------------------------------------------------------------------


def _base(arguments: argparse.Namespace, steps: Steps) -> base.Base:
    return base.get(_wanted(arguments), _cache(arguments), step=steps)


def _wanted(arguments: argparse.Namespace) -> base.Wanted:
    return base.Wanted(
        profile=arguments.profile, base=arguments.base, mirror=arguments.mirror,
        security=arguments.security_mirror, refresh=arguments.refresh,
    )  # fmt: skip


def _cache(arguments: argparse.Namespace) -> Cache:
    return Cache((arguments.cache or default_folder()).expanduser().absolute())


def build(arguments: argparse.Namespace, console: Console) -> int:
    with Steps(console) as steps:
        if arguments.archive is not None:
            archive = base.debian_archive(_wanted(arguments), _cache(arguments), steps)
            with whole(arguments.archive) as partial:
                steps(f"writing {arguments.archive}")
                shutil.copyfile(archive, partial)
        made = _base(arguments, steps)
        found: dict[str, Any] = {
            "image": str(made.image), "profile": made.info.profile, "system": made.info.system,
            "client": made.info.release, "packages": len(made.packages()),
            "size_mb": made.image.stat().st_size / 1e6, "on_disk_mb": made.image.stat().st_blocks * 512 / 1e6,
        }  # fmt: skip
        if arguments.out is not None:
            found |= _written_out(made, arguments.out, steps)
        found["seconds"] = steps.seconds
    _told(found, arguments, console, f"{made.info.system}, client {made.info.release}: {made.image}")
    return 0


def _written_out(made: base.Base, out: Path, steps: Steps) -> dict[str, Any]:
    steps(f"writing {out}")
    with whole(out) as partial:
        if out.suffix == ".zst":
            tools.run("zstd", "-q", "-f", "-T0", "-10", made.image, "-o", partial)
        else:
            copy_sparse(made.image, partial)
    size = out.stat().st_size / 1e6
    limit = PROFILES[made.info.profile].max_compressed_mb
    if out.suffix == ".zst" and limit is not None and size > limit:
        raise CheckFailed(f"{out}: {size:.0f} MB compressed, at most {limit} are wanted")
    return {"out": str(out), "out_mb": size}


def _passphrase(arguments: argparse.Namespace, ssid: str) -> str:
    if arguments.wifi_password_file is not None:
        try:
            return str(arguments.wifi_password_file.read_text("utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise FlashError(
                f"--wifi-password-file {arguments.wifi_password_file}: cannot be read"
            ) from error
    if not sys.stdin.isatty():
        raise FlashError(f"--wifi {ssid}: there is nobody to ask for its password; give --wifi-password-file")
    import getpass

    return getpass.getpass(f"Password of the Wi-Fi {ssid}: ")


def describer(arguments: argparse.Namespace) -> Callable[[Mapping[str, str]], device.Device]:
    """A device from the fields of a table's line, with the options as defaults. Raises FlashError."""
    passphrases: dict[str, str] = {}

    def path(fields: Mapping[str, str], key: str) -> Path | None:
        value = fields.get(key) or getattr(arguments, key)
        return Path(value).expanduser() if value else None

    def described(fields: Mapping[str, str]) -> device.Device:
        name = device.checked_name(fields["name"])
        server = fields.get("server") or arguments.server
        if not server:
            raise FlashError("no server; give --server HOST, or a column of that name")
        credentials = device.read_credentials(path(fields, "credentials"))
        ssid = fields.get("wifi") or arguments.wifi
        if ssid and ssid not in passphrases:
            passphrases[ssid] = _passphrase(arguments, ssid)
        model = path(fields, "model")
        device.check_model(model)
        made = device.Device(
            name=name,
            broker=device.broker_of(server, name=name, credentials=credentials),
            settings=device.read_settings(path(fields, "settings")),
            source=fields.get("source") or arguments.source or None,
            wifi=device.wifi_of(ssid, passphrases[ssid], arguments.wifi_country) if ssid else None,
            ssh_keys=device.read_ssh_keys(path(fields, "ssh_key")),
            model=model,
            credentials=credentials,
        )
        _ = made.config  # checked by the client's own reader
        return made

    return described


def make_device(arguments: argparse.Namespace, console: Console) -> int:
    wanted = describer(arguments)({"name": arguments.name})
    _warn(wanted, console)
    out = arguments.out or Path(f"{wanted.name}.img")
    if out.suffix != ".img":
        raise FlashError(f"--out {out}: write a name that ends in .img")
    with Steps(console) as steps:
        found = device.make(wanted, _base(arguments, steps), out, step=steps)
        found["seconds"] = steps.seconds
    _told(found, arguments, console, f"{out}: {found['size'] / 1e6:,.0f} MB, sha256 {found['sha256']}")
    if not arguments.json:
        console.print(
            f"try it: scripts/flash run {out}    write it: sudo scripts/flash write {out} --to /dev/sdX"
        )
    return 0


def _warn(wanted: device.Device, console: Console) -> None:
    host, _, encrypted = wanted.broker.address
    if host == machine.HOST:
        console.print(
            f"{host} is this computer, seen from an emulated machine; a real Pi will not find it there"
        )
        return
    if not encrypted:
        console.print(
            "warning: mqtt:// is not encrypted; for patients use mqtts:// with --credentials", style="yellow"
        )
    warning = device.unreachable(wanted.broker)
    if warning:
        console.print(f"warning: {warning}", style="yellow")


def make_fleet(arguments: argparse.Namespace, console: Console) -> int:
    from rich.progress import Progress

    devices = fleet.read(arguments.table, describer(arguments))
    began = time.monotonic()
    with Steps(console) as steps:
        found = _base(arguments, steps)
    machine.space_for(_existing(arguments.out), len(devices) * found.image.stat().st_blocks * 512 // 2**20)
    with Progress(console=console) as progress:
        task = progress.add_task("images", total=len(devices))
        made = fleet.make_all(devices, found, arguments.out, done=lambda _made: progress.advance(task))
    result = {"devices": made, "seconds": time.monotonic() - began}
    _told(
        result,
        arguments,
        console,
        f"{len(made)} images in {arguments.out}, with os_list.json for Raspberry Pi Imager",
    )
    return 0


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def run_machine(arguments: argparse.Namespace, console: Console) -> int:
    open_disk(arguments.image)
    memory = arguments.memory or (machine.RASPI3B_MIB if arguments.machine == "raspi3b" else 512)
    with tempfile.TemporaryDirectory(prefix="samd-flash-", dir=arguments.image.absolute().parent) as work:
        image = arguments.image.absolute()
        if arguments.keep:
            machine.enlarge(image, arguments.machine)
        else:
            image = Path(work, "card.img")
            copy_sparse(arguments.image, image)
            machine.enlarge(image, arguments.machine, CARD_MIB)
        spec = machine.Spec(
            image=image, kind=arguments.machine, memory_mib=memory, processors=machine.processors()
        )
        console.print(
            f"booting {arguments.image} in QEMU ({arguments.machine}, {memory} MiB), half a minute or more; "
            "Ctrl-C ends it"
        )
        with machine.Machine(spec, Path(work)) as running:
            running.start()
            _follow(running, arguments.seconds)
    return 0


def _follow(running: machine.Machine, seconds: float | None) -> None:
    ends = None if seconds is None else time.monotonic() + seconds
    with running.console.open("rb") as log, contextlib.suppress(KeyboardInterrupt):
        while running.alive and (ends is None or time.monotonic() < ends):
            piece = log.read()
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
            if not piece:
                time.sleep(0.1)


def test_image(arguments: argparse.Namespace, console: Console) -> int:
    from samd_scripts.flash.checks import suite

    return suite.run(arguments, console)


def write_card(arguments: argparse.Namespace, console: Console) -> int:
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    size = open_disk(arguments.image).path.stat().st_size
    target = write.look_at(arguments.to)
    reason = write.refusal(target, size)
    if reason is not None:
        raise FlashError(reason)
    if not os.access(target.path, os.W_OK):
        raise FlashError(f"{target.path}: only root may write to it; run: sudo scripts/flash write ...")
    answer = arguments.yes
    if answer is None:
        if not sys.stdin.isatty():
            raise FlashError(f"--to {target.path}: nobody confirms it; type --yes {target.path}")
        console.print(f"{target.title}\nEverything on it will be lost.")
        answer = input(f"Type {target.path} to go on: ")
    if not write.confirmed(target, answer):
        raise FlashError(f"{target.path}: not confirmed; nothing was written")
    with Progress(
        *Progress.get_default_columns()[:2],
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        tasks = {what: progress.add_task(what, total=size) for what in ("writing", "reading back")}
        sha256 = write.write(
            arguments.image,
            Path(target.path),
            progress=lambda what, done, _all: progress.update(tasks[what], completed=done),
        )
    console.print(f"{target.path} holds {arguments.image}, read back and compared; sha256 {sha256}")
    return 0


def package(arguments: argparse.Namespace, console: Console) -> int:
    extras = PROFILES[arguments.profile].extras
    with Steps(console) as steps:
        release = base.get_release(_cache(arguments), extras, arguments.python, steps)
        steps("packing")
        made = releases.pack(release, arguments.out)
        found: dict[str, Any] = {
            "package": str(made.path), "sha256": made.sha256, "name": made.manifest.name,
            "size": made.path.stat().st_size, "seconds": steps.seconds,
        }  # fmt: skip
    _told(found, arguments, console, f"{made.path}: {found['size'] / 1e6:.0f} MB, sha256 {made.sha256}")
    return 0


def _told(found: dict[str, Any], arguments: argparse.Namespace, console: Console, text: str) -> None:
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        console.print(f"{text}  ({found['seconds']:.1f} s)")
