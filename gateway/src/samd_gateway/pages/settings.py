"""The settings: users, tokens, how long what is kept, when alerts go up a step and silence counts, and who is
told. Every change is made by the same functions as through the API, and is audited.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from nicegui import ui

from samd_gateway import retention
from samd_gateway import settings as kept
from samd_gateway.access import sessions, tokens, users
from samd_gateway.access.actor import PERMISSIONS, Actor
from samd_gateway.alerts.answers import ChannelOut
from samd_gateway.alerts.rules import LADDER, SILENCE, Ladder, Silence
from samd_gateway.errors import UsageError
from samd_gateway.pages import setting_form
from samd_gateway.pages.form import Field, Form, FormDialog, Option, Outcome, Values
from samd_gateway.pages.models import row
from samd_gateway.pages.panels import moment
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.site import Site
from samd_gateway.pages.view import View

DAY_S = 86_400.0
SETTINGS: tuple[tuple[str, str, msgspec.Struct], ...] = (
    ("retention", retention.KEY, retention.Retention()),
    ("ladder", LADDER, Ladder()),
    ("silence", SILENCE, Silence()),
    ("sessions", "sessions", sessions.SessionLimits()),
)
"""Name of the panel, key of the setting, and its default."""
KINDS = ("webhook", "email", "mqtt")


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
        self._dialog = FormDialog(view)
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
                self._users(people)
                self._tokens(keys)
            for name, key, default in SETTINGS:
                self._values(name, key, values[name], default)
            self._channels(channels)

    # small parts

    def _button(self, text: str, act: Callable[..., Any], label: str | None = None) -> None:
        with ui.element("button").classes("samd-button") as button:
            ui.html(escaped(text), sanitize=False, tag="span")
        button.props["type"] = "button"
        if label is not None:
            button.props["aria-label"] = label
        button.on("click", act)

    def _title(self, key: str) -> None:
        ui.html(f"<h2>{escaped(self._view.t(key))}</h2>", sanitize=False)

    def _table(
        self, heads: Sequence[str], rows: Sequence[tuple[list[str], Sequence[tuple[str, Callable[..., Any]]]]]
    ) -> None:
        t = self._view.t
        with ui.element("div").classes("samd-scroll"), ui.element("table").classes("samd-table"):
            names = "".join(f'<th scope="col">{escaped(t(key))}</th>' for key in heads)
            last = f'<th><span class="visually-hidden">{escaped(t("models.actions"))}</span></th>'
            ui.html(f"<tr>{names}{last}</tr>", sanitize=False, tag="thead")
            with ui.element("tbody"):
                for cells, buttons in rows:
                    with ui.element("tr"):
                        row(cells)
                        with ui.element("td"):
                            for text, act in buttons:
                                self._button(text, act, f"{text}: {cells[0]}")

    def _ask(self, form: Form, do: Callable[[Actor, Values], str], *, permission: Any = "settings") -> None:
        """A dialog; `do` is called in a thread, and says what became of it."""

        async def send(values: Values) -> Outcome:
            text = await self._view.attempt(permission, lambda actor: do(actor, values))
            await self.draw()
            return Outcome(text, good=True)

        self._dialog.ask(form, send)

    # users

    def _users(self, people: Sequence[users.User]) -> None:
        t = self._view.t
        with ui.element("section").classes("samd-panel"):
            self._title("settings.users.title")
            if not people:
                ui.html(f"<p>{escaped(t('settings.users.none'))}</p>", sanitize=False)
            else:
                rows = []
                for each in people:
                    state = t("settings.users.disabled" if each.disabled_at else "settings.users.enabled")
                    cells = [
                        escaped(each.name),
                        escaped(each.display),
                        escaped(t(f"shell.roles.{each.role}")),
                    ]
                    buttons = (
                        (t("settings.users.change"), lambda each=each: self._ask_change(each)),
                        (t("settings.users.password"), lambda each=each: self._ask_password(each)),
                    )
                    rows.append(([*cells, escaped(state)], buttons))
                heads = [f"settings.users.{name}" for name in ("name", "display", "role", "state")]
                self._table(heads, rows)
            self._button(t("settings.users.add"), self._ask_user)

    def _role(self, value: str) -> Field:
        t = self._view.t
        return Field(
            name="role",
            label=t("settings.users.role"),
            kind="select",
            options=tuple(Option(role, t(f"shell.roles.{role}")) for role in PERMISSIONS),
            value=value,
        )

    def _password(self) -> Field:
        t = self._view.t
        return Field(
            name="password",
            label=t("settings.users.password"),
            help=t("settings.users.password_help"),
            kind="password",
            required=True,
            longest=256,
        )

    def _ask_user(self) -> None:
        t, access = self._view.t, self._gateway.access
        first = access.open_to_all

        def do(actor: Actor, values: Values) -> str:
            hash_ = access.hash_new(values["password"], values["name"])
            with access.changing() as connection:
                users.add(
                    connection,
                    actor,
                    values["name"],
                    values["role"],
                    password_hash=hash_,
                    display=values["display"],
                    now=self._gateway.now(),
                )
            return t("settings.users.added_first" if first else "settings.users.added")

        name = Field(name="name", label=t("settings.users.name"), required=True, longest=64)
        display = Field(name="display", label=t("settings.users.display"), longest=120)
        self._ask(
            Form(
                title=t("settings.users.add"),
                lines=(t("settings.users.first"),) if first else (),
                fields=(name, display, self._role("admin" if first else "viewer"), self._password()),
                submit=t("settings.users.add"),
            ),
            do,
            permission="users",
        )

    def _ask_change(self, user: users.User) -> None:
        t, access = self._view.t, self._gateway.access

        def do(actor: Actor, values: Values) -> str:
            with access.changing() as connection:
                users.change(
                    connection,
                    actor,
                    user.name,
                    now=self._gateway.now(),
                    role=values["role"],
                    display=values["display"],
                    disabled=values["disabled"],
                )
            return t("settings.saved")

        display = Field(name="display", label=t("settings.users.display"), value=user.display, longest=120)
        disabled = Field(
            name="disabled",
            label=t("settings.users.disable"),
            help=t("settings.users.disable_help"),
            kind="checkbox",
            value=user.disabled_at is not None,
        )
        form = Form(
            title=t("settings.users.change_title", name=user.name),
            fields=(display, self._role(user.role), disabled),
            submit=t("settings.save"),
        )
        self._ask(form, do, permission="users")

    def _ask_password(self, user: users.User) -> None:
        t, access = self._view.t, self._gateway.access

        def do(actor: Actor, values: Values) -> str:
            hash_ = access.hash_new(values["password"], user.name)
            with access.changing() as connection:
                users.set_password(connection, actor, user.name, hash_, now=self._gateway.now())
            return t("settings.users.password_set")

        form = Form(
            title=t("settings.users.password_title", name=user.name),
            lines=(t("settings.users.password_ends"),),
            fields=(self._password(),),
            submit=t("settings.save"),
        )
        self._ask(form, do, permission="users")

    # tokens

    def _tokens(self, keys: Sequence[tokens.Token]) -> None:
        t = self._view.t
        with ui.element("section").classes("samd-panel"):
            self._title("settings.tokens.title")
            rows = []
            for each in keys:
                if each.revoked_at is not None:
                    continue
                buttons = ((t("settings.tokens.revoke"), lambda each=each: self._ask_revoke(each)),)
                cells = [escaped(each.name), escaped(each.user), escaped(", ".join(each.scopes))]
                cells += [_time(each.expires_at) or escaped(t("settings.never")), _time(each.last_used)]
                rows.append((cells, buttons))
            if rows:
                names = ("name", "user", "scopes", "expires", "used")
                self._table([f"settings.tokens.{name}" for name in names], rows)
            else:
                ui.html(f"<p>{escaped(t('settings.tokens.none'))}</p>", sanitize=False)
            if not self._gateway.access.open_to_all:
                self._button(t("settings.tokens.add"), self._ask_token)

    def _ask_token(self) -> None:
        t = self._view.t

        def do(actor: Actor, values: Values) -> str:
            scopes = [scope for scope in PERMISSIONS["admin"] if values[scope]]
            days = values["days"]
            if days and not days.isdecimal():
                raise UsageError(f"{t('settings.tokens.days')}: {t('runs.no_number')}")
            now = self._gateway.now()
            with self._gateway.database.write() as connection:
                _, token = tokens.add(
                    connection,
                    actor,
                    values["user"] or actor.name,
                    values["name"],
                    scopes,
                    expires_at=now + int(days) * DAY_S if days else None,
                    now=now,
                )
            return t("settings.tokens.made", token=token)

        fields = (
            Field(name="name", label=t("settings.tokens.name"), required=True, longest=120),
            Field(
                name="user", label=t("settings.tokens.user"), help=t("settings.tokens.user_help"), longest=64
            ),
            Field(name="days", label=t("settings.tokens.days"), value="90", longest=5),
            *(
                Field(name=scope, label=f"{scope}: {t(f'settings.scopes.{scope}')}", kind="checkbox")
                for scope in sorted(PERMISSIONS["admin"])
            ),
        )
        form = Form(title=t("settings.tokens.add"), fields=fields, submit=t("settings.tokens.add"))
        self._ask(form, do, permission="users")

    def _ask_revoke(self, token: tokens.Token) -> None:
        t, access = self._view.t, self._gateway.access

        def do(actor: Actor, _values: Values) -> str:
            with access.changing() as connection:
                tokens.revoke(connection, actor, token.id, now=self._gateway.now())
            return t("settings.tokens.revoked")

        form = Form(
            title=t("settings.tokens.revoke_title", name=token.name),
            lines=(t("settings.tokens.revoke_explained"),),
            submit=t("settings.tokens.revoke"),
        )
        self._ask(form, do, permission="users")

    # values

    def _values(self, name: str, key: str, value: msgspec.Struct, default: msgspec.Struct) -> None:
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

    # channels

    def _channels(self, channels: Sequence[ChannelOut]) -> None:
        t, desk = self._view.t, self._gateway.alerting.channels
        with ui.element("section").classes("samd-panel"):
            self._title("settings.channels.title")
            rows = []
            for each in channels:
                state = each.failing or t(
                    "settings.channels.well" if each.enabled else "settings.channels.off"
                )

                async def test(name: str = each.name) -> None:
                    told = await self._view.act("settings", lambda actor: desk.test(actor, name) or "")
                    if told is not None:
                        self._view.say(t("settings.channels.tested", name=name))

                def ask_remove(name: str = each.name) -> None:
                    def do(actor: Actor, _values: Values) -> str:
                        desk.remove(actor, name)
                        return t("settings.channels.removed")

                    title = t("settings.channels.remove_title", name=name)
                    self._ask(Form(title=title, submit=t("settings.channels.remove")), do)

                buttons = (
                    (t("settings.channels.test"), test),
                    (t("settings.channels.change"), lambda each=each: self._ask_channel(each)),
                    (t("settings.channels.remove"), ask_remove),
                )
                cells = [escaped(each.name), escaped(each.kind), str(each.min_severity), str(each.step)]
                rows.append(([*cells, str(each.pending), escaped(state)], buttons))
            if rows:
                names = ("name", "kind", "min_severity", "step", "pending", "state")
                self._table([f"settings.channels.{name}" for name in names], rows)
            else:
                ui.html(f"<p>{escaped(t('settings.channels.none'))}</p>", sanitize=False)
            self._button(t("settings.channels.add"), lambda: self._ask_channel(None))

    def _ask_channel(self, channel: ChannelOut | None) -> None:
        t, desk = self._view.t, self._gateway.alerting.channels

        def do(actor: Actor, values: Values) -> str:
            try:
                config = json.loads(values["config"] or "{}")
            except ValueError as error:
                raise UsageError(f"{t('settings.channels.config')}: {error}") from error
            if not isinstance(config, dict) or not values["step"].isdecimal():
                raise UsageError(f"{t('settings.channels.config')}: {t('settings.channels.config_help')}")
            desk.put(
                actor,
                values["name"] if channel is None else channel.name,
                kind=values["kind"],
                config=config,
                enabled=values["enabled"],
                min_severity=int(values["min_severity"]),
                step=min(int(values["step"]), 8),
                new=channel is None,
            )
            return t("settings.saved")

        severities = tuple(Option(str(number), t(f"settings.severities.{number}")) for number in range(4))
        fields: list[Field] = []
        if channel is None:
            fields.append(Field(name="name", label=t("settings.channels.name"), required=True, longest=64))
        fields += [
            Field(
                name="kind",
                label=t("settings.channels.kind"),
                kind="select",
                options=tuple(Option(kind, t(f"settings.channels.kinds.{kind}")) for kind in KINDS),
                value=KINDS[0] if channel is None else channel.kind,
            ),
            Field(
                name="config",
                label=t("settings.channels.config"),
                help=t("settings.channels.config_help"),
                kind="long",
                longest=4000,
                value="" if channel is None else json.dumps(channel.config, ensure_ascii=False, indent=1),
            ),
            Field(
                name="min_severity",
                label=t("settings.channels.min_severity"),
                kind="select",
                options=severities,
                value=str(0 if channel is None else channel.min_severity),
            ),
            Field(
                name="step",
                label=t("settings.channels.step"),
                help=t("settings.channels.step_help"),
                value=str(0 if channel is None else channel.step),
                longest=1,
            ),
            Field(
                name="enabled",
                label=t("settings.channels.enabled"),
                kind="checkbox",
                value=channel is None or channel.enabled,
            ),
        ]
        title = t("settings.channels.add") if channel is None else channel.name
        self._ask(Form(title=title, fields=tuple(fields), submit=t("settings.save")), do)


def _time(seconds: float | None) -> str:
    return "" if seconds is None else moment(datetime.fromtimestamp(seconds, UTC))
