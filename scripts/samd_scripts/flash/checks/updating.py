"""Check 6: a release that computes and then does not live is gone back from, by the device itself."""

import shutil
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_edge.update.manifest import FILE, Manifest
from samd_scripts import release as releases
from samd_scripts.flash import tools
from samd_scripts.flash.checks.guest import FOLDER
from samd_scripts.flash.checks.ward import Ward
from samd_scripts.flash.disk import Put, open_disk
from samd_scripts.flash.errors import CheckFailed

BROKEN: Final = "raise SystemExit('broken on purpose: the agent of this release does not start')\n"
WITHIN_S: Final = 900.0


def returns(ward: Ward) -> dict[str, Any]:
    """6. An update that fails its health check returns to the old client."""
    package = _package(ward)
    return _tried(ward, package)


def _package(ward: Ward) -> releases.Package:
    """The image's own release with an agent that ends at once, as a package in the machine."""
    tree = ward.folder / "broken"
    tree.mkdir()
    name = ward.identity.release
    tools.run(
        "debugfs", "-R", f'rdump "/opt/samd/releases/{name}" "{tree}"',
        f"{ward.image}?offset={open_disk(ward.image).partitions[1].start}",
    )  # fmt: skip
    release = tree / name
    manifest = msgspec.json.decode((release / FILE).read_bytes(), type=Manifest)
    module = release / "site/samd_edge/run_command.py"
    text = module.read_text()
    marker = "def run_agent(arguments: argparse.Namespace) -> int:\n"
    if marker not in text:
        raise CheckFailed(f"{module.name} of the image's release has no run_agent to break")
    module.write_text(text.replace(marker, f"{marker}    {BROKEN}"))
    for compiled in (module.parent / "__pycache__").glob("run_command.*.pyc"):
        compiled.unlink()
    broken = releases.seal(
        release, version=f"{manifest.version}+broken", machine=manifest.machine, python=manifest.python,
        schemas=manifest.schemas,
    )  # fmt: skip
    package = releases.pack(release, ward.folder)
    if broken.name == name:
        raise CheckFailed("the broken release has the name of the good one")
    shutil.rmtree(tree)
    ward.machine.switch_off()
    found = open_disk(ward.copy)
    found.root.put({f"{FOLDER}/{package.path.name}": Put(package.path.read_bytes())})
    package.path.unlink()
    return package


def _tried(ward: Ward, package: releases.Package) -> dict[str, Any]:
    old = ward.identity.release
    ward.boot()
    ward.guest.wait()
    since = time.monotonic()
    file = f"{FOLDER}/{Path(package.path).name}"
    # without --force an update is refused while the patient has an alert; whoever lies here may have one
    printed = ward.guest.run(
        f"samd-edge update apply {file} --sha256 {package.sha256} --force",
        timeout_s=WITHIN_S,
        allow_failure=True,
    )
    seconds = time.monotonic() - since
    status = ward.guest.json("samd-edge update status --json")
    if status["current"] != old:
        raise CheckFailed(
            f"the device is at {status['current']} after the failed update, {old} was before: {printed}"
        )
    last = status["last"]
    # refused before the switch would prove nothing: it has to have been on trial
    if last is None or (last["outcome"], last["release"]) != ("returned", package.manifest.name):
        raise CheckFailed(
            f"the device does not say that it went back from {package.manifest.name}: {printed}"
        )
    state = ward.hearing.wait(
        ward.device, "state", lambda data: data["status"] == "online" and data["client_version"] == old,
        since=since, timeout_s=240, check=ward.check,
    )  # fmt: skip
    told = {one.data["status"] for one in ward.hearing.all(ward.device, "state", since=since)}
    ward.hearing.wait(ward.device, "assessment", since=state.at, timeout_s=120, check=ward.check)
    return {
        "tried": package.manifest.name, "returned_to": old, "apply_to_return_s": round(seconds, 1),
        "states_told": sorted(told), "said": " ".join(printed.split())[-300:],
    }  # fmt: skip
