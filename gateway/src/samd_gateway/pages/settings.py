"""The settings: users, tokens, how long what is kept, when alerts go up a step and silence counts, and who is
told. Every change is made by the same functions as through the API, and is audited.
"""

import msgspec
from nicegui import ui

from samd_gateway import retention
from samd_gateway import settings as kept
from samd_gateway.access import sessions, tokens, users
from samd_gateway.access.actor import Actor
from samd_gateway.alerts.rules import LADDER, SILENCE, Ladder, Silence
from samd_gateway.pages import setting_form
from samd_gateway.pages.form import Form, FormDialog, Values
from samd_gateway.pages.setting_channels import Channels
from samd_gateway.pages.setting_panel import Panel
from samd_gateway.pages.setting_users import Accounts
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.site import Site
from samd_gateway.pages.view import View

SETTINGS: tuple[tuple[str, str, msgspec.Struct], ...] = (
    ("retention", retention.KEY, retention.Retention()),
    ("ladder", LADDER, Ladder()),
    ("silence", SILENCE, Silence()),
    ("sessions", "sessions", sessions.SessionLimits()),
)
"""Name of the panel, key of the setting, and its default."""


def add(site: Site) -> None:
    """The page of the settings."""

    @site.page("/settings", title="settings.title", at="settings", permission="settings")
    async def shown(view: View) -> None:
        page = Settings(view)
        await page.draw()


class Settings:
    """One open page. It is drawn anew after each change."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._gateway = view.site.gateway
        dialog = FormDialog(view)
        self._accounts = Accounts(view, dialog, self.draw)
        self._rules = Rules(view, dialog, self.draw)
        self._channels = Channels(view, dialog, self.draw)
        self._body = ui.element("div")

    async def draw(self) -> None:
        """What is set now."""

        def read() -> tuple[list[users.User], list[tokens.Token], dict[str, msgspec.Struct]]:
            with self._gateway.database.read() as connection:
                values = {name: kept.get(connection, key, default) for name, key, default in SETTINGS}
                return users.every(connection), tokens.of(connection, None), values

        people, keys, values = await self._view.ask(read)
        channels = await self._view.ask(self._gateway.alerting.channels.all)
        self._body.clear()
        with self._body:
            if self._view.may("users"):
                self._accounts.show_users(people)
                self._accounts.show_tokens(keys)
            for name, key, default in SETTINGS:
                self._rules.values(name, key, values[name], default)
            self._channels.channels(channels)


class Rules(Panel):
    """Settings of the gateway, each a struct."""

    def values(self, name: str, key: str, value: msgspec.Struct, default: msgspec.Struct) -> None:
        t = self._view.t

        def do(actor: Actor, values: Values) -> str:
            wanted = setting_form.read(values, value, t)
            with self._gateway.access.changing() as connection:
                kept.put(connection, key, wanted, default, actor=actor, now=self._gateway.now())
            return t("settings.saved")

        def ask() -> None:
            form = Form(
                title=t(f"settings.{name}.title"),
                lines=(t(f"settings.{name}.explained"),),
                fields=setting_form.fields(value, t),
                submit=t("settings.save"),
            )
            self._ask(form, do)

        with ui.element("section").classes("samd-panel"):
            self._title(f"settings.{name}.title")
            lines = ""
            for field, now in msgspec.structs.asdict(value).items():
                shown = setting_form.written(now) or t("settings.none")
                if now is None:
                    shown = t("settings.for_ever")
                elif isinstance(now, bool):
                    shown = t("audit.yes" if now else "audit.no")
                label = t(f"settings.fields.{field}.name")
                lines += f"<dt>{escaped(label)}</dt><dd>{escaped(shown)}</dd>"
            ui.html(f'<dl class="samd-difference">{lines}</dl>', sanitize=False)
            self._button(t("settings.change"), ask, f"{t('settings.change')}: {t(f'settings.{name}.title')}")
            if name == "retention":
                self._button(t("settings.retention.preview"), self._preview)

    async def _preview(self) -> None:
        """What would go now by the retention that is set."""
        t = self._view.t

        def read() -> dict[str, int]:
            with self._gateway.database.read() as connection:
                return retention.preview(connection, self._gateway.now())

        due = await self._view.ask(read)
        lines = tuple(f"{name}: {count}" for name, count in due.items())
        self._dialog.ask(Form(title=t("settings.retention.preview"), lines=lines))
