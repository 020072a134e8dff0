"""One gateway: its parts, put together, started and stopped in order."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import admission, queries, runs_query, schema
from samd_gateway.access.desk import Access
from samd_gateway.alerts.answers import AlertRow
from samd_gateway.alerts.desk import AlertDesk
from samd_gateway.cluster import Cluster
from samd_gateway.coordinator import Coordinator
from samd_gateway.dispatch import Dispatch
from samd_gateway.errors import UsageError
from samd_gateway.events import Event, Events
from samd_gateway.fleet.configuration import Configurator
from samd_gateway.fleet.service import Fleet
from samd_gateway.folder import folder_id, prepare_folder
from samd_gateway.ingest import Ingest
from samd_gateway.intake import Item
from samd_gateway.link import Link
from samd_gateway.metrics import Metrics
from samd_gateway.modelfiles import ModelFiles
from samd_gateway.models_control import ModelsControl
from samd_gateway.schema import Database, open_database
from samd_gateway.states import DeviceState, Policy
from samd_gateway.ward.labels import LabelsOf
from samd_gateway.ward.service import Ward
from samd_protocol.broker import Broker
from samd_protocol.envelope import Sealer
from samd_protocol.messages import ServerState
from samd_protocol.topics import valid_name

log = logging.getLogger(__name__)

WATCH_S = 0.5
KEEP_S = 30 * 86_400.0
"""Messages are kept for 30 days, alerts for ever."""
PRUNE_EVERY_S = 3600.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway is started with."""

    broker: Broker = Broker()
    data: Path = Path(".samd/gateway")
    name: str = "main"
    version: str = "0.1.0"
    database_url: str | None = None
    database_password_file: str | None = None
    policy: Policy = Policy()
    grace_s: float = admission.GRACE_S
    address: str | None = None


