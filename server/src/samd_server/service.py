"""`samd-server run`: waits for orders, leads one run after another, goes on where a crash left it."""

import fcntl
import logging
import math
import os
import queue
import resource
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from samd_data.tasks import SEVERITY, task_of
from samd_protocol import bundle as bundles
from samd_protocol import topics
from samd_protocol.broker import Broker
from samd_protocol.bundle import Bundle
from samd_protocol.envelope import Sealer
from samd_protocol.errors import ProtocolError
from samd_protocol.messages import ModelOrder, RunOrder, RunStatus, Served, ServerState, State
from samd_protocol.methods import possible
from samd_protocol.tasks import Update
from samd_server import __version__, flower
from samd_server.checkpoint import RunFolder, begun, unfinished, write_atomically
from samd_server.errors import RunFailed, RunStopped, ServerError, StoreError
from samd_server.gate import decide
from samd_server.grid import MqttGrid
from samd_server.keras_file import with_weights
from samd_server.link import Link
from samd_server.loop import RoundLoop
from samd_server.metrics import scores
from samd_server.outcome import Outcome, described
from samd_server.registry import Registry
from samd_server.release import Releaser
from samd_server.tracking import Tracking, open_trackers
from samd_server.tracking.jsonl import JsonLines

log = logging.getLogger(__name__)


