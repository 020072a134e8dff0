"""Runs: admission, the hand-over to the server, stopping, and the lease. One thread, and the database.

All that a run is stands in the database; this thread looks at it whenever something was committed or a
moment has come, decides by `admission.decide`, and acts. So a gateway that was killed goes on where it was,
and of several on one database the leader goes on with what another began.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import admission, eligibility, runs_table
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.dispatch import Dispatch
from samd_gateway.errors import ConflictError, NotFoundError, UnavailableError
from samd_gateway.handover import HandOver
from samd_gateway.link import SENT_WITHIN_S, Link
from samd_gateway.schema import Database
from samd_protocol import topics
from samd_protocol.envelope import Sealer
from samd_protocol.messages import (
    Command,
    CommandBody,
    RunSpec,
    ServerState,
    TrainingStart,
    TrainingStop,
)

log = logging.getLogger(__name__)

COMMAND_EXPIRES_S = 60.0
ASK_AGAIN_S = 1.0
"""Devices answer within a second. Those that are silent by then are asked again, once, by a gateway that has
taken a run over: the one that began it may have been killed before its question was out."""
IDLE_S = 5.0


class Coordinator:
    """Starts, watches and ends runs; sends commands."""

    def __init__(
        self,
        database: Database,
        link: Link,
        sealer: Sealer,
        dispatch: Dispatch,
        *,
        online: Callable[[], Mapping[str, str]],
        server: Callable[[], ServerState | None],
        leading: Callable[[], bool] = lambda: True,
        changed: Callable[[str], None] = lambda run: None,
        grace_s: float = admission.GRACE_S,
        look_s: float = IDLE_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`online` gives each known device's derived state; `server` the server's last word, if any;
        `leading` says whether this gateway is the one that moves runs on; `look_s` is how often it looks for
        what others wrote into the database."""
        self._database = database
        self._link = link
        self._sealer = sealer
        self._dispatch = dispatch
        self._devices = online
        self._server = server
        self._leading = leading
        self._changed = changed
        self._grace_s = grace_s
        self._look_s = look_s
        self._now = now
        self._wake = threading.Event()
        self._telling = threading.Lock()
        self._handover = HandOver(database, link, sealer, server=server, changed=changed, now=now)
        self._asked: set[str] = set()
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

    def begin(
        self,
        spec: RunSpec,
        devices: Sequence[str] | None,
        actor: Actor,
        *,
        also: Callable[[Connection, str], None] | None = None,
    ) -> str:
        """Start the admission of a run; returns its id. `also` writes beside it, given that id.

        Raises ConflictError when another run is going on, no server is online, it serves another task or
        cannot do the method, or fewer devices are online than the quorum needs; UnavailableError without
        broker; ForbiddenError.
        """
        actor.need("runs")
        served = eligibility.served(self._server(), spec)
        asked = eligibility.asked(devices, self._devices(), spec.quorum)
        self._tell_ended()
        now = self._now()
        run = f"run-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        start = TrainingStart(
            run=run, task=spec.task, model_version=served.model_version, graph_sha256=served.graph_sha256
        )

        def create(connection: Connection, commands: Mapping[str, str]) -> None:
            runs_table.create(
                connection,
                run,
                spec,
                commands=dict(commands),
                start_version=served.model_version,
                graph_sha256=served.graph_sha256,
                now=now,
            )
            after = {"spec": msgspec.to_builtins(spec), "devices": asked}
            audit.record(connection, actor, "run.start", f"run/{run}", now=now, after=after)
            if also is not None:
                also(connection, run)

        self._dispatch.send(dict.fromkeys(asked, start), spec.admission_deadline_s, also=create)
        self._asked = {run}
        self._changed(run)
        self.poke()
        return run

    def command(self, device: str, body: CommandBody, ttl_s: float, actor: Actor) -> str:
        """Send one command; returns its id. The device's answer appears in its results."""
        now = self._now()

        def note(connection: Connection, ids: Mapping[str, str]) -> None:
            after = msgspec.to_builtins(body) | {"command": ids[device]}
            audit.record(connection, actor, "device.command", f"device/{device}", now=now, after=after)

        return self._dispatch.send({device: body}, ttl_s, also=note)[device]

    def end(self, run: str, actor: Actor) -> None:
        """Stop a run. Raises NotFoundError, and ConflictError when it has ended already."""
        actor.need("runs")
        now = self._now()
        with self._database.write() as connection:
            row = runs_table.row(connection, run)
            if row is None:
                raise NotFoundError(f"no run {run[:64]!r} here; GET /api/runs lists them")
            if row["state"] in runs_table.TERMINAL:
                raise ConflictError(f"run {run} has ended already ({row['state']})", run=run)
            if row["stop_requested_at"] is None:
                runs_table.change(connection, run, now, stop_requested_at=now)
                before = {"state": row["state"]}
                audit.record(connection, actor, "run.stop", f"run/{run}", now=now, before=before)
        self.poke()

    # the thread

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if self._stopping:  # said between the look at it and the clearing
                return
            try:
                wait_s = self.step() if self._leading() else IDLE_S
            except UnavailableError:
                wait_s = 0.5
            except SQLAlchemyError as error:
                log.error("runs: the database cannot be used (%s); trying again", type(error).__name__)
                wait_s = 1.0
            self._wake.wait(min(wait_s, self._look_s))

    def step(self) -> float:
        """Look at the run that holds the lease, act, and return the seconds until the next look is due."""
        self._tell_ended()
        with self._database.read() as connection:
            run = runs_table.current(connection)
            row = None if run is None else runs_table.row(connection, run)
            answers = [] if run is None else runs_table.answers(connection, run)
        if row is None:
            return IDLE_S
        if row["stop_requested_at"] is not None:
            return self._handover.stop(row)
        if row["state"] == "admitting":
            return self._admit(row, answers)
        if row["state"] == "handed-over":
            return self._handover.order(row, answers)
        return 1.0

    def _tell_ended(self) -> None:
        """Send the devices of an ended run away, before the next run asks them: one that still believes in
        the old run would refuse the new one. They count as told once the broker has it."""
        with self._telling:
            with self._database.read() as connection:
                untold = runs_table.untold(connection)
            for run in dict.fromkeys(ended for ended, _ in untold):
                devices = [device for ended, device in untold if ended == run]
                stop = TrainingStop(run=run)
                self._dispatch.send(
                    dict.fromkeys(devices, stop), COMMAND_EXPIRES_S, sent_within_s=SENT_WITHIN_S
                )
                with self._database.write() as connection:
                    for device in devices:
                        runs_table.tell(connection, run, device)

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
            return min(max(decision.until - now, 0.001), self._ask_again(row, spec, found, now))
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

    def _ask_again(
        self, row: Mapping[str, Any], spec: RunSpec, found: list[dict[str, Any]], now: float
    ) -> float:
        """The same question to those that have not answered a run that another process began; returns the
        seconds until that is due."""
        if row["id"] in self._asked:
            return IDLE_S
        due = row["created_at"] + ASK_AGAIN_S
        if now < due:
            return float(due - now)
        expires = datetime.fromtimestamp(row["created_at"] + spec.admission_deadline_s, UTC)
        start = TrainingStart(
            run=row["id"],
            task=spec.task,
            model_version=row["start_version"],
            graph_sha256=row["graph_sha256"],
        )
        for each in found:
            if each["status"] is None:
                sealed = self._sealer.seal(Command(expires_at=expires, body=start), expires_at=expires)
                # under the id that it has on record: a device that knows it does nothing twice
                again = msgspec.structs.replace(sealed, id=each["command"])
                self._link.publish(topics.down(each["device"], "command"), again)
        self._asked = {row["id"]}
        return IDLE_S


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
