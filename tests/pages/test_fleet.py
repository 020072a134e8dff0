"""The fleet's page as an operator uses it: filter, save a view, do the same to many, see the answers."""

from collections.abc import Callable

from pages_peers import Bedside, Gateway, Reader, serious, until
from playwright.sync_api import Page, expect

from samd_protocol.messages import ModelActivate, Report

Bed = Callable[..., Bedside]


def names(page: Page) -> list[str]:
    return page.locator("tr[data-device]").evaluate_all("all => all.map(one => one.dataset.device)")


def test_filters_counts_and_states_by_push(reader: Reader, gateway: Gateway, bed: Bed) -> None:
    one, two = bed("fleet-1"), bed("fleet-2")
    page = reader.open(gateway.url + "/fleet")
    page.get_by_placeholder("Filter by name, bed or tag").fill("fleet-")
    expect(page.locator("tr[data-device]")).to_have_count(2)
    loaded = page.evaluate("performance.timeOrigin")
    one.die()
    expect(page.locator("tr[data-device=fleet-1]")).to_contain_text("offline")
    expect(page.locator("tr[data-device=fleet-1]")).to_contain_text("will")
    assert names(page) == ["fleet-1", "fleet-2"]  # what needs somebody comes first
    page.locator("button[data-state=online]").click()
    expect(page.locator("tr[data-device]")).to_have_count(1)
    assert names(page) == ["fleet-2"]
    expect(page.locator("button[data-state=offline]")).to_contain_text("1")
    assert page.evaluate("performance.timeOrigin") == loaded
    two.close()


def test_what_was_never_told_is_unknown_and_text_stays_text(
    reader: Reader, gateway: Gateway, bed: Bed
) -> None:
    bed("text-1")
    until(lambda: gateway.device("text-1"))
    tag = "<img src=x onerror=alert(1)>"
    gateway.http.post("/api/fleet/tags", json={"devices": ["text-1"], "add": [tag]}).raise_for_status()
    page = reader.open(gateway.url + "/fleet?text=text-1")
    row = page.locator("tr[data-device=text-1]")
    expect(row).to_contain_text(tag)
    expect(row).to_contain_text("unknown / unknown / unknown")  # memory, disk, temperature
    expect(page.locator("td img")).to_have_count(0)


def test_an_action_on_many_is_previewed_done_and_answered(reader: Reader, gateway: Gateway, bed: Bed) -> None:
    good, bad = bed("many-1"), bed("many-2", refuses="it does not hold version 2")
    away = bed("many-3")
    until(lambda: gateway.device("many-3"))
    away.die()
    until(lambda: (gateway.device("many-3") or {}).get("state") == "offline")
    page = reader.open(gateway.url + "/fleet?text=many-")
    expect(page.locator("tr[data-device]")).to_have_count(3)
    page.get_by_label("Choose all on this page").check()
    expect(page.locator("[data-chosen]")).to_have_text("3 chosen")
    page.locator("[data-bulk=activate]").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("Version").fill("2")
    dialog.get_by_role("button", name="Preview").click()
    expect(dialog).to_contain_text("2 of 3 devices are reached now.")
    expect(dialog).to_contain_text("many-3: it is offline")
    assert not good.commands
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog).to_contain_text("Sent.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator("tr[data-result=many-1]")).to_contain_text("done")
    expect(page.locator("tr[data-result=many-2]")).to_contain_text("it does not hold version 2")
    expect(page.locator("tr[data-result=many-3]")).to_contain_text("waiting")
    assert good.commands == bad.commands == [ModelActivate(version=2)]


def test_a_view_is_saved_and_used(reader: Reader, gateway: Gateway, bed: Bed) -> None:
    bed("view-1")
    until(lambda: gateway.device("view-1"))
    page = reader.open(gateway.url + "/fleet?text=view-")
    expect(page.locator("tr[data-device]")).to_have_count(1)
    page.get_by_role("button", name="Save this view").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("Name").fill("only view")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_contain_text("Saved.")
    again = reader.open(gateway.url + "/fleet")
    again.get_by_label("Saved view").select_option(label="only view")
    expect(again.locator("tr[data-device]")).to_have_count(1)
    assert names(again) == ["view-1"]


def test_one_device_with_its_commands(reader: Reader, gateway: Gateway, bed: Bed) -> None:
    device = bed("single-1")
    until(lambda: gateway.device("single-1"))
    sent = gateway.http.post("/api/devices/single-1/commands", json={"body": {"type": "report"}})
    sent.raise_for_status()
    until(lambda: device.commands == [Report()])
    page = reader.open(gateway.url + "/fleet?text=single-")
    page.get_by_role("link", name="single-1").click()
    expect(page.locator("h2").first).to_have_text("single-1")
    expect(page.locator("table").first).to_contain_text("report")
    expect(page.locator("table").first).to_contain_text("done")


def test_the_fleet_has_no_serious_fault_of_access(reader: Reader, gateway: Gateway, bed: Bed) -> None:
    bed("axe-1")
    until(lambda: gateway.device("axe-1"))
    for theme in ("dark", "light"):
        reader.prefer(gateway.url, theme=theme)
        page = reader.open(gateway.url + "/fleet")
        expect(page.locator("tr[data-device=axe-1]")).to_be_visible()
        assert serious(page) == []
        assert serious(reader.open(gateway.url + "/device/axe-1")) == []


def test_a_version_is_a_whole_number(reader: Reader, gateway: Gateway, bed: Bed) -> None:
    device = bed("whole-1")
    until(lambda: (gateway.device("whole-1") or {}).get("state") == "online")
    page = reader.open(gateway.url + "/fleet?text=whole-")
    page.get_by_label("Choose all on this page").check()
    page.locator("[data-bulk=activate]").click()
    dialog = page.locator("dialog[open]")
    for said in ("2.7", "nan", "inf", "-3"):
        dialog.get_by_label("Version").fill(said)
        dialog.get_by_role("button", name="Preview").click()
        expect(dialog.locator(".outcome.bad")).to_contain_text("Version")
    assert not device.commands


def test_a_view_with_more_filters_than_the_table_is_not_used_without_them(
    reader: Reader, gateway: Gateway, bed: Bed
) -> None:
    for name in ("wide-1", "wide-2"):
        bed(name)
        until(lambda name=name: gateway.device(name))
    query = {"text": "wide-", "client_versions": ["0.0.0-none"]}
    gateway.http.post("/api/fleet/views", json={"name": "by client", "query": query}).raise_for_status()
    page = reader.open(gateway.url + "/fleet")
    option = page.get_by_label("Saved view").locator("option", has_text="by client")
    expect(option).to_have_text("by client (has more filters than this table: use the API)")
    expect(option).to_be_disabled()
