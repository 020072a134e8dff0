"""`MqttGrid`: Flower's public `Grid` over the devices' own MQTT connections.

Any Flower strategy runs on it unchanged. A Flower message becomes a task on `d/{device}/dn/task`, an update
from `d/{device}/up/update` becomes the reply. Replies that `checks` rejects never become messages. Nodes
and replies are sorted by device, so that nothing depends on who was quicker.
"""

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from samd_protocol.tasks import Task, TrainSettings, Update, Vector
from samd_server.checks import reject_reason
from samd_server.flower import ARRAYS, CONFIG, EXAMPLES, METRICS, SERVER_NODE, WEIGHTS, empty_run, stamp

if TYPE_CHECKING:
    from flwr.supercore.run import Run


@dataclass(frozen=True)
class Pending:
    """A task under way: what was sent, and the Flower message that it came from."""

    task: Task
    message: Message
    anchor: NDArray[np.float32]


@dataclass(frozen=True)
class Reply:
    """A valid answer."""

    device: str
    update: Update
    message: Message


@dataclass
class Collected:
    """What a round brought in: valid replies sorted by device, and why others were not used."""

    replies: list[Reply] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    awaited: dict[str, str] = field(default_factory=dict)


class MqttGrid(Grid):
    """One run's grid over a fixed, sorted list of admitted devices.

    `send(device, task)` publishes and must not block. `deliver` may be called from any thread.
    """

    def __init__(
        self,
        run: str,
        devices: Iterable[str],
        send: Callable[[str, Task], None],
        *,
        graph_sha256: str,
        now: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.run_name = run
        self.devices = sorted(devices)
        self._nodes = {SERVER_NODE + 1 + index: name for index, name in enumerate(self.devices)}
        self._send = send
        self._graph = graph_sha256
        self._now = now
        self._new_id = new_id
        self._pending: dict[str, Pending] = {}
        self._inbox: queue.SimpleQueue[Update | None] = queue.SimpleQueue()
        self._offline: set[str] = set()
        self._lock = threading.Lock()
        self._run = empty_run()
        self.deadline_s = 60.0
        self.late = 0

    # -- what Flower asks for -------------------------------------------------

    def set_run(self, run: "Run") -> None:
        self._run = run

    @property
    def run(self) -> "Run":
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send each message as a task, in the order of the devices; returns the task ids."""
        ordered = sorted(messages, key=lambda message: self._nodes[message.metadata.dst_node_id])
        made = [self._as_task(message) for message in ordered]
        with self._lock:
            for pending in made:
                self._pending[pending.task.id] = pending
        for pending in made:
            self._send(pending.task.device, pending.task)
        return [pending.task.id for pending in made]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The valid replies that are there now."""
        return [reply.message for reply in self.collect(message_ids, timeout=0.0, quorum=None).replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then wait for all replies, at most `timeout` seconds (the round's deadline by default)."""
        ids = self.push_messages(messages)
        wait = self.deadline_s if timeout is None else timeout
        return [reply.message for reply in self.collect(ids, timeout=wait, quorum=None).replies]

    # -- what the round loop asks for -----------------------------------------

    def collect(
        self,
        task_ids: Iterable[str],
        *,
        timeout: float,
        quorum: int | None,
        grace: float = 0.5,
        stop: Callable[[], bool] = lambda: False,
    ) -> Collected:
        """Wait for the replies to these tasks.

        Ends when every task is answered, at `timeout` seconds, or, once `quorum` valid replies are in, when
        only devices known to be offline are missing or when the others stayed silent for `grace` seconds
        or as long again as the quorum took, whichever is longer. With no quorum it waits for all.
        """
        waiting = set(task_ids)
        asked = {
            task_id: self._pending[task_id].task.device for task_id in waiting if task_id in self._pending
        }
        result = Collected()
        began = self._now()
        closes = began + timeout
        while waiting and not stop():
            with self._lock:
                reachable = [task_id for task_id in waiting if asked[task_id] not in self._offline]
            enough = quorum is not None and len(result.replies) >= quorum
            if enough and not reachable:
                break
            try:
                update = self._inbox.get(timeout=min(max(0.0, closes - self._now()), 0.25))
            except queue.Empty:
                if self._now() >= closes:
                    break
                continue
            if update is None:
                continue
            pending = self._take(update, waiting)
            if pending is None:
                self.late += 1
                continue
            waiting.discard(update.task)
            reason = reject_reason(update, pending.task, pending.anchor)
            if reason is not None:
                result.dropped[pending.task.device] = reason
                continue
            result.replies.append(Reply(pending.task.device, update, self._as_reply(update, pending)))
            if quorum is not None and len(result.replies) == quorum:
                spent = self._now() - began
                closes = min(closes, self._now() + max(grace, spent))
        with self._lock:
            for task_id in waiting:
                self._pending.pop(task_id, None)
                device = asked[task_id]
                result.awaited[device] = "offline" if device in self._offline else "silent"
        result.replies.sort(key=lambda reply: reply.device)
        return result

    def deliver(self, update: Update) -> None:
        """Hand in an update as it arrives; any thread."""
        self._inbox.put(update)

    def set_online(self, device: str, online: bool) -> None:
        """A device's birth or last will. A device that comes back is sent its open task again."""
        with self._lock:
            if online:
                self._offline.discard(device)
                again = [p.task for p in self._pending.values() if p.task.device == device]
            else:
                self._offline.add(device)
                again = []
        for task in again:
            self._send(device, task)
        self._inbox.put(None)

    def _take(self, update: Update, waiting: set[str]) -> Pending | None:
        if update.task not in waiting:
            return None
        with self._lock:
            return self._pending.pop(update.task, None)

    def _as_task(self, message: Message) -> Pending:
        device = self._nodes[message.metadata.dst_node_id]
        arrays = cast("ArrayRecord", message.content[ARRAYS])
        config = cast("ConfigRecord", message.content[CONFIG])
        anchor = np.ascontiguousarray(arrays[WEIGHTS].numpy(), dtype=np.float32)
        task = Task(
            id=self._new_id(),
            run=self.run_name,
            round=cast("int", config["server-round"]),
            device=device,
            kind="train" if message.metadata.message_type == MessageType.TRAIN else "evaluate",
            graph_sha256=self._graph,
            deadline_s=self.deadline_s,
            weights=Vector.of(anchor),
            settings=TrainSettings(
                epochs=cast("int", config["epochs"]),
                learning_rate=cast("float", config["learning-rate"]),
                proximal_mu=cast("float", config["proximal-mu"]),
                mask_rate=cast("float", config["mask-rate"]),
                log_prior=[float(value) for value in cast("list[float]", config["log-prior"])],
                seed=cast("int", config["seed"]),
            ),
            split="train" if config["split"] == "train" else "holdout",
        )
        stamp(message, task.id)
        return Pending(task, message, anchor)

    def _as_reply(self, update: Update, pending: Pending) -> Message:
        metrics: dict[str, int | float | list[int]] = {EXAMPLES: update.num_examples}
        records: dict[str, ArrayRecord | MetricRecord] = {}
        if update.weights is not None:
            records[ARRAYS] = ArrayRecord({WEIGHTS: Array(update.weights.array())})
            metrics["loss"] = float(update.loss or 0.0)
        if update.report is not None:
            metrics["loss"] = float(update.report.loss)
            metrics["confusion"] = [count for row in update.report.confusion for count in row]
            metrics["confusion-masked"] = [count for row in update.report.confusion_masked for count in row]
        records[METRICS] = MetricRecord(metrics)  # type: ignore[arg-type]
        return Message(RecordDict(records), reply_to=pending.message)  # type: ignore[arg-type]


def arrays_of(weights: NDArray[np.float32]) -> ArrayRecord:
    """A flat vector as Flower's record."""
    return ArrayRecord({WEIGHTS: Array(np.ascontiguousarray(weights, dtype=np.float32))})


def weights_of(arrays: ArrayRecord) -> NDArray[np.float32]:
    """Flower's record as a flat float32 vector."""
    return np.ascontiguousarray(arrays[WEIGHTS].numpy(), dtype=np.float32).ravel()
