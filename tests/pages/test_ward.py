"""The ward's page, used as a nurse does: alerts, observations, admissions, by mouse and by keyboard."""

from collections.abc import Callable

import pytest
from pages_peers import Bedside, Gateway, Reader, until
from playwright.sync_api import Locator, Page, expect

from samd_protocol.messages import ObservationAdd, PatientAdmit, PatientDischarge

Bed = Callable[..., Bedside]


def card(page: Page, name: str) -> Locator:
    return page.locator(f"article[data-device={name}]")


def order(page: Page, *names: str) -> list[str]:
    """These devices in the order of their cards."""
    there = page.locator("article").evaluate_all("all => all.map(one => one.dataset.device)")
    return [name for name in there if name in names]


def dialog(page: Page) -> Locator:
    return page.locator("dialog[open]")


def test_cards_sort_by_risk_as_messages_arrive(ward: Page, bed: Bed) -> None:
    first, second = bed("sort-1"), bed("sort-2")
    first.score({"heart_rate": 1})
    second.score({"respiratory_rate": 3, "heart_rate": 2})
    expect(card(ward, "sort-1").locator(".score")).to_have_text("1")
    expect(card(ward, "sort-2").locator(".score")).to_have_text("5")
    assert order(ward, "sort-1", "sort-2") == ["sort-2", "sort-1"]
    loaded = ward.evaluate("performance.timeOrigin")

    first.score({"respiratory_rate": 3, "heart_rate": 3, "spo2": 3})
    expect(card(ward, "sort-1").locator(".score")).to_have_text("9")
    expect(card(ward, "sort-1").locator(".word")).to_have_text("High")
    until(lambda: order(ward, "sort-1", "sort-2") == ["sort-1", "sort-2"])
    assert ward.evaluate("performance.timeOrigin") == loaded


def test_what_is_missing_is_a_range_and_no_green_card(ward: Page, bed: Bed) -> None:
    bed("range-1").score({"heart_rate": 2}, missing=("consciousness", "supplemental_oxygen"), model=3)
    shown = card(ward, "range-1")
    expect(shown.locator(".score")).to_have_text("2–7")
    expect(shown.locator(".up-to")).to_have_text("up to High")
    expect(shown).to_have_class("ward-card level-open")
    expect(shown.locator(".ward-points .lacks .value")).to_have_text(["?", "?"])
    expect(shown).to_contain_text("1–4 (possibly ≥ 7)")
    expect(shown).to_contain_text("≠ differ")


def test_a_silent_device_has_no_present_score(ward: Page, bed: Bed) -> None:
    device = bed("silent-1")
    device.score({"heart_rate": 1})
    expect(card(ward, "silent-1").locator(".score")).to_have_text("1")
    device.die()
    shown = card(ward, "silent-1")
    expect(shown.locator(".score")).to_have_text("?")
    expect(shown).to_contain_text("The device is offline.")
    expect(shown).to_contain_text("last known: 1")
    expect(shown).to_have_class("ward-card level-unknown")


def test_acknowledge_pause_and_escalate(ward: Page, bed: Bed, gateway: Gateway) -> None:
    device = bed("alert-1")
    device.score({"respiratory_rate": 3, "heart_rate": 2})
    device.alarm("raised", 2, 5)
    shown = card(ward, "alert-1")
    expect(shown.locator(".ward-alert")).to_contain_text("not acknowledged")

    shown.get_by_role("button", name="Acknowledge").click()
    expect(dialog(ward)).to_contain_text("recorded as local")
    dialog(ward).get_by_label("Note").fill("<img src=x onerror=alert(1)>")
    dialog(ward).get_by_role("button", name="Acknowledge").click()
    expect(dialog(ward).locator(".outcome")).to_have_text("Acknowledged.")
    dialog(ward).get_by_role("button", name="Close").click()
    expect(shown.locator(".ward-alert")).to_contain_text("acknowledged by local")
    expect(shown.get_by_role("button", name="Acknowledge")).to_have_count(0)

    act(ward, shown, "Pause the alert")
    dialog(ward).get_by_label("For how long").select_option("60")
    dialog(ward).get_by_role("button", name="Pause the alert").click()
    expect(dialog(ward).locator(".outcome")).to_have_text("Reason: it is needed.")
    dialog(ward).get_by_label("Reason").fill("<b>turned</b> in bed")
    send(ward, "Pause the alert", "Recorded.")
    expect(shown.locator(".ward-alert")).to_contain_text("by local: <b>turned</b> in bed")

    act(ward, shown, "End the pause")
    send(ward, "End the pause", "Recorded.")
    act(ward, shown, "Escalate")
    dialog(ward).get_by_label("Reason").fill("worse")
    send(ward, "Escalate", "Recorded.")
    expect(shown.locator(".ward-alert")).to_contain_text("escalated to step 1")
    (alert,) = [each for each in gateway.get("/api/alerts")["alerts"] if each["device"] == "alert-1"]
    assert (alert["acknowledged"], alert["step"], alert["paused"]) == (False, 1, False)


