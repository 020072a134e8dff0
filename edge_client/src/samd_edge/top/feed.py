"""Where Views come from, and what becomes of one when no newer one comes."""

from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_edge.control import ControlError, ask
from samd_edge.view import View

FRESH_S: Final = 4.0
"""A view older than this, beyond the time between two, is not of now any more."""

_PATIENCE_S: Final = 2.0


class FeedError(Exception):
    """No view can be had; the text is one line."""


class AgentFeed:
    """Asks the agent that runs on a data directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def view(self, hours: float) -> View:
        """The view of now with trends of so many hours. Raises FeedError."""
        return _decoded(self._ask({"ask": "view", "hours": hours}).get("view"), str(self._folder))

    def enter(self, body: dict[str, Any]) -> None:
        """Give the agent an observation. Raises FeedError with its reason when it refuses."""
        self._ask({"ask": "do", "body": body})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return ask(self._folder, request, patience_s=_PATIENCE_S)
        except ControlError as error:
            raise FeedError(str(error)) from error
        except (OSError, ValueError) as error:  # a folder of somebody else; an answer that is no JSON
            raise FeedError(f"{self._folder}: the agent's answer cannot be read ({error})") from error


class FileFeed:
    """Views that were written before, one JSON object a line; the last one stays."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._next = 0

    def view(self, hours: float) -> View:
        """The next view. Raises FeedError."""
        try:
            lines = [line for line in self._file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise FeedError(f"{self._file}: cannot be read ({error})") from error
        if not lines:
            raise FeedError(f"{self._file}: holds no view; write one with samd-edge top --json")
        line = lines[min(self._next, len(lines) - 1)]
        self._next += 1
        try:
            return _decoded(msgspec.json.decode(line), str(self._file))
        except msgspec.DecodeError as error:
            raise FeedError(f"{self._file}: holds no view ({error})") from error

    def enter(self, body: dict[str, Any]) -> None:
        """A file takes nothing."""
        raise FeedError(f"{self._file}: is a recording of views: nothing can be entered")


Feed = AgentFeed | FileFeed


def is_stale(view: View, got_s: float, now: datetime, every_s: float) -> bool:
    """Whether a view is not of now: it came ``got_s`` seconds ago, or was drawn at another time than now.

    A view from the future is of another clock, and so is not of now either.
    """
    limit = FRESH_S + every_s
    return got_s > limit or abs((now - view.at).total_seconds()) > limit


def aged(view: View, seconds: float) -> View:
    """The same view ``seconds`` of wall time later: what it knows has grown older, and nothing is new.

    What the alert waits for is left out: whether that came to pass is not known.
    """
    if seconds <= 0:
        return view
    patient_s = seconds * view.speed
    replace = msgspec.structs.replace

    def older(value: float | None, by: float = patient_s) -> float | None:
        return None if value is None else value + by

    return replace(
        view,
        signs=[
            replace(
                sign,
                age_s=older(sign.age_s),
                trend=[(before + patient_s, value) for before, value in sign.trend],
            )
            for sign in view.signs
        ],
        score_trend=[(before + patient_s, *rest) for before, *rest in view.score_trend],
        next_due_s=older(view.next_due_s, -patient_s),
        alert=replace(view.alert, since_s=older(view.alert.since_s), waiting=None),
        sources=[replace(source, last_s=older(source.last_s, seconds)) for source in view.sources],
    )


def _decoded(found: object, where: str) -> View:
    try:
        return msgspec.convert(found, View)
    except msgspec.ValidationError as error:
        raise FeedError(
            f"{where}: its view is of another version ({error}); use the samd-edge of the agent"
        ) from error
