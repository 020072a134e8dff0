"""What time does to alerts that nobody attends to: steps of the ladder, and pauses that end.

All of it stands in the rows, so a gateway that was killed goes on where it was. Steps that fell due while no
gateway ran are taken as one.
"""

from typing import Any

from sqlalchemy import Connection, select

from samd_gateway.alerts import store
from samd_gateway.alerts.follow import NOBODY_CAME
from samd_gateway.alerts.rules import Ladder
from samd_gateway.queries import rows

SYSTEM = "system"
AT_ONCE = 500
TABLE = store.TABLE


def step_due(ladder: Ladder, severity: int, step: int, waiting_since: float, now: float) -> int:
    """The highest step that is due; `step` itself when none is. Pure."""
    while (at := ladder.due_at(severity, step, waiting_since)) is not None and at <= now:
        step += 1
    return step


def waits(connection: Connection, ladder: Ladder, now: float) -> bool:
    """Whether a step or the end of a pause is due. Reads only."""
    over = select(TABLE.c.id).where(TABLE.c.state == "active", TABLE.c.paused_until <= now).limit(1)
    return connection.execute(over).first() is not None or bool(_due(connection, ladder, now))


def _due(connection: Connection, ladder: Ladder, now: float) -> list[dict[str, Any]]:
    longest = max(len(ladder.limits(severity)) for severity in (1, 2, 3))
    query = (
        select(TABLE.c.id, TABLE.c.device, TABLE.c.severity, TABLE.c.step, TABLE.c.waiting_since)
        .where(TABLE.c.state == "active", TABLE.c.waiting_since.is_not(None), TABLE.c.step < longest)
        .order_by(TABLE.c.waiting_since)
    )
    return [row for row in rows(connection, query) if _step(ladder, row, now) > row["step"]][:AT_ONCE]


def climb(connection: Connection, ladder: Ladder, now: float) -> list[dict[str, Any]]:
    """Take the steps that are due; the rows as they are now."""
    due = _due(connection, ladder, now)
    store.lock(connection, sorted({row["device"] for row in due}))
    climbed = []
    for seen in due:
        row = store.find(connection, seen["id"])  # as it is under the lock: somebody may have come
        if row is None or row["state"] != "active" or row["waiting_since"] is None:
            continue
        step = _step(ladder, row, now)
        if step > row["step"]:
            climbed.append(
                store.change(
                    connection,
                    row,
                    {"step": step, "step_at": now, "changed_at": now},
                    actor=SYSTEM,
                    change="step",
                    event=f"step-{step}@{row['waiting_since']:.3f}",
                    now=now,
                    detail={"waited_s": round(now - row["waiting_since"])},
                )
            )
    return climbed


def end_pauses(connection: Connection, now: float) -> list[dict[str, Any]]:
    """Bring back the alerts whose pause is over; the rows as they are now."""
    query = select(TABLE).where(TABLE.c.state == "active", TABLE.c.paused_until <= now).limit(AT_ONCE)
    over = rows(connection, query)
    store.lock(connection, sorted({row["device"] for row in over}))
    back = []
    for seen in over:
        row = store.find(connection, seen["id"])
        if (
            row is None
            or row["state"] != "active"
            or row["paused_until"] is None
            or row["paused_until"] > now
        ):
            continue
        values = {**NOBODY_CAME, "waiting_since": now, "step": 0, "step_at": None, "changed_at": now}
        back.append(
            store.change(
                connection,
                row,
                values,
                actor=SYSTEM,
                change="resumed",
                event=f"resumed@{row['paused_until']:.3f}",
                now=now,
            )
        )
    return back


def _step(ladder: Ladder, row: dict[str, Any], now: float) -> int:
    return step_due(ladder, row["severity"], row["step"], row["waiting_since"], now)
