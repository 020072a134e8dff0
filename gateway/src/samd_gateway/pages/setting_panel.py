"""What the panels of the settings have in common: a title, a table with buttons, and a dialog that does
something in the name of whoever looks.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from samd_gateway.access.actor import Actor
from samd_gateway.pages.form import Form, FormDialog, Outcome, Values
from samd_gateway.pages.models import row
from samd_gateway.pages.panels import moment
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.view import View


class Panel:
    """A part of the page of settings. `draw` shows the whole page anew, after a change."""

    def __init__(self, view: View, dialog: FormDialog, draw: Callable[[], Awaitable[None]]) -> None:
        self._view = view
        self._gateway = view.site.gateway
        self._dialog = dialog
        self._draw = draw

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
            await self._draw()
            return Outcome(text, good=True)

        self._dialog.ask(form, send)


def told(seconds: float | None) -> str:
    """A time as HTML; nothing where there is none."""
    return "" if seconds is None else moment(datetime.fromtimestamp(seconds, UTC))
