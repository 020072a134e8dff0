"""The panel of channels: who is told of alerts, by webhook, e-mail or MQTT."""

import json
from collections.abc import Sequence

from nicegui import ui

from samd_gateway.access.actor import Actor
from samd_gateway.alerts.answers import ChannelOut
from samd_gateway.errors import UsageError
from samd_gateway.pages.form import Field, Form, Option, Values
from samd_gateway.pages.setting_panel import Panel
from samd_gateway.pages.shell import escaped

KINDS = ("webhook", "email", "mqtt")


class Channels(Panel):
    """Each channel with what waits for it, and whether it fails."""

    def channels(self, channels: Sequence[ChannelOut]) -> None:
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
