"""What stands around every page: navigation, who is signed in, language and theme, and the banner.

It is plain HTML, made here of texts and escaped values; `static/samd.js` gives it its behaviour.
"""

import hashlib
import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from nicegui import ui

from samd_gateway.access.actor import Permission
from samd_gateway.pages.texts import LANGUAGES, NAMES
from samd_gateway.pages.view import THEMES, View

STATIC = Path(__file__).parent / "static"

NAVIGATION: tuple[tuple[str, str, Permission, str], ...] = (
    ("ward", "/", "read", "w"),
    ("fleet", "/fleet", "read", "f"),
    ("runs", "/runs", "read", "r"),
    ("models", "/models", "read", "m"),
    ("audit", "/audit", "audit", "a"),
    ("settings", "/settings", "settings", "s"),
)
"""Name (its text is `shell.nav.NAME`), address, who sees it, and the key after `g` that goes there."""


def escaped(value: object) -> str:
    """Text for HTML, in an element or an attribute."""
    return html.escape(str(value), quote=True)


def static(name: str) -> str:
    """The address of a static file, which changes with what is in it."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/_nicegui/samd/{name}?v={digest}"


@contextmanager
def around(view: View, *, title: str) -> Iterator[None]:
    """Everything made inside stands in the page's main part."""
    client, t = view.client, view.t
    config = {
        "language": t.language,
        "texts": t.part("shell"),
        "nav": {key: path for _, path, permission, key in NAVIGATION if view.may(permission)},
        "at": view.at,
        "now": view.site.gateway.now(),
    }
    data = msgspec.json.encode(config).decode().replace("<", "\\u003c")
    ui.add_head_html(
        f'<link rel="stylesheet" href="{static("samd.css")}">'
        f'<script type="application/json" id="samd-config">{data}</script>'
        f'<script src="{static("samd.js")}"></script>'
        '<meta name="color-scheme" content="dark light">'
    )
    with client.layout:
        ui.html(_header(view), sanitize=False).classes("samd-shell").move(target_index=0)
    client.content.classes("samd-main").props(f'id="main" tabindex="-1" data-page="{view.at or ""}"')
    view.site.hub.open(client)
    ui.html(f"<h1>{escaped(t(title))}</h1>", sanitize=False).classes("samd-title")
    yield


def refused(view: View, permission: Permission) -> None:
    """In place of a page that this person may not see."""
    ui.label(view.t("shell.no_page", user=view.seen_as.name, role=view.seen_as.role, permission=permission))


def _header(view: View) -> str:
    t = view.t
    languages = [(one, NAMES[one], one) for one in LANGUAGES]
    themes = [(one, t(f"shell.themes.{one}"), "") for one in THEMES]
    links = "".join(
        f'<a href="{path}" data-key="{key}"{_current(name, view.at)}>{escaped(t(f"shell.nav.{name}"))}</a>'
        for name, path, permission, key in NAVIGATION
        if view.may(permission)
    )
    return (
        f'<a class="skip" href="#main">{escaped(t("shell.skip"))}</a>'
        '<header class="samd-header">'
        f'<a class="brand" href="/" aria-label="{escaped(t("shell.home"))}">samd</a>'
        f'<nav aria-label="{escaped(t("shell.nav.label"))}">{links}</nav>'
        '<div class="samd-tools">'
        f'<span class="samd-live" role="status"><span class="dot" aria-hidden="true"></span>'
        f'<span data-live="connecting">{escaped(t("shell.connecting"))}</span></span>'
        f"{_choice(t('shell.language'), 'language', languages, t.language)}"
        f"{_choice(t('shell.theme'), 'theme', themes, view.theme)}"
        f'<button type="button" data-help aria-keyshortcuts="?" title="{escaped(t("shell.help.title"))}" '
        f'aria-label="{escaped(t("shell.help.title"))}">?</button>'
        f"{_user(view)}"
        "</div></header>"
        '<div class="samd-banner" role="alert" hidden></div>'
    )


def _current(name: str, at: str | None) -> str:
    return ' aria-current="page"' if name == at else ""


def _choice(label: str, name: str, options: Sequence[tuple[str, str, str]], chosen: str) -> str:
    inside = "".join(
        f'<option value="{escaped(value)}"{" selected" if value == chosen else ""}'
        f"{f' lang={escaped(language)}' if language else ''}>{escaped(text)}</option>"
        for value, text, language in options
    )
    return f'<select data-choice="{name}" aria-label="{escaped(label)}">{inside}</select>'


def _user(view: View) -> str:
    t, actor = view.t, view.seen_as
    name, hint = actor.name, t(f"shell.roles.{actor.role}")
    if view.csrf is None:
        name, hint = t("shell.local"), t("shell.open_to_all")
    who = f'<span class="samd-user" title="{escaped(hint)}">{escaped(name)}</span>'
    if view.csrf is None:
        return who
    return (
        f'{who}<form method="post" action="/logout">'
        f'<input type="hidden" name="csrf" value="{escaped(view.csrf)}">'
        f'<button type="submit">{escaped(t("shell.sign_out"))}</button></form>'
    )
