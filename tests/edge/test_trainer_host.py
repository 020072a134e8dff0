"""The trainer as a process: prepared early, replaced when it crashes, killed at its deadline."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from samd_data.reading import Reading
from samd_edge.store import AdmissionStore
from samd_edge.trainer_host import TrainerHost
from samd_protocol import bundle as bundles
from samd_protocol import tasks, topics
from samd_protocol.messages import Config, Training, TrainingStart, TrainingStop
from samd_protocol.tasks import Task, TrainSettings, Update, Vector

START = datetime.now(UTC) - timedelta(days=4)


def hours(count: int) -> list[Reading]:
    """A reading an hour, of all classes."""
    return [
        Reading(
            observed_at=START + timedelta(hours=hour),
            heart_rate=70.0 + 35 * (hour % 3),
            respiratory_rate=15.0 + 5 * (hour % 4),
            spo2=98.0 - 3 * (hour % 4),
            systolic_bp=120.0,
            temperature=37.0,
        )
        for hour in range(count)
    ]


async def until(check: Callable[[], bool]) -> None:
    """Let the loop turn until the check is true."""
    async with asyncio.timeout(60):
        while not check():  # noqa: ASYNC110  (what is awaited is another process, which sets no event)
            await asyncio.sleep(0.001)


class Desk:
    """A host with what came out of it."""

    def __init__(self, tmp_path: Path, bundle: Path, *, command: list[str] | None = None) -> None:
        self.bundle = bundles.read(bundle)
        self.path = bundle
        self.folder = tmp_path / "admission"
        store = AdmissionStore(self.folder)
        store.add_history(hours(90))
        store.close()
        self.updates: asyncio.Queue[Update] = asyncio.Queue()
        self.phases: list[Training] = []
        self.prepared = asyncio.Event()
        self.stepping = asyncio.Event()
        self.host = TrainerHost(
            on_update=lambda _task, payload: self.updates.put_nowait(tasks.decode_update(payload)),
            on_phase=self._phase,
            command=command,
        )

    def _phase(self, phase: Training) -> None:
        self.phases.append(phase)
        if phase.phase == "ready":
            self.prepared.set()
        if phase.phase == "training":
            self.stepping.set()

    def begin(self) -> None:
        self.host.begin("run-1", self.path, self.folder / "store.sqlite")

    def give(self, number: int, *, epochs: int = 2, deadline_s: float = 60.0, kind: Any = "train") -> Task:
        task = Task(
            id=f"t{number}",
            run="run-1",
            round=number,
            device="bed-01",
            kind=kind,
            graph_sha256=self.bundle.graph_sha256,
            deadline_s=deadline_s,
            weights=Vector.of(self.bundle.weights),
            settings=TrainSettings(epochs=epochs, seed=1),
        )
        self.host.submit(task, tasks.encode(task))
        return task

    async def update(self) -> Update:
        return await asyncio.wait_for(self.updates.get(), 60)

    def said(self) -> list[str]:
        return [phase.phase for phase in self.phases]


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(0, trained=False)


def test_a_round_of_training_and_of_evaluation(tmp_path: Path, bundle: Path) -> None:
    async def scene() -> None:
        desk = Desk(tmp_path, bundle)
        desk.host.prefork()
        desk.begin()
        await asyncio.wait_for(desk.prepared.wait(), 60)
        desk.give(1)
        trained = await desk.update()
        assert (trained.error, trained.task, trained.round) == (None, "t1", 1)
        assert trained.num_examples > 0
        assert trained.weights is not None
        assert trained.weights.size == desk.bundle.manifest.weights_size
        desk.give(1)
        assert await desk.update() == trained, "a task that comes twice is answered twice and done once"
        desk.give(2, kind="evaluate")
        assert (await desk.update()).report is not None
        assert desk.said()[:3] == ["ready", "training", "sent"]
        assert desk.said()[-2:] == ["evaluating", "sent"]
        first_step = desk.phases[1].first_step_at
        assert first_step is not None
        assert abs((datetime.now(UTC) - first_step).total_seconds()) < 60
        await desk.host.close()
        assert 20 < desk.host.peak_mb < 200
        assert desk.host.pid is None

    asyncio.run(scene())


def test_a_crash_costs_one_round(tmp_path: Path, bundle: Path) -> None:
    async def scene() -> None:
        desk = Desk(tmp_path, bundle)
        desk.begin()
        await asyncio.wait_for(desk.prepared.wait(), 60)
        desk.give(1, epochs=1_000_000)
        await asyncio.wait_for(desk.stepping.wait(), 60)
        before = desk.host.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        assert (await desk.update()).error == "the trainer ended in the middle of the round"
        desk.give(2)
        assert (await desk.update()).error is None
        assert desk.host.pid != before
        await desk.host.close()

    asyncio.run(scene())


def test_a_crash_before_the_task_costs_nothing(tmp_path: Path, bundle: Path) -> None:
    async def scene() -> None:
        desk = Desk(tmp_path, bundle)
        desk.begin()
        await asyncio.wait_for(desk.prepared.wait(), 60)
        before = desk.host.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until(lambda: desk.host.pid != before)
        desk.give(1)
        assert (await desk.update()).error is None
        await desk.host.close()

    asyncio.run(scene())


# A trainer that takes every task and never answers, and one that cannot even say hello.
SILENT = """
import sys, msgspec
from samd_edge.trainer import frames
out = sys.stdout.buffer
def say(m): out.write(frames.encode(m)); out.flush()
say(frames.Ready(trainer="x", runtime="x", pid=0))
while (body := frames.read_body(sys.stdin.buffer)) is not None:
    if isinstance(frames.decode_from_agent(body), frames.Prepare):
        say(frames.Prepared(graph_sha256="x", train=[1], holdout=[1]))
