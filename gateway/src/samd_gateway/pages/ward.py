"""The ward: one card a patient, those that need somebody first; and the component that draws the cards.

The component gets its cards from the hub, shared with all other pages, and says what a person wants to do:
that is checked and done here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from samd_gateway.pages import shell
from samd_gateway.pages.bedside import Bedside
from samd_gateway.pages.site import Site
from samd_gateway.pages.view import View
from samd_protocol.topics import valid_name

Kind = Literal["acknowledge", "observe", "actions"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class WardCards(Element, component="static/ward.js"):
    """The cards, or the one of `only`. `act` gets what is wanted, of which device."""

    def __init__(
        self,
        view: View,
        cards: Sequence[dict[str, Any]],
        act: Callable[[Kind, str], Any],
        *,
        only: str | None = None,
    ) -> None:
        super().__init__()
        self._props["texts"] = view.t.part("ward")
        self._props["cards"] = list(cards)
        self._props["total"] = view.site.hub.total
        self._props["actions"] = view.may("ward")
        self._props["only"] = only or ""

        def wanted(event: GenericEventArguments) -> Any:
            said = event.args if isinstance(event.args, dict) else {}
            device = said.get("device")
            for kind in KINDS:
                if kind == said.get("kind") and isinstance(device, str) and valid_name(device):
                    return act(kind, device)
            return None

        self.on("act", wanted)


def add(site: Site) -> None:
    """The start page."""

    @site.page("/", title="ward.title", at="ward")
    async def ward(view: View) -> None:
        ui.add_head_html(f'<link rel="stylesheet" href="{shell.static("ward.css")}">')
        cards = await site.hub.watch(view.client)
        WardCards(view, cards, Bedside(view).begin)
