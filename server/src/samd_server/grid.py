"""`MqttGrid`: Flower's public `Grid` over the devices' own MQTT connections.

Any Flower strategy runs on it unchanged. A Flower message becomes a task on `d/{device}/dn/task`, an update
from `d/{device}/up/update` becomes the reply. Replies that `checks` rejects never become messages. Nodes
and replies are sorted by device, so that nothing depends on who was quicker.
"""

import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import msgspec
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from samd_data.tasks import DETERIORATION, SEVERITY, task_of
from samd_protocol.tasks import Task, TrainSettings, Update, Vector
from samd_server.checks import reject_reason
from samd_server.flower import (
    ARRAYS,
    CONFIG,
    EXAMPLES,
    LOSS,
    METRICS,
    SERVER_NODE,
    SEVERE,
    WEIGHTS,
    empty_run,
    stamp,
)

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


class Inbox(Protocol):
    """Where updates wait for the loop; None wakes it. A `queue.SimpleQueue` is one."""

    def put(self, item: Update | None, /) -> None: ...

    def get(self, *, timeout: float) -> Update | None:
        """The next item; raises `queue.Empty` after `timeout` seconds."""
        ...


POLL_S = 0.25
"""How often a waiting round looks whether it was stopped."""


class MqttGrid(Grid):
    """One run's grid over a fixed, sorted list of admitted devices.

    `send(device, task)` publishes and must not block. `deliver` and `set_online` may be called from any
    thread, everything else from one. `ignored` counts updates that answer no open task, by reason: `late`
    (also: a second answer to the same task) and `foreign` (another device's task).
    """

    def __init__(
        self,
        run: str,
        devices: Iterable[str],
        send: Callable[[str, Task], None],
        *,
        graph_sha256: str,
        task: str = SEVERITY,
        now: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        inbox: Inbox | None = None,
    ) -> None:
        self.run_name = run
        self.devices = sorted(set(devices))
        self._nodes = {SERVER_NODE + 1 + index: name for index, name in enumerate(self.devices)}
        self._send = send
        self._graph = graph_sha256
        self._classes = len(task_of(task).classes)
        self._ranked = task == DETERIORATION
        self._now = now
        self._new_id = new_id
        self._pending: dict[str, Pending] = {}
        self._inbox: Inbox = queue.SimpleQueue() if inbox is None else inbox
        self._early: dict[str, Update] = {}
        self._offline: set[str] = set()
        self._lock = threading.Lock()
        self._run = empty_run()
        self.deadline_s = 60.0
        self.ignored: Counter[str] = Counter()

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
        """The valid replies that are there now; the other tasks stay open."""
        result = Collected()
        self._gather(self._asked(message_ids), result, closes=self._now(), quorum=None)
        return [reply.message for reply in result.replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then wait for all replies, `timeout` seconds, but never beyond the round's deadline."""
        ids = self.push_messages(messages)
        wait = self.deadline_s if timeout is None else min(timeout, self.deadline_s)
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
        refusals_count: bool = False,
    ) -> Collected:
        """Wait for the replies to these tasks.

        Ends when every task is answered, at `timeout` seconds, or, once `quorum` valid replies are in, when
        only devices known to be offline are missing or when the others stayed silent for `grace` seconds
        or as long again as the quorum took, whichever is longer. With no quorum it waits for all. With
        `refusals_count`, an answer that cannot be used counts for the quorum too, beside at least one valid
        reply: that device is done.
        """
        asked = self._asked(task_ids)
        result = Collected()
        self._gather(
            asked,
            result,
            closes=self._now() + timeout,
            quorum=quorum,
            grace=grace,
            stop=stop,
            refusals_count=refusals_count,
        )
        with self._lock:
            for task_id, device in asked.items():
                self._pending.pop(task_id, None)
                result.awaited[device] = "offline" if device in self._offline else "silent"
        return result

    def _asked(self, task_ids: Iterable[str]) -> dict[str, str]:
        """The devices of those tasks that are still open, by task."""
        with self._lock:
            return {
                task_id: self._pending[task_id].task.device
                for task_id in task_ids
                if task_id in self._pending
            }

    def _gather(
        self,
        asked: dict[str, str],
        result: Collected,
        *,
        closes: float,
        quorum: int | None,
        grace: float = 0.0,
        stop: Callable[[], bool] = lambda: False,
        refusals_count: bool = False,
    ) -> None:
        """Fill `result` until one of the ends that `collect` names; what is answered leaves `asked`."""
        began = self._now()
        met = False
        while asked and not stop():
            if quorum is not None:
                answers = len(result.replies) + (len(result.dropped) if refusals_count else 0)
                if answers >= quorum and result.replies and not met:
                    met = True
                    closes = min(closes, self._now() + max(grace, self._now() - began))
                with self._lock:
                    reachable = any(device not in self._offline for device in asked.values())
                if met and not reachable:
                    break
            left = closes - self._now()
            update = self._next(asked, min(max(0.0, left), POLL_S))
            if update is None:
                if left <= 0.0:
                    break
                continue
            self._judge(update, asked, result)
        result.replies.sort(key=lambda reply: reply.device)

    def _next(self, asked: dict[str, str], timeout: float) -> Update | None:
        """The next update, or None if there was none in `timeout` seconds or something else happened."""
        if self._early:
            ready = next((task_id for task_id in self._early if task_id in asked), None)
            if ready is not None:
                return self._early.pop(ready)
        try:
            return self._inbox.get(timeout=timeout)
        except queue.Empty:
            return None

    def _judge(self, update: Update, asked: dict[str, str], result: Collected) -> None:
        with self._lock:
            pending = self._pending.get(update.task)
            if pending is None:
                self.ignored["late"] += 1
                return
            if pending.task.device != update.device:
                # Another's task: its own answer is still awaited, and this one must not stand in its way.
                self.ignored["foreign"] += 1
                return
            if update.task not in asked:
                self._early[update.task] = update
                return
            del self._pending[update.task]
        device = asked.pop(update.task)
        reason = reject_reason(update, pending.task, pending.anchor, self._classes, ranked=self._ranked)
        if reason is None:
            result.replies.append(Reply(device, update, self._as_reply(update, pending)))
        else:
            result.dropped[device] = reason

    def deliver(self, update: Update) -> None:
        """Hand in an update as it arrives; any thread."""
        self._inbox.put(update)

    def set_online(self, device: str, online: bool) -> None:
        """A device's birth or last will. A device that comes back is sent its open task again.

        Call it for births only, not for each state of a device that never left: it would train twice.
        """
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

    def _as_task(self, message: Message) -> Pending:
        device = self._nodes[message.metadata.dst_node_id]
        arrays = cast("ArrayRecord", message.content[ARRAYS])
        config = cast("ConfigRecord", message.content[CONFIG])
        anchor = np.ascontiguousarray(arrays[WEIGHTS].numpy(), dtype=np.float32)
        natural = "train" if message.metadata.message_type == MessageType.TRAIN else "holdout"
        task = Task(
            id=self._new_id(),
            run=self.run_name,
            round=cast("int", config["server-round"]),
            device=device,
            kind="train" if message.metadata.message_type == MessageType.TRAIN else "evaluate",
            graph_sha256=self._graph,
            deadline_s=self.deadline_s,
            weights=Vector.of(anchor),
            settings=settings_of(config),
            split="train" if config.get("split", natural) == "train" else "holdout",
            personalise=bool(config.get("personalise", False)),
        )
        stamp(message, task.id)
        return Pending(task, message, anchor)

    def _as_reply(self, update: Update, pending: Pending) -> Message:
        metrics: dict[str, int | float | list[int]] = {EXAMPLES: update.num_examples}
        records: dict[str, ArrayRecord | MetricRecord] = {}
        if update.weights is not None:
            records[ARRAYS] = ArrayRecord({WEIGHTS: Array(update.weights.array())})
            loss = float(cast("float", update.loss))  # checked: a train update has one
            metrics.update(metrics_of(update.num_examples, num_severe(update.label_counts), loss))  # type: ignore[arg-type]
        if update.report is not None:
            metrics[LOSS] = float(update.report.loss)
            metrics["confusion"] = [count for row in update.report.confusion for count in row]
            metrics["confusion-masked"] = [count for row in update.report.confusion_masked for count in row]
        records[METRICS] = MetricRecord(metrics)  # type: ignore[arg-type]
        return Message(RecordDict(records), reply_to=pending.message)  # type: ignore[arg-type]


