"""A dialog from a description: what is asked, in whose name, and what became of it.

The browser draws it (`static/form.js`); whatever it sends is checked here against the description.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from samd_gateway.errors import UsageError
from samd_gateway.pages.view import NotDoneError, View

Kind = Literal["text", "long", "radio", "select", "checkbox", "time", "number", "password"]
LONGEST = 500


class Option(msgspec.Struct, frozen=True):
    value: str
    label: str


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field. A `time` is sent as seconds since 1970, or None; a `checkbox` as a boolean; all else as
    text."""

    name: str
    label: str
    kind: Kind = "text"
    options: tuple[Option, ...] = ()
    value: str | bool = ""
    required: bool = False
    longest: int = LONGEST
    help: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What became of it, for a person. After a good one the dialog can only be closed."""

    text: str
    good: bool


Values = Mapping[str, Any]


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What a dialog shows. With `menu` it offers choices, (name, label), instead of fields."""

    title: str
    lines: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    menu: tuple[tuple[str, str], ...] = ()
    submit: str = ""
    waiting: str = ""


class FormDialog(Element, component="static/form.js"):
    """The one dialog of a page. `ask` shows a form, and calls what was given with it when it is sent."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view
        self._form: Form | None = None
        self._id = ""
        self._send: Callable[[Values], Awaitable[Outcome]] | None = None
        self._choose: Callable[[str], Awaitable[None]] | None = None
        self._sending = False
        self.on("send", self._sent)
        self.on("choose", self._chosen)
        self.on("closed", self._closed)

    def ask(
        self,
        form: Form,
        send: Callable[[Values], Awaitable[Outcome]] | None = None,
        *,
        choose: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Show it, in place of what is shown."""
        t = self._view.t
        self._form, self._send, self._choose, self._sending = form, send, choose, False
        self._id = uuid.uuid4().hex
        shown = msgspec.to_builtins(form) | {
            "id": self._id,
            "who": t("shell.form.as", user=self._view.seen_as.name)
            if self._view.session is not None
            else t("shell.form.as_local"),
            "menu": [{"name": name, "label": label} for name, label in form.menu],
            "cancel": t("shell.cancel"),
            "close": t("shell.close"),
            "waiting": form.waiting or t("shell.form.waiting"),
        }
        for field in shown["fields"]:
            field["lacking"] = t("shell.form.lacking", field=field["label"])
        self.run_method("show", shown)

    async def _sent(self, event: GenericEventArguments) -> None:
        said = event.args if isinstance(event.args, dict) else {}
        form, send, this = self._form, self._send, self._id
        if form is None or send is None or said.get("id") != this or self._sending:
            return
        self._sending = True
        try:
            outcome = await send(checked(form, said.get("values")))
        except (UsageError, NotDoneError) as error:
            outcome = Outcome(str(error), good=False)
        finally:
            if self._id == this:
                self._sending = False
        self.run_method("outcome", this, outcome.text, outcome.good)

    async def _chosen(self, event: GenericEventArguments) -> None:
        said = event.args if isinstance(event.args, dict) else {}
        form, choose = self._form, self._choose
        if form is None or choose is None or said.get("id") != self._id:
            return
        for name, _ in form.menu:
            if name == said.get("name"):
                await choose(name)

    def _closed(self, event: GenericEventArguments) -> None:
        said = event.args if isinstance(event.args, dict) else {}
        if said.get("id") == self._id:
            self._form = self._send = self._choose = None


def checked(form: Form, said: Any) -> dict[str, Any]:
    """What was sent, by the description: every field, of its type. Raises UsageError for anything else."""
    values = said if isinstance(said, dict) else {}
    found: dict[str, Any] = {}
    for field in form.fields:
        value = values.get(field.name)
        if field.kind == "checkbox":
            found[field.name] = value is True
        elif field.kind == "time":
            good = isinstance(value, int | float) and 0.0 < value < 4e9
            found[field.name] = float(value) if good and value is not None else None
        else:
            text = value.strip() if isinstance(value, str) else "" if value is None else str(value)
            if len(text) > field.longest:
                raise UsageError(f"{field.label}: at most {field.longest} characters")
            if field.kind in ("radio", "select") and text not in {option.value for option in field.options}:
                raise UsageError(f"{field.label}: choose one of those offered")
            if field.required and not text:
                raise UsageError(f"{field.label}: it is needed")
            found[field.name] = text
    return found