class Service:
    """The server program. `serve` returns when `stop` was called from a signal handler or a test."""

    def __init__(
        self,
        broker: Broker,
        gateway: str,
        data: Path,
        *,
        tasks: Sequence[str] = (SEVERITY,),
        tracking: Sequence[str] = (),
        gateway_token_file: str | None = None,
        gateway_ca_file: str | None = None,
    ) -> None:
        """`tasks` are what it trains and releases; the first is the one that older gateways know of. Raises
        ServerError and BrokerError for what cannot work: files, addresses, a folder in use."""
        self.data = data
        self._claim = _claim(data)
        self.registries = {task: Registry(data / "models", task) for task in tasks}
        self.registry = self.registries[tasks[0]]
        self._tracking = tuple(tracking)
        self._runs = data / "runs"
        self._orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._halts: dict[str, str] = {}
        self._grid: MqttGrid | None = None
        self._offline: set[str] = set()
        self._births: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        sealer = Sealer("server", _next_boot(data / "boot"))
        self.link = Link(
            broker,
            sealer,
            on_order=self._take_order,
            on_model=self._take_model_order,
            on_update=self._take_update,
            on_state=self._take_state,
        )
        self.releaser = Releaser(
            gateway, self.link.publish_release, token_file=gateway_token_file, ca_file=gateway_ca_file
        )

    def stop(self) -> None:
        """End: a run under way stays at its last checkpoint and goes on at the next start."""
        self._ended.set()
        self._orders.put(None)

    def serve(self) -> None:
        """Connect, resume what was unfinished, then wait for orders."""
        flower.prepare()
        state = self._state("offline")
        self._tell_last_result()
        self.link.publish_state(self._state("online"))
        self.releaser.start()
        for registry in self.registries.values():
            self.releaser.release(_in_use(registry))
        for folder in unfinished(self._runs):
            log.info("run %s goes on from its checkpoint", folder.run)
            if (halt := folder.halted) is not None:
                self._halts[folder.run] = halt
            self._orders.put(folder.run)
        self.link.start(state)
        try:
            while (run := self._orders.get()) is not None:
                self._lead(RunFolder(self._runs, run))
        finally:
            self.releaser.stop()
            self.link.stop(self._state("offline"))
            os.close(self._claim)

    # -- one run --------------------------------------------------------------

    def _lead(self, folder: RunFolder) -> None:
        if folder.finished:
            return
        status: dict[str, Any] = {}
        described: dict[str, Any] = {}
        try:
            order = folder.order()
            if order.spec is None:
                raise RunFailed("the order holds no description of the run")
            status = {"rounds": order.spec.rounds, "quorum": order.spec.quorum}
            described = {"spec": msgspec.to_builtins(order.spec)}
            if order.spec.task not in self.registries:
                trained = " and ".join(map(repr, self.registries))
                raise RunFailed(f"this server trains {trained}, the run asks for {order.spec.task!r}")
            registry = self.registries[order.spec.task]
            done = self._known_outcome(folder, registry) or self._train(folder, order, registry)
            status |= done
        except RunStopped as error:
            if self._ended.is_set():
                return
            status |= {"phase": "stopped", "reason": str(error)}
        except (ServerError, ProtocolError) as error:
            log.warning("run %s failed: %s", folder.run, error)
            status |= {"phase": "failed", "reason": str(error)}
        except Exception as error:
            log.exception("run %s failed", folder.run)
            status |= {"phase": "failed", "reason": f"defect: {type(error).__name__}: {error}"}
        finally:
            with self._lock:
                self._grid = None
        folder.finish(**status, **described, ended_at=datetime.now(UTC), peak_memory_mb=_peak_memory_mb())
        self._halts.pop(folder.run, None)
        self.link.publish_run(msgspec.convert({"run": folder.run} | status, RunStatus))

    def _train(self, folder: RunFolder, order: RunOrder, registry: Registry) -> dict[str, Any]:
        assert order.spec is not None  # noqa: S101 - checked by the caller
        point = folder.load()
        parent = _in_use(registry) if point is None else registry.read(point.parent_version)
        flower.identify(1 + sum(1 for _ in self._runs.iterdir()))
        grid = MqttGrid(
            folder.run,
            order.devices,
            self.link.send_task,
            graph_sha256=parent.graph_sha256,
            task=registry.task,
        )
        with self._lock:
            self._grid = grid
            for device in self._offline & set(grid.devices):
                grid.set_online(device, False)
        tracking = Tracking(JsonLines(folder), *open_trackers(self._tracking, folder.path))
        loop = RoundLoop(
            order.spec,
            grid,
            folder,
            parent,
            publish=self.link.publish_run,
            halted=lambda: "stop" if self._ended.is_set() else self._halts.get(folder.run),
            track=tracking.log,
        )
        tracking.begin(
            folder.run,
            {
                "spec": msgspec.to_builtins(order.spec),
                "devices": len(order.devices),
                "parent_version": parent.manifest.version,
                "graph_sha256": parent.graph_sha256,
            },
        )
        try:
            outcome = loop.run()
            return self._release(folder, order, parent, outcome, tracking)
        finally:
            tracking.end()

    def _release(
        self, folder: RunFolder, order: RunOrder, parent: Bundle, outcome: Outcome, tracking: Tracking
    ) -> dict[str, Any]:
        registry = self.registries[parent.manifest.task]
        self.link.publish_run(
            RunStatus(
                run=folder.run,
                phase="releasing",
                round=outcome.rounds,
                rounds=outcome.rounds,
                quorum=0 if order.spec is None else order.spec.quorum,
            )
        )
        released, reason = decide(outcome.candidate, outcome.in_use)
        metrics = described(outcome.candidate, registry.task)
        classes = task_of(registry.task).classes
        if (personal := outcome.personal) is not None:
            # Of the devices that tried a personal model: what assesses each of them now, and the candidate.
            metrics["personal"] = {
                "tried": personal.tried,
                "adopted": personal.adopted,
                **msgspec.to_builtins(scores(personal.used, classes)),
            }
            metrics["personal_candidate"] = msgspec.to_builtins(scores(personal.candidate, classes))
        manifest = msgspec.structs.replace(
            parent.manifest,
            version=registry.next_version(),
            parent=parent.manifest.version,
            trained=True,
            hashes={},
            metrics=metrics,
            provenance={
                "run": folder.run,
                "spec": msgspec.to_builtins(order.spec),
                "devices": len(order.devices),
                "label_counts": outcome.label_counts,
                "server": __version__,
            },
        )
        keras = with_weights(parent.keras, manifest.layers, outcome.weights)
        candidate = Bundle(manifest=manifest, graph=parent.graph, weights=outcome.weights, keras=keras)
        written = registry.add(
            candidate, decision="released" if released else "kept", reason=reason, run=folder.run
        )
        tracking.log(
            {
                "event": "candidate",
                "round": outcome.rounds,
                "version": manifest.version,
                "released": released,
                "reason": reason,
                "metrics": metrics,
            }
        )
        return self._announce(folder, written, released=released, reason=reason)

    def _announce(self, folder: RunFolder, bundle: Bundle, *, released: bool, reason: str) -> dict[str, Any]:
        if released:
            self.link.publish_state(self._state("online"))
            self.releaser.release(bundle)
            announced = self.releaser.wait_announced(
                bundle.manifest.version, 30.0, task=bundle.manifest.task, stop=self._ended.is_set
            )
            if self._ended.is_set():
                raise RunStopped("the server was stopped; the model is announced at its next start")
            if not announced:
                reason += "; the gateway does not take it yet: it is announced as soon as it does"
        flat = {
            f"{name}_{key}": value
            for name, values in bundle.manifest.metrics.items()
            for key, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        log.info("run %s: model %d, %s", folder.run, bundle.manifest.version, reason)
        return {
            "phase": "done",
            "round": bundle.manifest.provenance.get("spec", {}).get("rounds", 0),
            "model_version": bundle.manifest.version,
            "released": released,
            "reason": reason,
            "metrics": flat,
        }

    def _known_outcome(self, folder: RunFolder, registry: Registry) -> dict[str, Any] | None:
        """A crash between storing the candidate and ending the run must not train it twice."""
        card = registry.of_run(folder.run)
        if card is None:
            return None
        released = card.decision == "released"
        if released and registry.released != card.version:
            registry.use(card.version)
        return self._announce(folder, registry.read(card.version), released=released, reason=card.reason)

    # -- called by the link's thread ------------------------------------------

    def _take_order(self, order: RunOrder) -> None:
        if not topics.valid_name(order.run):
            log.warning("an order with an unusable run name was dropped")
            return
        folder = RunFolder(self._runs, order.run)
        try:
            if order.action == "start":
                self._begin(folder, order)
            elif not folder.finished:
                self._halt(folder, None if order.action == "resume" else order.action)
            else:
                self._tell_result(folder)
        except OSError as error:
            reason = f"the server cannot keep the order ({error.strerror}); free its disk and start a new run"
            log.error("run %s: %s", order.run, reason)
            self.link.publish_run(RunStatus(run=order.run, phase="failed", reason=reason))

    def _take_model_order(self, order: ModelOrder) -> str | None:
        """Put a stored version to use, newer or older; the reason if that cannot be. Twice is like once."""
        registry = self.registries.get(order.task)
        if registry is None:
            return f"this server trains {' and '.join(map(repr, self.registries))}, not {order.task!r}"
        if order.version not in registry.versions():
            return f"no version {order.version} for {order.task} in the store; samd-server models lists them"
        try:
            bundle = registry.read(order.version)
        except (ServerError, OSError) as error:
            return f"version {order.version} cannot be read ({error})"
        registry.use(order.version)
        log.info("model %d for %s is put to use by an operator", order.version, order.task)
        self.link.publish_state(self._state("online"))
        self.releaser.release(bundle)
        return None

    def _begin(self, folder: RunFolder, order: RunOrder) -> None:
        if folder.finished:
            # The gateway asks again because it has heard nothing: it missed how the run ended.
            self._tell_result(folder)
        elif folder.begin(order):
            if (halt := folder.halted) is not None:
                self._halts[folder.run] = halt
            self._orders.put(folder.run)

    def _halt(self, folder: RunFolder, action: str | None) -> None:
        """On disk first: a stop that was acknowledged holds after a crash, also for a run yet to come."""
        folder.halt(action)
        if action is None:
            self._halts.pop(folder.run, None)
        else:
            self._halts[folder.run] = action

    def _tell_result(self, folder: RunFolder) -> None:
        try:
            self.link.publish_run(msgspec.convert({"run": folder.run} | folder.result(), RunStatus))
        except (ServerError, msgspec.ValidationError) as error:
            log.warning("run %s: how it ended cannot be told (%s)", folder.run, error)

    def _tell_last_result(self) -> None:
        """A crash between writing a result and publishing it must not leave the gateway waiting."""
        known = begun(self._runs)
        if known and known[-1].finished:
            self._tell_result(known[-1])

    def _take_update(self, update: Update) -> None:
        with self._lock:
            grid = self._grid
        if grid is not None and grid.run_name == update.run:
            grid.deliver(update)

    def _take_state(self, device: str, state: State) -> None:
        online = state.status == "online"
        birth = (state.boot_id, state.connection)
        with self._lock:
            was_away = device in self._offline
            known = self._births.get(device)
            self._births[device] = birth
            (self._offline.discard if online else self._offline.add)(device)
            grid = self._grid
        # Not for each state: a device that never left has its task, and so has one first seen by its
        # retained state.
        changed = was_away or known not in (None, birth) if online else not was_away
        if changed and grid is not None and device in grid.devices:
            grid.set_online(device, online)

    # -- small things ---------------------------------------------------------

    def _state(self, status: Literal["online", "offline"]) -> ServerState:
        first, *others = [(task, _in_use(registry)) for task, registry in self.registries.items()]
        return ServerState(
            status=status,
            version=__version__,
            model_version=first[1].manifest.version,
            graph_sha256=first[1].graph_sha256,
            task=first[0],
            methods=possible(first[1].manifest.layers),
            others=[
                Served(
                    task=task,
                    model_version=bundle.manifest.version,
                    graph_sha256=bundle.graph_sha256,
                    methods=possible(bundle.manifest.layers),
                )
                for task, bundle in others
            ],
        )


def _in_use(registry: Registry) -> Bundle:
    version = registry.released
    if version is None:
        raise ServerError(
            f"the model store for {registry.task} is empty; give a first model by --model FILE "
            "(samd-server export --out FILE)"
        )
    return registry.read(version)


def import_model(registry: Registry, path: Path) -> None:
    """Take a bundle from outside as the first model of an empty store. Raises StoreError, BundleError."""
    bundle = bundles.read(path)
    if bundle.manifest.task != registry.task:
        raise ServerError(
            f"{path}: a model for {bundle.manifest.task!r}, this store is for {registry.task!r}"
        )
    if registry.versions():
        # A crash fell between storing the first model and putting it to use.
        registry.use(registry.versions()[-1])
        return
    registry.add(bundle, decision="imported", reason=f"imported from {path.name}")


def _claim(data: Path) -> int:
    """Hold the folder for this process until it ends. Raises StoreError if another one has it."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise StoreError(f"{data}: another samd-server uses this folder; end it, or give another") from error
    return file


def _next_boot(path: Path) -> int:
    try:
        boot = int(path.read_text()) + 1 if path.exists() else 1
    except ValueError as error:
        raise StoreError(f"{path}: holds no number; write the count of starts into it, or 1000") from error
    write_atomically(path, str(boot).encode())
    return boot


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_private(folder: Path) -> None:
    """Create a folder that only its owner can enter; one that is there already stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