class Gateway:
    """All parts of a gateway. `start` and `stop` are called once each."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        if not valid_name(settings.name):
            raise UsageError(f"--name {settings.name!r}: use letters, digits, dots, dashes and underscores")
        self.settings = settings
        self.now = now
        self._lock = prepare_folder(settings.data)
        self.metrics = Metrics()
        self.events = Events(self.metrics)
        self.database: Database = open_database(
            settings.database_url, settings.data, password_file=settings.database_password_file
        )
        self.access = Access(self.database, now=now)
        self.models = ModelFiles(settings.data / "models")
        self.cluster = Cluster(
            self.database,
            settings.name,
            folder_id(settings.data),
            version=settings.version,
            address=settings.address,
            alone=settings.database_url is None,
            changed=self._leading_changed,
            now=now,
        )
        self.cluster.join()
        boot = self.database.next_boot()
        sealer = Sealer(f"gateway.{settings.name}", boot)
        # The id belongs to the database: a session at the broker is worth something only to whoever holds
        # what was acknowledged in it, and a new database must get the retained messages anew.
        client_id = f"samd-gateway-{settings.name}-{self.database.meta('instance')}"
        self.link = Link(
            settings.broker,
            settings.name,
            client_id,
            sealer,
            version=settings.version,
            offer=lambda received: self.ingest.offer(received),  # noqa: PLW0108 - it comes into being below
            changed=self._link_changed,
            now=now,
        )
        self.ingest = Ingest(
            self.database,
            self.metrics,
            settings.policy,
            acknowledge=self.link.acknowledge,
            committed=self._committed,
        )
        self.dispatch = Dispatch(self.database, self.link, sealer, now=now)
        self.runs = Coordinator(
            self.database,
            self.link,
            sealer,
            self.dispatch,
            online=lambda: {name: state.state for name, state in self.states().items()},
            server=self.server_state,
            leading=lambda: self.leading,
            changed=self._run_changed,
            grace_s=settings.grace_s,
            now=now,
        )
        self.fleet = Fleet(
            self.database,
            self.dispatch,
            Configurator(self.database, self.link, sealer),
            states=self.states,
            now=now,
        )
        self.models_control = ModelsControl(self.database, self.models, self.link, sealer, now=now)
        self.alerts = AlertDesk(self.database, changed=self._alerts_changed, now=now)
        self.ward = Ward(
            self.database, self.dispatch, states=self.states, labels=LabelsOf(self.models), now=now
        )
        self._known: dict[str, tuple[str, str]] = {}
        self._stopping = threading.Event()
        self._look = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="states", daemon=True)

    @property
    def leading(self) -> bool:
        """Whether this gateway may do what one alone may do: see `cluster`."""
        return self.cluster.leading

    def start(self) -> None:
        self.cluster.start()
        self.ingest.start()
        self.runs.start()
        self._watcher.start()
        self.link.start()

    def stop(self) -> None:
        self._stopping.set()
        self._look.set()
        self.events.close()
        self.runs.stop()
        self.link.stop()
        self.ingest.stop()
        self._watcher.join(5.0)
        self.cluster.stop()
        self.database.close()
        self._lock.close()

    # what the parts and the API ask

    def states(self) -> dict[str, DeviceState]:
        """Each known device's state now."""
        with self.database.read() as connection:
            return queries.device_states(
                connection, self.now(), self.settings.policy, link_down_since=self.link.down_since
            )

    def server_state(self) -> ServerState | None:
        """The server's last word."""
        with self.database.read() as connection:
            return queries.server_state(connection)

    def health(self) -> dict[str, str]:
        """What is wrong with the broker, the database and the ingest; `ok` for each that is well."""
        health = {"broker": self.link.problem or "ok", "database": "ok", "ingest": "ok"}
        try:
            with self.database.read() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            health["database"] = f"the database cannot be read ({type(error).__name__})"
        if self.ingest.error is not None:
            health["database"] = self.ingest.error
        if not self.ingest.alive:
            health["ingest"] = "the writer has ended; restart the gateway"
        elif self.ingest.depth > self.ingest.size * 0.9:
            health["ingest"] = f"{self.ingest.depth} messages wait to be written"
        return health

    # what the parts report

    def _link_changed(self, connected: bool) -> None:
        self.metrics.broker_connected.set(int(connected))
        self._look.set()

    def _leading_changed(self, _leading: bool) -> None:
        self._look.set()
        self.runs.poke()

    def _committed(self, items: Sequence[Item]) -> None:
        kinds = {item.kind for item in items}
        if kinds & {"state", "heartbeat"}:
            self._look.set()
        if kinds & {"result", "run.status", "server.state"}:
            self.runs.poke()
        self.ward.committed(items)
        if not self.events.listening:
            return
        self.alerts.committed(items)
        for kind in ("assessment", "training"):
            latest = {item.sender: item for item in items if item.kind == kind}
            if latest:
                self._publish_latest(kind, list(latest))
        status = [item.envelope.data for item in items if item.kind == "run.status"]
        for run in dict.fromkeys(getattr(data, "run", "") for data in status):
            self._run_changed(run)

    def _alerts_changed(self, rows: Sequence[AlertRow]) -> None:
        for row in rows if self.events.listening else ():
            self.events.publish(Event("alert", row.model_dump(mode="json")))

    def _publish_latest(self, kind: str, names: list[str]) -> None:
        try:
            with self.database.read() as connection:
                found = queries.devices(connection, self.now(), self.settings.policy, names=names)
        except SQLAlchemyError:
            log.warning("an event could not be built: the database cannot be read")
            return
        for device in found:
            part = getattr(device, kind)
            if part is not None:
                self.events.publish(Event(kind, {"device": device.name} | part.model_dump(mode="json")))

    def _run_changed(self, run: str) -> None:
        if not self.events.listening:
            return
        with suppress(SQLAlchemyError), self.database.read() as connection:
            answer = runs_query.run(
                connection, run, self.now(), self.states(), link_down_since=self.link.down_since
            )
            if answer is not None:
                self.events.publish(Event("run", answer.model_dump(mode="json")))

    # the thread that sees silence

    def _watch(self) -> None:
        pruned = self.now()
        while not self._stopping.is_set():
            self._look.wait(WATCH_S)
            self._look.clear()
            try:
                self._publish_states()
                if self.now() - pruned > PRUNE_EVERY_S:
                    pruned = self.now()
                    self._prune(pruned)
            except SQLAlchemyError:
                continue  # /healthz says so
            self._stopping.wait(0.05)  # at most so many looks, however many heartbeats arrive

    def _publish_states(self) -> None:
        states = self.states()
        counts = dict.fromkeys(("online", "stale", "offline", "unknown"), 0)
        changed = []
        for name, state in states.items():
            counts[state.state] += 1
            if self._known.get(name) != (state.state, state.reason):
                self._known[name] = (state.state, state.reason)
                changed.append(name)
        for label, count in counts.items():
            self.metrics.devices.labels(label).set(count)
        if changed and self.events.listening:
            with self.database.read() as connection:
                found = queries.devices(
                    connection,
                    self.now(),
                    self.settings.policy,
                    link_down_since=self.link.down_since,
                    names=changed,
                )
            for device in found:
                self.events.publish(Event("device", device.model_dump(mode="json")))

    def _prune(self, now: float) -> None:
        kept, sent, asked = schema.messages, schema.commands, schema.participants
        with self.database.write() as connection:
            connection.execute(kept.delete().where(kept.c.kind != "alert", kept.c.received_at < now - KEEP_S))
            of_runs = select(asked.c.command)
            connection.execute(
                sent.delete().where(sent.c.issued_at < now - KEEP_S, sent.c.id.not_in(of_runs))
            )
