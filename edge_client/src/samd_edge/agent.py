"""The agent: one device at one bed. `Agent.run` reads like the steps of the design.

Everything happens in one loop; the sender of the outbox, paho and the model fetcher have a thread each, and
the trainer is a process. Nothing in the loop waits on the network or on the trainer.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_data.tasks import DETERIORATION, SEVERITY, TASKS
from samd_edge import orders
from samd_edge.admission import Admission, Record, folder_of
from samd_edge.assessment import Model, ModelRefused, load_model
from samd_edge.clock import clock_synced, wall_now
from samd_edge.commands import Commands
from samd_edge.config import Settings
from samd_edge.control import Control
from samd_edge.device_db import DeviceDb
from samd_edge.intake import Intake
from samd_edge.link import Connected, Disconnected, Event, Link, Received
from samd_edge.model_fetch import Fetcher
from samd_edge.models import Held, ModelError, Shelf
from samd_edge.outbox import Outbox, Sender
from samd_edge.participation import Participation
from samd_edge.personal import for_patient
from samd_edge.presence import Inside, Presence
from samd_edge.runtime import RuntimeUnavailable
from samd_edge.showing import view_of
from samd_edge.sources import SourceURL
from samd_edge.sources.several import open_sources
from samd_edge.sources.surroundings import PatientGuard, Surroundings
from samd_protocol import envelope, topics
from samd_protocol.envelope import Sealer
from samd_protocol.errors import BundleError, MessageError
from samd_protocol.messages import GatewayState, ModelRelease

log = logging.getLogger(__name__)

AGEING_PATIENT_S: Final = 60.0
"""Without a new reading the patient is judged again each minute of patient time, at most once a second."""
HOUSEKEEPING_S: Final = 60.0
_BEGIN_ANEW: Final = ("replay", "sim")
"""Sources that begin anew at each start, and so need an admission of their own each time."""
DRAIN_S: Final = 10.0
"""With --exit-at-end: how long the outbox may take to empty once the source has ended."""


class Agent:
    """One device. Create it within a running loop, with the data directory locked; call `run` once."""

    def __init__(
        self,
        settings: Settings,
        *,
        wall: Callable[[], datetime] = wall_now,
        announce: Callable[[str], None] = lambda _line: None,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.settings = settings
        self.device = settings.device
        self.folder = settings.folder
        self.wall = wall
        self._announce = announce
        self._stop = asyncio.Event() if stop is None else stop
        self._ask_again = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.patient = PatientGuard()
        self.patient.discharge()
        self.source = open_sources(
            settings.sources,
            Surroundings(
                wall=wall,
                device=settings.device,
                folder=settings.folder,
                broker=settings.broker,
                patient=self.patient,
            ),
        )
        self.db = DeviceDb(self.folder)
        self.sealer = Sealer(self.device, self.db.next_boot(), now=wall, clock=clock_synced)
        self.outbox = Outbox(self.db, max_rows=settings.max_outbox)
        self.model: Model | None = None
        self.forecast_model: Model | None = None
        self.admission: Admission | None = None
        self.presence = Presence(
            settings, self.db, self.outbox, self.sealer, link=lambda: self.link, inside=_inside(self)
        )
        self.link = Link(
            settings.broker,
            self.device,
            will=lambda connection: self.presence.state("offline", connection),
            on_event=self._on_event,
            on_ack=self._acknowledged,
        )
        self.sender = Sender(self.outbox, self.link, now=wall)
        self.participation = Participation(
            self.device,
            trainer=settings.trainer,
            prefork=settings.prefork,
            link=lambda: self.link,
            tell=lambda message: self.presence.publish("training", message, expiry_s=3600),
            spawn=self.spawn,
            adopted=self.use_personal,
        )
        self.shelf = Shelf(self.db, self.folder)
        self.fetcher = Fetcher(self.shelf, done=self._on_fetched, failed=_not_fetched, now=wall)
        self.commands = Commands(
            self.db, self.outbox, self.sealer, execute=lambda body: orders.execute(self, body), wall=wall
        )
        self.intake = Intake(self.source, lambda: self.admission)
        self.control = Control(
            self.folder,
            view=lambda hours: view_of(self, hours),
            execute=lambda body: orders.execute(self, body),
            updating=self.presence.set_updating,
        )
        self.malformed: Counter[str] = Counter()
        self.failed: BaseException | None = None
        self._background: set[asyncio.Task[None]] = set()

    # -- the life of the agent ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until `stop` is called (or the source has ended, with --exit-at-end)."""
        tasks: list[asyncio.Task[None]] = []
        try:
            self._take_model()
            self._take_admission()
            self._take_history()
            self.sender.start()
            self.fetcher.start()
            self.link.start()
            self.participation.start()
            await self.control.start()
            self._announce(f"ready {self.device}")
            tasks += self._begin()
            await self._stop.wait()
        finally:
            for task in (*tasks, *self._background):
                task.cancel()
            await asyncio.gather(*tasks, *self._background, return_exceptions=True)
            await self._end()

    def _begin(self) -> list[asyncio.Task[None]]:
        """Read, and do what is done again and again."""
        reader = asyncio.create_task(self.intake.run(), name="source")
        reader.add_done_callback(self._source_ended)
        chores = [
            asyncio.create_task(self._every(self._ageing_s(), self._age), name="ageing"),
            asyncio.create_task(self._look_ahead(), name="forecast"),
            asyncio.create_task(self.presence.beat_forever(), name="heartbeat"),
            asyncio.create_task(self._every(HOUSEKEEPING_S, self._keep_house), name="housekeeping"),
        ]
        for chore in chores:
            chore.add_done_callback(self._chore_ended)
        return [reader, *chores]

    def stop(self) -> None:
        """End the agent cleanly."""
        self._stop.set()

    async def _end(self) -> None:
        await self.control.close()
        await self.source.aclose()
        await self.participation.close()
        self.fetcher.stop()
        await self.link.close(self.presence.farewell())
        self.sender.stop()
        if self.admission is not None:
            self.admission.close()
        self.db.close()
        log.info("ended; %d messages wait in the outbox", self.outbox.depth)

    def _take_model(self) -> None:
        """Load the active model of each task; one that came by --model is kept first."""
        if self.settings.model is not None:
            kept = self.shelf.keep(Path(self.settings.model), now=self.wall())
            active = self.shelf.active(kept.task)
            if active is not None and active.version > kept.version:
                log.warning(
                    "model %d stays active, it is newer than %d; to go back: samd-edge models --activate %d",
                    active.version,
                    kept.version,
                    kept.version,
                )
            elif kept.trained:
                self.shelf.check(kept)
                self.shelf.activate(kept)
        self.model = self._load(SEVERITY)
        self.forecast_model = self._load(DETERIORATION)
        if self.model is None:
            log.info("no trained model yet: the rule alone assesses")

    def _load(self, task: str) -> Model | None:
        """The model of a task: the active one, else the one before it."""
        active = self.shelf.active(task)
        for held in filter(None, (active, self.shelf.previous(task))):
            try:
                model = load_model(self.shelf.check(held), task=task)
            except (ModelError, ModelRefused, RuntimeUnavailable) as error:
                log.error("model %d cannot be used (%s)", held.version, error)
                continue
            if held != active:
                self.shelf.activate(held)
            return model
        return None

    def _take_admission(self) -> None:
        """Open the admission, or begin one for the source."""
        known = self.db.get("admission")
        record = None if known is None else msgspec.convert(known, Record)
        own = " + ".join(sorted(_source_key(source) for source in self.settings.sources))
        kinds = {source.kind for source in self.settings.sources}
        anew = bool(kinds & set(_BEGIN_ANEW))
        if record is not None and record.own is not None:
            # A replay is shifted to now at each start: it never goes on where the last one was.
            if record.own != own or anew:
                log.info("admission %s is sealed: its source begins anew, or is another one", record.id)
                self.open_admission(record)
                self.close_admission(keep=True)
                record = None
            elif self.settings.consent is not None:
                record = msgspec.structs.replace(record, consent=self.settings.consent)
        if record is None:
            consent = self.settings.consent
            record = Record(
                id=self._free_name("recording" if anew else "local"),
                spo2_scale=self.settings.spo2_scale,
                monitoring_interval_s=self.settings.monitoring_interval_s,
                # a published recording carries its consent; an invented patient must not train a real model
                consent=kinds == {"replay"} if consent is None else consent,
                own=own,
            )
        self.open_admission(record)

    def open_admission(self, record: Record) -> None:
        """Begin or go on with an admission. Raises StoreError."""
        self.admission = Admission(
            record,
            self.folder,
            outbox=self.outbox,
            handed=self.db.get("handed"),
            sealer=self.sealer,
            clock=self.source.clock,
            wall=self.wall,
            share_signs=self.presence.shares_signs,
            direct=self.link.publish,
            model=self._model_for(folder_of(self.folder, record.id)),
            forecast_model=self.forecast_model,
            policy=self.settings.alerts,
            artefacts=self.settings.artefacts,
            later=self._loop.call_later,
        )
        store = self.admission.store
        self.patient.admit(
            key=self.admission.patient_key,
            bound=store.setting("patient"),
            remember=lambda found: store.set(patient=found),
        )
        self.db.set(admission=msgspec.to_builtins(record))

    def close_admission(self, *, keep: bool) -> None:
        """Seal the admission's store, or erase it; the trainer forgets what it has read of it."""
        admission = self.admission
        if admission is None:
            return
        admission.end_alert()
        # first forgotten, then sealed: killed in between, the device does not begin with a sealed store
        self.db.set(admission=None, handed=None)
        self.admission = None
        self.patient.discharge()
        admission.finish(keep=keep)
        self.participation.forget()

    def _free_name(self, name: str) -> str:
        number, found = 1, name
        while folder_of(self.folder, found).exists():
            number += 1
            found = f"{name}-{number}"
        return found

    def _take_history(self) -> None:
        """Put the recording's past into the store; only of an admission that was begun for this source."""
        if self.admission is not None and self.admission.record.own is not None:
            begin = time.perf_counter()
            added = self.admission.add_history(self.source.history())
            log.info("%d readings of history taken over in %.2f s", added, time.perf_counter() - begin)

    # -- readings ------------------------------------------------------------------------------------------

    def _source_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("the source failed (%s: %s); no more readings come", type(error).__name__, error)
        else:
            log.warning("no more readings come; the device stays for commands")
        if self.settings.exit_at_end:
            self.spawn(self._drain())

    async def _drain(self) -> None:
        if self.link.up:
            await asyncio.to_thread(self.outbox.wait_empty, DRAIN_S)
        self.stop()

    def _ageing_s(self) -> float:
        return max(1.0, AGEING_PATIENT_S / self.source.clock.speed)

    def _age(self) -> None:
        if self.admission is not None:
            self.admission.age()

    async def _look_ahead(self) -> None:
        """Ask at each full hour whether the patient deteriorates. In slices: readings go first."""
        while True:
            self._ask_again.clear()
            if self.admission is not None and self.admission.look_ahead():
                await asyncio.sleep(0)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ask_again.wait(), self._ageing_s())

    def _keep_house(self) -> None:
        if self.admission is not None:
            self.admission.store.prune(self.settings.max_readings)
            self.admission.store.checkpoint()
        self.db.checkpoint()

    async def _every(self, seconds: float, do: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            do()

    def _chore_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("%s ended (%s: %s); the agent ends", task.get_name(), type(error).__name__, error)
            self.failed = error
            self.stop()

    # -- the wire ------------------------------------------------------------------------------------------

    def _acknowledged(self, connection: int, packet: int, refusal: str | None) -> None:
        """Under paho's lock: only enqueues."""
        self.sender.acknowledged(connection, packet, refusal)
        self.participation.confirmed(packet)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Connected):
            self.presence.tell_state()
            self.presence.tell_config()
            self.sender.connected(event.connection)
            self.participation.connected()
        elif isinstance(event, Disconnected):
            self.sender.disconnected()
        else:
            self._receive(event)

    def _receive(self, message: Received) -> None:
        try:
            if message.topic == topics.down(self.device, "command"):
                self.commands.receive(message.payload)
            elif message.topic == topics.down(self.device, "task"):
                self.participation.take_task(message.payload)
            elif message.topic == topics.down(self.device, "config"):
                self._on_config(message.payload)
            elif topics.is_model(message.topic):
                self._on_release(message.payload)
            else:
                self._on_gateway(message.payload)
        except MessageError as error:
            self.malformed[message.topic] += 1
            if self.malformed[message.topic] == 1:
                log.warning(
                    "a message on %s was dropped (%s); further ones are counted", message.topic, error.reason
                )

    def _on_gateway(self, payload: bytes) -> None:
        """A gateway's birth: it may have missed what the broker acknowledged while nobody listened."""
        state = envelope.decode(payload).data
        if not isinstance(state, GatewayState):
            raise MessageError("malformed", "no state of a gateway")
        if state.status == "online" and self.admission is not None:
            self.admission.tell_again()

    def _on_config(self, payload: bytes) -> None:
        desired = self.presence.take_config(payload)
        if desired is not None and desired.consent_to_training is not None:
            self.set_consent(desired.consent_to_training)
        self.presence.tell_config()

    def set_consent(self, consent: bool) -> None:
        """Consent of the patient who is admitted; withdrawn, it ends a training at once."""
        if self.admission is None:
            return
        self.admission.set_consent(consent)
        self.db.set(admission=msgspec.to_builtins(self.admission.record))
        if not consent:
            self.participation.leave("opted out")

    # -- models --------------------------------------------------------------------------------------------

    def _on_release(self, payload: bytes) -> None:
        release = envelope.decode(payload).data
        if not isinstance(release, ModelRelease):
            raise MessageError("malformed", "no release of a model")
        if release.task not in TASKS:
            log.info("a model for %r was released; this client knows %s", release.task, " and ".join(TASKS))
            return
        self.fetcher.want(release)

    def _on_fetched(self, release: ModelRelease, held: Held) -> None:
        """In the fetcher's thread."""
        self._loop.call_soon_threadsafe(self._use_release, release, held)

    def _use_release(self, release: ModelRelease, held: Held) -> None:
        if not held.trained:
            log.info(
                "model %d was never trained: it is kept for training and does not assess", release.version
            )
            return
        if self.shelf.active(held.task) == held:
            return
        try:
            self.use(held)
        except ModelError as error:
            log.error("%s", error)

    def use(self, held: Held) -> None:
        """Make a model the active one of its task, and say so. Raises ModelError when it cannot be used."""
        try:
            model = load_model(self.shelf.check(held), task=held.task)
        except (ModelRefused, RuntimeUnavailable, BundleError) as error:
            raise ModelError(str(error)) from error
        self.shelf.activate(held)
        if held.task == DETERIORATION:
            self.forecast_model = model
            if self.admission is not None:
                self.admission.forecaster.use(model)
            self._ask_again.set()
        else:
            self.model = model
            self.use_personal()
        self.presence.tell_state()
        log.info("model %d for %s is active", held.version, held.task)

    def use_personal(self) -> None:
        """Assess by the personal model that the trainer has left, if it is for the model in use."""
        if self.admission is not None:
            self.admission.assessor.model = self._model_for(self.admission.folder)
            self.admission.age()

    def _model_for(self, folder: Path) -> Model | None:
        active = self.shelf.active()
        return for_patient(self.model, None if active is None else active.graph_sha256, folder)

    # -- small ---------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background until it is done or the agent ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._spawned_ended)

    def _spawned_ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work failed (%s: %s)", type(error).__name__, error)


def _source_key(source: SourceURL) -> str:
    """Which patient a source plays, whatever its speed: another one must never land in the same admission."""
    return f"{source.kind}:{source.path}?patient={source.options.get('patient', '')}"


def _not_fetched(_release: ModelRelease, text: str) -> None:
    """In the fetcher's thread."""
    log.error("%s", text)


def _inside(agent: Agent) -> Inside:
    return Inside(
        model_version=lambda: None if agent.model is None else agent.model.version,
        reading_age_s=lambda: None if agent.admission is None else agent.admission.reading_age_s(),
        consent=lambda: None if agent.admission is None else agent.admission.record.consent,
        counts=lambda: (
            (0, 0) if agent.admission is None else (agent.admission.disagreements, agent.admission.rejected)
        ),
    )
