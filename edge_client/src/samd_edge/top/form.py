"""The form for what no sensor sees: consciousness and oxygen, with the name of the one who observed."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, RadioButton, RadioSet, Static

from samd_edge.top.feed import Feed, FeedError
from samd_edge.top.words import clean

_CONSCIOUSNESS: Final = (
    (None, "not observed"),
    ("A", "A  alert"),
    ("C", "C  new confusion"),
    ("V", "V  responds to voice"),
    ("P", "P  responds to pain"),
    ("U", "U  unresponsive"),
)
_OXYGEN: Final = ((None, "not observed"), (False, "on air"), (True, "on oxygen"))


class Entered(NamedTuple):
    """What the agent took, in words, and by whom it was entered."""

    what: str
    by: str


class Choice(RadioButton):
    """A choice that shows by its shape whether it is the chosen one: ● or ○."""

    @property
    def _button(self) -> Content:
        # Textual draws both alike and in two colours, which not everybody and not every terminal tells apart.
        return Content.assemble(("●" if self.value else "○", self.get_visual_style("toggle--button")))


class Form(ModalScreen[Entered | None]):
    """Asks and sends; closes with what was entered, or with None; a refusal is shown, and it stays open.

    ``admission`` is the one that the form was opened for; ``current`` says which it is now. What was seen of
    one patient is never entered for the next.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "close")]
    CSS = """
    Form { align: center middle; }
    #form { width: 76; height: auto; max-height: 100%; overflow-y: auto; padding: 0 2; border: round $primary;
            background: $surface; }
    #choices { height: auto; }
    #choices RadioSet { width: 1fr; height: auto; border: round $faint; border-title-color: $foreground; }
    #choices RadioButton > .toggle--button { color: $foreground; background: $surface; }
    #choices RadioButton.-on > .toggle--label { text-style: bold; }
    #choices RadioSet:focus { border: round $primary; }
    #by { border: round $faint; border-title-color: $foreground; }
    #by:focus { border: round $primary; }
    #chosen { height: 1; }
    #answer { height: auto; min-height: 1; }
    #buttons { height: auto; align-horizontal: right; }
    #buttons Button { margin-left: 2; }
    """

    def __init__(self, feed: Feed, admission: str, current: Callable[[], str | None], by: str) -> None:
        super().__init__()
        self._feed = feed
        self._admission = admission
        self._current = current
        self._by = by

    def compose(self) -> ComposeResult:
        with Vertical(id="form"):
            yield Static(Content(f"Observation for {clean(self._admission)}"), classes="title")
            with Horizontal(id="choices"):
                yield _choices("consciousness", [text for _, text in _CONSCIOUSNESS])
                yield _choices("oxygen", [text for _, text in _OXYGEN])
            yield Input(value=self._by, placeholder="your name", max_length=80, id="by")
            yield Static("", id="chosen")
            yield Static("", id="answer")
            with Horizontal(id="buttons"):
                yield Button("Enter", variant="primary", id="enter")
                yield Button("Close (Esc)", id="close")

    def on_mount(self) -> None:
        self.query_one("#consciousness", RadioSet).border_title = "consciousness"
        self.query_one("#oxygen", RadioSet).border_title = "oxygen"
        self.query_one("#by", Input).border_title = "by whom"
        self.query_one("#consciousness", RadioSet).focus()
        self._choose()

    @on(RadioSet.Changed)
    def _choose(self) -> None:
        """What would be entered, in words."""
        self.query_one("#chosen", Static).update(Content(f"to be entered: {self._told() or 'nothing yet'}"))

    def _told(self) -> str:
        consciousness, oxygen = self._chosen()
        said = [_text(_CONSCIOUSNESS, consciousness), _text(_OXYGEN, oxygen)]
        return ", ".join(text for text in said if text)

    def _chosen(self) -> tuple[str | None, bool | None]:
        return (
            _CONSCIOUSNESS[self.query_one("#consciousness", RadioSet).pressed_index][0],
            _OXYGEN[self.query_one("#oxygen", RadioSet).pressed_index][0],
        )

    @on(Button.Pressed, "#close")
    def action_close(self) -> None:
        """Back to the picture."""
        self.dismiss(None)

    @on(Input.Submitted)
    @on(Button.Pressed, "#enter")
    async def send(self) -> None:
        """Check, send, and say what came of it."""
        by = self.query_one("#by", Input).value.strip()
        body: dict[str, Any] = {"type": "observation.add", "by": by}
        consciousness, oxygen = self._chosen()
        if consciousness is not None:
            body["consciousness"] = consciousness
        if oxygen is not None:
            body["supplemental_oxygen"] = oxygen
        if consciousness is None and oxygen is None:
            self._say("nothing to enter: choose consciousness, oxygen, or both")
            return
        if not by:
            self._say("by whom? an observation carries a name")
            self.query_one("#by", Input).focus()
            return
        if self._current() != self._admission:
            self._say(f"not entered: {self._admission} is not the admission of now; close, and look again")
            return
        entered = Entered(self._told(), by)
        button = self.query_one("#enter", Button)
        button.disabled = True  # once is enough
        try:
            await asyncio.to_thread(self._feed.enter, body)
        except FeedError as error:
            self._say(f"not entered: {error}")
            button.disabled = False
        else:
            self.dismiss(entered)

    def _say(self, text: str) -> None:
        self.query_one("#answer", Static).update(Content.styled(clean(text), "bold $text-error"))


def _text(choices: Sequence[tuple[object, str]], chosen: object) -> str:
    return "" if chosen is None else next(" ".join(text.split()) for key, text in choices if key is chosen)


def _choices(name: str, texts: list[str]) -> RadioSet:
    return RadioSet(*(Choice(text, value=index == 0) for index, text in enumerate(texts)), id=name)
