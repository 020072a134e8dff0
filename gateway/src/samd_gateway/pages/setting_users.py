"""The panels of users and of API tokens."""

from collections.abc import Sequence

from nicegui import ui

from samd_gateway.access import tokens, users
from samd_gateway.access.actor import PERMISSIONS, Actor
from samd_gateway.errors import UsageError
from samd_gateway.pages.form import Field, Form, Option, Values
from samd_gateway.pages.setting_panel import Panel, told
from samd_gateway.pages.shell import escaped

DAY_S = 86_400.0


class Accounts(Panel):
    """Who may sign in, and what programs show instead."""

    def show_users(self, people: Sequence[users.User]) -> None:
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

    def show_tokens(self, keys: Sequence[tokens.Token]) -> None:
        t = self._view.t
        with ui.element("section").classes("samd-panel"):
            self._title("settings.tokens.title")
            rows = []
            for each in keys:
                if each.revoked_at is not None:
                    continue
                buttons = ((t("settings.tokens.revoke"), lambda each=each: self._ask_revoke(each)),)
                cells = [escaped(each.name), escaped(each.user), escaped(", ".join(each.scopes))]
                cells += [told(each.expires_at) or escaped(t("settings.never")), told(each.last_used)]
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
