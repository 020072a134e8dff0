"""Checks 1 to 3: the machine comes up as asked, assesses as a device here does, and takes part in a run."""

import time
from typing import Any, Final

from samd_scripts.flash.checks.hearing import Heard
from samd_scripts.flash.checks.ward import MODELS, Ward
from samd_scripts.flash.errors import CheckFailed
from samd_scripts.stack import wait_until

MATCHED: Final = 10
"""So many assessments of the machine are compared with those of the same client here."""
TOLERANCE: Final = 1e-4
"""Of a probability: the two processors round differently."""
WITHIN_S: Final = 0.05
"""Of the wall, that two assessments of the same moment of the recording may lie apart: each sits on its own
clock. Equal signs are asked for besides."""


def boots(ward: Ward) -> dict[str, Any]:
    """1. Boots, `online` arrives by MQTT; version and model as asked."""
    seconds = ward.boot()
    since = time.monotonic() - seconds - 1
    state = ward.wait_state("online", since=since, timeout_s=10).data
    if state["client_version"] != ward.identity.release:
        raise CheckFailed(f"the client is {state['client_version']}, the image holds {ward.identity.release}")
    if state["model_version"] != MODELS[0]:
        raise CheckFailed(f"the model is {state['model_version']}, {MODELS[0]} was asked for")
    beat = ward.hearing.wait(ward.device, "heartbeat", since=since, timeout_s=60, check=ward.check).data
    found: dict[str, Any] = {
        "boot_to_online_s": round(seconds, 1), "client": state["client_version"],
        "model": state["model_version"],
        "store_free_mb": round(beat["disk_free_mb"]),
    }  # fmt: skip
    if ward.kind == "virt":
        found |= _inside(ward)
    return found


def _inside(ward: Ward) -> dict[str, Any]:
    """What is seen from within alone: the name, the grown partition, what listens, who can read secrets."""
    ward.guest.wait()
    wait_until(
        lambda: ward.guest.run("test -e /etc/samd/first-boot-done && echo yes || true").strip() == "yes",
        timeout=120, what="the first boot's end", every=1.0,
    )  # fmt: skip
    name = ward.guest.run("cat /proc/sys/kernel/hostname").strip()
    if name != ward.device:
        raise CheckFailed(f"the machine's name is {name!r}, {ward.device!r} was asked for")
    sizes = ward.guest.run("df --output=size -BM /var/lib/samd / | tail -n +2 | tr -d 'M '").split()
    # the card has 4096 MiB: what the image left free is the store's
    left = ward.copy.stat().st_size // 2**20 - ward.image.stat().st_size // 2**20
    if int(sizes[0]) < left * 0.9:
        raise CheckFailed(f"the store has {sizes[0]} MiB of a card with {left} MiB to spare: it did not grow")
    listening = ward.guest.run("ss -Hltn").splitlines()
    allowed = ("127.0.0.", "[::1]", "[::ffff:127.0.0.1]")
    open_to_all = [line.split()[3] for line in listening if not line.split()[3].startswith(allowed)]
    ssh = ward.guest.run("systemctl is-enabled ssh 2>/dev/null || true").strip() == "enabled"
    others = [address for address in open_to_all if not (ssh and address.endswith(":22"))]
    if others:
        raise CheckFailed(f"the machine listens to everybody at {', '.join(others)}")
    wrong = ward.guest.run("find /etc/samd -type f ! -name first-boot-done -perm /077").split()
    if wrong:
        raise CheckFailed(f"others can read {', '.join(wrong)}")
    failed = ward.guest.run("systemctl list-units --failed --plain --no-legend | cut -d' ' -f1").split()
    if failed:
        raise CheckFailed(f"units failed in the machine: {', '.join(failed)}")
    return {"store_mb": int(sizes[0]), "listening": sorted(line.split()[3] for line in listening)}


