"""What people do about alerts, each with a name, each audited in its own transaction.

An acknowledgement says that somebody knows. It ends when the alert becomes more severe: whoever gave it had
seen less. A pause ends by itself, and at once for the same reason; then the alert is back, unacknowledged.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.alerts import store
from samd_gateway.alerts.answers import AlertKind, AlertOutcome, AlertRow, AlertState
from samd_gateway.alerts.follow import NOBODY_CAME
from samd_gateway.alerts.words import words
from samd_gateway.errors import ConflictError, NotFoundError, UsageError
from samd_gateway.intake import Item
from samd_gateway.schema import Database

log = logging.getLogger(__name__)

AT_ONCE = 500
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 86_400.0
_PICTURE = ("state", "severity", "acknowledged_by", "paused_until", "step")


class AlertDesk:
    """Where alerts are asked for and attended to. `changed` is told of each row after its commit."""

    def __init__(
        self,
        database: Database,
        *,
        changed: Callable[[Sequence[AlertRow]], None] = lambda alerts: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._changed = changed
        self._now = now

    def page(
        self,
        connection: Connection,
        *,
        state: AlertState | None = "active",
        acknowledged: bool | None = None,
        device: str | None = None,
        kind: AlertKind | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[AlertRow]:
        """The alerts that match, see `store.page`."""
        return store.page(
            connection,
            state=state,
            acknowledged=acknowledged,
            device=device,
            kind=kind,
            limit=limit,
            before=before,
        )

    def committed(self, items: Sequence[Item]) -> None:
        """Messages that are on record now: tell of the alerts that they changed."""
        told = [item for item in items if item.kind == "alert"]
        if not told:
            return
        since = min(item.received_at for item in told)
        try:
            with self._database.read() as connection:
                found = store.changed_since(connection, {item.sender for item in told}, since)
        except SQLAlchemyError:
            log.warning("alerts have changed, and cannot be read to tell of it; they are on record")
            return
        self._changed(found)

    def acknowledge(
        self,
        ids: Sequence[str],
        actor: Actor,
        note: str | None = None,
        *,
        seen: Mapping[str, int] | None = None,
    ) -> list[AlertOutcome]:
        """Say that somebody knows of these. `seen`: the severity that was looked at, for each; an alert that
        has become worse since is not acknowledged."""
        actor.need("ward")
        wanted = list(dict.fromkeys(ids))
        if not wanted or len(wanted) > AT_ONCE:
            raise UsageError(f"ids: name 1 to {AT_ONCE} alerts at once")
        said = None if note is None or not note.strip() else words(note, "note")
        outcomes, done, now = [], [], self._now()
        with self._database.write() as connection:
            store.lock_rows(connection, wanted)
            for alert in wanted:
                row = store.find(connection, alert)
                outcome = _judge(alert, row, (seen or {}).get(alert))
                outcomes.append(outcome)
                if row is None or outcome.outcome != "acknowledged":
                    continue
                values = {
                    "acknowledged_at": now,
                    "acknowledged_by": actor.name,
                    "note": said,
                    "waiting_since": None,
                    "changed_at": now,
                }
                done.append(
                    _do(connection, row, values, actor, _Act("acknowledge", "acknowledged", now, said))
                )
        self._changed([store.answer(row) for row in done])
        return outcomes

    def pause(self, alert: str, actor: Actor, *, until: float, reason: str) -> AlertRow:
        """Let an alert rest until a time (seconds since 1970), for a reason."""
        actor.need("ward")
        now = self._now()
        if not SHORTEST_PAUSE_S <= until - now <= LONGEST_PAUSE_S:
            raise UsageError("until: a pause lasts a minute at least, and a day at most")
        said = words(reason, "reason")
        values = {
            "paused_until": until,
            "paused_by": actor.name,
            "pause_reason": said,
            "waiting_since": None,
            "changed_at": now,
        }
        return self._active(alert, actor, values, _Act("pause", "paused", now, said))

    def resume(self, alert: str, actor: Actor) -> AlertRow:
        """End a pause before its time. Raises ConflictError for an alert that is not paused."""
        actor.need("ward")
        now = self._now()
        values = {**NOBODY_CAME, "waiting_since": now, "step": 0, "step_at": None, "changed_at": now}
        return self._active(alert, actor, values, _Act("resume", "resumed", now, None))

    def escalate(self, alert: str, actor: Actor, reason: str) -> AlertRow:
        """Call for more help now: the next step of the ladder, whatever the time."""
        actor.need("ward")
        now = self._now()
        act = _Act("escalate", "step", now, words(reason, "reason"))
        return self._active(alert, actor, {"step_at": now, "changed_at": now}, act)

    def _active(self, alert: str, actor: Actor, values: dict[str, Any], act: "_Act") -> AlertRow:
        with self._database.write() as connection:
            store.lock_rows(connection, [alert])
            row = store.find(connection, alert)
            if row is None:
                raise NotFoundError(f"no alert {alert[:64]!r} here; GET /api/alerts lists them")
            if row["state"] != "active":
                raise ConflictError("the alert is cleared already; there is nothing left to do about it")
            if act.verb == "resume" and row["paused_until"] is None:
                raise ConflictError("the alert is not paused")
            if act.verb == "escalate":
                values = values | {"step": row["step"] + 1}
            new = _do(connection, row, values, actor, act)
        answer = store.answer(new)
        self._changed([answer])
        return answer


class _Act(msgspec.Struct, frozen=True):
    """What somebody does: the word of the audit, that of the history, when, and why in their own words."""

    verb: str
    change: str
    now: float
    said: str | None


def _do(
    connection: Connection, row: dict[str, Any], values: dict[str, Any], actor: Actor, act: _Act
) -> dict[str, Any]:
    detail: dict[str, Any] = {} if act.said is None else {"reason": act.said}
    if act.verb == "pause":
        detail["until"] = values["paused_until"]
    new = store.change(
        connection,
        row,
        values,
        actor=actor.name,
        change=act.change,
        event=f"{act.change}@{act.now:.3f}",
        now=act.now,
        detail=detail,
    )
    audit.record(
        connection,
        actor,
        f"alert.{act.verb}",
        f"alert/{row['id']}",
        now=act.now,
        before={name: row[name] for name in _PICTURE} | {"device": row["device"]},
        after={name: new[name] for name in _PICTURE} | detail,
    )
    return new


def _judge(alert: str, row: Mapping[str, Any] | None, seen: int | None) -> AlertOutcome:
    """What an acknowledgement comes to, before it is written."""
    if row is None:
        return AlertOutcome(id=alert, outcome="unknown", detail="there is no such alert")
    if row["acknowledged_at"] is not None:
        return AlertOutcome(id=alert, outcome="already", detail=f"by {row['acknowledged_by']}")
    if seen is not None and row["severity"] > seen and row["state"] == "active":
        return AlertOutcome(
            id=alert, outcome="changed", detail=f"its severity has risen to {row['severity']}; look again"
        )
    return AlertOutcome(id=alert, outcome="acknowledged")
