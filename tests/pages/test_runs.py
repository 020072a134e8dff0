"""The pages of runs, models, audit and settings, as an operator and an admin use them."""

from collections.abc import Callable, Iterator

import pytest
from gateway_peers import Server
from pages_peers import Bedside, Gateway, Reader, serious, until
from playwright.sync_api import Page, expect

from samd_protocol import envelope, topics
from samd_protocol.messages import ModelAnswer, ModelOrder

Bed = Callable[..., Bedside]


class Answering(Server):
    """A server that does what it is told of models."""

    def received(self, topic: str, payload: bytes) -> None:
        sealed = envelope.decode(payload)
        if isinstance(sealed.data, ModelOrder):
            self.send(topics.SERVER_MODEL_ANSWER, ModelAnswer(order=sealed.id, status="done"))
        else:
            self.orders.put(sealed.data)


@pytest.fixture
def server(gateway: Gateway, peers: Callable) -> Iterator[Answering]:
    made = peers(Answering(gateway.broker))
    made.subscribe(topics.SERVER_MODEL_ORDER)
    until(lambda: gateway.get("/api/server")["status"] == "online")
    yield made
    current = gateway.get("/api/runs")["current"]
    if current is not None:
        gateway.http.post(f"/api/runs/{current}/stop")
        made.status(current, "stopped")
        until(lambda: gateway.get("/api/runs")["current"] is None)


def dialog(page: Page):
    return page.locator("dialog[open]")


def test_a_run_is_started_watched_and_stopped(
    reader: Reader, gateway: Gateway, bed: Bed, server: Answering
) -> None:
    bed("run-1", answer="accepted")
    until(lambda: (gateway.device("run-1") or {}).get("state") == "online")
    page = reader.open(gateway.url + "/runs")
    page.get_by_role("button", name="Start a run").click()
    expect(dialog(page)).to_contain_text("How many devices must take part")
    dialog(page).locator("[name=devices]").fill("run-1")
    dialog(page).locator("[name=rounds]").fill("many")
    dialog(page).get_by_role("button", name="Start a run").click()
    expect(dialog(page)).to_contain_text("Rounds: write a number")
    dialog(page).locator("[name=rounds]").fill("4")
    dialog(page).locator("[name=quorum]").fill("1")
    dialog(page).get_by_role("button", name="Start a run").click()
    expect(dialog(page)).to_contain_text("Begun: run-")
    dialog(page).get_by_role("button", name="Close").click()
    run = server.order().run
    expect(page.locator("[data-run]")).to_contain_text(run)
    for number, loss in ((1, 0.9), (2, 0.5)):
        server.status(
            run,
            "training",
            round=number,
            rounds=4,
            quorum=1,
            replies=1,
            metrics={"loss": loss},
            round_seconds=0.1,
            dropped={"late": 1},
        )
    expect(page.locator("progress")).to_have_attribute("value", "2")
    expect(page.locator("[data-state=training]")).to_be_visible()
    expect(page.get_by_role("cell", name="late", exact=True)).to_be_visible()
    page.get_by_text("The rounds as a table").first.click()
    expect(page.locator("details table")).to_contain_text("0.5000")
    page.get_by_role("button", name="Stop the run").click()
    dialog(page).get_by_role("button", name="Stop the run").click()
    expect(dialog(page)).to_contain_text("told to stop")
    dialog(page).get_by_role("button", name="Close").click()
    assert server.order().action == "stop"
    server.status(run, "stopped", reason="stopped by an operator")
    expect(page.locator("[data-state=stopped]")).to_be_visible()


def test_a_schedule_is_added_switched_off_and_removed(reader: Reader, gateway: Gateway) -> None:
    page = reader.open(gateway.url + "/runs")
    page.get_by_role("button", name="Add a schedule").click()
    dialog(page).locator("[name=title]").fill("every night")
    dialog(page).locator("[name=cron]").fill("61 2 * * *")
    dialog(page).get_by_role("button", name="Add a schedule").click()
    expect(dialog(page).locator(".outcome.bad")).to_contain_text("cron")
    dialog(page).locator("[name=cron]").fill("30 2 * * *")
    dialog(page).get_by_role("button", name="Add a schedule").click()
    expect(dialog(page)).to_contain_text("Added. Next:")
    dialog(page).get_by_role("button", name="Close").click()
    row = page.locator("tr", has_text="every night")
    expect(row).to_contain_text("30 2 * * *")
    row.get_by_role("button", name="Switch off").click()
    expect(row).to_contain_text("off")
    until(lambda: not gateway.get("/api/schedules")["schedules"][0]["enabled"])
    row.get_by_role("button", name="Remove").click()
    dialog(page).get_by_role("button", name="Remove").click()
    expect(dialog(page)).to_contain_text("Removed.")
    assert gateway.get("/api/schedules")["schedules"] == []


