"""The screen of ``samd-edge top``: asks for a View each second and draws it at whatever size there is."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import ClassVar, Final

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from samd_edge.clock import wall_now
from samd_edge.top import letters, panels, words
from samd_edge.top.feed import Feed, FeedError, aged, is_stale
from samd_edge.top.form import Entered, Form
from samd_edge.top.look import DARK, LIGHT, Panel
from samd_edge.top.trends import Line
from samd_edge.view import View

HOURS: Final = (1.0, 6.0, 24.0)
WIDE: Final = 130
"""From this many columns on the parts stand beside each other."""

TALL: Final = 30
"""From this many rows on nothing is left out, and the trends grow."""

LARGE: Final = 40
"""From this many rows on a wide screen draws the score at twice the size."""

_HELP: Final = """\
q  quit (or ctrl+c)             h  trends of 1, 6 or 24 hours
o  enter an observation         s  worst signs first, or as the chart
l  light or dark                ?  this page

NEWS2 is the score of the Royal College of Physicians (2017). Points of
a sign: □□□ 0, ■□□ 1, ■■□ 2, ■■■ 3. With inputs missing it is a range,
lowest to highest; alerts act on the lowest, which is certain.

--       not known; it is never counted as 0
stale    measured too long ago to count
missing  never measured in this admission
flagged  an artefact, or no signal: not scored, with its reason below
due      the chart asks for it anew

The severity is the worse of rule and model. "?" means that it may be
none or worse: too little is known. When the agent does not answer, all
turns grey and the top line says since when: nothing is of now then.

This is research software and no certified medical device."""


class Help(ModalScreen[None]):
    """What the keys and the signs mean."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "app.pop_screen", "close")]
    CSS = """
    Help { align: center middle; }
    #help { width: 78; height: auto; max-height: 100%; overflow-y: auto; padding: 0 1; border: round $primary;
            background: $surface; }
    """

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield Static(Content(_HELP))


