"""Beside the peers of the gateway's tests: a device that answers at the bedside, and a reader."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, Request, expect

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

from gateway_peers import Device, Gateway, Peer, Process, assessment, until

from samd_protocol import envelope, topics
from samd_protocol.messages import Alert, Command, ModelView, News2

__all__ = [
    "PASSWORD",
    "Bedside",
    "Gateway",
    "Hospital",
    "Peer",
    "Process",
    "Reader",
    "launch",
    "scored",
    "serious",
    "until",
]

PASSWORD = "correct horse 17 battery"  # noqa: S105 - of users that live as long as a test

SIGNS = (
    "respiratory_rate",
    "spo2",
    "supplemental_oxygen",
    "systolic_bp",
    "heart_rate",
    "consciousness",
    "temperature",
)
FLAGS = ["--headless", "--no-sandbox", "--disable-background-networking", "--disable-gpu"]
AGES = 15_000
"""Milliseconds that a page gets at most; on an idle machine it needs some hundred."""


def scored(points: dict[str, int], missing: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """The fields of an assessment with these points, as a device computes them."""
    given = {sign: points.get(sign, 0) for sign in SIGNS if sign not in missing}
    low = sum(given.values())
    high = low + sum(2 if sign == "supplemental_oxygen" else 3 for sign in missing)
    band = "high" if low >= 7 else "medium" if low >= 5 else "low-medium" if 3 in given.values() else "low"
    severity = _class(low)
    fields: dict[str, Any] = {
        "observed_at": datetime.now(UTC),
        "news2": News2(
            total=None if missing else low, low=low, high=high, band=band, points=given, missing=list(missing)
        ),
        "rule_severity": severity,
        "rule_severity_possible": _class(high),
        "severity": severity,
        "missing": list(missing),
        "reading_age_s": 1.0,
    }
    model = changes.pop("model", None)
    if model is not None:
        shares = [0.05] * 4
        shares[model] = 0.85
        fields["model"] = ModelView(severity=model, probabilities=shares, version=3)
        fields["disagreement"] = abs(model - severity) >= 2
    return fields | changes


def _class(score: int) -> int:
    return 0 if score == 0 else 1 if score < 5 else 2 if score < 7 else 3


class Bedside(Device):
    """A device that answers each command at once: `answer` as of the base, `refuses` with a reason."""

    def __init__(self, url: str, name: str, *, refuses: str | None = None, **options: Any) -> None:
        self.refuses = refuses
        super().__init__(url, name, **options)

    def received(self, topic: str, payload: bytes) -> None:
        super().received(topic, payload)
        sealed = envelope.decode(payload)
        assert isinstance(sealed.data, Command)
        if self.refuses is not None:
            self.result(sealed.id, "rejected", self.refuses)
        else:
            self.result(sealed.id, "done")

    def score(self, points: dict[str, int], missing: tuple[str, ...] = (), **changes: Any) -> None:
        self.send(topics.up(self.name, "assessment"), assessment(0, **scored(points, missing, **changes)))

    def alarm(self, state: str, severity: int, low: int, alert: str = "a") -> None:
        self.send(
            topics.up(self.name, "alert"),
            Alert(
                alert_id=f"{self.name}-{alert}",
                state=state,
                severity=severity,
                observed_at=datetime.now(UTC),
                news2_low=low,
                news2_high=low,
            ),
        )


def launch(playwright: Playwright) -> Browser:
    """Debian's Chromium."""
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)


class Reader:
    """Somebody before a browser: a context of their own, and what the browser complained of."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(**{"locale": "en-GB", "timezone_id": "Asia/Seoul"} | options)
        self.context.set_default_timeout(AGES)
        expect.set_options(timeout=AGES)
        self.faults: list[str] = []
        self.elsewhere: list[str] = []
        """Requests to other hosts."""
        self._origins: set[str] = set()

    def prefer(self, url: str, **choices: str) -> None:
        """`theme` and `language`, as the menus keep them."""
        self.context.add_cookies(
            [{"name": f"samd_{name}", "value": value, "url": url} for name, value in choices.items()]
        )

    def open(self, url: str) -> Page:
        """A page, once it is connected."""
        page = self.page(url)
        page.goto(url)
        expect(page.locator("[data-live]")).to_have_attribute("data-live", "live")
        return page

    def page(self, url: str) -> Page:
        """An empty one that is to visit this origin alone."""
        parts = urlsplit(url)
        self._origins |= {f"{parts.scheme}://{parts.netloc}", f"ws://{parts.netloc}"}
        page = self.context.new_page()
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: self.faults.append(f"a dialog: {dialog.message}"))
        return page

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" not in self._origins:
            self.elsewhere.append(request.url)

    def close(self) -> None:
        self.context.close()


class Hospital:
    """A gateway with users."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self._password = folder / "password"
        self._password.touch(mode=0o600)
        self._password.write_text(PASSWORD)

    def user(self, name: str, role: str) -> None:
        self._command("add", name, "--role", role, "--password-file", str(self._password))

    def disable(self, name: str) -> None:
        self._command("change", name, "--disable")

    def _command(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "samd_gateway", "users", *arguments, "--data", str(self.gateway.data)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    def sign_in(self, reader: Reader, name: str, path: str = "/") -> Page:
        page = reader.page(self.gateway.url)
        page.goto(self.gateway.url + path)
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("[data-live]")).to_have_text("Live")
        return page


def serious(page: Page) -> list[str]:
    """What axe finds that is serious or critical, one line each."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
