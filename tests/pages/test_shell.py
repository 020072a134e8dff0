"""What stands around every page: language, theme, a lost connection, who is signed in and may do what."""

import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pages_peers import PASSWORD, Bedside, Gateway, Hospital, Process, Reader, serious, until
from playwright.sync_api import Browser, expect

from samd_protocol.messages import ObservationAdd

Bed = Callable[..., Bedside]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_language_and_theme(reader: Reader, gateway: Gateway, bed: Bed, theme: str, language: str) -> None:
    bed("look-1").score({"heart_rate": 2}, missing=("consciousness",))
    page = reader.open(gateway.url + "/")
    page.get_by_label("Language").select_option(language)
    expect(page.locator("html")).to_have_attribute("lang", {"en": "en-US", "ko": "ko-KR"}[language])
    page.locator("[data-choice=theme]").select_option(theme)
    expect(page.locator("body")).to_have_class(_holds(f"body--{theme}"))
    expect(page.locator("h1")).to_have_text({"en": "Ward", "ko": "병동"}[language])
    shown = page.locator("article[data-device=look-1]")
    expect(shown).to_contain_text({"en": "ACVPU", "ko": "의식"}[language])
    assert serious(page) == []
    shown.locator("[data-do=observe]").click()
    expect(page.locator("dialog[open]")).to_contain_text({"en": "Consciousness", "ko": "의식 수준"}[language])
    assert serious(page) == []


def _holds(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b{name}\b")


@pytest.mark.parametrize("size", [(390, 844), (1366, 768), (1920, 1080)])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, gateway: Gateway, bed: Bed, size: tuple[int, int]
) -> None:
    bed("wide-1").score({"heart_rate": 2, "respiratory_rate": 3}, missing=("consciousness",), model=3)
    reader = Reader(browser, viewport={"width": size[0], "height": size[1]})
    for address in ("/", "/?mode=wall", "/?mode=compact", "/patient/wide-1"):
        page = reader.open(gateway.url + address)
        expect(page.locator("article[data-device=wide-1]")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], address
    reader.close()


@pytest.mark.system
def test_a_lost_connection_is_no_live_page(
    reader: Reader, own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable[[Bedside], Bedside]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gateway = make_gateway(own_broker, "--port", str(port))
    device = peers(Bedside(own_broker, "lost-1"))
    device.score({"heart_rate": 1})
    page = reader.open(gateway.url + "/")
    expect(page.locator("article")).to_be_visible()
    expect(page.locator(".samd-banner")).to_be_hidden()

    gateway.end(signal.SIGKILL)
    expect(page.locator(".samd-banner")).to_contain_text("The connection is lost. What you see is from")
    expect(page.locator("[data-live]")).to_have_text("Lost")
    expect(page.locator("html")).to_have_class(_holds("samd-lost"))
    assert (
        page.locator(".samd-main").evaluate("e => getComputedStyle(e).filter") == "grayscale(1) opacity(0.55)"
    )
    # ages go on
    before = page.locator(".ward-times dd").first.inner_text()
    expect(page.locator(".ward-times dd").first).not_to_have_text(before)

    gateway.start()
    expect(page.locator("[data-live]")).to_have_text("Live", timeout=40_000)
    expect(page.locator(".samd-banner")).to_be_hidden()


@pytest.mark.system
def test_a_broker_that_is_lost_is_told(
    reader: Reader, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    broker = Process("broker", "--port", "0")
    try:
        page = reader.open(make_gateway(broker.ready()).url + "/")
        expect(page.locator(".samd-banner")).to_be_hidden()
    finally:
        broker.end()
    expect(page.locator(".samd-banner")).to_contain_text("The gateway reports a problem")


@pytest.fixture(scope="module")
def hospital(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """Last in this module: the module's gateway has users from here on."""
    hospital = Hospital(gateway, tmp_path_factory.mktemp("users"))
    hospital.user("root", "admin")
    hospital.user("kim", "nurse")
    hospital.user("lee", "viewer")
    return hospital


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_sign_in_and_out(reader: Reader, hospital: Hospital, theme: str) -> None:
    reader.prefer(hospital.gateway.url, theme=theme)
    page = reader.page(hospital.gateway.url)
    page.goto(hospital.gateway.url + "/patient/x")
    expect(page.get_by_role("heading")).to_have_text("Sign in")
    assert serious(page) == []
    page.get_by_label("Name").fill("kim")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Name or password is not right")
    assert serious(page) == []
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/patient/x")
    expect(page.locator(".samd-user")).to_have_text("kim")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator(".told")).to_have_text("You are signed out.")
    page.goto(hospital.gateway.url + "/")
    expect(page.get_by_role("heading")).to_have_text("Sign in")


def test_what_a_nurse_does_bears_their_name(reader: Reader, hospital: Hospital, bed: Bed) -> None:
    device = bed("name-1")
    device.score({})
    page = hospital.sign_in(reader, "kim")
    page.locator("article[data-device=name-1] [data-do=observe]").click()
    expect(page.locator("dialog[open]")).to_contain_text("In the name of kim")
    page.locator("dialog[open]").get_by_label("V: responds to voice").check()
    page.locator("dialog[open]").get_by_role("button", name="Enter observation").click()
    expect(page.locator("dialog[open] .outcome")).to_have_text("Done: the device has confirmed it.")
    (told,) = until(lambda: [each for each in device.commands if isinstance(each, ObservationAdd)])
    assert (told.by, told.consciousness) == ("kim", "V")


def test_a_viewer_sees_and_does_nothing(reader: Reader, hospital: Hospital, bed: Bed) -> None:
    device = bed("view-1")
    device.score({})
    page = hospital.sign_in(reader, "lee")
    shown = page.locator("article[data-device=view-1]")
    expect(shown).to_be_visible()
    expect(shown.locator("button")).to_have_count(0)
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(
        ["Ward", "Fleet", "Runs", "Models"]
    )
    # a forged event of the component is refused as well
    page.evaluate(
        """() => {
          const component = [...Object.values(mounted_app.elements)].find(e => e.props?.cards);
          window.socket.emit("event", {id: component.id ?? 0, client_id: window.clientId,
            listener_id: component.events[0].listener_id, args: [{kind: "observe", device: "view-1"}]});
        }"""
    )
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert device.commands == []


@pytest.mark.system
def test_a_session_that_has_ended_does_nothing_more(reader: Reader, hospital: Hospital, bed: Bed) -> None:
    hospital.user("park", "nurse")
    device = bed("ended-1")
    device.score({})
    page = hospital.sign_in(reader, "park")
    page.locator("article[data-device=ended-1] [data-do=observe]").click()
    page.locator("dialog[open]").get_by_label("A: alert").check()
    hospital.disable("park")
    # its socket is closed, and loading anew leads to the form
    page.wait_for_url("**/login?**", timeout=30_000)
    assert device.commands == []
