"""Check 7: memory and speed in the machine. Emulated: figures of QEMU on this computer, not of a Pi."""

import time
from typing import Any, Final

from samd_scripts.flash.checks import guest
from samd_scripts.flash.checks.faults import BUSY
from samd_scripts.flash.checks.guest import FOLDER
from samd_scripts.flash.checks.ward import Ward
from samd_scripts.flash.errors import CheckFailed

ROWS: Final = 300
EPOCHS: Final = 20
RESIDENT_MB: Final = 64.0
ROUND_S: Final = 2.0


def measures(ward: Ward) -> dict[str, Any]:
    """7. Agent resident, inference, one training round by each trainer that the image has."""
    ward.settle(BUSY, 0)
    beats = []
    since = time.monotonic()
    for _ in range(4):
        beat = ward.hearing.wait(ward.device, "heartbeat", since=since, timeout_s=300, check=ward.check)
        beats.append(beat.data["resident_mb"])
        since = beat.at + 0.001
    peak = float(
        ward.guest.run("awk '/VmHWM/ {print $2}' /proc/$(systemctl show -P MainPID samd-edge)/status")
    )
    model = f"{FOLDER}/{ward.models[0].name}"
    ward.guest.run("systemctl stop samd-edge")
    infer = _measured(ward, "infer", model)
    training = _measured(ward, "litert", model)
    found: dict[str, Any] = {
        "agent_resident_mb": round(beats[-1], 1), "agent_peak_mb": round(peak * 1024 / 1e6, 1),
        "target_resident_mb": RESIDENT_MB,
        "inference_median_ms": round(infer["median_ms"], 2),
        "inference_process_peak_mb": round(infer["peak_mb"], 1),
        "round": f"{ROWS} rows x {EPOCHS} epochs", "litert_round_s": round(training["round_s"], 2),
        "litert_ready_s": round(training["ready_s"], 1), "litert_peak_mb": round(training["peak_mb"], 1),
        "target_round_s": ROUND_S,
    }  # fmt: skip
    has_tensorflow = ward.guest.run("ls -d /opt/samd/current/site/tensorflow 2>/dev/null || true").strip()
    if has_tensorflow:
        reference = _measured(ward, "tensorflow", model)
        found["tensorflow_round_s"] = round(reference["round_s"], 2)
        found["tensorflow_peak_mb"] = round(reference["peak_mb"], 1)
    ward.guest.run("systemctl start samd-edge")
    if not training["last_loss"] < training["first_loss"]:
        raise CheckFailed(f"the training round did not learn: {training}")
    return found | {
        "resident_reached": found["agent_resident_mb"] <= RESIDENT_MB,
        "round_reached": training["round_s"] <= ROUND_S,
    }


def _measured(ward: Ward, part: str, model: str) -> dict[str, Any]:
    found: dict[str, Any] = ward.guest.json(
        f"{guest.PYTHON} {FOLDER}/measure.py {part} {model} {ROWS} {EPOCHS}", timeout_s=900
    )
    return found