def test_an_alert_that_grew_worse_meanwhile_is_not_acknowledged(ward: Page, bed: Bed) -> None:
    device = bed("alert-2")
    device.score({"respiratory_rate": 3, "heart_rate": 2})
    device.alarm("raised", 2, 5)
    card(ward, "alert-2").get_by_role("button", name="Acknowledge").click()
    expect(dialog(ward)).to_be_visible()
    device.alarm("escalated", 3, 8)
    expect(card(ward, "alert-2").locator(".ward-alert")).to_contain_text("≥ 7")
    dialog(ward).get_by_role("button", name="Acknowledge").click()
    expect(dialog(ward).locator(".outcome")).to_contain_text("has become more severe")
    dialog(ward).get_by_role("button", name="Cancel").click()
    expect(card(ward, "alert-2").locator(".ward-alert")).to_contain_text("not acknowledged")


def test_an_observation_reaches_the_device(ward: Page, bed: Bed) -> None:
    device = bed("observe-1")
    device.score({}, missing=("consciousness",))
    card(ward, "observe-1").get_by_role("button", name="Enter an observation").click()
    dialog(ward).get_by_label("C: new confusion").check()
    dialog(ward).get_by_label("On oxygen").check()
    send(ward, "Enter observation", "Done: the device has confirmed it.")
    (told,) = until(lambda: [each for each in device.commands if isinstance(each, ObservationAdd)])
    assert (told.by, told.consciousness, told.supplemental_oxygen) == ("local", "C", True)


def test_a_refusal_is_shown_with_its_reason(ward: Page, bed: Bed) -> None:
    device = bed("observe-2", refuses="<i>no patient</i> is here")
    device.score({})
    card(ward, "observe-2").get_by_role("button", name="Enter an observation").click()
    dialog(ward).get_by_label("A: alert").check()
    dialog(ward).get_by_role("button", name="Enter observation").click()
    expect(dialog(ward).locator(".outcome")).to_have_text("The device refused: <i>no patient</i> is here")
    dialog(ward).get_by_role("button", name="Cancel").click()

    # nothing entered is nothing to send
    card(ward, "observe-2").get_by_role("button", name="Enter an observation").click()
    dialog(ward).get_by_role("button", name="Enter observation").click()
    expect(dialog(ward).locator(".outcome")).to_contain_text("nothing was observed")
    assert len(device.commands) == 1


def test_a_reading_is_corrected(ward: Page, bed: Bed) -> None:
    device = bed("correct-1")
    device.score({})
    act(ward, card(ward, "correct-1"), "Correct a reading")
    dialog(ward).get_by_label("Which value is wrong").select_option("temperature")
    dialog(ward).get_by_label("The right value").fill("warm")
    dialog(ward).get_by_label("Reason").fill("the probe was in the tea")
    dialog(ward).get_by_role("button", name="Correct a reading").click()
    expect(dialog(ward).locator(".outcome")).to_contain_text("a number is needed")
    dialog(ward).get_by_label("The right value").fill("37,2")
    dialog(ward).get_by_label("Time of the wrong value").fill("2026-01-02T03:04")
    send(ward, "Correct a reading", "Done: the device has confirmed it.")
    correction = device.commands[0].correction
    assert (correction.field, correction.value, correction.reason) == (
        "temperature",
        37.2,
        "the probe was in the tea",
    )
    assert correction.observed_at.isoformat() == "2026-01-01T18:04:00+00:00"  # the browser is in Seoul