class Top(App[None]):
    """The local view. ``feed`` gives Views and takes observations; ``every_s`` is the time between two."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "samd-edge top"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
        Binding("h", "hours", "hours"),
        Binding("o", "observe", "observation"),
        Binding("s", "sort", "sort"),
        Binding("l", "light", "light"),
        Binding("question_mark", "help", "help", key_display="?"),
    ]
    CSS = """
    Screen { overflow-y: auto; }
    Panel { height: auto; width: 1fr; }
    #stale { display: none; height: auto; padding: 0 1;
             background: #c92a2a; color: #ffffff; text-style: bold; }
    .stale #stale { display: block; }
    #now { height: 5; }
    #score { width: 19; height: 5; }
    #severity { width: 31; height: 5; }
    #situation { width: 1fr; height: 5; }
    .large #now { height: 7; }
    .large #score { width: 40; height: 7; }
    .large #severity { width: 58; height: 7; }
    #main, #left, #side { height: auto; }
    .stale #advice { display: none; }
    .tall #now, .tall #advice, .tall #table, .tall #model, .tall #notes { margin-bottom: 1; }
    .wide #main { layout: horizontal; }
    .wide #left { width: 2fr; margin-right: 3; }
    .wide #side { width: 1fr; }
    """

    def __init__(
        self,
        feed: Feed,
        *,
        hours: float = 6.0,
        every_s: float = 1.0,
        light: bool = False,
        wall: Callable[[], datetime] = wall_now,
        monotonic: Callable[[], float] = time.monotonic,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__()
        self._feed = feed
        self._hours = hours
        self._every_s = every_s
        self._light = light
        self._wall = wall
        self._monotonic = monotonic
        self._zone = zone
        self._view: View | None = None
        self._shown: View | None = None
        self._got_at = monotonic()
        self._error = ""
        self._asking = False
        self._worst_first = False
        self._by = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="stale")
        yield Panel(self._part(lambda view, width: panels.head(view, width, self._zone)), name="head")
        with Horizontal(id="now"):
            yield Panel(self._part(self._score), name="score")
            yield Panel(self._part(self._severity), name="severity")
            yield Panel(self._part(self._situation), name="situation")
        yield Panel(self._part(panels.advice), name="advice")
        with Vertical(id="main"):
            with Vertical(id="left"):
                yield Panel(self._part(self._table), name="table")
            with Vertical(id="side"):
                yield Panel(self._part(self._model), name="model")
                yield Panel(self._part(self._notes), name="notes")
                yield Panel(self._part(self._system), name="system")
        yield Footer()

    def on_mount(self) -> None:
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        self.theme = LIGHT.name if self._light else DARK.name
        self.set_interval(self._every_s, self._ask)
        self.set_interval(min(1.0, self._every_s), self.draw)
        self._ask()

    def on_resize(self, event: Resize) -> None:
        """Other parts fit at another size."""
        base = self.screen_stack[0]
        base.set_class(event.size.width >= WIDE, "wide")
        base.set_class(event.size.height >= TALL, "tall")
        base.set_class(event.size.width >= WIDE and event.size.height >= LARGE, "large")
        self.draw()

    # -- a View comes ---------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if not self._asking:
            self._asking = True
            self.run_worker(self._fetch(), group="feed")

    async def _fetch(self) -> None:
        try:
            self._view = await asyncio.to_thread(self._feed.view, self._hours)
            self._got_at = self._monotonic()
            self._error = ""
        except FeedError as error:
            self._error = str(error)
        finally:
            self._asking = False
        self.draw()

    def draw(self) -> None:
        """Draw what is known now, and say so when that is not of now."""
        base = self.screen_stack[0]
        if not base.query("#stale"):
            return  # a change of size came before the parts, or after them
        reason = self.stale()
        base.set_class(bool(reason), "stale")
        base.query_one("#stale", Static).update(Content(reason))
        view = self._view
        if view is not None and reason:
            view = aged(view, max(self._monotonic() - self._got_at, (self._wall() - view.at).total_seconds()))
        self._shown = view
        for panel in base.query(Panel):
            panel.greyed = bool(reason)
            panel.refresh(layout=True)

    def stale(self) -> str:
        """Why what is shown is not of now; empty when it is."""
        view = self._view
        why = words.clean(self._error)
        if view is None:
            return f"NO VIEW YET. {why}" if why else "asking the agent ..."
        if not is_stale(view, self._monotonic() - self._got_at, self._wall(), self._every_s):
            return ""
        at = view.at.astimezone(self._zone)
        off = (self._wall() - view.at).total_seconds()
        if off < 0:
            return (
                f"NOT OF NOW: the view carries a time {words.span(-off)} ahead ({at:%d %b %H:%M:%S}). {why}"
            )
        old = max(off, self._monotonic() - self._got_at)
        return f"NOT OF NOW: the last view is {words.span(old)} old, of {at:%d %b %H:%M:%S}. {why}"

    # -- the parts ------------------------------------------------------------------------------------------

    def _part(self, draw: Callable[[View, int], list[Line]]) -> Callable[[int], list[Line]]:
        return lambda width: [] if self._shown is None else draw(self._shown, width)

    @property
    def _scale(self) -> int:
        return 2 if self.size.width >= WIDE and self.size.height >= LARGE else 1

    def _score(self, view: View, width: int) -> list[Line]:
        ranged = view.news2 is not None and view.news2.total is None
        title = "NEWS2, a range" if ranged else "NEWS2"
        rows = letters.large(words.score(view), self._scale)
        return [panels.cut(line, width) for line in ([(title, "")], *([(row, "bold")] for row in rows))]

    def _severity(self, view: View, width: int) -> list[Line]:
        word, style, said = words.severity(view)
        if self.stale():
            word, style, said = "STALE", "unknown", "not of now"
        rows = letters.large(word, self._scale)
        title = f"severity {said}"
        head = title if len(title) <= width - 2 else said  # two columns stay free of the part beside it
        return [panels.cut([(head, "")], width - 2), *([(f" {row} ", style)] for row in rows)]

    def _situation(self, view: View, width: int) -> list[Line]:
        return panels.situation(view, width, 5 * self._scale - 3 * (self._scale - 1))

    def _table(self, view: View, width: int) -> list[Line]:
        height = 1
        if self.size.height >= TALL:
            beside = 16 if self.size.width >= WIDE else 26  # rows of the other parts
            height = max(1, min(6, (self.size.height - beside) // 6))
            height -= height > 2  # an empty row stands between higher trends
        return panels.table(view, width, hours=self._hours, height=height, worst_first=self._worst_first)

    def _model(self, view: View, width: int) -> list[Line]:
        return panels.model(view, width, one_line=self.size.height < TALL)

    def _notes(self, view: View, width: int) -> list[Line]:
        return panels.notes(view, width, 2 if self.size.height < TALL else None)

    def _system(self, view: View, width: int) -> list[Line]:
        return panels.system(view, width, 2 if self.size.height < TALL else None)

    # -- keys -----------------------------------------------------------------------------------------------

    def action_hours(self) -> None:
        """The next span of the trends."""
        self._hours = next((hours for hours in HOURS if hours > self._hours), HOURS[0])
        self._ask()
        self.draw()

    def action_sort(self) -> None:
        """The worst first, or as the chart has them."""
        self._worst_first = not self._worst_first
        self.draw()

    def action_light(self) -> None:
        """The other theme."""
        self.theme = DARK.name if self.theme == LIGHT.name else LIGHT.name

    def action_help(self) -> None:
        """The page of explanations."""
        self.push_screen(Help())

    def action_observe(self) -> None:
        """Open the form, if there is a patient to enter it for."""
        admission = None if self._view is None else self._view.admission
        if admission is None or self.stale():
            self.notify(
                "nothing can be entered: no agent answers, or no patient is admitted", severity="error"
            )
            return
        self.push_screen(Form(self._feed, admission, self._admission, self._by), self._entered)

    def _admission(self) -> str | None:
        return None if self._view is None or self.stale() else self._view.admission

    def _entered(self, entered: Entered | None) -> None:
        if entered is not None:
            self._by = entered.by
            self.notify(words.clean(f"entered: {entered.what}, by {entered.by}"), markup=False)
            self._ask()
