"""Images for the bedside: how long they take to make, how large they are, what the emulated machine does.

    python benchmarks/flash.py [--fresh] [--steps 1,7] [--data clif-demo] [--without-raspi3b]

`--fresh` builds Debian's base in an empty cache (minutes); else the time of that is left out. Then: an image
for a device from the cached base, the compressed size of the base, and `scripts/flash test`, whose figures
are those of QEMU, software emulation, on this computer. Prints JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGET = {
    "core_compressed_mb": 300, "base_build_s": 480, "device_from_cache_s": 10, "virt_boot_to_online_s": 30,
    "raspi3b_boot_to_online_s": 120, "agent_resident_mb": 64, "litert_round_s": 2.0,
}  # fmt: skip


def flash(*arguments: str, allow: tuple[int, ...] = (0,)) -> tuple[Any, float]:
    """One call of scripts/flash: its JSON, and the seconds it took."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'scripts'}:{os.environ.get('PYTHONPATH', '')}"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "samd_scripts.flash", *arguments, "--json"],
        env=environment, stdout=subprocess.PIPE, check=False, text=True,
    )  # fmt: skip
    if done.returncode not in allow:
        sys.exit(f"scripts/flash {arguments[0]} ended with {done.returncode}")
    return json.loads(done.stdout), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="build the base in an empty cache, too")
    parser.add_argument("--steps", default="1,2,3,4,5,6,7", help="checks in QEMU virt; default: all")
    parser.add_argument("--data", default="clif-demo")
    parser.add_argument("--without-raspi3b", action="store_true")
    parser.add_argument("--cache", type=Path, help="default: that of scripts/flash")
    args = parser.parse_args()
    cache = ("--cache", str(args.cache)) if args.cache else ()
    found: dict[str, Any] = {"benchmark": "flash", "cores": os.cpu_count(), "target": TARGET}
    found["load_1m_at_start"] = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        if args.fresh:
            cache = ("--cache", f"{folder}/cache")
            found["base_build_s"] = flash("build", *cache)[1]
        packed = Path(folder, "core.img.zst")
        built, _ = flash("build", *cache, "--out", str(packed))
        found |= {"core_compressed_mb": packed.stat().st_size / 1e6, "packages": built["packages"]}
        packed.unlink()
        image = Path(folder, "bed-01.img")
        _, seconds = flash("device", "--name", "bed-01", "--server", "10.0.2.2", "--out", str(image), *cache)
        found |= {"device_from_cache_s": seconds, "image_mb": image.stat().st_size / 1e6}
        test = ("test", str(image), "--data", args.data)
        found["virt"], _ = flash(*test, "--steps", args.steps, allow=(0, 1))
        if not args.without_raspi3b:
            found["raspi3b"], _ = flash(*test, "--machine", "raspi3b", allow=(0, 1))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
