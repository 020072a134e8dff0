"""The fleet: a table of any number of devices, filtered and paged at the gateway, and the same done to many.

Only the page that is shown is read and sent, at most once a second, and only if something on it has changed.
"""

from collections.abc import Sequence
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from samd_gateway.access.actor import Actor
from samd_gateway.errors import GatewayError, UsageError
from samd_gateway.fleet import jobs
from samd_gateway.fleet.actions import Action
from samd_gateway.fleet.answers import FleetPage, FleetRow, JobOut, ViewOut
from samd_gateway.fleet.query import FleetQuery, parse
from samd_gateway.pages import fleet_actions
from samd_gateway.pages.form import Field, Form, FormDialog, Outcome, Values
from samd_gateway.pages.panels import span
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.site import Site
from samd_gateway.pages.texts import Texts
from samd_gateway.pages.view import NotDoneError, View

LOOK_S = 1.0
ROWS = 50
SHOWN_RESULTS = 200
MARKS = {"online": "●", "stale": "◐", "offline": "○", "unknown": "?"}
COLUMNS: tuple[tuple[str, str], ...] = (
    ("name", "name"),
    ("state", "state"),
    ("heard", "last_heard"),
    ("data", "last_data"),
    ("client", "client_version"),
    ("model", "model_version"),
    ("clock", "clock_offset_s"),
    ("outbox", ""),
    ("machine", ""),
    ("certificate", "certificate_expires_at"),
    ("tags", ""),
)
"""Name of the column, and what it is sorted by."""


def add(site: Site) -> None:
    """The page of the fleet."""

    @site.page("/fleet", title="fleet.title", at="fleet")
    async def fleet(view: View) -> None:
        page = Fleet(view)
        await page.build()
        ui.timer(LOOK_S, page.refresh)


class FleetTable(Element, component="static/fleet.js"):
    """The table in the browser; `show` gives it a page."""


