"""What people do at the bedside, by dialogs: each shows in whose name, and what the device answered."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, get_args

from samd_gateway.access.actor import Actor
from samd_gateway.alerts.answers import AlertOutcome, AlertRow
from samd_gateway.errors import UsageError
from samd_gateway.pages.form import Field, Form, FormDialog, Option, Outcome, Values
from samd_gateway.pages.view import View
from samd_gateway.ward.answers import CommandOutcome
from samd_gateway.ward.service import FINAL, Consciousness

Send = Callable[[Values], Awaitable[Outcome]]

ANSWER_S = 15.0
"""How long a dialog waits for the device; what it answers later is on record."""
LOOK_S = 0.25
PAUSES_MIN = (15, 30, 60, 120, 240, 480)
AGO_MIN = (0, 5, 10, 15, 30, 60, 120)
INTERVALS_MIN = (0, 15, 30, 60, 120, 240, 360)
CORRECTABLE = (
    "respiratory_rate",
    "spo2",
    "supplemental_oxygen",
    "systolic_bp",
    "diastolic_bp",
    "heart_rate",
    "consciousness",
    "temperature",
)


class Bedside:
    """The dialogs of one page."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._ward, self._alerts = view.site.gateway.ward, view.site.gateway.alerts
        self._dialog = FormDialog(view)

    async def begin(self, kind: str, device: str) -> None:
        """Open what was asked for, of this device."""
        card = self._view.site.hub.card(device)
        if card is None or not self._view.may("ward"):
            self._view.warn(self._view.t("bedside.gone", device=device))
            return
        await getattr(self, f"_{kind}")(card)

    # what can be done

    async def _actions(self, card: dict[str, Any]) -> None:
        t, alert, offered = self._view.t, card["alert"], []
        if alert is not None:
            if not alert["acknowledged"]:
                offered.append("acknowledge")
            offered += ["resume" if alert["paused"] else "pause", "escalate"]
        offered += ["observe", "correct"]
        if card["admission_state"] is None:
            offered.append("admit")
        elif card["admission_state"] == "active":
            offered.append("discharge")

        async def chosen(name: str) -> None:
            current = self._view.site.hub.card(card["device"]) or card
            await getattr(self, f"_{name}")(current)

        self._dialog.ask(
            Form(
                title=t("bedside.actions.title", who=_who(card)),
                menu=tuple((name, t(f"bedside.{name}.name")) for name in offered),
            ),
            choose=chosen,
        )

    # alerts

    async def _acknowledge(self, card: dict[str, Any]) -> None:
        t, alert = self._view.t, card["alert"]
        if alert is None or alert["acknowledged"]:
            self._view.say(t("bedside.acknowledge.nothing"))
            return
        seen = {alert["id"]: alert["severity"]}

        async def send(values: Values) -> Outcome:
            done = await self._view.attempt(
                "ward",
                lambda actor: self._alerts.acknowledge(list(seen), actor, values["note"] or None, seen=seen),
            )
            return self._acknowledged(card, done[0])

        self._ask(card, "acknowledge", (self._text("note", required=False),), send)

    def _acknowledged(self, card: dict[str, Any], outcome: AlertOutcome) -> Outcome:
        self._view.site.hub.changed(card["device"])
        good = outcome.outcome in ("acknowledged", "already")
        return Outcome(self._view.t(f"bedside.acknowledge.{outcome.outcome}"), good=good)

    async def _pause(self, card: dict[str, Any]) -> None:
        t, alert, now = self._view.t, card["alert"], self._view.site.gateway.now
        minutes = tuple(Option(str(each), self._span(each)) for each in PAUSES_MIN)

        async def send(values: Values) -> Outcome:
            until = now() + 60.0 * int(values["minutes"])
            return await self._on_alert(
                card,
                lambda actor: self._alerts.pause(alert["id"], actor, until=until, reason=values["reason"]),
            )

        fields = (
            Field(
                name="minutes",
                label=t("bedside.pause.minutes"),
                kind="select",
                options=minutes,
                value=str(PAUSES_MIN[1]),
            ),
            self._text("reason"),
        )
        self._ask(card, "pause", fields, send)

    async def _resume(self, card: dict[str, Any]) -> None:
        async def send(_values: Values) -> Outcome:
            return await self._on_alert(card, lambda actor: self._alerts.resume(card["alert"]["id"], actor))

        self._ask(card, "resume", (), send)

    async def _escalate(self, card: dict[str, Any]) -> None:
        async def send(values: Values) -> Outcome:
            return await self._on_alert(
                card, lambda actor: self._alerts.escalate(card["alert"]["id"], actor, values["reason"])
            )

        self._ask(card, "escalate", (self._text("reason"),), send)

    async def _on_alert(self, card: dict[str, Any], call: Callable[[Actor], AlertRow]) -> Outcome:
        await self._view.attempt("ward", call)
        self._view.site.hub.changed(card["device"])
        return Outcome(self._view.t("bedside.recorded"), good=True)

    # at the device

    async def _observe(self, card: dict[str, Any]) -> None:
        t = self._view.t
        unknown = Option("", t("bedside.observe.not_assessed"))
        levels = tuple(Option(each, t(f"bedside.observe.levels.{each}")) for each in get_args(Consciousness))
        oxygen = (Option("yes", t("bedside.observe.on_oxygen")), Option("no", t("bedside.observe.on_air")))
        ago = tuple(
            Option(
                str(each),
                t("bedside.observe.ago", age=self._span(each)) if each else t("bedside.observe.now"),
            )
            for each in AGO_MIN
        )

        async def send(values: Values) -> Outcome:
            minutes = int(values["ago"])
            at = datetime.fromtimestamp(self._view.site.gateway.now() - 60.0 * minutes, UTC)
            return await self._command(
                card,
                lambda actor: self._ward.observe(
                    actor,
                    card["device"],
                    consciousness=values["consciousness"] or None,
                    supplemental_oxygen={"yes": True, "no": False}.get(values["oxygen"]),
                    observed_at=at if minutes else None,
                ),
            )

        fields = (
            Field(
                name="consciousness",
                label=t("ward.signs.consciousness"),
                kind="radio",
                options=(*levels, unknown),
            ),
            Field(
                name="oxygen",
                label=t("ward.signs.supplemental_oxygen"),
                kind="radio",
                options=(*oxygen, unknown),
            ),
            Field(name="ago", label=t("bedside.observe.when"), kind="select", options=ago, value="0"),
        )
        self._ask(card, "observe", fields, send)

    async def _correct(self, card: dict[str, Any]) -> None:
        t = self._view.t

        async def send(values: Values) -> Outcome:
            value = sign_value(values["field"], values["value"])
            at = values["at"]
            return await self._command(
                card,
                lambda actor: self._ward.correct(
                    actor,
                    card["device"],
                    field=values["field"],
                    reason=values["reason"],
                    value=value,
                    observed_at=None if at is None else datetime.fromtimestamp(at, UTC),
                ),
            )

        signs = tuple(Option(name, t(f"ward.signs.{name}")) for name in CORRECTABLE)
        fields = (
            Field(
                name="field",
                label=t("bedside.correct.field"),
                kind="select",
                options=signs,
                value=CORRECTABLE[0],
            ),
            Field(
                name="value",
                label=t("bedside.correct.value"),
                longest=12,
                help=t("bedside.correct.value_help"),
            ),
            Field(name="at", label=t("bedside.correct.at"), kind="time", help=t("bedside.correct.at_help")),
            self._text("reason"),
        )
        self._ask(card, "correct", fields, send)

    async def _admit(self, card: dict[str, Any]) -> None:
        t = self._view.t
        intervals = tuple(
            Option(str(each), self._span(each) if each else t("bedside.admit.as_charted"))
            for each in INTERVALS_MIN
        )

        async def send(values: Values) -> Outcome:
            minutes = int(values["interval"])
            return await self._command(
                card,
                lambda actor: self._ward.admit(
                    actor,
                    card["device"],
                    admission=values["pseudonym"] or None,
                    bed=values["bed"],
                    ward=values["ward"],
                    spo2_scale=2 if values["scale"] == "2" else 1,
                    monitoring_interval_s=60.0 * minutes if minutes else None,
                    consent_to_training=values["consent"],
                ),
            )

        fields = (
            Field(name="bed", label=t("bedside.admit.bed"), longest=64),
            Field(name="ward", label=t("bedside.admit.ward"), longest=64),
            Field(
                name="pseudonym",
                label=t("bedside.admit.pseudonym"),
                longest=64,
                help=t("bedside.admit.pseudonym_help"),
            ),
            Field(
                name="scale",
                label=t("bedside.admit.scale"),
                kind="radio",
                value="1",
                options=(Option("1", t("bedside.admit.scale_1")), Option("2", t("bedside.admit.scale_2"))),
            ),
            Field(
                name="interval",
                label=t("bedside.admit.interval"),
                kind="select",
                options=intervals,
                value="0",
            ),
            Field(name="consent", label=t("bedside.admit.consent"), kind="checkbox", value=False),
        )
        self._ask(card, "admit", fields, send)

    async def _discharge(self, card: dict[str, Any]) -> None:
        t = self._view.t

        async def send(values: Values) -> Outcome:
            return await self._command(
                card,
                lambda actor: self._ward.discharge(actor, card["device"], keep=values["store"] == "keep"),
            )

        store = Field(
            name="store",
            label=t("bedside.discharge.store"),
            kind="radio",
            value="keep",
            options=(
                Option("keep", t("bedside.discharge.keep")),
                Option("erase", t("bedside.discharge.erase")),
            ),
        )
        self._ask(card, "discharge", (store,), send)

    async def _command(self, card: dict[str, Any], call: Callable[[Actor], str]) -> Outcome:
        """Send it, and wait for the device's word."""
        command = await self._view.attempt("ward", call)
        ends = asyncio.get_running_loop().time() + ANSWER_S
        while True:
            answer = await self._view.ask(self._ward.result, command, 0.0)
            if answer.status in FINAL or asyncio.get_running_loop().time() > ends:
                break
            await asyncio.sleep(LOOK_S)
        self._view.site.hub.changed(card["device"])
        return self._answered(answer)

    def _answered(self, answer: CommandOutcome) -> Outcome:
        t = self._view.t
        if answer.status is None or answer.status == "accepted":
            return Outcome(t(f"bedside.answer.{answer.status or 'none'}"), good=False)
        text = t(f"bedside.answer.{answer.status}", reason=answer.reason or t("bedside.answer.no_reason"))
        return Outcome(text, good=answer.status == "done")

    # what the dialogs have in common

    def _ask(self, card: dict[str, Any], name: str, fields: tuple[Field, ...], send: Send) -> None:
        t, lines = self._view.t, []
        if t.has(f"bedside.{name}.explained"):
            lines.append(t(f"bedside.{name}.explained"))
        if card["state"] != "online" and name in ("observe", "correct", "admit", "discharge"):
            lines.append(t("bedside.not_online", state=t(f"ward.states.{card['state']}")))
        self._dialog.ask(
            Form(
                title=t(f"bedside.{name}.title", who=_who(card)),
                lines=tuple(lines),
                fields=fields,
                submit=t(f"bedside.{name}.name"),
            ),
            send,
        )

    def _text(self, name: str, *, required: bool = True) -> Field:
        return Field(name=name, label=self._view.t(f"bedside.{name}"), kind="long", required=required)

    def _span(self, minutes: int) -> str:
        t = self._view.t
        if minutes < 60:
            return t("shell.age.min", n=minutes)
        if minutes % 60 == 0:
            return t.count("bedside.hours", minutes // 60)
        return t("shell.age.h", h=minutes // 60, min=minutes % 60)


def _who(card: dict[str, Any]) -> str:
    return str(card["bed"] or card["device"])


def sign_value(field: str, text: str) -> float | bool | str | None:
    """A corrected value as its sign has it; None for an empty text, which only strikes the wrong one."""
    if not text:
        return None
    if field == "consciousness":
        if text.upper() not in get_args(Consciousness):
            raise UsageError("consciousness: one of A, C, V, P, U")
        return text.upper()
    if field == "supplemental_oxygen":
        known = {"yes": True, "no": False, "예": True, "아니요": False}
        if text.lower() not in known:
            raise UsageError("oxygen: yes or no")
        return known[text.lower()]
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise UsageError(f"{field}: a number is needed, such as 18 or 37.2") from None
    if not -1000.0 < value < 1000.0:  # NaN and infinity fail as well
        raise UsageError(f"{field}: a number is needed, such as 18 or 37.2")
    return value
