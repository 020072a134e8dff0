"""`samd-edge update` on a device: real releases, a real client under a keeper, real kills."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import update_device as given
from update_device import Releases, UpdatedDevice

from samd_edge.update.manifest import LAUNCHER
from samd_scripts import release

CUT = Path(given.__file__).with_name("update_cut.py")
BEFORE_THE_SWITCH = (
    "the package is checked",
    "unpacking",
    "unpacked",
    "in place",
    "tested",
    "the way back is set",
    "on trial",
)
AFTER_THE_SWITCH = ("switched", "started anew", "well", "confirmed")
ON_THE_WAY_BACK = ("returning", "switched back", "started again", "removed", "returned")
QUICK = {
    "unpacking",
    "on trial",
    "the way back is set",
    ("switched", "power cut"),
    ("started anew", "killed"),
    ("returning", "power cut"),
}
"""The rest belongs to the long tests: each takes a client that starts three times."""


def marks(*of: str) -> list[Any]:
    """The steps, each a parameter of its own."""
    return [pytest.param(mark, marks=() if mark in QUICK else pytest.mark.long, id=mark) for mark in of]


def cuts(*of: str) -> list[Any]:
    """The steps, each with the update alone killed, and with the power cut."""
    return [
        pytest.param(mark, how, marks=() if (mark, how) in QUICK else pytest.mark.long, id=f"{mark}, {how}")
        for mark in of
        for how in ("killed", "power cut")
    ]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return Releases(tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def old(releases: Releases) -> Path:
    return releases.tree("0.1.0")


@pytest.fixture(scope="module")
def new(releases: Releases) -> release.Package:
    return releases.package("0.2.0")


@pytest.fixture(scope="module")
def crashing(releases: Releases) -> release.Package:
    return releases.package("0.2.0", given.CRASHES)


@pytest.fixture
def make(tmp_path: Path, old: Path, device: str) -> Iterator[Callable[..., UpdatedDevice]]:
    made: list[UpdatedDevice] = []

    def start(broker: str = "mqtt://127.0.0.1:1") -> UpdatedDevice:
        made.append(UpdatedDevice(tmp_path / "bed", device, old, broker))
        return made[-1].start()

    yield start
    for one in made:
        one.close()


@pytest.fixture
def bed(make: Callable[..., UpdatedDevice]) -> UpdatedDevice:
    """A device with a patient who is well, and no broker."""
    device = make()
    device.measure()
    return device


def cut_at(bed: UpdatedDevice, mark: str, action: str, *more: str, by: str = "current") -> None:
    """Have an update killed at a step."""
    site = bed.layout.root / by / "site"
    command = [sys.executable, str(CUT), mark, "update", action, *bed.options(action), *more]
    done = subprocess.run(
        command,
        env={**given.clean(), "PYTHONPATH": str(site.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, f"it was not cut at {mark!r}: {done.stdout}{done.stderr}"


# -- an update that works ------------------------------------------------------------------------------------


def test_a_new_release_is_brought_into_use_and_the_old_one_kept(
    make: Any, broker: Any, peer: Any, device: str, releases: Releases, new: release.Package
) -> None:
    bed = make(broker.url)
    bed.measure()
    birth = peer.wait(device, "state", lambda state: state.status == "online")
    assert birth.data.client_version == bed.first
    code, answer, said = bed.apply(new)
    assert (code, answer["outcome"], answer["reason"]) == (0, "done", ""), said
    assert (answer["release"], answer["before"]) == (new.manifest.name, bed.first)
    assert bed.whole() == new.manifest.name
    shown = bed.view()
    assert shown is not None
    assert shown["client_version"] == new.manifest.name
    assert shown["news2"]["low"] == 0, "the patient's signs were not lost"
    told = peer.wait(device, "state", lambda state: state.client_version == new.manifest.name)
    assert told.data.status == "online"
    before = [one.data.status for one in peer.envelopes(device, "state") if one.boot == birth.boot]
    assert before == ["online", "updating", "updating"], "it says why it goes, and does not end as offline"
    status = bed.status()
    assert (status["current"], status["previous"]) == (new.manifest.name, bed.first)
    assert (status["trial"], status["last"]["outcome"]) == (None, "done")


def test_two_releases_are_kept_and_one_can_go_back(
    bed: UpdatedDevice, releases: Releases, new: release.Package
) -> None:
    newest = releases.package("0.3.0")
    assert bed.apply(new)[0] == 0
    assert bed.apply(newest)[0] == 0
    assert bed.status()["releases"] == [new.manifest.name, newest.manifest.name]
    code, answer, _ = bed.apply(newest)
    assert (code, answer["reason"]) == (0, "it is in use already")
    code, answer, _ = bed.update("back")
    assert (code, answer["outcome"], bed.whole()) == (0, "done", new.manifest.name)
    status = bed.status()
    assert (status["previous"], status["releases"]) == (
        newest.manifest.name,
        [new.manifest.name, newest.manifest.name],
    )
    code, answer, _ = bed.apply(newest)
    assert (code, bed.whole()) == (0, newest.manifest.name), "what is there needs not be unpacked"


def test_without_a_release_before_there_is_no_way_back(bed: UpdatedDevice) -> None:
    code, answer, _ = bed.update("back")
    assert (code, "there is no release before" in answer["reason"]) == (2, True)


# -- a release that does not work ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (given.CRASHES, "it crashed 3 times"),
        (given.HANGS, "it does not answer"),
        pytest.param(given.FREEZES, "it does not answer", marks=pytest.mark.long),
        pytest.param(given.FORGETS_THE_ADMISSION, "it has lost the admission", marks=pytest.mark.long),
    ],
    ids=["crashes", "hangs", "freezes", "forgets"],
)
def test_a_release_that_does_not_work_is_returned_from(
    bed: UpdatedDevice, releases: Releases, edit: given.Edit, reason: str
) -> None:
    code, answer, said = bed.apply(releases.package("0.2.0", edit), "--deadline", "4")
    assert (code, answer["outcome"]) == (1, "returned"), said
    assert reason in answer["reason"]
    assert "not up again" not in answer["reason"]
    assert bed.whole() == bed.first
    shown = bed.view()
    assert shown is not None
    assert (shown["client_version"], shown["news2"]["low"]) == (bed.first, 0)
    status = bed.status()
    assert (status["previous"], status["releases"], status["trial"]) == (None, [bed.first], None)
    assert (status["last"]["outcome"], status["last"]["reason"]) == ("returned", answer["reason"])
    assert f"back to {bed.first}" in said


def test_a_release_that_cannot_reach_the_broker_is_returned_from(
    make: Any, broker: Any, peer: Any, device: str, releases: Releases
) -> None:
    bed = make(broker.url)
    bed.measure()
    bed.wait(lambda: bed.view()["link_up"], "the broker")
    code, answer, said = bed.apply(releases.package("0.2.0", given.NO_BROKER), "--deadline", "4")
    assert (code, "it has no broker" in answer["reason"]) == (1, True), said
    assert bed.whole() == bed.first
    peer.forget()
    bed.wait(lambda: bed.view()["link_up"], "the broker, by the old release")


def test_one_that_never_had_a_broker_does_not_need_one(bed: UpdatedDevice, releases: Releases) -> None:
    code, answer, _ = bed.apply(releases.package("0.2.0", given.NO_BROKER))
    assert (code, answer["outcome"]) == (0, "done")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (given.COMPUTES_WRONGLY, 'computes wrongly ({"release": "NAME", "news2": 18})'),
        (given.DOES_NOT_COMPILE, "fails its own test (SyntaxError: expected ':')"),
    ],
    ids=["computes wrongly", "does not compile"],
)
def test_a_release_that_fails_its_own_test_is_never_begun(
    bed: UpdatedDevice, releases: Releases, edit: given.Edit, reason: str
) -> None:
    packed = releases.package("0.2.0", edit)
    pid = bed.pid
    code, answer, _ = bed.apply(packed)
    name = packed.manifest.name
    assert (code, answer["outcome"]) == (2, "refused")
    assert answer["reason"] == f"{name}: {reason.replace('NAME', name)}; it is not used"
    assert (bed.whole(), bed.pid, bed.status()["releases"]) == (bed.first, pid, [bed.first])


# -- the store -----------------------------------------------------------------------------------------------


def newer() -> dict[str, int]:
    return {**release.schemas(), "device": release.schemas()["device"] + 1}


def test_a_release_that_cannot_open_the_store_is_returned_from(
    bed: UpdatedDevice, releases: Releases
) -> None:
    broken = releases.package("0.2.0", given.BREAKS_THE_STORE, schemas=newer())
    code, answer, _ = bed.apply(broken)
    assert (code, "there is no way back" in answer["reason"]) == (2, True)
    assert "--one-way" in answer["reason"]
    code, answer, said = bed.apply(broken, "--one-way")
    assert (code, answer["outcome"], answer["reason"]) == (1, "returned", "it crashed 3 times"), said
    assert "table meta already exists" in bed.log
    shown = bed.view()
    assert shown is not None
    assert shown["news2"]["low"] == 0


def test_who_has_migrated_the_store_stays_rather_than_leave_none_that_opens_it(
    bed: UpdatedDevice, releases: Releases
) -> None:
    crash = ("samd_edge/agent.py", "            self._take_model()\n", "            raise SystemExit(3)\n")
    one_way = releases.package("0.2.0", given.MIGRATES, crash, schemas=newer())
    code, answer, said = bed.apply(one_way, "--one-way")
    assert (code, answer["outcome"]) == (1, "stayed"), said
    known = release.schemas()["device"]
    assert answer["reason"] == (
        f"it crashed 3 times; no way back: the device has schema {known + 1}, and it knows up to {known}"
    )
    assert bed.whole() == one_way.manifest.name
    code, answer, _ = bed.update("back", "--force")
    assert (code, "cannot open the data of this device" in answer["reason"]) == (2, True)
    repaired = releases.package("0.3.0", given.MIGRATES, schemas=newer())
    code, answer, said = bed.apply(repaired, "--force")
    assert (code, answer["outcome"]) == (0, "done"), said


# -- the patient comes first ---------------------------------------------------------------------------------


def test_no_update_while_the_patient_has_an_alert(bed: UpdatedDevice, new: release.Package) -> None:
    bed.measure(ill=True)
    pid = bed.pid
    code, answer, _ = bed.apply(new)
    assert (code, answer["reason"].startswith("the patient has an alert")) == (1, True)
    assert (bed.whole(), bed.pid, bed.status()["releases"]) == (bed.first, pid, [bed.first])
    code, answer, _ = bed.apply(new, "--force")
    assert (code, bed.whole()) == (0, new.manifest.name)
    shown = bed.view()
    assert shown is not None
    assert shown["alert"]["active"] is True, "the alert outlives the update"


def test_no_update_while_nobody_can_say_how_the_patient_is(bed: UpdatedDevice, new: release.Package) -> None:
    bed.close()
    code, answer, _ = bed.apply(new)
    assert (code, answer["reason"].startswith("whether the patient has an alert is unknown")) == (1, True)
    bed.start_service()
    bed.wait(bed.view, "the client")
    assert bed.apply(new)[0] == 0


def test_two_updates_at_once(bed: UpdatedDevice, releases: Releases, new: release.Package) -> None:
    slow = releases.package("0.2.0", given.HANGS)
    command = [str(bed.layout.root / "current" / LAUNCHER), "update", "apply", *bed.options("apply")]
    with subprocess.Popen(
        [*command, str(slow.path), "--deadline", "4"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=given.clean(),
    ) as first:  # fmt: skip
        bed.wait((bed.layout.root / "trial").exists, "the trial")
        code, answer, _ = bed.apply(new, by="previous")
        assert (code, answer["reason"]) == (
            1, f"{bed.layout.root}: another update is under way (process {first.pid}); wait for its end",
        )  # fmt: skip
        code, answer, _ = bed.update("check", by="previous")
        assert (code, answer) == (0, {"outcome": None}), "the check waits, and finds the verdict given"
        assert first.wait(60) == 1
    assert bed.whole() == bed.first


# -- killed at each step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", marks(*BEFORE_THE_SWITCH))
def test_killed_before_the_switch_nothing_has_happened(
    bed: UpdatedDevice, new: release.Package, mark: str
) -> None:
    pid = bed.pid
    cut_at(bed, mark, "apply", str(new.path))
    assert (bed.whole(), bed.pid, given.alive(pid)) == (bed.first, pid, True)
    code, answer, _ = bed.update("check")
    on_trial = mark == "on trial"
    assert (code, answer["outcome"]) == ((1, "undone") if on_trial else (0, None))
    status = bed.status()
    assert (status["current"], status["trial"]) == (bed.first, None)
    assert status["releases"] == [bed.first]
    assert [path.name for path in bed.layout.releases.glob(".*")] == []
    code, _, said = bed.apply(new)
    assert (code, bed.whole(), bed.status()["previous"]) == (0, new.manifest.name, bed.first), said


@pytest.mark.parametrize("mark", marks("in place", "the way back is set", "on trial"))
def test_what_was_cut_off_does_not_take_the_place_of_the_release_before(
    bed: UpdatedDevice, new: release.Package, crashing: release.Package, mark: str
) -> None:
    assert bed.apply(new)[0] == 0
    cut_at(bed, mark, "apply", str(crashing.path))
    bed.update("check")
    status = bed.status()
    assert (status["current"], status["previous"]) == (new.manifest.name, bed.first)
    assert status["releases"] == [bed.first, new.manifest.name]


def test_a_release_that_was_returned_from_leaves_the_one_before(
    bed: UpdatedDevice, new: release.Package, releases: Releases
) -> None:
    assert bed.apply(new)[0] == 0
    code, answer, said = bed.apply(releases.package("0.3.0", given.CRASHES))
    assert (code, answer["outcome"]) == (1, "returned"), said
    status = bed.status()
    assert (status["current"], status["previous"]) == (new.manifest.name, bed.first)
    assert status["releases"] == [bed.first, new.manifest.name]
    code, answer, said = bed.update("back")
    assert (code, bed.whole()) == (0, bed.first), said


@pytest.mark.parametrize(("mark", "how"), cuts(*AFTER_THE_SWITCH))
def test_cut_off_after_the_switch_the_trial_goes_on(
    bed: UpdatedDevice, new: release.Package, mark: str, how: str
) -> None:
    cut_at(bed, mark, "apply", str(new.path))
    if how == "power cut":
        bed.cut_power()
        bed.start_service()
    assert bed.whole() == new.manifest.name
    code, answer, said = bed.update("check", by="previous")
    ended = mark == "confirmed"
    assert (code, answer["outcome"]) == (0, None if ended else "done"), said
    status = bed.status()
    assert (bed.whole(), status["previous"], status["trial"]) == (new.manifest.name, bed.first, None)
    assert status["last"]["outcome"] == "done"
    shown = bed.wait(bed.view, "the client")
    assert (shown["client_version"], shown["news2"]["low"]) == (new.manifest.name, 0)


@pytest.mark.parametrize(("mark", "how"), cuts(*ON_THE_WAY_BACK))
def test_cut_off_on_the_way_back_it_goes_on_back(
    bed: UpdatedDevice, crashing: release.Package, mark: str, how: str
) -> None:
    cut_at(bed, mark, "apply", str(crashing.path))
    if how == "power cut":
        bed.cut_power()
        bed.start_service()
    by = "previous" if (bed.layout.root / "trial").exists() else "current"
    code, answer, said = bed.update("check", by=by)
    ended = mark == "returned"
    assert (code, answer["outcome"]) == ((0, None) if ended else (1, "returned")), said
    status = bed.status()
    assert (bed.whole(), status["previous"], status["releases"]) == (bed.first, None, [bed.first])
    assert (status["trial"], status["last"]["reason"]) == (None, "it crashed 3 times")
    shown = bed.wait(bed.view, "the client")
    assert (shown["client_version"], shown["news2"]["low"]) == (bed.first, 0)


def test_a_release_under_which_the_power_is_cut_again_and_again_is_returned_from(
    bed: UpdatedDevice, releases: Releases
) -> None:
    hanging = releases.package("0.2.0", given.HANGS)
    cut_at(bed, "started anew", "apply", str(hanging.path), "--boots", "1")
    bed.cut_power()
    bed.start_service()
    command = [str(bed.layout.root / "previous" / LAUNCHER), "update", "check", *bed.options("check")]
    with subprocess.Popen(command, env=given.clean(), stderr=subprocess.DEVNULL) as checking:
        bed.wait(lambda: bed.status_by("previous")["trial"]["boots"] == 1, "the check after the first boot")
        checking.kill()
    assert bed.whole() == hanging.manifest.name
    bed.cut_power()
    bed.start_service()
    code, answer, said = bed.update("check", by="previous")
    assert (code, answer["reason"]) == (1, "the device booted 2 times without a verdict"), said
    assert bed.whole() == bed.first


def test_a_trial_whose_record_is_damaged_is_returned_from(bed: UpdatedDevice, new: release.Package) -> None:
    cut_at(bed, "started anew", "apply", str(new.path))
    (bed.layout.root / "trial").write_bytes(b'{"name": "0.2')
    code, answer, _ = bed.update("check", by="previous")
    assert (code, answer["reason"]) == (1, "the record of its trial cannot be read")
    assert bed.whole() == bed.first


def test_where_the_old_release_is_gone_the_new_one_stays(bed: UpdatedDevice, new: release.Package) -> None:
    cut_at(bed, "started anew", "apply", str(new.path))
    bed.layout.folder(bed.first).rename(bed.folder / "taken away")
    bed.reboot_id()
    record = bed.layout.root / "trial"
    record.write_text(record.read_text().replace('"boots":0', '"boots":2'))
    code, answer, said = bed.update("check")
    assert (code, answer["outcome"], bed.whole()) == (1, "stayed", new.manifest.name), said
    assert answer["reason"].endswith(f"no way back: {bed.first} is no longer there")


def test_a_service_that_cannot_be_started_anew_leads_back(bed: UpdatedDevice, new: release.Package) -> None:
    code, answer, _ = bed.apply(new, "--restart", "sh -c 'echo no such unit >&2; exit 5'")
    assert code == 1
    assert answer["reason"].startswith("sh -c 'echo no such unit >&2; exit 5': exit code 5 no such unit; and")
    assert bed.whole() == bed.first