class Fleet:
    """One open page."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._fleet = view.site.gateway.fleet
        self._query: FleetQuery | None = None
        self._sent: Any = None
        self._job: str | None = None
        self._job_shown: JobOut | None = None

    async def build(self) -> None:
        """The table, which asks for its first page itself, and a place for results."""
        view = self._view
        views = await view.ask(self._fleet.views, view.seen_as)
        tags = await view.ask(self._fleet.tags)
        self._dialog = FormDialog(view)
        self._table = FleetTable()
        self._table.props.update(
            {
                "texts": texts(view.t),
                "first": first(view.query),
                "may": view.may("fleet"),
                "views": [shown_view(each) for each in views],
                "tags": list(tags),
            }
        )
        self._table.on("asked", self._asked)
        self._table.on("bulk", self._bulk)
        self._table.on("save", self._save)
        self._table.on("forget", self._forget)
        self._results = ui.html("", sanitize=False)

    async def _asked(self, event: GenericEventArguments) -> None:
        try:
            self._query = query_of(event.args)
        except GatewayError as error:
            self._view.warn(str(error))
            return
        self._sent = None
        await self.refresh()

    async def refresh(self) -> None:
        """The page as it is now, if that is not what is shown; and the results that have come in."""
        if self._query is None:
            return
        try:
            found = await self._view.ask(self._fleet.page, self._query)
        except GatewayError as error:
            self._query = None
            self._view.warn(str(error))
            return
        shown = page_of(found, self._view.t)
        if shown != self._sent:
            self._sent = shown
            self._table.run_method("show", shown)
        await self._follow()

    async def _follow(self) -> None:
        if self._job is None:
            return
        gateway, name = self._view.site.gateway, self._job

        def read() -> JobOut:
            with gateway.database.read() as connection:
                return jobs.job(connection, name, gateway.now())

        job = await self._view.ask(read)
        if job != self._job_shown:
            self._job_shown = job
            self._results.set_content(results(job, self._view.t))

    # saved views

    async def _save(self, event: GenericEventArguments) -> None:
        t = self._view.t
        try:
            query = query_of(event.args)
        except GatewayError as error:
            self._view.warn(str(error))
            return

        async def send(values: Values) -> Outcome:
            await self._view.attempt(
                "read",
                lambda actor: self._fleet.save_view(actor, values["name"], query, shared=values["shared"]),
            )
            await self._views_again()
            return Outcome(t("fleet.views.saved"), good=True)

        fields = [Field(name="name", label=t("fleet.views.name"), required=True, longest=120)]
        fields.append(Field(name="shared", label=t("fleet.views.shared"), kind="checkbox", value=False))
        self._dialog.ask(
            Form(title=t("fleet.views.title"), fields=tuple(fields), submit=t("fleet.views.save")), send
        )

    async def _forget(self, event: GenericEventArguments) -> None:
        name = str(event.args)[:16]
        await self._view.act("read", lambda actor: self._fleet.delete_view(actor, name))
        await self._views_again()

    async def _views_again(self) -> None:
        views = await self._view.ask(self._fleet.views, self._view.seen_as)
        tags = await self._view.ask(self._fleet.tags)
        self._table.props["views"] = [shown_view(each) for each in views]
        self._table.props["tags"] = list(tags)
        self._table.update()

    # many at once: what, then a preview, then the results

    async def _bulk(self, event: GenericEventArguments) -> None:
        t, said = self._view.t, event.args if isinstance(event.args, dict) else {}
        kind = said.get("kind")
        if kind not in fleet_actions.KINDS or not self._view.may("fleet"):
            return
        try:
            devices = await self._chosen(said)
        except GatewayError as error:
            self._view.warn(str(error))
            return

        async def send(values: Values) -> Outcome:
            action = fleet_actions.action_of(kind, values, t)
            await self._preview(action, devices)
            return Outcome("", good=False)

        self._dialog.ask(
            Form(
                title=t(f"fleet.kinds.{kind}.title", n=len(devices)),
                lines=(t(f"fleet.kinds.{kind}.explained"),),
                fields=fleet_actions.fields(kind, t),
                submit=t("fleet.preview"),
            ),
            send,
        )

    async def _chosen(self, said: dict[str, Any]) -> list[str]:
        if said.get("all"):
            return await self._view.ask(self._fleet.matching, query_of(said.get("query")))
        names = said.get("names")
        return [str(name) for name in names] if isinstance(names, list) else []

    async def _preview(self, action: Action, devices: Sequence[str]) -> None:
        t = self._view.t
        try:
            plan = await self._view.ask(self._fleet.plan, action, devices)
        except GatewayError as error:
            raise NotDoneError(str(error)) from error
        lines = [t("fleet.reached", n=plan.reachable, total=len(plan.devices))]
        troubled = [each for each in plan.devices if each.problem]
        lines += [f"{each.device}: {each.problem}" for each in troubled[:8]]
        if len(troubled) > 8:
            lines.append(t("fleet.more", n=len(troubled) - 8))

        def execute(actor: Actor) -> str:
            return self._fleet.execute(actor, action, devices)

        async def send(_values: Values) -> Outcome:
            self._job = await self._view.attempt("fleet", execute)
            await self._views_again()
            await self.refresh()
            return Outcome(t("fleet.sent"), good=True)

        self._dialog.ask(Form(title=t("fleet.preview_title"), lines=tuple(lines), submit=t("fleet.do")), send)


def first(query: Any) -> dict[str, Any]:
    """What an address asks for: `/fleet?model_version=3&state=offline`."""
    found: dict[str, Any] = {}
    for name, key in (("text", "text"), ("tag", "tag"), ("trouble", "trouble"), ("model_version", "model")):
        if query.get(name):
            found[key] = str(query[name])[:100]
    if query.get("state") in MARKS:
        found["states"] = [query["state"]]
    return found


def query_of(said: Any) -> FleetQuery:
    """A query from what the browser sent. Raises UsageError."""
    given = said if isinstance(said, dict) else {}
    model = str(given.get("model") or "").strip()
    if model and not (model.isdecimal() and len(model) < 10):
        raise UsageError("model: write the number of a version")
    return parse(
        text=str(given.get("text") or "")[:100],
        states=given.get("states") or [],
        tags=[given["tag"]] if given.get("tag") else [],
        trouble=[given["trouble"]] if given.get("trouble") else [],
        model_versions=[int(model)] if model else [],
        sort=given.get("sort") or "state",
        descending=given.get("descending") is True,
        after=given.get("after") or None,
        limit=ROWS,
    )


def shown_view(view: ViewOut) -> dict[str, Any]:
    """A saved view as the table takes it; one with more filters than the table has cannot be used there: it
    would show, and act on, devices that the view leaves out."""
    query = view.query
    several = any(len(query.get(name, [])) > 1 for name in ("tags", "trouble", "model_versions"))
    return {
        "id": view.id,
        "name": view.name,
        "whole": not several and not query.get("client_versions"),
        "query": {
            "text": query.get("text", ""),
            "states": query.get("states", []),
            "tag": next(iter(query.get("tags", [])), ""),
            "trouble": next(iter(query.get("trouble", [])), ""),
            "model": str(next(iter(query.get("model_versions", [])), "")),
            "sort": query.get("sort", "state"),
            "descending": query.get("descending", False),
        },
    }


def texts(t: Texts) -> dict[str, Any]:
    """What stands on the table, in the reader's language."""
    plain: tuple[str, ...] = (
        "filter",
        "tag",
        "any",
        "trouble",
        "model",
        "view",
        "none",
        "save",
        "forget",
        "not_whole",
        "state",
        "actions",
    )
    plain += (
        "all_matching",
        "clear",
        "caption",
        "page_all",
        "nothing",
        "pages",
        "previous",
        "next",
        "chosen",
    )
    return {name: t(f"fleet.{name}") for name in plain} | {
        "states": [[name, t(f"fleet.states.{name}"), mark] for name, mark in MARKS.items()],
        "troubles": [[name, t(f"fleet.troubles.{name}")] for name in ("flagged", "clock", "certificate")],
        "columns": [[name, t(f"fleet.columns.{name}"), key] for name, key in COLUMNS],
        "kinds": [[kind, t(f"fleet.kinds.{kind}.name")] for kind in fleet_actions.KINDS],
    }


