"""Runs: admission, the hand-over to the server, stopping, and the lease. One thread, and the database.

All that a run is stands in the database; this thread looks at it whenever something was committed or a
moment has come, decides by `admission.decide`, and acts. So a gateway that was killed goes on where it was.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import admission, runs_table, schema
from samd_gateway.errors import ConflictError, NotFoundError, UnavailableError
from samd_gateway.link import Link
from samd_gateway.schema import Database
from samd_protocol import topics
from samd_protocol.envelope import Sealer
from samd_protocol.messages import (
    Command,
    CommandBody,
    RunOrder,
    RunSpec,
    ServerState,
    TrainingStart,
    TrainingStop,
)

log = logging.getLogger(__name__)

ORDER_EXPIRES_S = 60.0
RESEND_ORDER_S = 10.0
"""An order that the server has not answered by a status is sent again; the run's id is what makes it one."""
STOP_WAIT_S = 10.0
"""How long the server may take to confirm a stop before the run is closed without its word."""
COMMAND_EXPIRES_S = 60.0


class Coordinator:
    """Starts, watches and ends runs; sends commands."""

    def __init__(
        self,
        database: Database,
        link: Link,
        sealer: Sealer,
        *,
        online: Callable[[], Mapping[str, str]],
        server: Callable[[], ServerState | None],
        changed: Callable[[str], None] = lambda run: None,
        grace_s: float = admission.GRACE_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`online` gives each known device's derived state; `server` the server's last word, if any."""
        self._database = database
        self._link = link
        self._sealer = sealer
        self._devices = online
        self._server = server
        self._changed = changed
        self._grace_s = grace_s
        self._now = now
        self._wake = threading.Event()
        self._telling = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="runs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(5.0)

    def poke(self) -> None:
        """Something was committed that a run may wait for."""
        self._wake.set()

    # what people ask for

    def begin(self, spec: RunSpec, devices: list[str] | None) -> str:
        """Start the admission of a run; returns its id.

        Raises ConflictError when another run is going on, no server is online, it serves another task or
        cannot do the method, or fewer devices are online than the quorum needs; UnavailableError without
        broker.
        """
        server = self._server()
        if server is None or server.status != "online":
            raise ConflictError("no server is online, and a run needs one; start it: samd-server run")
        if server.model_version is None or server.graph_sha256 is None:
            raise ConflictError("the server has no model to start from; give it one: samd-server export")
        served = server.served(spec.task)
        if served is None:
            offered = [each for each in (server.task, *(one.task for one in server.others)) if each]
            raise ConflictError(
                f"the server trains {' and '.join(map(repr, offered))}, not {spec.task!r}; "
                f"choose --task {offered[0] if offered else 'severity'}"
            )
        if spec.method != "none" and spec.method not in served.methods:
            able = ", ".join(served.methods) or "none"
            raise ConflictError(
                f"method: the server's model cannot be trained by {spec.method!r}; choose one of: {able}"
            )
        states = self._devices()
        if devices is None:
            asked = sorted(name for name, state in states.items() if state == "online")
        else:
            asked = sorted(set(devices))
            unknown = [name for name in asked if name not in states]
            if unknown:
                raise NotFoundError(f"no device {unknown[0]!r} is known here; GET /api/devices lists them")
        if len(asked) < spec.quorum:
            which = "are online" if devices is None else "were named"
            raise ConflictError(
                f"{len(asked)} devices {which} and the quorum is {spec.quorum}; start more or lower it"
            )
        self._tell_ended()
        now = self._now()
        run = f"run-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        start = TrainingStart(
            run=run, task=spec.task, model_version=served.model_version, graph_sha256=served.graph_sha256
        )
        expires = datetime.fromtimestamp(now + spec.admission_deadline_s, UTC)
        sealed = {
            device: self._sealer.seal(Command(expires_at=expires, body=start), expires_at=expires)
            for device in asked
        }
        if not self._link.connected:
            raise UnavailableError(
                f"the broker cannot be reached ({self._link.problem}); start it: samd-gateway broker"
            )
        # On record first: an answer can only be matched to a command that is there.
        with self._database.write() as connection:
            runs_table.create(
                connection,
                run,
                spec,
                commands={device: envelope.id for device, envelope in sealed.items()},
                start_version=served.model_version,
                graph_sha256=served.graph_sha256,
                now=now,
            )
            connection.execute(
                schema.commands.insert(),
                [
                    _command_row(device, envelope.id, start, now, expires.timestamp())
                    for device, envelope in sealed.items()
                ],
            )
        for device, envelope in sealed.items():
            self._link.publish(topics.down(device, "command"), envelope)
        self._changed(run)
        self.poke()
        return run

    def command(self, device: str, body: CommandBody, ttl_s: float) -> str:
        """Send one command; returns its id. The device's answer appears in its results."""
        now = self._now()
        expires = datetime.fromtimestamp(now, UTC) + timedelta(seconds=ttl_s)
        envelope = self._sealer.seal(Command(expires_at=expires, body=body), expires_at=expires)
        if not self._link.connected:
            raise UnavailableError(
                f"the broker cannot be reached ({self._link.problem}); start it: samd-gateway broker"
            )
        with self._database.write() as connection:
            connection.execute(
                schema.commands.insert(), [_command_row(device, envelope.id, body, now, expires.timestamp())]
            )
        self._link.publish(topics.down(device, "command"), envelope)
        return envelope.id

    def end(self, run: str) -> None:
        """Stop a run. Raises NotFoundError, and ConflictError when it has ended already."""
        now = self._now()
        with self._database.write() as connection:
            row = runs_table.row(connection, run)
            if row is None:
                raise NotFoundError(f"no run {run!r} here; GET /api/runs lists them")
            if row["state"] in runs_table.TERMINAL:
                raise ConflictError(f"run {run} has ended already ({row['state']})", run=run)
            if row["stop_requested_at"] is None:
                runs_table.change(connection, run, now, stop_requested_at=now)
        self.poke()

    # the thread

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if self._stopping:  # said between the look at it and the clearing
                return
            try:
                wait_s = self.step()
            except UnavailableError:
                wait_s = 0.5
            except SQLAlchemyError as error:
                log.error("runs: the database cannot be used (%s); trying again", type(error).__name__)
                wait_s = 1.0
            self._wake.wait(wait_s)

    def step(self) -> float:
        """Look at the run that holds the lease, act, and return the seconds until the next look is due."""
        self._tell_ended()
        with self._database.read() as connection:
            run = runs_table.current(connection)
            row = None if run is None else runs_table.row(connection, run)
            answers = [] if run is None else runs_table.answers(connection, run)
        if row is None:
            return 5.0
        if row["stop_requested_at"] is not None:
            return self._stop(row)
        if row["state"] == "admitting":
            return self._admit(row, answers)
        if row["state"] == "handed-over":
            return self._order(row, answers)
        return 1.0

    def _tell_ended(self) -> None:
        """Send the devices of an ended run away, before the next run asks them: one that still believes in
        the old run would refuse the new one."""
        with self._telling:
            with self._database.read() as connection:
                untold = runs_table.untold(connection)
            if not untold:
                return
            now = self._now()
            expires = datetime.fromtimestamp(now + COMMAND_EXPIRES_S, UTC)
            stops = [(device, TrainingStop(run=ended)) for ended, device in untold]
            sealed = [
                self._sealer.seal(Command(expires_at=expires, body=stop), expires_at=expires)
                for _, stop in stops
            ]
            with self._database.write() as connection:
                connection.execute(
                    schema.commands.insert(),
                    [
                        _command_row(device, envelope.id, stop, now, expires.timestamp())
                        for (device, stop), envelope in zip(stops, sealed, strict=True)
                    ],
                )
            for (device, _), envelope in zip(stops, sealed, strict=True):
                self._link.publish(topics.down(device, "command"), envelope)
            with self._database.write() as connection:
                for ended, device in untold:
                    runs_table.tell(connection, ended, device)

    def _admit(self, row: Mapping[str, Any], found: list[dict[str, Any]]) -> float:
        spec = msgspec.json.decode(row["spec"], type=RunSpec)
        now = self._now()
        decision = admission.decide(
            answers_of(found),
            quorum=spec.quorum,
            started_at=row["created_at"],
            deadline_s=spec.admission_deadline_s,
            now=now,
            grace_s=self._grace_s,
        )
        if isinstance(decision, admission.Wait):
            return max(decision.until - now, 0.001)
        with self._database.write() as connection:
            fresh = runs_table.row(connection, row["id"])
            if fresh is None or fresh["state"] != "admitting" or fresh["stop_requested_at"] is not None:
                return 0.0
            if isinstance(decision, admission.Fail):
                runs_table.finish(connection, row["id"], "failed", now, reason=decision.reason)
            else:
                runs_table.admit(connection, row["id"], decision.devices)
                runs_table.change(connection, row["id"], now, state="handed-over", handed_over_at=now)
        self._changed(row["id"])
        return 0.0

    def _order(self, row: Mapping[str, Any], found: list[dict[str, Any]]) -> float:
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
        self._link.publish(topics.SERVER_ORDER, self._sealer.seal(order, expires_at=expires))
        with self._database.write() as connection:
            runs_table.change(connection, order.run, now, ordered_at=now)

    def _stop(self, row: Mapping[str, Any]) -> float:
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
        until = row["stop_requested_at"] + STOP_WAIT_S
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


def answers_of(found: list[dict[str, Any]]) -> list[admission.Answer]:
    """Rows of `runs_table.answers` as what `admission.decide` judges."""
    return [
        admission.Answer(
            device=each["device"],
            verdict=admission.verdict(each["status"]),
            reason=each["reason"],
            answered_at=each["answered_at"],
        )
        for each in found
    ]


def _command_row(
    device: str, command: str, body: CommandBody, now: float, expires_at: float
) -> dict[str, Any]:
    return {
        "id": command,
        "device": device,
        "type": str(body.__struct_config__.tag),
        "body": msgspec.json.encode(body).decode(),
        "issued_at": now,
        "expires_at": expires_at,
    }
