"""What the gateway tells the server of a run: to begin it, and to stop it.

An order is on record once the broker has it, and is said again until the server answers: killed in between,
this or another gateway says it again, and the run's id makes it one.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from samd_gateway import runs_table
from samd_gateway.link import SENT_WITHIN_S, Link, await_sent
from samd_gateway.schema import Database
from samd_protocol import topics
from samd_protocol.envelope import Sealer
from samd_protocol.messages import RunOrder, RunSpec, ServerState

ORDER_EXPIRES_S = 60.0
RESEND_ORDER_S = 10.0
"""An order that the server has not answered by a status is sent again."""
STOP_WAIT_S = 10.0
"""How long the server may take to confirm a stop before the run is closed without its word."""


class HandOver:
    """Each method looks at a run's row, acts, and returns the seconds until the next look is due."""

    def __init__(
        self,
        database: Database,
        link: Link,
        sealer: Sealer,
        *,
        server: Callable[[], ServerState | None],
        changed: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self._database = database
        self._link = link
        self._sealer = sealer
        self._server = server
        self._changed = changed
        self._now = now
        self._ending: tuple[str, float] | None = None

    def order(self, row: Mapping[str, Any], found: list[dict[str, Any]]) -> float:
        """Give the run to the server; again after a while, if it has not said a word about it."""
        now = self._now()
        due = row["ordered_at"] is None or now >= row["ordered_at"] + RESEND_ORDER_S
        if not due:
            return float(max(row["ordered_at"] + RESEND_ORDER_S - now, 0.01))
        server = self._server()
        if row["ordered_at"] is not None and (server is None or server.status != "online"):
            return 1.0  # one order waits for it at the broker; the next one when it is back
        order = RunOrder(
            action="start",
            run=row["id"],
            spec=msgspec.json.decode(row["spec"], type=RunSpec),
            devices=sorted(each["device"] for each in found if each["admitted"]),
        )
        self._send_order(order, now)
        return RESEND_ORDER_S

    def _send_order(self, order: RunOrder, now: float) -> None:
        expires = datetime.fromtimestamp(now + ORDER_EXPIRES_S, UTC)
        sent = self._link.publish(topics.SERVER_ORDER, self._sealer.seal(order, expires_at=expires))
        await_sent([sent], SENT_WITHIN_S)
        with self._database.write() as connection:
            runs_table.change(connection, order.run, now, ordered_at=now)

    def stop(self, row: Mapping[str, Any]) -> float:
        now = self._now()
        if row["state"] == "admitting":
            return self._stopped(row, now, "stopped by an operator before it began")
        if row["ordered_at"] is None or row["ordered_at"] < row["stop_requested_at"]:
            self._send_order(RunOrder(action="stop", run=row["id"]), now)
        server = self._server()
        if server is None or server.status != "online":
            return self._stopped(
                row, now, "stopped by an operator; the server is offline and learns of it when it is back"
            )
        if self._ending is None or self._ending[0] != row["id"]:
            self._ending = (row["id"], now)  # a gateway that was away could not hear the server
        until = self._ending[1] + STOP_WAIT_S
        if now >= until:
            return self._stopped(row, now, "stopped by an operator; the server has not confirmed it")
        return float(until - now)

    def _stopped(self, row: Mapping[str, Any], now: float, reason: str) -> float:
        with self._database.write() as connection:
            fresh = runs_table.row(connection, row["id"])
            if fresh is not None and fresh["state"] not in runs_table.TERMINAL:
                runs_table.finish(connection, row["id"], "stopped", now, reason=reason)
        self._changed(row["id"])
        return 0.0
