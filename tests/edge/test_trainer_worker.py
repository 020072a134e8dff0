"""The trainer as a process: frames in, frames out, and nothing that is sent to it can end it."""

import itertools
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from samd_data.features import FeatureSpec
from samd_data.reading import Reading
from samd_edge.runtime import Graph
from samd_edge.store import AdmissionStore
from samd_edge.trainer import frames
from samd_edge.trainer.learning import Place, evaluate_round, train_round
from samd_edge.trainer.rows import build
from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle
from samd_protocol.tasks import Task, TrainSettings, Update, Vector, decode_update
from samd_protocol.tasks import encode as encode_task

BEGIN = datetime(2026, 1, 1, 7, 20, tzinfo=UTC)
DEADLINE_S = 60.0


def recording(hours: int = 120) -> list[Reading]:
    rng = np.random.default_rng(0)
    return [
        Reading(
            observed_at=BEGIN + timedelta(hours=hour),
            heart_rate=float(rng.integers(45, 135)),
            respiratory_rate=float(rng.integers(9, 27)),
            spo2=float(rng.integers(89, 100)),
            systolic_bp=float(rng.integers(85, 150)),
            temperature=float(rng.integers(350, 395)) / 10,
        )
        for hour in range(hours)
    ]


def make_store(folder: Path, readings: list[Reading]) -> Path:
    store = AdmissionStore(folder)
    store.add_history(readings)
    store.close()
    return store.path


@pytest.fixture(scope="module")
def bundle(untrained_bundle_path: Path) -> Bundle:
    return bundles.read(untrained_bundle_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("admission"), recording())


