"""A trial that is brought to its verdict: the new release is confirmed, or the old one comes back.

Whoever holds the lock may call ``settle``, at any time: the update itself, or the check after a power cut.
Each step can be done twice.
"""

import contextlib
import logging

from msgspec.structs import replace

from samd_edge.control import ControlError
from samd_edge.update import health, schemas, trial
from samd_edge.update.device import Device
from samd_edge.update.layout import Layout
from samd_edge.update.manifest import UpdateError
from samd_edge.update.trial import Expected, Outcome, Trial

log = logging.getLogger(__name__)


def settle(device: Device, found: Trial) -> Outcome:
    """Bring a trial to its verdict, wherever it stands."""
    layout = device.layout
    if found.phase == "returning":
        return give_up(device, found, found.reason)
    if layout.named("current") != found.name:
        return _undone(device, found)
    if found.boot_id != device.boot_id:
        found = replace(
            found, boots=found.boots + 1, boot_id=device.boot_id, began_s=device.time.now(), restarts=None
        )
        _keep(layout, found)
        if found.boots > found.limits.boots:
            return give_up(device, found, f"the device booted {found.boots} times without a verdict")
    elif _answers(device) == found.back_to:  # cut off between the switch and the start
        device.service.restart()
    if found.restarts is None:
        found = replace(found, restarts=device.service.restarts())
        _keep(layout, found)
    left_s = found.limits.deadline_s - (device.time.now() - found.began_s)
    reason = health.watch(
        found.name,
        found.expected,
        found.limits,
        # who takes over after the deadline looks once more: a release that is well stays
        left_s=max(left_s, 2 * found.limits.settle_s),
        look=lambda: health.view(device.data_dir),
        crashes=lambda: _crashes(device, found),
        time=device.time,
    )
    if reason is not None:
        return give_up(device, found, reason)
    device.step("well")
    outcome = device.outcome("done", found.name, found.back_to)
    trial.end(layout, outcome)
    device.step("confirmed")
    layout.tidy()
    log.info("%s is in use; %s is kept for the way back", found.name, found.back_to)
    return outcome


def give_up(device: Device, found: Trial, reason: str) -> Outcome:
    """Bring the old release back into use. May be begun again after a power cut at any point."""
    layout = device.layout
    stays = _no_way_back(device, found)
    if stays is not None:
        outcome = device.outcome("stayed", found.name, found.back_to, f"{reason}; no way back: {stays}")
        trial.end(layout, outcome)
        log.critical("%s failed (%s) and stays: %s; a person is needed", found.name, reason, stays)
        return outcome
    log.error("%s failed (%s): back to %s", found.name, reason, found.back_to)
    found = replace(found, phase="returning", reason=reason)
    _keep(layout, found)
    device.step("returning")
    layout.switch("current", found.back_to)
    device.step("switched back")
    failed = device.service.restart()
    device.step("started again")
    still = failed or health.watch(
        found.back_to,
        Expected(),
        replace(found.limits, settle_s=min(1.0, found.limits.settle_s), crashes=1000),
        left_s=found.limits.deadline_s,
        look=lambda: health.view(device.data_dir),
        crashes=lambda: 0,
        time=device.time,
    )
    if still is not None:
        reason = f"{reason}; and {found.back_to} is not up again: {still}"
        log.critical("%s is not up again (%s); reboot the device", found.back_to, still)
    if found.fresh:
        layout.remove(found.name)
        device.step("removed")
    outcome = device.outcome("returned", found.name, found.back_to, reason)
    trial.end(layout, outcome)
    device.step("returned")
    layout.tidy()
    return outcome


def _keep(layout: Layout, found: Trial) -> None:
    """Write down how the trial stands. A full disk must not keep the device from returning."""
    try:
        trial.write(layout, found)
    except OSError as error:
        log.error("%s: cannot be written (%s); going on", layout.root / trial.FILE, error.strerror)


def _undone(device: Device, found: Trial) -> Outcome:
    """Cut off before the switch: the old release never stopped."""
    outcome = device.outcome("undone", found.name, found.back_to, "it was cut off before the switch")
    trial.end(device.layout, outcome)
    device.layout.tidy()
    device.tell(updating=False)
    log.warning("the update to %s was cut off before the switch; apply it again", found.name)
    return outcome


def _no_way_back(device: Device, found: Trial) -> str | None:
    if not device.layout.folder(found.back_to).is_dir():
        return f"{found.back_to} is no longer there"
    with contextlib.suppress(UpdateError):
        known = device.layout.manifest(found.back_to).schemas
        return schemas.beyond(known, schemas.found(device.data_dir))
    return None


def lost(device: Device, error: str) -> Trial | None:
    """A trial that cannot be read: its release did not prove itself, so the one before is the safe one."""
    layout = device.layout
    current, previous = layout.named("current"), layout.named("previous")
    log.error("%s", error)
    if previous is None or previous == current:
        layout.drop(trial.FILE)
        return None
    return Trial(
        name=current or previous,
        back_to=previous,
        phase="returning",
        reason="the record of its trial cannot be read",
        boot_id=device.boot_id,
        began_s=device.time.now(),
    )


def _crashes(device: Device, found: Trial) -> int:
    """How often the service was started anew since the trial began; its count may have begun anew."""
    counted = device.service.restarts()
    if counted is None or found.restarts is None:
        return 0
    return counted - found.restarts if counted >= found.restarts else counted


def _answers(device: Device) -> object:
    try:
        return health.view(device.data_dir).get("client_version")
    except ControlError:
        return None
