"""The form for what no sensor sees: consciousness and oxygen, with the name of the one who observed."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

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


class Form(ModalScreen[str | None]):
    """Asks, sends, shows the answer; closes with the name once something was entered, with None otherwise.

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
        self._entered: str | None = None

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
        """What would be entered, in words: the marks of the choices differ by colour alone."""
        consciousness, oxygen = self._chosen()
        said = [_text(_CONSCIOUSNESS, consciousness), _text(_OXYGEN, oxygen)]
        told = ", ".join(text for text in said if text)
        self.query_one("#chosen", Static).update(Content(f"to be entered: {told or 'nothing yet'}"))

    def _chosen(self) -> tuple[str | None, bool | None]:
        return (
            _CONSCIOUSNESS[self.query_one("#consciousness", RadioSet).pressed_index][0],
            _OXYGEN[self.query_one("#oxygen", RadioSet).pressed_index][0],
        )

    @on(Button.Pressed, "#close")
    def action_close(self) -> None:
        """Back to the picture."""
        self.dismiss(self._entered)

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
            self._say("nothing to enter: choose consciousness, oxygen, or both", good=False)
            return
        if not by:
            self._say("by whom? an observation carries a name", good=False)
            self.query_one("#by", Input).focus()
            return
        if self._current() != self._admission:
            self._say(
                f"not entered: {self._admission} is not the admission of now; close, and look again",
                good=False,
            )
            return
        button = self.query_one("#enter", Button)
        button.disabled = True  # once is enough
        try:
            await asyncio.to_thread(self._feed.enter, body)
        except FeedError as error:
            self._say(f"not entered: {error}", good=False)
        else:
            self._entered = by
            self._say("entered", good=True)
        finally:
            button.disabled = False

    def _say(self, text: str, *, good: bool) -> None:
        style = "bold $text-success" if good else "bold $text-error"
        self.query_one("#answer", Static).update(Content.styled(clean(text), style))


def _text(choices: Sequence[tuple[object, str]], chosen: object) -> str:
    return "" if chosen is None else next(" ".join(text.split()) for key, text in choices if key is chosen)


def _choices(name: str, texts: list[str]) -> RadioSet:
    return RadioSet(*(RadioButton(text, value=index == 0) for index, text in enumerate(texts)), id=name)
