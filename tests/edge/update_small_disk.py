"""An update on a disk that is full: run where a small file system lies on ROOT, which is thrown away.

    update_small_disk.py MODE ROOT PACKAGE TREE NEW    prints what came of it, as JSON

MODE: `too small` (the package does not fit), `fills` (the disk is full in the middle of unpacking), `returns`
(it is full while a release on trial fails).
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from samd_edge.update import steps, trial, verdict
from samd_edge.update.device import Device
from samd_edge.update.layout import Layout
from samd_edge.update.manifest import UpdateError, decode
from samd_edge.update.package import expected
from samd_edge.update.service import Service
from samd_edge.update.trial import Limits, Trial


def fill(root: Path) -> None:
    """Leave no block free."""
    with (root / "filler").open("ab", buffering=0) as file:
        for size in (65_536, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def main(mode: str, root: Path, package: Path, tree: Path, new: Path) -> dict[str, Any]:
    """Try it; what is left there afterwards."""
    layout = Layout(root)
    layout.releases.mkdir()
    device = Device(
        layout=layout,
        data_dir=root / "data",
        service=Service("true", None),
        boot_id="this one",
        told=lambda share: fill(root) if mode == "fills" and share > 0.3 else None,
    )
    first = named(tree)
    shutil.copytree(tree, layout.folder(first))
    layout.switch("current", first)
    said = ""
    if mode == "returns":
        on_trial = named(new)
        shutil.copytree(new, layout.folder(on_trial))
        layout.switch("previous", first)
        limits = Limits(deadline_s=0.5, settle_s=0.1)
        begun = Trial(name=on_trial, back_to=first, limits=limits, boot_id="this one", began_s=0.0)
        trial.write(layout, begun)
        layout.switch("current", on_trial)
        fill(root)
        said = verdict.settle(device, begun).outcome
    else:
        try:
            steps.apply(device, package, expected(package, None), force=True, limits=Limits())
        except UpdateError as error:
            said = str(error)
    return {
        "said": said,
        "current": layout.current(),
        "releases": sorted(path.name for path in layout.releases.iterdir()),
        "trial": (root / trial.FILE).exists(),
    }


def named(tree: Path) -> str:
    """The name of the release in a folder."""
    return decode((tree / "manifest.json").read_bytes(), str(tree)).name


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *(Path(word) for word in sys.argv[2:]))))
