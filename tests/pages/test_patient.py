"""The patient's page: the time line with its table, the chart's advice, why rule and model differ, live."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from pages_peers import Bedside, Gateway, Reader, serious
from playwright.sync_api import Page, expect

Bed = Callable[..., Bedside]


def past(device: Bedside) -> None:
    """Nine hours: a score that rises, a gap of four hours, and a new model."""
    now = datetime.now(UTC)
    for minutes in [*range(540, 360, -20), *range(120, 0, -20)]:
        points = {"heart_rate": 1} if minutes > 300 else {"respiratory_rate": 2, "heart_rate": 2}
        device.score(
            points,
            observed_at=now - timedelta(minutes=minutes),
            reading_age_s=60.0 * minutes,
            model=1 if minutes < 300 else None,
        )


def options(page: Page) -> list[list[list[object]]]:
    """The data of each series of the plot, as ECharts has them."""
    found: list[list[list[object]]] = page.evaluate(
        """() => {
          const id = [...document.querySelectorAll('.nicegui-echart')][0].id.slice(1);
          return getElement(id).chart.getOption().series.map(one => one.data);
        }"""
    )
    return found


def test_the_page_of_a_patient(reader: Reader, gateway: Gateway, bed: Bed) -> None:
    device = bed("past-1")
    past(device)
    device.score({"respiratory_rate": 2, "heart_rate": 2}, missing=("consciousness",), model=3)
    device.alarm("raised", 1, 4)
    page = reader.open(f"{gateway.url}/patient/past-1")
    expect(page.locator("article .score")).to_have_text("4–7")
    # who is called now, and who if what is missing were at its worst
    expect(page.locator(".patient-advice")).to_contain_text("A registered nurse assesses the patient")
    expect(page.get_by_text("Were they at their worst: Emergency")).to_be_visible()
    why = page.locator("section", has=page.get_by_role("heading", name="Rule and model"))
    expect(why).to_contain_text("The model takes class ≥ 7 for the likeliest (85 %).")
    expect(why).to_contain_text("Respiratory rate 2, Pulse 2")
    expect(why.get_by_role("row", name="≥ 7")).to_contain_text("possible")

    page.get_by_role("button", name="24 hours").click()
    low = options(page)[0]
    assert [row[1] for row in low[:9]] == [1] * 9
    assert low[9][1] is None  # the line breaks where nothing was assessed
    assert [row[1] for row in low[10:16]] == [4] * 6
    page.get_by_text("The figures as a table").click()
    rows = page.get_by_role("region", name="The figures of the time line").locator("tbody tr")
    expect(rows).to_have_count(16)
    expect(rows.first.locator("td").nth(1)).to_have_text("4–7")
    expect(page.get_by_role("heading", name="Times without data")).to_be_visible()
    expect(page.get_by_role("region", name="Alerts")).to_contain_text("still active")

    page.get_by_role("button", name="6 hours").click()
    expect(page.get_by_role("button", name="6 hours")).to_have_attribute("aria-pressed", "true")
    expect(rows).to_have_count(7)


def test_it_goes_on_by_itself(reader: Reader, gateway: Gateway, bed: Bed) -> None:
    device = bed("live-1")
    device.score({"heart_rate": 1})
    page = reader.open(f"{gateway.url}/patient/live-1")
    expect(page.locator(".patient-advice")).to_contain_text("A registered nurse")
    device.score({"respiratory_rate": 3, "heart_rate": 3, "spo2": 2})
    expect(page.locator("article .score")).to_have_text("8")
    expect(page.locator(".patient-advice")).to_contain_text("Emergency")
    device.die()
    expect(page.locator("article .score")).to_have_text("?")
    expect(page.get_by_text("There is no present score")).to_be_visible()
    expect(page.locator(".patient-advice")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_everybody_can_read_it(reader: Reader, gateway: Gateway, bed: Bed, theme: str, language: str) -> None:
    device = bed("read-1")
    past(device)
    device.score({"respiratory_rate": 2, "heart_rate": 2}, missing=("consciousness",), model=3)
    device.alarm("raised", 1, 4)
    reader.prefer(gateway.url, theme=theme, language=language)
    page = reader.open(f"{gateway.url}/patient/read-1")
    title = {"en": "What the NEWS2 chart asks for", "ko": "조기경고점수에 따른 대응"}[language]
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.locator(".patient-advice")).to_be_visible()
    assert serious(page) == []


def test_a_device_that_is_not_known(reader: Reader, gateway: Gateway) -> None:
    page = reader.open(f"{gateway.url}/patient/nobody")
    expect(page.locator(".samd-note").first).to_have_text("No device nobody is known here.")
    page = reader.open(f"{gateway.url}/patient/%3Cimg%20src=x%20onerror=alert(1)%3E")
    expect(page.get_by_text("No device <img src=x onerror=alert(1)> is known here.")).to_be_visible()