def page_of(page: FleetPage, t: Texts) -> dict[str, Any]:
    """A page as the table takes it: texts alone."""
    return {
        "rows": [{"name": row.name, "state": row.state, "cells": cells(row, t)} for row in page.rows],
        "counts": page.counts,
        "total": page.total,
        "next": page.next,
        "summary": t("fleet.summary", n=len(page.rows), total=page.total),
    }


def cells(row: FleetRow, t: Texts) -> list[tuple[str, str]]:
    """The cells behind the name, each with a second line. What was never told is said to be unknown."""
    unknown = t("fleet.unknown")

    def known(value: object, text: str = "{}") -> str:
        return unknown if value is None else text.format(value)

    def ago(seconds: float | None) -> str:
        return unknown if seconds is None else t("fleet.ago", age=span(seconds, t))

    state = f"{MARKS[row.state]} {t(f'fleet.states.{row.state}')}"
    if row.since is not None:
        state += f" ({t('fleet.since', at=f'{row.since:%Y-%m-%d %H:%M} UTC')})"
    clock = unknown if row.clock_offset_s is None else f"{row.clock_offset_s:+.1f} s"
    machine = [
        known(row.memory_available_mb, "{:.0f} MB"),
        known(row.disk_free_mb, "{:.0f} MB"),
        known(row.temperature_c, "{:.0f} °C"),
    ]
    return [
        (state, row.flagged or row.reason),
        (ago(row.silent_s), ""),
        (ago(row.reading_age_s), "" if row.last_data is None else f"{row.last_data:%Y-%m-%d %H:%M} UTC"),
        (known(row.client_version), ""),
        (known(row.model_version), ""),
        (clock, t("fleet.unsynced") if row.clock_synced is False else ""),
        (known(row.outbox_depth), t("fleet.dead", n=row.dead_letters) if row.dead_letters else ""),
        (" / ".join(machine), ""),
        (known(row.certificate_expires_at, "{:%Y-%m-%d}"), ""),
        (", ".join(row.tags), row.bed or ""),
    ]


def results(job: JobOut, t: Texts) -> str:
    """What became of a bulk action, device by device; those that did not do it first."""
    counts = ", ".join(
        f"{count} {t(f'fleet.results.{status}')}" for status, count in sorted(job.counts.items())
    )
    ranked = sorted(job.devices, key=lambda each: (each.status in ("done", "waiting"), each.device))
    rows = "".join(
        f'<tr data-result="{escaped(each.device)}"><th scope="row">{escaped(each.device)}</th>'
        f"<td>{escaped(t(f'fleet.results.{each.status}'))}</td><td>{escaped(each.reason or '')}</td></tr>"
        for each in ranked[:SHOWN_RESULTS]
    )
    more = ""
    if len(ranked) > SHOWN_RESULTS:
        more = f"<p>{escaped(t('fleet.more', n=len(ranked) - SHOWN_RESULTS))}</p>"
    return (
        f'<section class="samd-panel" aria-live="polite">'
        f"<h2>{escaped(t('fleet.result_of', action=job.action))}</h2><p data-counts>{escaped(counts)}</p>"
        f'<table class="samd-table"><tbody>{rows}</tbody></table>{more}</section>'
    )