"""
BABBLE = "import sys; sys.stdout.buffer.write(b'\\xff' * 64); sys.stdout.flush(); sys.stdin.read()"


def test_killed_at_the_deadline(tmp_path: Path, bundle: Path) -> None:
    async def scene() -> None:
        desk = Desk(tmp_path, bundle, command=[sys.executable, "-c", SILENT])
        desk.begin()
        await asyncio.wait_for(desk.prepared.wait(), 60)
        before = desk.host.pid
        desk.give(1, deadline_s=0.05)
        assert (await desk.update()).error == "not done within 0.05 s"
        assert "failed" in desk.said()
        await until(lambda: desk.host.pid not in (None, before))
        desk.give(2, deadline_s=20.0)
        await desk.host.leave()
        assert desk.updates.empty(), "who leaves a run owes it nothing"
        await desk.host.close()

    asyncio.run(scene())


def test_a_trainer_that_cannot_be_understood_is_replaced(
    tmp_path: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        desk = Desk(tmp_path, bundle, command=[sys.executable, "-c", BABBLE])
        desk.host.prefork()
        await until(lambda: "starting another" in caplog.text)
        desk.begin()
        desk.give(1, deadline_s=0.05)
        await desk.host.close()

    asyncio.run(scene())
    assert "cannot be understood" in caplog.text


def test_an_agent_in_a_run(
    own_broker: Any, listen: Any, run_agent: Any, device: str, bundle: Path, tmp_path: Path, wait: Any
) -> None:
    own_broker.start()
    peer = listen(own_broker)
    file = tmp_path / "p1.csv"
    names = ("heart_rate", "respiratory_rate", "spo2", "systolic_bp", "temperature")
    rows = [",".join([r.observed_at.isoformat(), *(str(getattr(r, n)) for n in names)]) for r in hours(90)]
    file.write_text("\n".join([",".join(("observed_at", *names)), *rows]) + "\n")
    model = bundles.read(bundle)
    options = ("--model", str(bundle), "--train-during-alert")
    agent = run_agent(own_broker.url, *options, source=f"replay:{file}?speed=1&from=100%").ready()
    peer.wait(device, "state")
    start = TrainingStart(run="run-1", task="severity", model_version=0, graph_sha256=model.graph_sha256)
    accepted = peer.command(device, start)
    assert (accepted.status, accepted.detail) == ("accepted", {"rows": 90})
    peer.wait(device, "training", lambda data: data.phase == "ready")
    other = TrainingStart(run="run-2", task="severity", model_version=0, graph_sha256=model.graph_sha256)
    assert peer.command(device, other).reason == "in another run"
    task = Task(
        id="t1",
        run="run-1",
        round=1,
        device=device,
        kind="train",
        graph_sha256=model.graph_sha256,
        deadline_s=60,
        weights=Vector.of(model.weights),
        settings=TrainSettings(epochs=2),
    )

    def answer(given: Task) -> Update:
        count = len(peer.raw(topics.up(device, "update")))
        peer.send(topics.down(device, "task"), tasks.encode(given))
        wait(lambda: len(peer.raw(topics.up(device, "update"))) > count, "an update")
        return tasks.decode_update(peer.raw(topics.up(device, "update"))[-1])

    def changed(**values: Any) -> Task:
        return Task(**({name: getattr(task, name) for name in task.__struct_fields__} | values))

    done = answer(task)
    assert (done.error, done.num_examples > 0) == (None, True)
    first = peer.wait(device, "training", lambda data: data.first_step_at is not None).data
    assert (first.run, first.round, first.phase) == ("run-1", 1, "training")
    assert "no part in that run" in str(answer(changed(id="t2", run="run-9")).error)
    assert "another graph" in str(answer(changed(id="t3", graph_sha256="0" * 64)).error)
    peer.send(topics.down(device, "task"), tasks.encode(changed(id="t4", device="other")))
    assert peer.command(device, TrainingStop(run="run-9")).status == "rejected"
    assert peer.command(device, TrainingStop(run="run-1")).status == "done"
    assert "no part" in str(answer(changed(id="t5", round=2)).error)
    wrong = TrainingStart(run="run-3", task="severity", model_version=0, graph_sha256="0" * 64)
    assert "wrong model" in peer.command(device, wrong).reason
    assert peer.command(device, other).status == "accepted"
    peer.say(topics.down(device, "config"), Config(version=1, consent_to_training=False))
    stopped = peer.wait(device, "training", lambda data: data.phase == "stopped" and data.run == "run-2").data
    assert stopped.error == "opted out", "consent that is withdrawn ends a training at once"
    assert peer.command(device, other).reason == "opted out"
    assert agent.stop() == 0
    assert "the trainer took at most" in agent.log
