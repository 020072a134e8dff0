"""Whether a client does its work: asked over its control socket, by the release that it replaces.

The answer is read as plain JSON and leniently: a release must be able to judge one that was not written yet.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from samd_edge.control import ControlError, ask
from samd_edge.update.trial import Expected, Limits

POLL_S: Final = 0.5
PATIENCE_S: Final = 3.0


class Time(Protocol):
    """Seconds that go on, and a way to let them pass."""

    def now(self) -> float:
        """Seconds since the boot."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


def view(data_dir: Path) -> Mapping[str, Any]:
    """What the client shows. Raises ControlError while none answers."""
    shown = ask(data_dir, {"ask": "view", "hours": 0.01}, patience_s=PATIENCE_S).get("view")
    if not isinstance(shown, dict):
        raise ControlError("the client answers, but shows nothing")
    return shown


def abilities(shown: Mapping[str, Any]) -> Expected:
    """What a client can do now."""
    return Expected(
        link=shown.get("link_up") is True,
        admission=shown.get("admission") is not None,
        model=shown.get("model_version") is not None,
        score=shown.get("news2") is not None,
    )


def lacking(shown: Mapping[str, Any], name: str, expected: Expected) -> str | None:
    """What a client lacks of what it must be able to do; None when it does its work."""
    if shown.get("client_version") != name:
        return f"{shown.get('client_version')} answers instead"
    has = abilities(shown)
    if expected.admission and not has.admission:
        return "it has lost the admission"
    if expected.score and not has.score:
        return "it assesses nothing"
    if expected.model and not has.model:
        return "it cannot use the model"
    if expected.link and not has.link:
        return f"it has no broker ({shown.get('link')})"
    return None


def watch(
    name: str,
    expected: Expected,
    limits: Limits,
    *,
    left_s: float,
    look: Callable[[], Mapping[str, Any]],
    crashes: Callable[[], int],
    time: Time,
) -> str | None:
    """Watch until the client has been well for long enough: None, or why it is given up.

    Well is: the same release answers at each look, nothing is lacking, and it did not crash in between.
    """
    until = time.now() + left_s
    well_since: float | None = None
    crashed = 0
    reason: str | None = "it did not answer"
    while True:
        now_crashed = crashes()
        try:
            reason = lacking(look(), name, expected)
        except ControlError as error:
            reason = f"it does not answer ({error})"
        now = time.now()
        if now_crashed >= max(1, limits.crashes):
            return f"it crashed {now_crashed} times"
        if reason is not None or now_crashed != crashed:
            well_since = None
        elif well_since is None:
            well_since = now
        elif now - well_since >= limits.settle_s:
            return None
        crashed = now_crashed
        if now >= until:
            if reason is None:
                reason = f"it was not well for {limits.settle_s:g} s on end"
            return f"{reason}, {limits.deadline_s:g} s after the switch"
        time.sleep(min(POLL_S, max(0.05, limits.settle_s / 4)))
