"""Checks 4 and 5: power cuts while the machine writes, and a network that goes away.

A power cut is the end of QEMU by SIGKILL: what the machine's kernel had not yet given to its disk is lost. (A
card that loses what it was given cannot be emulated.)
"""

import random
import time
from typing import Any, Final

from samd_scripts.flash.checks import guest
from samd_scripts.flash.checks.guest import FOLDER
from samd_scripts.flash.checks.models import digest
from samd_scripts.flash.checks.ward import Ward
from samd_scripts.flash.errors import CheckFailed
from samd_scripts.stack import wait_until

BUSY: Final = "sim:?scenario=sepsis&speed=900&every=120&hours=240"
"""Several readings a second of a patient who gets worse: the first alert comes within half a minute."""
CUTS: Final = 2
ACTIVATIONS: Final = (0.05, 0.6)
"""Seconds from the restart of the agent, which then activates another model, to the cut; added to the time
that a start takes, so that the cuts fall around the activation."""
DARK_S: Final = 25.0


def power(ward: Ward) -> dict[str, Any]:
    """4. Power cuts in the middle of writing readings, and of activating a model."""
    drawn = random.Random(4)  # noqa: S311 - where the cuts fall, the same in each run
    cuts = [_while_writing(ward, drawn) for _ in range(CUTS)]
    models = [_while_activating(ward, delay) for delay in ACTIVATIONS]
    return {
        "cuts_while_writing": CUTS,
        "readings_written_before": [cut["readings"] for cut in cuts],
        "alerts_sent_and_known": sum(cut["alerts"] for cut in cuts),
        "cuts_while_activating": len(models),
        "active_after": [found["active"] for found in models],
        "boot_after_cut_s": [round(cut["boot_s"], 1) for cut in cuts],
    }


def _while_writing(ward: Ward, drawn: random.Random) -> dict[str, Any]:
    since = ward.settle(BUSY, 0)
    ward.hearing.wait(ward.device, "alert", since=since, timeout_s=600, check=ward.check)
    time.sleep(drawn.uniform(0.2, 3.0))
    ward.machine.cut_power()
    time.sleep(1.0)  # what is still on its way to the listener
    sent = {one.id for one in ward.hearing.all(ward.device, "alert", since=since)}
    assessed = {one.id for one in ward.hearing.all(ward.device, "assessment", since=since)}
    seconds = ward.boot()
    ward.guest.wait()
    stores = ward.look()
    damaged = [store["file"] for store in stores if not store["whole"] or store["orphans"]]
    if damaged:
        raise CheckFailed(f"damaged after the power cut: {', '.join(damaged)}")
    holding = [store for store in stores if sent & set(store["alerts"])]
    if len(holding) != 1:
        raise CheckFailed(f"the alerts that were sent lie in {len(holding)} stores of {len(stores)}")
    store = holding[0]
    lost = sent - set(store["alerts"])
    if lost:
        raise CheckFailed(f"{len(lost)} of {len(sent)} alerts were sent and are unknown after the power cut")
    if store["unassessed"]:
        raise CheckFailed(f"{store['unassessed']} readings have no assessment after the power cut")
    if not assessed or not store["readings"]:
        raise CheckFailed("nothing was written before the cut: the check has shown nothing")
    return {"readings": store["readings"], "alerts": len(sent), "boot_s": seconds}


