"""One patient: the card, what the chart asks for, why rule and model differ, and the past as a time line."""

import asyncio
import contextlib
import logging
from typing import Any

from nicegui import ui
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway.errors import NotFoundError
from samd_gateway.events import Event
from samd_gateway.pages import chart, panels, shell
from samd_gateway.pages.bedside import Bedside
from samd_gateway.pages.hub import CARD_EVENTS
from samd_gateway.pages.site import Site
from samd_gateway.pages.view import View
from samd_gateway.pages.ward import WardCards
from samd_gateway.ward.answers import Timeline, WardCard
from samd_protocol.topics import valid_name

log = logging.getLogger(__name__)

RANGES = {"1h": 3600.0, "6h": 6 * 3600.0, "24h": 86_400.0, "3d": 3 * 86_400.0, "30d": 30 * 86_400.0}
DEFAULT = "24h"
POINTS = 600
SETTLE_S = 0.5
"""After a change the panels wait for the next one so long, and are drawn once."""
REDRAW_S = 30.0
"""The time line moves on so often, whatever happens."""


def add(site: Site) -> None:
    """The page of each patient."""

    @site.page("/patient/{device}", title="patient.title", at="ward")
    async def patient(view: View) -> None:
        ui.add_head_html(f'<link rel="stylesheet" href="{shell.static("ward.css")}">')
        device = view.path["device"]
        if not valid_name(device):
            ui.label(view.t("patient.unknown", device=device[:80]))
            return
        cards = await site.hub.watch(view.client, device)
        page = Patient(view, device)
        page.build(cards)
        await page.draw()
        site.hub.listen(view.client, CARD_EVENTS, page.heard)
        tasks = asyncio.create_task(page.follow(), name=f"patient page {device}")
        view.client.on_delete(tasks.cancel)


class Patient:
    """The parts of one open page."""

    def __init__(self, view: View, device: str) -> None:
        self._view = view
        self._device = device
        asked = view.query.get("range", DEFAULT)
        self._range = asked if asked in RANGES else DEFAULT
        self._changed = asyncio.Event()
        self._dark: bool | None = {"auto": None, "dark": True, "light": False}[view.theme]

    def build(self, cards: list[dict[str, Any]]) -> None:
        """Everything that is there, still empty."""
        t = self._view.t
        with ui.element("div").classes("patient"):
            with ui.element("div").classes("patient-now"):
                WardCards(self._view, cards, Bedside(self._view).begin, only=self._device)
                self._advice = self._panel("patient.advice.title")
                self._why = self._panel("patient.why.title")
            with ui.element("div").classes("patient-past"):
                with ui.element("section").classes("samd-panel"):
                    ui.html(f"<h2>{shell.escaped(t('patient.chart.title'))}</h2>", sanitize=False)
                    self._ranges()
                    self._note = ui.html("", sanitize=False).classes("samd-note")
                    self._chart = ui.echart({}).style(f"height: {chart.HEIGHT_PX}px; width: 100%")
                    self._chart.props["role"] = "img"
                    # stands outside of what is drawn anew, so that it stays open while it is read
                    with ui.element("details"):
                        self._summary = ui.html("", sanitize=False, tag="summary")
                        self._table = ui.html("", sanitize=False)
                self._alerts = self._panel("patient.alerts.title")

    def _panel(self, title: str) -> ui.html:
        with ui.element("section").classes("samd-panel"):
            ui.html(f"<h2>{shell.escaped(self._view.t(title))}</h2>", sanitize=False)
            return ui.html("", sanitize=False)

    def _ranges(self) -> None:
        self._buttons: dict[str, Any] = {}
        with ui.element("div").classes("samd-toolbar") as group:
            group.props["role"] = "group"
            group.props["aria-label"] = self._view.t("patient.chart.range")
            for name in RANGES:
                with ui.element("button").classes("samd-button") as button:
                    ui.html(
                        shell.escaped(self._view.t(f"patient.chart.ranges.{name}")),
                        sanitize=False,
                        tag="span",
                    )
                button.props["type"] = "button"
                button.on("click", lambda name=name: self._choose(name))
                self._buttons[name] = button

    async def _choose(self, name: str) -> None:
        self._range = name
        await self.draw()

    # what is drawn

    def heard(self, event: Event) -> None:
        if self._device in (event.data.get("device"), event.data.get("name")):
            self._changed.set()

    async def follow(self) -> None:
        """Draw anew when something has changed, and when time has gone on."""
        await self._view.client.connected()
        if self._dark is None:
            with self._view.client:
                dark = await ui.run_javascript("document.body.classList.contains('body--dark')", timeout=5.0)
            self._dark = bool(dark)
            await self.draw()
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), REDRAW_S)
                await asyncio.sleep(SETTLE_S)
            except TimeoutError:
                pass
            self._changed.clear()
            if self._view.client.has_socket_connection:
                try:
                    await self.draw()
                except SQLAlchemyError as error:  # the banner says so; the next try is not far
                    log.warning("a time line could not be read (%s)", type(error).__name__)

    async def draw(self) -> None:
        """Read the present and the past, and show what has changed."""
        gateway, t = self._view.site.gateway, self._view.t
        now = gateway.now()
        card: WardCard | None = None
        with contextlib.suppress(NotFoundError):
            card = await self._view.ask(gateway.ward.card, self._device)
        try:
            past: Timeline = await self._view.ask(
                gateway.ward.timeline, self._device, now - RANGES[self._range], now, points=POINTS
            )
        except NotFoundError:
            self._put(self._note, f"<p>{shell.escaped(t('patient.unknown', device=self._device))}</p>")
            return
        self._put(self._advice, panels.advised(card, t))
        self._put(self._why, panels.why(card, t))
        self._put(self._note, panels.note(past, t))
        self._put(self._alerts, panels.alerts(past, t))
        self._put(self._summary, panels.summary(past, t))
        self._put(self._table, panels.table(past, t))
        colours = chart.LIGHT if self._dark is False else chart.DARK
        self._chart.options.clear()
        self._chart.options.update(chart.options(past, t, colours))
        self._chart.props["aria-label"] = panels.described(past, t)
        self._chart.update()
        for name, button in self._buttons.items():
            button.props["aria-pressed"] = str(name == self._range).lower()
            button.classes(
                add="primary" if name == self._range else "", remove="" if name == self._range else "primary"
            )
            button.update()

    def _put(self, element: ui.html, content: str) -> None:
        if element.content != content:
            element.set_content(content)
