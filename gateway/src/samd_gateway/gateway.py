"""One gateway: its parts, put together, started and stopped in order."""

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import admission, queries, runs_query, signs
from samd_gateway.access.desk import Access
from samd_gateway.alerts.answers import AlertRow
from samd_gateway.alerts.desk import AlertDesk
from samd_gateway.alerts.service import Alerting
from samd_gateway.backlog import Received
from samd_gateway.cluster import Cluster, check_share
from samd_gateway.coordinator import IDLE_S, Coordinator
from samd_gateway.dispatch import Dispatch
from samd_gateway.errors import UsageError
from samd_gateway.events import Event, Events
from samd_gateway.fleet.configuration import Configurator
from samd_gateway.fleet.service import Fleet
from samd_gateway.flood import Allowance
from samd_gateway.folder import folder_id, prepare_folder
from samd_gateway.heirs import Heir, Heirs
from samd_gateway.homeassistant import HomeAssistant
from samd_gateway.ingest import Ingest
from samd_gateway.intake import Item
from samd_gateway.link import MAX_PACKET_BYTES, Link
from samd_gateway.metrics import Metrics
from samd_gateway.modelfiles import ModelFiles
from samd_gateway.models_control import ModelsControl
from samd_gateway.others import LOOK_S, Others
from samd_gateway.recorder import Recorded
from samd_gateway.retention import Keeper
from samd_gateway.roster import Roster
from samd_gateway.schedules.firing import Firing
from samd_gateway.schedules.service import Schedules
from samd_gateway.schema import Database, open_database
from samd_gateway.signs_rows import listened_until
from samd_gateway.states import DeviceState, Policy
from samd_gateway.ward.labels import LabelsOf
from samd_gateway.ward.service import Ward
from samd_gateway.watcher import Watcher
from samd_protocol.broker import Broker
from samd_protocol.envelope import Sealer
from samd_protocol.messages import ServerState
from samd_protocol.topics import valid_name

log = logging.getLogger(__name__)


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
    allowance: Allowance = Allowance()
    address: str | None = None
    share: str | None = None
    home_assistant: bool = False


def client_id_of(name: str, database: Database) -> str:
    """The client id of a gateway of that name on a database."""
    return f"samd-gateway-{name}-{database.meta('instance')}"


