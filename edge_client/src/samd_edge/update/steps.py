"""An update from its beginning to the switch; ``verdict`` knows what comes after it.

Order of what is on the disk: the release under its name; `previous` names the one in use; the trial;
`current` names the new one. Cut off before the switch nothing has happened; cut off after it, the trial says
so, and ``check`` goes on.
"""

import contextlib
import json
import logging
import os
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from samd_edge.control import ControlError
from samd_edge.update import health, package, schemas, trial, verdict
from samd_edge.update.device import Device
from samd_edge.update.layout import Layout
from samd_edge.update.manifest import LAUNCHER, Manifest, Refused, UpdateError
from samd_edge.update.trial import Expected, Limits, Outcome, Trial

log = logging.getLogger(__name__)

TEST_S: Final = 180.0
"""A new release has so long to compute its first score: on an emulated device that takes half a minute."""
TEST_SCORE: Final = 19
"""NEWS2 of the reading in ``self_test``, by the chart."""


def apply(
    device: Device, path: Path, sha256: str, *, force: bool = False, one_way: bool = False, limits: Limits
) -> Outcome:
    """Bring a package into use, on trial. Raises UpdateError while nothing has changed; then an outcome."""
    layout = device.layout
    with layout.locked():
        before = _ready(layout)
        with package.Package(path, sha256) as new:
            new.check_fits()
            device.step("the package is checked")
            name = new.manifest.name
            if name == before:
                layout.check(name)
                return device.outcome("done", name, before, "it is in use already")
            _check_schemas(device, new.manifest, before, one_way=one_way)
            _patient_allows(device, force=force)
            layout.begin(name)
            fresh = _install(device, new)
        try:
            _test(layout, name)
            device.step("tested")
            return _switch(device, name, before, fresh=fresh, force=force, limits=limits)
        except UpdateError:
            if fresh and layout.named("current") != name:
                layout.remove(name)
            raise


def back(device: Device, *, force: bool = False, limits: Limits) -> Outcome:
    """Bring the release before into use, on trial like any other. Raises UpdateError."""
    layout = device.layout
    with layout.locked():
        before = _ready(layout)
        name = layout.named("previous")
        if name is None:
            raise UpdateError(f"{layout.root}: there is no release before {before}; apply a package")
        manifest = layout.check(name)
        _check_schemas(device, manifest, before, one_way=False)
        _patient_allows(device, force=force)
        layout.begin(name)
        _test(layout, name)
        device.step("tested")
        return _switch(device, name, before, fresh=False, force=force, limits=limits)


def check(device: Device) -> Outcome | None:
    """Go on with an update that was cut off, to its verdict; None when none was. Waits for one under way."""
    layout = device.layout
    with layout.locked(wait=True):
        try:
            found = trial.read(layout)
        except UpdateError as error:
            found = verdict.lost(device, str(error))
        if found is None:
            layout.tidy()
            return None
        return verdict.settle(device, found)


def self_test() -> dict[str, Any]:
    """What a release proves of itself before anything depends on it: all of it imports and it can compute.

    Raises UpdateError.
    """
    import samd_edge.agent  # noqa: F401  (that it can be imported is the test)
    from samd_data.news2 import score
    from samd_data.reading import Reading
    from samd_edge.doctor_command import check_runtime
    from samd_edge.update.running import running_version

    for answer in check_runtime():
        if answer.status == "fail":
            raise UpdateError(f"{answer.name}: {answer.text}")
    reading = Reading(
        observed_at=datetime.fromisoformat("2026-01-01T00:00:00+00:00"),
        heart_rate=135.0,
        respiratory_rate=26.0,
        spo2=90.0,
        systolic_bp=85.0,
        temperature=39.5,
        supplemental_oxygen=True,
        consciousness="V",
    )
    return {"release": running_version(), "news2": score(reading).total}


# -- before the switch --------------------------------------------------------------------------------


def _ready(layout: Layout) -> str:
    if (layout.root / trial.FILE).exists():
        raise Refused(
            f"{layout.root}: a release is on trial; wait for its end, or run: samd-edge update check"
        )
    before = layout.current()
    layout.tidy()
    return before


def _patient_allows(device: Device, *, force: bool) -> Mapping[str, Any] | None:
    """What the client shows now, if it may be interrupted. Unknown is not calm."""
    try:
        shown = health.view(device.data_dir)
    except ControlError as error:
        if force:
            return None
        raise Refused(
            f"whether the patient has an alert is unknown ({error}); start the client, or give --force"
        ) from error
    alert = shown.get("alert")
    if not force and (not isinstance(alert, dict) or alert.get("active") is not False):
        raise Refused(
            "the patient has an alert, and an update stops the client for seconds; later, or --force"
        )
    return shown


def _check_schemas(device: Device, new: Manifest, before: str, *, one_way: bool) -> None:
    reason = schemas.beyond(new.schemas, schemas.found(device.data_dir))
    if reason is not None:
        raise UpdateError(f"{new.name} cannot open the data of this device: {reason}; take a newer release")
    back_again = schemas.beyond(device.layout.manifest(before).schemas, new.schemas)
    if back_again is not None and not one_way:
        raise UpdateError(
            f"from {new.name} there is no way back to {before}: {back_again}; copy "
            f"{device.data_dir} and give --one-way"
        )


def _install(device: Device, new: package.Package) -> bool:
    """Have the release under its name; whether it had to be unpacked."""
    layout, name = device.layout, new.manifest.name
    if name in layout.installed():
        with contextlib.suppress(UpdateError):
            layout.check(name)
            return False
        layout.remove(name)
    new.check_space(layout.free())
    part = new.unpack(layout, told=device.told)
    device.step("unpacked")
    layout.place(part, name)
    device.step("in place")
    return True


def _test(layout: Layout, name: str) -> None:
    """Have the new release compute, while the old one works on."""
    command = [str(layout.folder(name) / LAUNCHER), "update", "self-test"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SAMD_"))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TEST_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise UpdateError(f"{name}: its test did not end within {TEST_S:g} s; it is not used") from error
    except OSError as error:
        raise UpdateError(f"{name}: cannot be started ({error.strerror}); it is not used") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
        raise UpdateError(f"{name}: fails its own test ({reason}); it is not used")
    with contextlib.suppress(ValueError):
        if json.loads(done.stdout) == {"release": name, "news2": TEST_SCORE}:
            return
    raise UpdateError(f"{name}: computes wrongly ({done.stdout.strip()[:100]}); it is not used")


def _switch(device: Device, name: str, before: str, *, fresh: bool, force: bool, limits: Limits) -> Outcome:
    layout = device.layout
    shown = _patient_allows(device, force=force)  # again: unpacking took a while
    layout.switch("previous", before)
    device.step("the way back is set")
    begun = Trial(
        name=name,
        back_to=before,
        fresh=fresh,
        expected=Expected() if shown is None else health.abilities(shown),
        limits=limits,
        boot_id=device.boot_id,
        began_s=device.time.now(),
    )
    trial.write(layout, begun)
    device.step("on trial")
    layout.switch("current", name)
    log.info("%s takes the place of %s, on trial", name, before)
    device.step("switched")
    device.tell(updating=True)
    failed = device.service.restart()
    device.step("started anew")
    return verdict.give_up(device, begun, failed) if failed is not None else verdict.settle(device, begun)