def test_a_model_is_released_and_the_answer_is_shown(
    reader: Reader, gateway: Gateway, bed: Bed, server: Answering
) -> None:
    bed("model-1", answer="accepted")
    until(lambda: (gateway.device("model-1") or {}).get("state") == "online")
    started = gateway.http.post("/api/runs", json={"quorum": 1, "devices": ["model-1"]}).json()["id"]
    server.order()
    server.status(
        started, "done", model_version=4, released=False, reason="macro-F1 fell", metrics={"macro_f1": 0.7}
    )
    until(lambda: gateway.run(started)["state"] == "done")
    page = reader.open(gateway.url + "/models")
    row = page.locator("tr", has_text="macro-F1 fell")
    expect(row).to_contain_text("kept, not released")
    expect(row).to_contain_text("3 → 4")
    row.get_by_role("button", name="Release").click()
    expect(dialog(page)).to_contain_text("did not pass the gate: macro-F1 fell")
    dialog(page).get_by_role("button", name="Release").click()
    expect(dialog(page)).to_contain_text("The server was asked.")
    dialog(page).get_by_role("button", name="Close").click()
    expect(page.locator("section", has_text="Orders to the server")).to_contain_text("done")
    entry = gateway.get("/api/audit", action="model")["entries"][0]
    assert (entry["action"], entry["after"]) == ("model.release", {"version": 4})

    audit = reader.open(gateway.url + "/audit?action=model")
    expect(audit.locator("tbody tr").first).to_contain_text("model.release")
    audit.get_by_label("Of what").fill("device")
    audit.get_by_role("button", name="Show").click()
    expect(audit.get_by_text("No entry.")).to_be_visible()


def test_settings_are_changed_checked_and_audited(reader: Reader, gateway: Gateway) -> None:
    page = reader.open(gateway.url + "/settings")
    expect(page.get_by_text("No user is set up")).to_be_visible()
    page.get_by_role("button", name="Change: Escalation ladder").click()
    dialog(page).get_by_label("Severity 7 or more, seconds", exact=False).fill("900, 300")
    dialog(page).get_by_role("button", name="Save").click()
    expect(dialog(page).locator(".outcome.bad")).to_contain_text("each step comes later")
    dialog(page).get_by_label("Severity 7 or more, seconds", exact=False).fill("120, 600")
    dialog(page).get_by_role("button", name="Save").click()
    expect(dialog(page)).to_contain_text("Saved.")
    dialog(page).get_by_role("button", name="Close").click()
    expect(page.locator("section", has_text="Escalation ladder")).to_contain_text("120, 600")
    entry = gateway.get("/api/audit", action="settings")["entries"][0]
    assert entry["before"]["severity_3"] == [300.0, 900.0]
    assert entry["after"]["severity_3"] == [120.0, 600.0]
    page.get_by_role("button", name="What would go now").click()
    expect(dialog(page)).to_contain_text("messages")
    dialog(page).get_by_role("button", name="Close").click()

    page.get_by_role("button", name="Add a channel").click()
    dialog(page).locator("[name=name]").fill("desk")
    dialog(page).get_by_label("Kind").select_option("mqtt")
    dialog(page).get_by_role("button", name="Save").click()
    expect(dialog(page)).to_contain_text("Saved.")
    dialog(page).get_by_role("button", name="Close").click()
    expect(page.locator("tr", has_text="desk")).to_contain_text("well")


@pytest.mark.parametrize("path", ["/runs", "/models", "/audit", "/settings"])
def test_these_pages_have_no_serious_fault_of_access(reader: Reader, gateway: Gateway, path: str) -> None:
    for theme in ("dark", "light"):
        reader.prefer(gateway.url, theme=theme, language="ko" if theme == "dark" else "en")
        assert serious(reader.open(gateway.url + path)) == []
