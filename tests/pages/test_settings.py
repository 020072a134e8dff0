"""Users and tokens on the page of settings: the first user closes the gateway, a token is shown once."""

from collections.abc import Callable

import httpx
from pages_peers import PASSWORD, Gateway, Reader
from playwright.sync_api import expect


def test_the_first_user_closes_the_gateway_and_a_token_is_shown_once(
    reader: Reader, own_broker: str, make_gateway: Callable[..., Gateway]
) -> None:
    gateway = make_gateway(own_broker)
    page = reader.open(gateway.url + "/settings")
    dialog = page.locator("dialog[open]")
    page.get_by_role("button", name="Add a user").click()
    expect(dialog).to_contain_text("The first user is an admin.")
    dialog.locator("[name=name]").fill("n.kim")
    dialog.locator("[name=password]").fill("short")
    dialog.get_by_role("button", name="Add a user").click()
    expect(dialog.locator(".outcome.bad")).to_contain_text("take at least 12")
    dialog.locator("[name=password]").fill(PASSWORD)
    dialog.get_by_role("button", name="Add a user").click()
    # from now on everybody signs in, whoever looked at this page too
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert gateway.http.get("/api/devices").status_code == 401
    page.goto(gateway.url + "/settings")
    page.locator("[name=name]").fill("n.kim")
    page.locator("[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("[data-live]")).to_have_attribute("data-live", "live")
    expect(page.locator("section", has_text="Users").first).to_contain_text("n.kim")
    page.get_by_role("button", name="Make a token").click()
    dialog.locator("[name=name]").fill("dashboard")
    dialog.get_by_label("read: see").check()
    dialog.get_by_role("button", name="Make a token").click()
    expect(dialog.locator(".outcome.good")).to_contain_text("shown only once: ")
    token = dialog.locator(".outcome").inner_text().split()[-1]
    dialog.get_by_role("button", name="Close").click()
    bearer = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=gateway.url, headers=bearer, trust_env=False) as http:
        assert http.get("/api/devices").status_code == 200
        assert http.get("/api/audit").status_code == 403  # not among its scopes
        expect(page.locator("tr", has_text="dashboard")).to_contain_text("read")
        page.get_by_role("button", name="Revoke: dashboard").click()
        dialog.get_by_role("button", name="Revoke").click()
        expect(dialog).to_contain_text("Revoked.")
        assert http.get("/api/devices").status_code == 401


def test_sessions_are_not_made_so_short_that_nobody_gets_in(reader: Reader, gateway: Gateway) -> None:
    page = reader.open(gateway.url + "/settings")
    dialog = page.locator("dialog[open]")
    page.get_by_role("button", name="Change: Sessions").click()
    for said in ("-1", "nan", "inf", "0"):
        dialog.locator("[name=idle_s]").fill(said)
        dialog.get_by_role("button", name="Save").click()
        expect(dialog.locator(".outcome.bad")).to_contain_text("idle_s")
    assert gateway.get("/api/settings/sessions")["idle_s"] == 28_800.0
