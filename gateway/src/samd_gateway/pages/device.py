"""One device of the fleet: what is known of it, what was sent to it, and its health over time."""

from typing import Any

from nicegui import ui
from sqlalchemy import desc, select

from samd_gateway import queries, schema
from samd_gateway.answers import ResultOut
from samd_gateway.fleet.answers import FleetRow
from samd_gateway.fleet.query import FleetQuery
from samd_gateway.pages.fleet import COLUMNS, cells
from samd_gateway.pages.panels import moment
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.site import Site
from samd_gateway.pages.texts import Texts
from samd_gateway.pages.view import View
from samd_protocol.topics import valid_name

LOOK_S = 2.0
COMMANDS = 50
SPANS = 288
"""A day of spans of five minutes."""


def add(site: Site) -> None:
    """The page of each device."""

    @site.page("/device/{device}", title="fleet.device.title", at="fleet")
    async def device(view: View) -> None:
        name = view.path["device"]
        if not valid_name(name):
            ui.label(view.t("fleet.device.unknown", device=name[:80]))
            return
        page = Device(view, name)
        await page.draw()
        ui.timer(LOOK_S, page.draw)


class Device:
    """One open page."""

    def __init__(self, view: View, name: str) -> None:
        self._view = view
        self._name = name
        self._shown = ""
        self._body = ui.html("", sanitize=False)

    async def draw(self) -> None:
        """What is known now."""
        gateway = self._view.site.gateway

        def read() -> tuple[FleetRow | None, list[ResultOut], list[dict[str, Any]]]:
            page = gateway.fleet.page(FleetQuery(text=self._name, limit=500))
            row = next((each for each in page.rows if each.name == self._name), None)
            table = schema.health
            past = select(table).where(table.c.device == self._name).order_by(desc(table.c.at)).limit(SPANS)
            with gateway.database.read() as connection:
                sent = queries.results(connection, self._name, limit=COMMANDS)
                return row, sent, queries.rows(connection, past)

        row, sent, past = await self._view.ask(read)
        content = body(self._name, row, sent, past, self._view.t)
        if content != self._shown:
            self._shown = content
            self._body.set_content(content)


def body(name: str, row: FleetRow | None, sent: list[ResultOut], past: list[dict[str, Any]], t: Texts) -> str:
    """The whole page but the shell."""
    if row is None:
        return f"<p>{escaped(t('fleet.device.unknown', device=name))}</p>"
    titles = [t(f"fleet.columns.{column}") for column, _ in COLUMNS[1:]]
    known = "".join(
        f"<dt>{escaped(title)}</dt><dd>{escaped(' · '.join(part for part in cell if part))}</dd>"
        for title, cell in zip(titles, cells(row, t), strict=True)
    )
    link = f'<p><a href="/patient/{escaped(name)}">{escaped(t("fleet.device.ward"))}</a></p>'
    return (
        f'<section class="samd-panel"><h2>{escaped(name)}</h2>{link}'
        f"<h3>{escaped(t('fleet.device.facts'))}</h3>"
        f'<dl class="samd-difference">{known}</dl></section>'
        f'<section class="samd-panel"><h2>{escaped(t("fleet.device.commands"))}</h2>'
        f'{commands(sent, t)}</section><section class="samd-panel">'
        f"<h2>{escaped(t('fleet.device.health'))}</h2>{health(past, t)}</section>"
    )


def commands(sent: list[ResultOut], t: Texts) -> str:
    """What was sent, the latest first, with the answers."""
    if not sent:
        return f"<p>{escaped(t('fleet.device.no_commands'))}</p>"
    rows = ""
    for each in sent:
        answer = t(f"fleet.results.{each.status or 'waiting'}")
        rows += (
            f"<tr><td>{moment(each.issued_at)}</td><td>{escaped(each.type)}</td>"
            f"<td>{escaped(answer)} {escaped(each.reason or '')}</td></tr>"
        )
    return _table(("issued", "command", "answer"), rows, t)


def health(past: list[dict[str, Any]], t: Texts) -> str:
    """The spans, the latest first; what was not told stays empty."""
    if not past:
        return f"<p>{escaped(t('fleet.device.no_health'))}</p>"
    columns = (
        ("load_max", "{:.2f}"),
        ("memory_min_mb", "{:.0f} MB"),
        ("disk_min_mb", "{:.0f} MB"),
        ("temperature_max_c", "{:.0f} °C"),
        ("outbox_max", "{}"),
    )
    rows = "".join(
        f"<tr><td>{moment(queries.at(each['at']))}</td><td>{each['beats']}</td>"
        + "".join(
            f"<td>{'–' if each[name] is None else escaped(form.format(each[name]))}</td>"
            for name, form in columns
        )
        + "</tr>"
        for each in past
    )
    return _table(("at", "beats", "load", "memory", "disk", "temperature", "outbox"), rows, t)


def _table(names: tuple[str, ...], rows: str, t: Texts) -> str:
    heads = "".join(f'<th scope="col">{escaped(t(f"fleet.device.{name}"))}</th>' for name in names)
    return (
        f'<div class="samd-scroll"><table class="samd-table"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