def test_admit_and_discharge(ward: Page, bed: Bed) -> None:
    device = bed("stay-1")
    device.score({"heart_rate": 2})
    act(ward, card(ward, "stay-1"), "Admit a patient")
    dialog(ward).get_by_label("Bed", exact=True).fill("<img src=x onerror=alert(2)>")
    dialog(ward).get_by_label("Ward", exact=True).fill("<script>alert(3)</script>")
    dialog(ward).get_by_label("Pseudonym").fill("P-0042")
    dialog(ward).get_by_label("Scale 2").check()
    send(ward, "Admit a patient", "Done: the device has confirmed it.")
    (told,) = until(lambda: [each for each in device.commands if isinstance(each, PatientAdmit)])
    assert (told.admission, told.spo2_scale, told.consent_to_training) == ("P-0042", 2, False)
    shown = card(ward, "stay-1")
    expect(shown.locator("h2")).to_have_text("<img src=x onerror=alert(2)>")
    expect(shown.locator(".who")).to_have_text("stay-1 · P-0042 · <script>alert(3)</script>")
    expect(shown).to_contain_text("SpO2 scale 2")
    # what the device said before was of somebody else
    expect(shown.locator(".score")).to_have_text("?")

    act(ward, shown, "Discharge")
    dialog(ward).get_by_label("Erase them").check()
    send(ward, "Discharge", "Done: the device has confirmed it.")
    (told,) = until(lambda: [each for each in device.commands if isinstance(each, PatientDischarge)])
    assert (told.admission, told.keep) == ("P-0042", False)
    expect(card(ward, "stay-1")).to_have_count(0)


def test_by_keyboard_alone(ward: Page, bed: Bed) -> None:
    device = bed("keys-1")
    device.score({"respiratory_rate": 3, "heart_rate": 3, "spo2": 3})
    expect(card(ward, "keys-1")).to_be_visible()
    ward.keyboard.press("/")
    ward.keyboard.type("keys-1")
    expect(ward.locator("article")).to_have_count(1)
    ward.keyboard.press("Tab")
    while ward.evaluate("document.activeElement.className") != "name":
        ward.keyboard.press("Tab")
    ward.keyboard.press("o")
    expect(dialog(ward)).to_be_visible()
    ward.keyboard.press("Space")  # the first choice: alert
    ward.keyboard.press("Enter")
    expect(dialog(ward).locator(".outcome")).to_have_text("Done: the device has confirmed it.")
    ward.keyboard.press("Enter")
    expect(ward.locator("dialog[open]")).to_have_count(0)
    assert ward.evaluate("document.activeElement.className") == "name"  # back where it was
    assert device.commands[0].consciousness == "A"
    ward.keyboard.press("?")
    expect(ward.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    ward.keyboard.press("Escape")
    ward.keyboard.press("x")
    expect(dialog(ward)).to_contain_text("Actions: keys-1")
    ward.keyboard.press("Escape")
    card(ward, "keys-1").locator("a.name").press("Enter")
    ward.wait_for_url("**/patient/keys-1")


@pytest.mark.parametrize("mode", ["compact", "wall"])
def test_the_view_and_the_filter_stand_in_the_address(
    reader: Reader, gateway: Gateway, bed: Bed, mode: str
) -> None:
    bed(f"view-{mode}").score({"heart_rate": 1})
    page = reader.open(f"{gateway.url}/?mode={mode}&q=view-{mode}")
    expect(page.locator("article")).to_have_count(1)
    expect(page.locator(".ward")).to_have_attribute("data-mode", mode)
    actions = card(page, f"view-{mode}").locator(".ward-actions")
    expect(actions).to_be_visible(visible=mode == "compact")


def act(page: Page, shown: Locator, name: str) -> None:
    """Open the card's actions and choose one."""
    if dialog(page).count():
        dialog(page).get_by_role("button", name="Close").click()
    shown.get_by_role("button", name="All actions").click()
    dialog(page).get_by_role("button", name=name).click()
    expect(dialog(page).locator("h2")).not_to_contain_text("Actions")


def send(page: Page, name: str, outcome: str) -> None:
    """Send the dialog, see what became of it, and close it."""
    dialog(page).get_by_role("button", name=name).click()
    expect(dialog(page).locator(".outcome")).to_have_text(outcome)
    dialog(page).get_by_role("button", name="Close").click()
