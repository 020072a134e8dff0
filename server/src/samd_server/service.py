"""`samd-server run`: waits for orders, leads one run after another, goes on where a crash left it."""

import logging
import os
import queue
import resource
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from samd_protocol import bundle as bundles
from samd_protocol import topics
from samd_protocol.broker import Broker
from samd_protocol.bundle import Bundle
from samd_protocol.envelope import Sealer
from samd_protocol.messages import RunOrder, RunStatus, ServerState, State
from samd_protocol.tasks import Update
from samd_server import __version__, flower
from samd_server.checkpoint import RunFolder, unfinished, write_atomically
from samd_server.errors import RunFailed, RunStopped, ServerError
from samd_server.gate import decide
from samd_server.grid import MqttGrid
from samd_server.keras_file import with_weights
from samd_server.link import Link
from samd_server.loop import Outcome, RoundLoop
from samd_server.metrics import summarize
from samd_server.registry import Registry
from samd_server.release import Releaser

log = logging.getLogger(__name__)


class Service:
    """The server program. `serve` returns when `stop` was called from a signal handler or a test."""

    def __init__(self, broker: Broker, gateway: str, data: Path, *, task: str = "severity") -> None:
        self.data = data
        self.registry = Registry(data / "models", task)
        self.task = task
        self._runs = data / "runs"
        self._orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._halts: dict[str, str] = {}
        self._grid: MqttGrid | None = None
        self._offline: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        sealer = Sealer("server", _next_boot(data / "boot"))
        self.link = Link(
            broker, sealer, on_order=self._take_order, on_update=self._take_update, on_state=self._take_state
        )
        self.releaser = Releaser(gateway, self.link.publish_release)

    def stop(self) -> None:
        """End: a run under way stays at its last checkpoint and goes on at the next start."""
        self._ended.set()
        self._orders.put(None)

    def serve(self) -> None:
        """Connect, resume what was unfinished, then wait for orders."""
        flower.prepare()
        in_use = self._in_use()
        self.link.publish_state(self._state("online", in_use))
        self.releaser.start()
        self.releaser.release(in_use)
        for folder in unfinished(self._runs):
            log.info("run %s goes on from its checkpoint", folder.run)
            self._orders.put(folder.run)
        self.link.start(self._state("offline", in_use))
        try:
            while (run := self._orders.get()) is not None:
                self._lead(RunFolder(self._runs, run))
        finally:
            self.releaser.stop()
            self.link.stop(self._state("offline", self._in_use()))

    # -- one run --------------------------------------------------------------

    def _lead(self, folder: RunFolder) -> None:
        if folder.finished:
            return
        status: dict[str, Any] = {}
        try:
            order = folder.order()
            if order.spec is None:
                raise RunFailed("the order holds no description of the run")
            status = {"rounds": order.spec.rounds, "quorum": order.spec.quorum}
            done = self._known_outcome(folder) or self._train(folder, order)
            status |= done
        except RunStopped as error:
            if self._ended.is_set():
                return
            status |= {"phase": "stopped", "reason": str(error)}
        except ServerError as error:
            log.warning("run %s failed: %s", folder.run, error)
            status |= {"phase": "failed", "reason": str(error)}
        except Exception as error:
            log.exception("run %s failed", folder.run)
            status |= {"phase": "failed", "reason": f"defect: {type(error).__name__}: {error}"}
        finally:
            with self._lock:
                self._grid = None
        folder.finish(**status, ended_at=datetime.now(UTC), peak_memory_mb=_peak_memory_mb())
        self.link.publish_run(msgspec.convert({"run": folder.run} | status, RunStatus))

    def _train(self, folder: RunFolder, order: RunOrder) -> dict[str, Any]:
        assert order.spec is not None  # noqa: S101 - checked by the caller
        if order.spec.task != self.task:
            raise RunFailed(f"this server trains {self.task!r}, the run asks for {order.spec.task!r}")
        point = folder.load()
        parent = self._in_use() if point is None else self.registry.read(point.parent_version)
        flower.identify(1 + sum(1 for _ in self._runs.iterdir()))
        grid = MqttGrid(folder.run, order.devices, self.link.send_task, graph_sha256=parent.graph_sha256)
        with self._lock:
            self._grid = grid
            for device in self._offline & set(grid.devices):
                grid.set_online(device, False)
        loop = RoundLoop(
            order.spec,
            grid,
            folder,
            parent,
            publish=self.link.publish_run,
            halted=lambda: "stop" if self._ended.is_set() else self._halts.get(folder.run),
        )
        outcome = loop.run()
        return self._release(folder, order, parent, outcome)

    def _release(
        self, folder: RunFolder, order: RunOrder, parent: Bundle, outcome: Outcome
    ) -> dict[str, Any]:
        self.link.publish_run(
            RunStatus(run=folder.run, phase="releasing", round=outcome.rounds, rounds=outcome.rounds)
        )
        released, reason = decide(outcome.candidate, outcome.in_use)
        metrics = {
            "complete": summarize(outcome.candidate.complete),
            "masked": summarize(outcome.candidate.masked),
        }
        manifest = msgspec.structs.replace(
            parent.manifest,
            version=self.registry.next_version(),
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
        written = self.registry.add(
            candidate, decision="released" if released else "kept", reason=reason, run=folder.run
        )
        folder.log(
            event="candidate", version=manifest.version, released=released, reason=reason, metrics=metrics
        )
        return self._announce(folder, written, released=released, reason=reason)

    def _announce(self, folder: RunFolder, bundle: Bundle, *, released: bool, reason: str) -> dict[str, Any]:
        if released:
            self.link.publish_state(self._state("online", bundle))
            self.releaser.release(bundle)
            if not self.releaser.wait_announced(bundle.manifest.version, 30.0):
                reason += "; the gateway does not take it yet: it is announced as soon as it does"
        flat = {
            f"{name}_{key}": value
            for name, values in bundle.manifest.metrics.items()
            for key, value in values.items()
            if isinstance(value, int | float)
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

    def _known_outcome(self, folder: RunFolder) -> dict[str, Any] | None:
        """A crash between storing the candidate and ending the run must not train it twice."""
        card = self.registry.of_run(folder.run)
        if card is None:
            return None
        released = card.decision == "released"
        return self._announce(folder, self.registry.read(card.version), released=released, reason=card.reason)

    # -- called by the link's thread ------------------------------------------

    def _take_order(self, order: RunOrder) -> None:
        if not topics.valid_name(order.run):
            log.warning("an order with an unusable run name was dropped")
        elif order.action == "start":
            if RunFolder(self._runs, order.run).begin(order):
                self._orders.put(order.run)
        elif order.action == "resume":
            self._halts.pop(order.run, None)
        else:
            self._halts[order.run] = order.action

    def _take_update(self, update: Update) -> None:
        with self._lock:
            grid = self._grid
        if grid is not None and grid.run_name == update.run:
            grid.deliver(update)

    def _take_state(self, device: str, state: State) -> None:
        online = state.status == "online"
        with self._lock:
            (self._offline.discard if online else self._offline.add)(device)
            grid = self._grid
        if grid is not None and device in grid.devices:
            grid.set_online(device, online)

    # -- small things ---------------------------------------------------------

    def _in_use(self) -> Bundle:
        version = self.registry.released
        if version is None:
            raise ServerError(
                "the model store is empty; give a first model by --model FILE (samd-server export --out FILE)"
            )
        return self.registry.read(version)

    def _state(self, status: str, bundle: Bundle) -> ServerState:
        return ServerState(
            status="online" if status == "online" else "offline",
            version=__version__,
            model_version=bundle.manifest.version,
            graph_sha256=bundle.graph_sha256,
            task=self.task,
        )


def import_model(registry: Registry, path: Path) -> None:
    """Take a bundle from outside as the first model of an empty store. Raises StoreError, BundleError."""
    bundle = bundles.read(path)
    if bundle.manifest.task != registry.task:
        raise ServerError(
            f"{path}: a model for {bundle.manifest.task!r}, this store is for {registry.task!r}"
        )
    registry.add(bundle, decision="imported", reason=f"imported from {path.name}")


def _next_boot(path: Path) -> int:
    boot = int(path.read_text()) + 1 if path.exists() else 1
    write_atomically(path, str(boot).encode())
    return boot


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_private(folder: Path) -> None:
    """Create a folder that only its owner can enter."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