def infers(ward: Ward) -> dict[str, Any]:
    """2. Live severity of a replayed patient: the assessments equal those of the same client here."""
    ward.twin()
    deadline = time.monotonic() + (420 if ward.kind == "raspi3b" else 240)
    while True:
        ours = ward.hearing.all(ward.host_device, "assessment")
        theirs = ward.hearing.all(ward.device, "assessment")
        pairs = matched(_moments(theirs), _moments(ours))
        if len(pairs) >= MATCHED:
            break
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"{len(pairs)} of {len(theirs)} assessments of the machine fit one of {len(ours)} of this "
                f"computer in time; {MATCHED} are compared"
            )
        ward.check()
        time.sleep(0.5)
    ward.end(ward.host_device)
    apart = 0.0
    for there, here in pairs:
        apart = max(apart, _compared(there.data, here.data))
    with_model = sum(there.data["model"] is not None for there, _ in pairs)
    if not with_model:
        raise CheckFailed("no assessment was made with the model")
    return {
        "compared": len(pairs), "with_model": with_model, "largest_difference_of_a_probability": apart,
        "patient": f"{ward.recordings.kind}, one reading a second",
    }  # fmt: skip


def _moments(heard: list[Heard]) -> list[tuple[float, Heard]]:
    """Assessments made at a new reading, by the wall's time of that reading in seconds."""
    from datetime import datetime

    found: dict[float, Heard] = {}
    for one in heard:
        at = datetime.fromisoformat(one.data["observed_at"]).timestamp()
        found.setdefault(at, one)
    return sorted(found.items(), key=lambda item: item[0])


def matched(theirs: list[tuple[float, Heard]], ours: list[tuple[float, Heard]]) -> list[tuple[Heard, Heard]]:
    """Pairs of the same moment of the recording. The two clocks differ by one constant, which is that which
    makes most of them fit."""
    best: list[tuple[Heard, Heard]] = []
    for there, _ in theirs[:5]:
        for here, _ in ours[:5]:
            shift = there - here
            pairs = []
            for at, one in theirs:
                near = min(ours, key=lambda other: abs(other[0] + shift - at))
                if abs(near[0] + shift - at) < WITHIN_S and one.data["signs"] == near[1].data["signs"]:
                    pairs.append((one, near[1]))
            if len(pairs) > len(best):
                best = pairs
    return best


def _compared(there: dict[str, Any], here: dict[str, Any]) -> float:
    """The largest difference of a probability. Raises CheckFailed where anything else differs."""
    for key in ("news2", "rule_severity", "rule_severity_possible", "severity", "disagreement", "missing"):
        if there[key] != here[key]:
            raise CheckFailed(
                f"{key} is {there[key]} in the machine and {here[key]} here, of the same reading"
            )
    if (there["model"] is None) != (here["model"] is None):
        raise CheckFailed("one of the two assessed with the model and the other without")
    if there["model"] is None:
        return 0.0
    apart = max(
        abs(one - other)
        for one, other in zip(there["model"]["probabilities"], here["model"]["probabilities"], strict=True)
    )
    if there["model"]["version"] != here["model"]["version"] or apart > TOLERANCE:
        raise CheckFailed(f"the models differ: {there['model']} in the machine, {here['model']} here")
    return float(apart)


def trains(ward: Ward) -> dict[str, Any]:
    """3. A federated run of the machine and two devices here, to a released model, active in the machine."""
    stack = ward.stack
    gateway, server = stack.gateway(), stack.server(ward.models[0])
    stack.wait_ready(gateway, 120)
    stack.wait_ready(server, 120)
    ward.host_agents()
    stack.wait_online(3, timeout=120)
    began = time.monotonic()
    run = stack.start_run(rounds=3, epochs=2, quorum=3)
    *_, status = stack.follow_run(run, timeout=300)
    if status["state"] != "done" or ward.device not in status["accepted"]:
        raise CheckFailed(
            f"the run {status['state']}: {status['reason']}; accepted: {status['accepted']}, "
            f"rejected: {status['rejected']}"
        )
    if not status["released"]:
        raise CheckFailed(f"the run's model was not released: {status['reason']}")
    seconds = time.monotonic() - began
    version = status["model_version"]
    active = ward.hearing.wait(
        ward.device, "assessment", lambda data: bool(data["model"]) and data["model"]["version"] == version,
        since=began, timeout_s=120, check=ward.check,
    )  # fmt: skip
    replies = [entry["replies"] for entry in status["history"] if entry["round_seconds"]]
    return {
        "devices": sorted(status["accepted"]), "rounds": status["round"], "replies": replies,
        "released": version, "run_s": round(seconds, 1),
        "trigger_to_active_in_machine_s": round(active.at - began, 1),
    }  # fmt: skip
