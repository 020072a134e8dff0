"""The audit: every change and every sign-in, with what was before and what came after.

It is read by its address (`?actor=...&before=...`): a page of the past can be kept as a bookmark.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from samd_gateway.access import audit
from samd_gateway.access.audit import Asked, Entry
from samd_gateway.pages.panels import moment
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.site import Site
from samd_gateway.pages.texts import Texts
from samd_gateway.pages.view import View

ROWS = 100
FILTERS = ("actor", "action", "target")
LONGEST = 160


def add(site: Site) -> None:
    """The page of the audit."""

    @site.page("/audit", title="audit.title", at="audit", permission="audit")
    async def shown(view: View) -> None:
        asked = asked_for(view.query)

        def read() -> tuple[list[Entry], int | None]:
            with view.site.gateway.database.read() as connection:
                return audit.page(connection, asked, ROWS)

        entries, following = await view.ask(read)
        with ui.element("section").classes("samd-panel"):
            ui.html(form(asked, view.t), sanitize=False)
            ui.html(table(entries, view.t), sanitize=False).classes("samd-scroll")
            ui.html(pager(asked, following, view.t), sanitize=False)


def asked_for(query: Mapping[str, str]) -> Asked:
    """The filter that stands in an address; what is none is left out."""
    actor, action, target = (query.get(name, "").strip()[:LONGEST] or None for name in FILTERS)
    before = query.get("before", "")
    return Asked(
        actor=actor,
        action=action,
        target=target,
        before=int(before) if before.isdecimal() and len(before) < 19 else None,
    )


def form(asked: Asked, t: Texts) -> str:
    """The filter, as a form that needs no script, and what is shown as a file."""
    fields = "".join(
        f"<label>{escaped(t(f'audit.{name}'))} "
        f'<input class="samd-field" name="{name}" value="{escaped(getattr(asked, name) or "")}" '
        f'maxlength="{LONGEST}" placeholder="{escaped(t(f"audit.example.{name}"))}"></label>'
        for name in FILTERS
    )
    chosen = _chosen(asked)
    export = "/api/export/audit?" + urlencode({"format": "csv"})
    return (
        f'<form method="get" action="/audit" class="samd-toolbar" role="search">{fields}'
        f'<button type="submit" class="samd-button primary">{escaped(t("audit.show"))}</button>'
        + (f'<a href="/audit">{escaped(t("audit.all"))}</a>' if chosen else "")
        + f'<a href="{escaped(export)}" download>{escaped(t("audit.export"))}</a></form>'
    )


def table(entries: list[Entry], t: Texts) -> str:
    """The entries, the newest first."""
    if not entries:
        return f"<p>{escaped(t('audit.none'))}</p>"
    heads = "".join(
        f'<th scope="col">{escaped(t(f"audit.{name}"))}</th>'
        for name in ("at", "actor", "action", "target", "change")
    )
    rows = "".join(
        f"<tr><td>{moment(datetime.fromtimestamp(each.at, UTC))}</td>"
        f"<td>{escaped(each.actor)}<br>"
        f'<span class="samd-note">{escaped(_role(each.role, t))}, '
        f"{escaped(t(f'audit.via.{each.via}'))}</span></td>"
        f"<td>{escaped(each.action)}</td><td>{escaped(each.target)}</td>"
        f"<td>{difference(each.before, each.after, t)}</td></tr>"
        for each in entries
    )
    return (
        f'<table class="samd-table"><caption class="visually-hidden">{escaped(t("audit.title"))}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, t: Texts) -> str:
    """What changed, field by field; fields that stayed are left out where both are known."""
    old, new = before or {}, after or {}
    names = [
        name for name in {**old, **new} if before is None or after is None or old.get(name) != new.get(name)
    ]
    if not names:
        return ""
    lines = []
    for name in names:
        parts = []
        if name in old and old.get(name) != new.get(name):
            parts.append(f"<del>{_hidden(t('audit.before'))}{escaped(_value(old[name], t))}</del>")
        if name in new:
            parts.append(f"<ins>{_hidden(t('audit.after'))}{escaped(_value(new[name], t))}</ins>")
        lines.append(f"<dt>{escaped(name)}</dt><dd>{' → '.join(parts)}</dd>")
    return f'<dl class="samd-difference">{"".join(lines)}</dl>'


def _hidden(text: str) -> str:
    """For those who hear the page: a line through a text is not spoken."""
    return f'<span class="visually-hidden">{escaped(text)}: </span>'


def pager(asked: Asked, following: int | None, t: Texts) -> str:
    """The way to older entries, and back to the newest."""
    links = []
    if asked.before is not None:
        links.append(
            f'<a href="/audit?{escaped(urlencode(_chosen(asked)))}">{escaped(t("audit.newest"))}</a>'
        )
    if following is not None:
        query = urlencode(_chosen(asked) | {"before": following})
        links.append(f'<a href="/audit?{escaped(query)}" rel="next">{escaped(t("audit.older"))}</a>')
    return (
        f'<nav aria-label="{escaped(t("audit.pages"))}" class="samd-toolbar">{"".join(links)}</nav>'
        if links
        else ""
    )


def _chosen(asked: Asked) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in FILTERS if getattr(asked, name)}


def _role(role: str, t: Texts) -> str:
    key = f"shell.roles.{role}"
    return t(key) if t.has(key) else role


def _value(value: Any, t: Texts) -> str:
    if value is None:
        return t("audit.nothing")
    if isinstance(value, bool):
        return t("audit.yes") if value else t("audit.no")
    if isinstance(value, list):
        shown = ", ".join(_value(each, t) for each in value[:20])
        return shown if len(value) <= 20 else t("audit.more", shown=shown, n=len(value) - 20)
    return str(value)
