"""Measures every figure that the README quotes and writes `benchmarks/results/`.

Each part is a program of its own under `benchmarks/` that prints one JSON object; this one runs them one
after another, since they share two cores, and writes what they found beside the machine it was found on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "training": "local training, litert beside keras.Model.fit: time per epoch, peak memory",
    "assessment": "one assessment by rule and model; memory of agent and trainer",
    "gateway_ingest": "durable messages a second beside a consumer that stores nothing",
    "gateway_share": "two gateways that share the messages of one Mosquitto, beside one",
    "gateway_fleet": "ten thousand devices: a day of heartbeats, restart, memory, the fleet's page",
    "gateway_browser": "from a message to the ward's page in a browser, at 500 messages a second",
    "flash": "an image for the bedside: build, device, and what was measured in the emulated machine",
    "agent_store": "reading to assessment in the store, and what an alert's sync adds",
    "live": "a live agent: start to first assessment, readings a second, memory by source",
    "hl7_source": "HL7 messages a second to committed assessments, beside a bare server",
    "forecast": "what asking about deterioration costs the reading path: slices of an hour, of a restart",
    "system": "trigger to first step, round overhead, a whole run of ten devices",
    "table1": "severity: local, centralised, federated, strategies, models of each patient's own",
    "table2": "deterioration: beside NEWS2 and scikit-learn, then personal models on known patients",
    "table3": "severity under attack: a fifth of the devices lie",
    "table4": "what a method costs on the device, beside the same in TensorFlow",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when every chosen part gave its figures, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {name:<15} {what}" for name, what in PARTS.items()),
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args(argv)
    chosen = args.parts or list(PARTS)
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; choose from: {', '.join(PARTS)}")
    console = Console(stderr=True, highlight=False)
    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for part in chosen:
        console.print(f"{part}: {PARTS[part]} ...")
        began = time.monotonic()
        found = _measure(part)
        if found is None:
            failed += 1
            console.print(f"{part}: failed, see above", style="red")
            continue
        record = {"part": part, "measured_at": datetime.now(UTC).date().isoformat(), "machine": machine()}
        text = json.dumps(record | {"figures": found}, indent=2) + "\n"
        (args.out / f"{part}.json").write_text(text)
        console.print(text.strip())
        console.print(f"{part}: {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def _measure(part: str) -> Any:
    program = ROOT / "benchmarks" / f"{part}.py"
    done = subprocess.run([sys.executable, str(program)], check=False, stdout=subprocess.PIPE)
    if done.returncode != 0:
        return None
    return json.loads(done.stdout)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.system(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