class Gateway:
    """All parts of a gateway. `start` and `stop` are called once each."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        check_share(settings.share, settings.database_url)
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
        client_id = client_id_of(settings.name, self.database)
        sessions = itertools.count(1)
        self.link = Link(
            settings.broker,
            settings.name,
            client_id,
            sealer,
            version=settings.version,
            offer=lambda received: self.ingest.offer(received),  # noqa: PLW0108 - it comes into being below
            changed=self._link_changed,
            listened_until=listened_until(self.database),
            share=settings.share,
            sessions=sessions,
            now=now,
        )
        self.roster = Roster(self.database, settings.policy, now=now, deaf=lambda: self.link.deaf)
        self.ingest = Ingest(
            self.database,
            self.metrics,
            settings.policy,
            self.roster,
            acknowledge=self._acknowledge,
            committed=self._committed,
            listening=lambda: self.link.deaf.until is not None,
            allowance=settings.allowance,
            now=now,
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
            look_s=IDLE_S if self.cluster.alone else LOOK_S,
            now=now,
        )
        self.firing = Firing(
            self.database,
            self.runs.begin,
            online=lambda: {name: state.state for name, state in self.states().items()},
            leading=lambda: self.leading,
            now=now,
        )
        self.schedules = Schedules(self.database, now=now, changed=self.firing.poke)
        self.fleet = Fleet(
            self.database,
            self.dispatch,
            Configurator(self.database, self.link, sealer),
            states=self.states,
            now=now,
        )
        self.models_control = ModelsControl(self.database, self.models, self.link, sealer, now=now)
        self.ward = Ward(
            self.database,
            self.dispatch,
            states=self.states,
            labels=LabelsOf(self.models),
            changed=self._ward_changed,
            now=now,
        )
        self.alerting = Alerting(
            self.database,
            self.link,
            sealer,
            folder=settings.data,
            name=settings.name,
            devices=self.roster.some,
            leading=lambda: self.leading,
            changed=self._alerts_changed,
            tend=self.ward.tend,
            now=now,
        )
        self.alerts = AlertDesk(self.database, changed=self.alerting.changed, now=now)
        self.watcher = Watcher(
            self.database,
            self.roster,
            self.events,
            self.metrics,
            settings.policy,
            deaf=lambda: self.link.deaf,
            now=now,
        )

        self.restart: Callable[[], None] | None = None
        """End, and begin anew from the start of the program; where whoever runs this can do that."""
        self.retention = Keeper(self.database, leading=lambda: self.leading, now=now)

        self.home_assistant = HomeAssistant(
            self.database,
            self.roster,
            self.link.send,
            version=settings.version,
            leading=lambda: self.leading,
            now=now,
        )
        self.others = Others(self.database, self.roster, self._told, now=now)
        self.heirs = Heirs(
            self.database,
            lambda name, session: Heir(
                settings.broker,
                client_id_of(name, self.database),
                [topic for topic, _ in self.link.filters()],
                offer=self.ingest.offer,
                session=session,
                maximum_packet_bytes=MAX_PACKET_BYTES,
                now=now,
            ),
            name=settings.name,
            sessions=sessions,
            leading=lambda: self.leading,
            taken_over=lambda: self.link.taken_over,
            now=now,
        )

    @property
    def leading(self) -> bool:
        """Whether this gateway may do what one alone may do: see `cluster`."""
        return self.cluster.leading

    def start(self) -> None:
        self.roster.load()
        self.cluster.start()
        self.ingest.start()
        self.runs.start()
        self.firing.start()
        self.watcher.start()
        self.retention.start()
        self.alerting.start()
        self.link.start()
        if not self.cluster.alone:
            self.others.start()
        if self.settings.share is not None:
            self.heirs.start()
        if self.settings.home_assistant:
            self.home_assistant.start()

    def stop(self) -> None:
        self.events.close()
        self.firing.stop()
        self.alerting.stop()
        self.runs.stop()
        self.home_assistant.stop()
        self.heirs.stop()
        self.others.stop()
        self.link.stop()
        self.ingest.stop()
        self.watcher.stop()
        self.retention.stop()
        self.cluster.stop()
        self.database.close()
        self._lock.close()

    # what the parts and the API ask

    def states(self) -> Mapping[str, DeviceState]:
        """Each known device's state now."""
        return self.roster.states()

    def server_state(self) -> ServerState | None:
        """The server's last word."""
        with self.database.read() as connection:
            return queries.server_state(connection)

    def health(self) -> dict[str, str]:
        """What is wrong with the broker, the database and the ingest; `ok` for each that is well."""
        health = {
            "broker": self.link.problem or self.link.twin or self.cluster.problem or "ok",
            "database": "ok",
            "ingest": "ok",
        }
        try:
            with self.database.read() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            health["database"] = f"the database cannot be read ({type(error).__name__})"
        if self.ingest.error is not None:
            health["database"] = self.ingest.error
        if not self.ingest.alive:
            health["ingest"] = "the writer has ended; restart the gateway"
        elif self.ingest.filled > 0.9:
            health["ingest"] = f"{self.ingest.depth} messages wait to be written"
        return health

    # what the parts report

    def _link_changed(self, connected: bool) -> None:
        self.metrics.broker_connected.set(int(connected))
        self.watcher.look()

    def _acknowledge(self, batch: Sequence[Received]) -> None:
        self.link.acknowledge(batch)
        self.heirs.acknowledge(batch)

    def _leading_changed(self, leading: bool) -> None:
        self.metrics.leading.set(int(leading))
        self.link.lead(leading=leading)
        self.watcher.look()
        self.runs.poke()
        self.firing.poke()

    def _committed(self, recorded: Recorded) -> None:
        self.others.committed(recorded.new)
        if not self.cluster.alone:
            recorded = msgspec.structs.replace(recorded, newest=self._newest(recorded.newest))
        self._told(recorded)

    def _newest(self, items: Sequence[Item]) -> list[Item]:
        """Those that another gateway has not taken in a later one of, in the meantime."""
        with self.roster.held:
            known = {item.sender: self.roster.get(item.sender) for item in items}
            return [item for item in items if (one := known[item.sender]) is None or signs.newest(one, item)]

    def _told(self, recorded: Recorded) -> None:
        items = recorded.new
        self.watcher.committed(recorded)
        kinds = {item.kind for item in items}
        if kinds & {"result", "run.status", "server.state"}:
            self.runs.poke()
        self.ward.committed(items)
        self.alerting.committed(items)
        if not self.events.listening:
            return
        self.alerts.committed(items)
        status = [item.envelope.data for item in items if item.kind == "run.status"]
        for run in dict.fromkeys(getattr(data, "run", "") for data in status):
            self._run_changed(run)

    def _ward_changed(self, devices: Sequence[str]) -> None:
        for device in devices if self.events.listening else ():
            self.events.publish(Event("ward", {"device": device}))

    def _alerts_changed(self, rows: Sequence[AlertRow]) -> None:
        for row in rows if self.events.listening else ():
            self.events.publish(Event("alert", row.model_dump(mode="json")))

    def _run_changed(self, run: str) -> None:
        if not self.events.listening:
            return
        with suppress(SQLAlchemyError), self.database.read() as connection:
            answer = runs_query.run(
                connection, run, self.now(), self.states(), link_down_since=self.link.down_since
            )
            if answer is not None:
                self.events.publish(Event("run", answer.model_dump(mode="json")))