def _while_activating(ward: Ward, delay: float) -> dict[str, Any]:
    """The agent is started with the other model, which it takes over and activates; meanwhile the cut."""
    allowed = {digest(path) for path in ward.models}
    ward.settle(BUSY, 0)
    before = _models(ward)
    if before["active"] is not None:
        allowed.add(before["active"][1])
    text = ward.config(BUSY, 1)
    # forget the newer model, so that it is activated anew
    ward.guest.run(
        "systemctl stop samd-edge && mount -o remount,rw /boot/firmware && "
        f"cat >/boot/firmware/samd.toml <<'SAMD-END'\n{text}SAMD-END\n"
        "mount -o remount,ro /boot/firmware\n"
        f"{guest.PYTHON} - <<'SAMD-END'\n{_FORGET}SAMD-END\n"
        "chown -R samd:samd /var/lib/samd/* && sync && (systemctl start samd-edge &)"
    )
    began = time.monotonic()
    # as soon as the file of the new model appears, its activation is a matter of milliseconds
    new = digest(ward.models[1])
    wait_until(
        lambda: ward.guest.run(f"ls /var/lib/samd/models | grep -c {new} || true").strip() == "1"
        or time.monotonic() - began > 200,
        timeout=300, what="the new model's file", every=0.01,
    )  # fmt: skip
    time.sleep(delay)
    ward.machine.cut_power()
    ward.boot()
    ward.guest.wait()
    found = _models(ward)
    if not found["whole"] or found["active"] is None:
        raise CheckFailed(f"after a power cut during an activation no whole model is active: {found}")
    if found["active"][1] not in allowed:
        raise CheckFailed(f"the model active after the power cut is neither the old nor the new: {found}")
    return {"active": found["active"][0]}


_FORGET: Final = """\
from pathlib import Path
from samd_edge.device_db import DeviceDb
from samd_edge.models import Shelf
folder = Path("/var/lib/samd")
db = DeviceDb(folder)
shelf = Shelf(db, folder)
old = [held for held in shelf.all() if held.version < 900 and held.trained]
shelf.activate(old[-1])
with db.write(synced=True) as connection:
    connection.execute("DELETE FROM models WHERE version >= 900")
db.close()
for path in (folder / "models").glob("900-*"):
    path.unlink()
"""


def _models(ward: Ward) -> dict[str, Any]:
    found: dict[str, Any] = ward.guest.json(f"{guest.PYTHON} {FOLDER}/look.py models")
    return found


def network(ward: Ward) -> dict[str, Any]:
    """5. Network cut for a while: the outbox drains, nothing is lost."""
    since = ward.settle(BUSY, 0)
    ward.hearing.wait(ward.device, "assessment", since=since, timeout_s=300, check=ward.check)
    ward.machine.connect_network(False)
    cut_at = time.monotonic()
    time.sleep(DARK_S)
    heard_meanwhile = len(ward.hearing.all(ward.device, "assessment", since=cut_at + 2))
    waiting = int(ward.guest.run(_DEPTH).strip().splitlines()[-1])
    if heard_meanwhile or not waiting:
        raise CheckFailed(
            f"the network was not away: {heard_meanwhile} assessments came meanwhile, {waiting} wait"
        )
    ward.machine.connect_network(True)
    back_at = time.monotonic()
    ward.hearing.wait(ward.device, "assessment", since=back_at, timeout_s=600, check=ward.check)
    wait_until(lambda: _missing(ward, since)[0] == 0, timeout=600, what="the outbox's end", every=2.0)
    drained = time.monotonic() - back_at
    missing, count, alerts = _missing(ward, since)
    if missing:
        raise CheckFailed(f"{missing} messages never arrived")
    return {
        "dark_s": DARK_S, "waiting_at_its_end": waiting, "drained_within_s": round(drained, 1),
        "assessments_all_arrived": count, "alerts_all_arrived": alerts,
    }  # fmt: skip


_DEPTH: Final = (
    'python3 -c "import sqlite3; '
    "print(sqlite3.connect('file:/var/lib/samd/device.sqlite?mode=ro', uri=True)"
    ".execute('SELECT count(*) FROM outbox').fetchone()[0])\""
)


def _missing(ward: Ward, since: float) -> tuple[int, int, int]:
    """How many messages of the newest store were not heard; and how many assessments and alerts it holds.
    What was written within the last moment may still be on its way, so the store is read first."""
    store = ward.look()[-1]
    time.sleep(2.0)
    heard = {
        one.id for kind in ("assessment", "alert") for one in ward.hearing.all(ward.device, kind, since=since)
    }
    stored = [*store["assessments"], *store["alerts"]]
    return len(set(stored) - heard), len(store["assessments"]), len(store["alerts"])