class Process:
    """A trainer of one's own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "samd_edge.trainer", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # `select` sees what has not been read, and nothing hides in a buffer
        )

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def send(self, message: frames.FromAgent) -> None:
        self.write(frames.encode(message))

    def read(self) -> frames.FromTrainer:
        stream = self.process.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], DEADLINE_S)
        assert ready, "the trainer says nothing"
        body = frames.read_body(stream)  # type: ignore[arg-type]
        assert body is not None, "the trainer ended"
        return frames.decode_from_trainer(body)

    def expect(self, kind: type) -> Any:
        message = self.read()
        assert isinstance(message, kind), message
        return message

    def prepare(self, bundle: Path, store: Path) -> frames.Prepared:
        self.send(frames.Prepare(bundle=str(bundle), store=str(store)))
        prepared = self.expect(frames.Prepared)
        assert isinstance(prepared, frames.Prepared)
        return prepared

    def work(self, task: Task) -> tuple[Update, list[frames.Progress]]:
        self.send(frames.Work(task=encode_task(task)))
        progress = []
        while isinstance(message := self.read(), frames.Progress):
            progress.append(message)
        assert isinstance(message, frames.Done), message
        return decode_update(message.update), progress

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def status(self, field: str) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise KeyError(field)


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def start(*arguments: str) -> Process:
        running.append(Process(*arguments))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture(scope="module")
def trainer(started: Callable[..., Process], untrained_bundle_path: Path, store: Path) -> Process:
    """One trainer for all the tests that leave it as it was: ready and prepared."""
    one = started()
    ready = one.expect(frames.Ready)
    assert ready.trainer == "litert"
    assert ready.runtime in ("tflite-runtime", "ai-edge-litert")
    assert ready.pid == one.process.pid
    prepared = one.prepare(untrained_bundle_path, store)
    assert prepared.error is None
    return one


def task(bundle: Bundle, **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "id": "task-1",
        "run": "run-1",
        "round": 2,
        "device": "bed-01",
        "kind": "train",
        "graph_sha256": bundle.graph_sha256,
        "deadline_s": 30.0,
        "weights": Vector.of(bundle.weights),
        "settings": TrainSettings(epochs=3, learning_rate=0.01, mask_rate=0.15, seed=5),
    }
    return Task(**{**fields, **changes})


def test_prepare_counts_the_rows_of_each_class(
    trainer: Process, bundle: Bundle, untrained_bundle_path: Path, store: Path
) -> None:
    prepared = trainer.prepare(untrained_bundle_path, store)
    admission = build(recording(), FeatureSpec())
    assert prepared.train == admission.train.counts()
    assert prepared.holdout == admission.holdout.counts()
    assert prepared.graph_sha256 == bundle.graph_sha256
    assert prepared.seconds > 0


def test_training_is_the_same_as_in_this_process(trainer: Process, bundle: Bundle) -> None:
    before = time.time()
    update, progress = trainer.work(task(bundle))
    rows = build(recording(), FeatureSpec()).train
    weights, loss = train_round(
        Graph(bundle.graph),
        rows,
        FeatureSpec(),
        weights=bundle.weights,
        settings=task(bundle).settings,
        place=Place(5, 2, "bed-01"),
        batch_size=bundle.manifest.batch_size,
    )
    assert update.error is None
    assert update.weights is not None
    assert np.array_equal(update.weights.array(), weights)
    assert update.loss == pytest.approx(loss)
    assert (update.task, update.run, update.round, update.device) == ("task-1", "run-1", 2, "bed-01")
    assert update.num_examples == len(rows)
    assert before <= progress[0].at <= time.time()
    assert (progress[0].epoch, progress[0].epochs) == (0, 3)
    assert update.seconds > 0
    assert before <= update.started_at <= time.time()


def test_the_same_task_gives_the_same_bytes_of_weights(trainer: Process, bundle: Bundle) -> None:
    first, _ = trainer.work(task(bundle))
    again, _ = trainer.work(task(bundle, id="task-2"))
    other, _ = trainer.work(task(bundle, round=3))
    assert first.weights == again.weights
    assert first.weights != other.weights


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_evaluation_reports_counts(trainer: Process, bundle: Bundle, split: Any) -> None:
    update, progress = trainer.work(task(bundle, kind="evaluate", split=split))
    rows = getattr(build(recording(), FeatureSpec()), split)
    expected = evaluate_round(
        Graph(bundle.graph),
        rows,
        FeatureSpec(),
        weights=bundle.weights,
        settings=task(bundle).settings,
        place=Place(5, 2, "bed-01"),
    )
    assert update.error is None
    assert update.weights is None
    assert update.report is not None
    assert update.report.confusion == expected.confusion
    assert update.report.confusion_masked == expected.confusion_masked
    assert update.report.loss == pytest.approx(expected.loss)
    assert [sum(row) for row in update.report.confusion] == rows.counts()
    assert update.num_examples == len(rows)
    assert progress[0].epoch == 0


def test_a_long_training_tells_how_far_it_is(trainer: Process, bundle: Bundle) -> None:
    settings = TrainSettings(epochs=1000, seed=1)
    _, progress = trainer.work(task(bundle, settings=settings))
    epochs = [message.epoch for message in progress]
    assert epochs == sorted(set(epochs))
    assert all(later.at - sooner.at > 0.1 for sooner, later in itertools.pairwise(progress))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"graph_sha256": "0" * 64}, "another graph"),
        ({"weights": Vector.of(np.zeros(5, np.float32))}, "5 weights, the prepared model 1588"),
        ({"weights": Vector.of(np.full(1588, np.nan, np.float32))}, "not finite"),
        ({"settings": TrainSettings(epochs=0)}, "epochs is 0"),
        ({"settings": TrainSettings(mask_rate=2.0)}, "probability"),
        ({"settings": TrainSettings(log_prior=[0.0, 0.0])}, "log_prior"),
        ({"settings": TrainSettings(seed=-1)}, "non-negative"),
        ({"settings": TrainSettings(learning_rate=float("nan"))}, "diverged"),
        ({"settings": TrainSettings(learning_rate=1e38, epochs=5)}, "diverged"),
        ({"kind": "evaluate", "weights": Vector.of(np.zeros(5, np.float32))}, "weights"),
    ],
)
def test_a_task_that_cannot_be_done_is_answered_with_its_reason(
    trainer: Process, bundle: Bundle, changes: dict[str, Any], reason: str
) -> None:
    update, _ = trainer.work(task(bundle, **changes))
    assert update.error is not None
    assert reason in update.error
    assert "\n" not in update.error
    assert update.weights is None
    assert update.task == "task-1"
    assert trainer.work(task(bundle))[0].error is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"not a frame",
        msgspec.msgpack.encode({"type": "unknown"}),
        msgspec.msgpack.encode({"type": "task", "task": 7}),
        msgspec.msgpack.encode({"type": "task", "task": b"junk"}),
        msgspec.msgpack.encode({"type": "task", "task": msgspec.msgpack.encode({"v": 99})}),
        b"\x81" * 5000,
    ],
)
def test_a_frame_that_is_none_is_answered_and_the_next_one_works(
    trainer: Process, bundle: Bundle, body: bytes
) -> None:
    trainer.write(struct.pack(">I", len(body)) + body)
    failed = trainer.expect(frames.Failed)
    assert failed.error
    assert "\n" not in failed.error
    assert trainer.work(task(bundle))[0].error is None


def test_a_damaged_task_is_refused(trainer: Process, bundle: Bundle) -> None:
    vector = Vector.of(bundle.weights)
    damaged = msgspec.structs.replace(vector, data=b"\x00" + vector.data[1:])
    trainer.send(frames.Work(task=encode_task(task(bundle, weights=damaged))))
    assert "checksum" in trainer.expect(frames.Failed).error


def test_ctrl_c_is_left_to_the_agent(trainer: Process, bundle: Bundle) -> None:
    os.kill(trainer.process.pid, signal.SIGINT)
    assert trainer.work(task(bundle))[0].error is None


def test_it_has_a_low_priority_a_ceiling_and_little_memory(trainer: Process, bundle: Bundle) -> None:
    trainer.work(task(bundle))
    assert os.getpriority(os.PRIO_PROCESS, trainer.process.pid) >= 10
    limits = Path(f"/proc/{trainer.process.pid}/limits").read_text()
    ceiling = next(line for line in limits.splitlines() if line.startswith("Max data size"))
    assert ceiling.split()[3] == str(160 * 1024 * 1024)
    assert trainer.status("VmHWM") < 96
    opened = [os.readlink(file) for file in Path(f"/proc/{trainer.process.pid}/fd").iterdir()]
    assert not [name for name in opened if name.startswith("socket:")]


# -- processes of their own --------------------------------------------------------------------------------


def test_unprepared_it_says_so_and_a_failed_prepare_forgets_the_patient_before(
    started: Callable[..., Process], bundle: Bundle, untrained_bundle_path: Path, store: Path, tmp_path: Path
) -> None:
    one = started()
    one.expect(frames.Ready)
    assert "not prepared" in str(one.work(task(bundle))[0].error)
    assert one.prepare(untrained_bundle_path, store).error is None
    assert one.work(task(bundle))[0].error is None

    truncated = tmp_path / "model.samd"
    truncated.write_bytes(untrained_bundle_path.read_bytes()[:-100])
    for model, readings, reason in (
        (truncated, store, "truncated"),
        (tmp_path / "none.samd", store, "cannot be read"),
        (untrained_bundle_path, tmp_path / "none.sqlite", "there is no store"),
        (untrained_bundle_path, truncated, "damaged"),
    ):
        prepared = one.prepare(model, readings)
        assert reason in str(prepared.error)
        assert prepared.train == []
        assert "not prepared" in str(one.work(task(bundle))[0].error)

    empty = make_store(tmp_path / "empty", [])
    prepared = one.prepare(untrained_bundle_path, empty)
    assert prepared.error is None
    assert prepared.train == prepared.holdout == [0, 0, 0, 0]
    for kind in ("train", "evaluate"):
        assert one.work(task(bundle, kind=kind))[0].error == "no data"
    assert one.end() == 0


def test_it_ends_when_stdin_closes(started: Callable[..., Process]) -> None:
    one = started("--nice", "0", "--memory-mb", "0")
    one.expect(frames.Ready)
    assert one.end() == 0


@pytest.mark.parametrize("data", [b"\x00\x00", b"\xff\xff\xff\xff", struct.pack(">I", 100) + b"half"])
def test_a_stream_that_lost_step_ends_it_with_a_reason(started: Callable[..., Process], data: bytes) -> None:
    one = started()
    one.expect(frames.Ready)
    one.write(data)
    assert one.end() == 2
    assert "stream ended" in (failed := one.expect(frames.Failed)).error or "bytes" in failed.error


def test_without_an_interpreter_it_says_what_to_install(
    started: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMD_RUNTIME", "torch")
    one = started()
    assert "SAMD_RUNTIME" in one.expect(frames.Failed).error
    assert one.process.wait(DEADLINE_S) == 2


def test_what_a_library_prints_corrupts_no_frame(untrained_bundle_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from samd_edge.trainer import litert, __main__\n"
        "real = litert.warm_up\n"
        "def loud():\n"
        "    print('a line on stdout'); sys.stdout.flush(); os.write(1, b'bytes on fd 1')\n"
        "    assert os.read(0, 1) == b''\n"
        "    return real()\n"
        "litert.warm_up = loud\n"
        "sys.exit(__main__.main([]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True, check=True)
    size = frames.length_of(done.stdout[:4])
    assert len(done.stdout) == 4 + size
    assert isinstance(frames.decode_from_trainer(done.stdout[4:]), frames.Ready)
    assert b"a line on stdout" in done.stderr
    assert b"bytes on fd 1" in done.stderr


def test_it_loads_nothing_that_talks_to_a_network() -> None:
    code = (
        "import sys\n"
        "import samd_edge.trainer.worker, samd_edge.trainer.litert, samd_edge.trainer.__main__\n"
        "samd_edge.trainer.litert.warm_up()\n"
        "bad = ('paho', 'ssl', 'http', 'flwr', 'tensorflow', 'pandas', 'asyncio')\n"
        "print([name for name in bad if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