def settings_of(config: ConfigRecord) -> TrainSettings:
    """The hyper-parameters in a Flower message's configuration, `learning-rate` for `learning_rate`; what is
    not in it has its default."""
    fields = {name: name.replace("_", "-") for name in TrainSettings.__struct_fields__}
    return msgspec.convert(
        {name: config[key] for name, key in fields.items() if key in config}, TrainSettings, strict=False
    )


def metrics_of(num_examples: int, severe: int, loss: float) -> MetricRecord:
    """What a training reply says beside its weights. The severe weight is one more than the severe rows, so
    that nobody counts for nothing."""
    return MetricRecord({EXAMPLES: num_examples, SEVERE: 1 + severe, LOSS: max(loss, 0.0)})


def num_severe(label_counts: Sequence[int]) -> int:
    """Rows of the upper half of the classes: 5 or more of severity, the positive ones of two classes. Of a
    device that does not tell its counts none is known, and none is claimed."""
    return sum(label_counts[len(label_counts) // 2 :])


def arrays_of(weights: NDArray[np.float32]) -> ArrayRecord:
    """A flat vector as Flower's record."""
    return ArrayRecord({WEIGHTS: Array(np.ascontiguousarray(weights, dtype=np.float32))})


def weights_of(arrays: ArrayRecord) -> NDArray[np.float32]:
    """Flower's record as a flat float32 vector."""
    return np.ascontiguousarray(arrays[WEIGHTS].numpy(), dtype=np.float32).ravel()
