"""The checks in their order, what they say, and what is kept."""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from samd_scripts.bench import machine as this_computer
from samd_scripts.flash import machine, tools
from samd_scripts.flash.checks import faults, speed, updating, working
from samd_scripts.flash.checks.ward import Ward
from samd_scripts.flash.disk import open_disk
from samd_scripts.flash.errors import CheckFailed, FlashError
from samd_scripts.stack import StackError

CHECKS: Final[dict[int, tuple[str, Callable[[Ward], dict[str, Any]]]]] = {
    1: ("boots and reports online", working.boots),
    2: ("live inference equals this computer's", working.infers),
    3: ("a federated run to an active model", working.trains),
    4: ("power cuts while readings and models are written", faults.power),
    5: ("a cut network: the outbox drains, nothing is lost", faults.network),
    6: ("an update that fails returns to the old client", updating.returns),
    7: ("memory and speed", speed.measures),
}
OF_PI: Final = (1, 2)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """`flash test`. 0 when all checks passed, 1 when one failed. Raises FlashError for bad input."""
    chosen = chosen_steps(arguments.steps, arguments.machine)
    kind = arguments.machine
    open_disk(arguments.image)
    memory = arguments.memory or (machine.RASPI3B_MIB if kind == "raspi3b" else 512)
    machine.check(machine.Spec(image=arguments.image, kind=kind, memory_mib=memory))
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="samd-flash-test-", dir=_roomy()))
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    machine.space_for(folder, 4096)
    results: list[dict[str, Any]] = []
    began = time.monotonic()
    ward = Ward(
        arguments.image.absolute(), folder, kind, memory, arguments.data,
        lambda text: console.print(f"        {text}", style="dim"),
    )  # fmt: skip
    with ward:
        for number in chosen:
            results.append(one(number, ward, console))
            if number == 1 and not results[-1]["passed"]:
                break
    passed = all(result["passed"] for result in results)
    record = {
        "part": "flash_test", "measured_at": datetime.now(UTC).date().isoformat(), "machine": this_computer(),
        "emulated": f"QEMU {kind}, software emulation of an arm64 processor; no figure of a Raspberry Pi",
        "memory_mib": memory, "image": arguments.image.name, "seconds": round(time.monotonic() - began, 1),
        "passed": passed, "checks": results,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(record, indent=2))
    verdict = "pass" if passed else "fail"
    console.print(
        f"{verdict}: {len(results)} of {len(chosen)} checks run, {record['seconds']:.0f} s, in QEMU ({kind})"
    )
    if passed and arguments.out is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"logs: {folder}")
    return 0 if passed else 1


def one(number: int, ward: Ward, console: Console) -> dict[str, Any]:
    """Run one check, and say how it went."""
    title, check = CHECKS[number]
    began = time.monotonic()
    console.print(f"{number}  {title} ...")
    try:
        if number > 1 and not ward.machine.alive:
            ward.boot()
            ward.guest.wait()
        found = check(ward)
    except (CheckFailed, StackError) as error:
        console.print(f"{number}  FAIL  {title}: {error}", style="red", markup=False)
        (ward.folder / f"console-at-check-{number}.txt").write_text(ward.machine.tail(400))
        return {"check": number, "title": title, "passed": False, "reason": str(error)}
    seconds = time.monotonic() - began
    console.print(f"{number}  pass  {title}  ({seconds:.0f} s)", style="green", markup=False)
    for key, value in found.items():
        console.print(f"        {key}: {value}", markup=False)
    return {"check": number, "title": title, "passed": True, "seconds": round(seconds, 1), **found}


def chosen_steps(text: str | None, kind: str) -> list[int]:
    """The checks to run; the first always, since all others need a machine that is up. Raises FlashError."""
    possible = list(OF_PI) if kind == "raspi3b" else list(CHECKS)
    if text is None:
        return possible
    try:
        wanted = {int(part) for part in text.split(",")}
    except ValueError as error:
        raise FlashError(f"--steps {text}: write numbers, as in 1,2,3") from error
    unknown = wanted - set(possible)
    if unknown:
        raise FlashError(f"--steps {text}: {kind} runs {possible[0]} to {possible[-1]}")
    return sorted(wanted | {1})


def _roomy() -> str:
    """A folder for gigabytes: /tmp often lies in memory."""
    tools.require(*tools.IMAGE)
    return "/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir()  # noqa: S108
