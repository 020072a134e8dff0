"""The server program on a real broker: whole runs, kill -9, stop, and what it answers when asked again."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from samd_protocol import bundle as bundles
from samd_protocol.errors import BrokerError
from samd_protocol.messages import RunSpec
from samd_protocol.tasks import Task, Update
from samd_server.errors import StoreError
from samd_server.registry import Registry
from samd_server.service import Service, import_model

DEVICES = ["bed-01", "bed-02", "bed-03"]
SPEC = RunSpec(rounds=4, quorum=3, round_deadline_s=20.0, seed=5)


class Server:
    """`samd-server run` as a process of its own."""

    def __init__(self, broker, gateway: str, data: Path, model: Path) -> None:
        self.data = data
        self._command = [sys.executable, "-m", "samd_server", "run", "--broker", broker.address.url]
        self._command += ["--gateway", gateway, "--data", str(data), "--model", str(model)]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.end(signal.SIGKILL)
        with (self.data.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready samd-server")

    def end(self, number: signal.Signals) -> int | None:
        if self.process is None:
            return None
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code


@pytest.fixture
def make_server(broker, uploads, tmp_path, untrained_bundle_path) -> Iterator[Callable[[str], Server]]:
    made: list[Server] = []

    def make(name: str) -> Server:
        (tmp_path / name).mkdir()
        made.append(Server(broker, uploads.url, tmp_path / name / "data", untrained_bundle_path))
        return made[-1]

    yield make
    for server in made:
        server.end(signal.SIGKILL)


@pytest.fixture
def service(broker, uploads, tmp_path: Path, untrained_bundle_path: Path) -> Iterator[Service]:
    import_model(Registry(tmp_path / "data/models", "severity"), untrained_bundle_path)
    made = Service(broker.address, uploads.url, tmp_path / "data")
    thread = threading.Thread(target=made.serve)
    thread.start()
    assert made.link.connected.wait(20)
    yield made
    made.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_whole_run_ends_with_a_released_model(service, peers, uploads, eventually) -> None:
    peers.order("start", "run-a", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-a"))
    told = peers.ended("run-a")
    assert (told.phase, told.model_version, told.released, told.round) == ("done", 1, True, 4)
    assert told.reason == "macro-F1 0.900 on 60 held-out hours passes the gate"
    assert told.metrics["complete_macro_f1"] == pytest.approx(0.9)
    eventually(lambda: peers.releases and peers.releases[-1].version == 1)
    release = peers.releases[-1]
    uploaded = bundles.unpack(uploads.received[f"/api/models/{release.sha256}.samd"])
    card = service.registry.card(1)
    assert (card.decision, card.run, card.sha256) == ("released", "run-a", release.sha256)
    assert uploaded.manifest.trained
    assert uploaded.manifest.parent == 0
    assert uploaded.manifest.provenance["devices"] == 3
    assert uploaded.graph == service.registry.read(0).graph
    assert uploaded.keras != service.registry.read(0).keras
    eventually(lambda: peers.states[-1].model_version == 1)
    # The next run starts from it, and is judged against it.
    peers.order("start", "run-b", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-b"))
    assert peers.ended("run-b").model_version == 2
    assert service.registry.read(2).manifest.parent == 1
    assert (service.data / "runs/run-b/result.json").exists()
    # The gateway asks again, because it missed the answer.
    peers.runs.clear()
    peers.order("start", "run-a", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-a"))
    assert peers.ended("run-a").model_version == 1
    assert service.registry.versions() == [0, 1, 2]


def test_an_operator_puts_an_older_version_to_use_and_a_kept_one(service, peers, uploads, eventually) -> None:
    peers.order("start", "run-a", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-a"))
    eventually(lambda: peers.releases and peers.releases[-1].version == 1)
    back = peers.order_model("severity", 0)
    eventually(lambda: peers.releases[-1].version == 0)
    assert (peers.model_answers[back].status, peers.model_answers[back].reason) == ("done", "")
    assert service.registry.released == 0
    eventually(lambda: peers.states[-1].model_version == 0)
    assert f"/api/models/{peers.releases[-1].sha256}.samd" in uploads.received
    # A new run starts from what is in use, and its version is still a new one.
    peers.order("start", "run-b", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-b"))
    assert service.registry.read(2).manifest.parent == 0


def test_an_order_that_cannot_be_is_answered_with_the_reason(service, peers, eventually) -> None:
    for task, version, reason in (
        ("deterioration", 0, "this server trains 'severity', not 'deterioration'"),
        ("severity", 7, "no version 7 for severity in the store; samd-server models lists them"),
    ):
        order = peers.order_model(task, version)
        eventually(lambda order=order: order in peers.model_answers)
        assert (peers.model_answers[order].status, peers.model_answers[order].reason) == ("rejected", reason)
    assert service.registry.released == 0


def test_a_run_that_nobody_can_judge_is_kept(service, peers, eventually) -> None:
    def no_hold_out(task: Task) -> Update:
        if task.split == "train":
            return peers_honest(task)
        return Update(
            task=task.id, run=task.run, round=task.round, device=task.device, kind=task.kind, error="no rows"
        )

    peers_honest = sys.modules[type(peers).__module__].honest
    peers.answers = dict.fromkeys(DEVICES, no_hold_out)
    peers.order("start", "run-a", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-a"))
    told = peers.ended("run-a")
    assert (told.phase, told.model_version, told.released) == ("done", 1, False)
    assert told.reason == "only 0 held-out hours to judge it by; 20 are needed"
    assert service.registry.released == 0
    assert service.registry.card(1).decision == "kept"


def test_stop_pause_and_resume_while_a_round_is_under_way(service, peers, eventually) -> None:
    peers.answers["bed-02"] = lambda task: None
    peers.order("start", "run-a", SPEC, DEVICES)
    eventually(lambda: len(peers.asked) == 3)
    peers.order("stop", "run-a")
    eventually(lambda: peers.ended("run-a"), timeout=2.0)
    assert (peers.ended("run-a").phase, peers.ended("run-a").reason) == ("stopped", "stopped by an operator")
    peers.answers.clear()
    # A pause that comes before its run holds it; resumed, it goes on to its end.
    peers.order("pause", "run-b")
    peers.order("start", "run-b", SPEC, DEVICES)
    eventually(lambda: peers.runs[-1].phase == "paused")
    assert len(peers.asked) == 3
    peers.order("resume", "run-b")
    eventually(lambda: peers.ended("run-b"))
    assert peers.ended("run-b").phase == "done"


def test_a_will_and_a_return_while_a_round_is_under_way(service, peers, eventually) -> None:
    for device in DEVICES:
        peers.state(device, "online")
    peers.answers["bed-02"] = lambda task: None
    peers.order("start", "run-a", SPEC, DEVICES)
    eventually(lambda: len(peers.asked) == 3)
    peers.state("bed-02", "online")  # says no more than before
    peers.state("bed-02", "offline")
    peers.answers.clear()
    peers.state("bed-02", "online", connection=2)
    eventually(lambda: peers.ended("run-a"))
    assert peers.ended("run-a").phase == "done"
    assert sum(task.device == "bed-02" and task.round == 0 for task in peers.asked) == 2


def test_an_order_that_cannot_be_met_fails_with_its_reason(service, peers, eventually) -> None:
    for run, spec, reason in (
        ("run-a", RunSpec(task="mood"), "this server trains 'severity', the run asks for 'mood'"),
        ("run-b", RunSpec(quorum=4), "a quorum of 4 with 3 devices can never be met"),
        (
            "run-c",
            RunSpec(strategy="X"),
            "strategy 'X' is not offered; choose one of: FedAvg, FedAvgM, FedAdam, FedYogi, FedProx, "
            "FedMedian, FedTrimmedAvg, Krum, MultiKrum, Bulyan, QFedAvg",
        ),
        ("run-d", None, "the order holds no description of the run"),
    ):
        peers.order("start", run, spec, DEVICES)
        eventually(lambda run=run: peers.ended(run))
        assert (peers.ended(run).phase, peers.ended(run).reason) == ("failed", reason)
    peers.order("start", "run-e", SPEC, ["bed 1", "bed-02", "bed-03"])
    eventually(lambda: peers.ended("run-e"))
    assert "'bed 1' is no device name" in peers.ended("run-e").reason


def test_a_damaged_checkpoint_is_told_and_the_server_goes_on(service, peers, eventually) -> None:
    folder = service.data / "runs/run-a"
    folder.mkdir(parents=True)
    (folder / "checkpoint.msgpack").write_bytes(b"\x00")
    peers.order("start", "run-a", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-a"))
    assert "the run cannot go on, start a new one" in peers.ended("run-a").reason
    peers.order("start", "run-b", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-b"))
    assert peers.ended("run-b").phase == "done"


def test_killed_in_the_middle_of_a_round_it_ends_with_the_same_weights(
    make_server, peers, eventually
) -> None:
    plain, killed = make_server("plain"), make_server("killed")
    plain.start()
    eventually(lambda: peers.states and peers.states[-1].status == "online")
    peers.order("start", "run-a", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-a"), timeout=60)
    assert plain.end(signal.SIGTERM) == 0
    eventually(lambda: peers.states[-1].status == "offline")
    honest = sys.modules[type(peers).__module__].honest
    reached, peers.runs[:] = threading.Event(), []

    def until_round_3(task: Task) -> Update | None:
        if task.kind == "train" and task.round == 3:
            reached.set()
            return None
        return honest(task)

    peers.answers["bed-02"] = until_round_3
    killed.start()
    eventually(lambda: peers.states[-1].status == "online")
    peers.order("start", "run-a", SPEC, DEVICES)
    assert reached.wait(30)
    assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    peers.answers.clear()
    killed.start()
    eventually(lambda: peers.ended("run-a"), timeout=60)
    assert peers.ended("run-a").model_version == 1
    weights = [Registry(server.data / "models", "severity").read(1).weights for server in (plain, killed)]
    assert weights[0].tobytes() == weights[1].tobytes()
    assert not np.array_equal(weights[0], Registry(plain.data / "models", "severity").read(0).weights)
    logged = [json.loads(x) for x in (killed.data / "runs/run-a/metrics.jsonl").read_text().splitlines()]
    assert [each["round"] for each in logged if each["event"] == "round"] == [1, 2, 3, 4]
    assert killed.end(signal.SIGINT) == 130


def test_a_crash_between_store_and_end_makes_no_second_candidate(
    broker, uploads, tmp_path, untrained_bundle_path, peers, eventually
) -> None:
    import_model(Registry(tmp_path / "data/models", "severity"), untrained_bundle_path)

    def live(until: Callable[[], object], prepare: Callable[[Service], None] = lambda service: None) -> None:
        service = Service(broker.address, uploads.url, tmp_path / "data")
        prepare(service)
        thread = threading.Thread(target=service.serve)
        thread.start()
        eventually(until, timeout=30)
        service.stop()
        thread.join(20)
        assert not thread.is_alive()

    def ends_before_the_result(service: Service) -> None:
        service.releaser.wait_announced = lambda *_args, **_kw: (service.stop(), False)[1]  # type: ignore[method-assign]

    store = Registry(tmp_path / "data/models", "severity")

    def order(service: Service) -> None:
        ends_before_the_result(service)
        threading.Thread(
            target=lambda: service.link.connected.wait(20) and peers.order("start", "run-a", SPEC, DEVICES)
        ).start()

    live(lambda: store.versions() == [0, 1], order)
    assert not (tmp_path / "data/runs/run-a/result.json").exists()
    # As if the crash had fallen before the version was put to use.
    store.use(0)
    trained = len(peers.asked)
    live(lambda: peers.ended("run-a"))
    assert len(peers.asked) == trained, "nobody trains again"
    assert store.versions() == [0, 1]
    assert store.released == 1
    # Killed after the result was written and before it was told: it is told at the next start.
    peers.runs.clear()
    live(lambda: peers.ended("run-a"))


def test_one_folder_has_one_server(service, broker, uploads) -> None:
    with pytest.raises(StoreError, match="another samd-server uses this folder"):
        Service(broker.address, uploads.url, service.data)


# -- the command line ---------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "samd_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--broker", "http://x"], "write mqtt://HOST:PORT or mqtts://HOST:PORT"),
        (["--gateway", "x"], "write http://HOST:PORT"),
        (["--model", "/none.samd"], "/none.samd: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run("run", "--data", str(tmp_path / "d"), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("samd-server: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_models_command(tmp_path: Path, untrained_bundle_path: Path) -> None:
    empty = run("models", "--data", str(tmp_path))
    assert (empty.returncode, empty.stderr.count("\n")) == (2, 1)
    assert "holds no model" in empty.stderr
    import_model(Registry(tmp_path / "models", "severity"), untrained_bundle_path)
    assert run("models", "--data", str(tmp_path)).stdout.startswith("*    0  imported")
    told = json.loads(run("models", "--data", str(tmp_path), "--json").stdout)
    assert (told["version"], told["decision"]) == (0, "imported")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_without_broker_and_gateway_it_waits_and_ends_when_told(
    tmp_path: Path, untrained_bundle_path: Path, free_port: int, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "samd_server", "run", "--data", str(tmp_path / "d"), "--broker"]
    command += [f"mqtt://127.0.0.1:{free_port}", "--gateway", f"http://127.0.0.1:{free_port}"]
    command += ["--model", str(untrained_bundle_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready samd-server, model 0")
        process.send_signal(number)
        _, told = process.communicate(timeout=20)
        assert process.returncode == code
    assert "Traceback" not in told
    assert os.stat(tmp_path / "d").st_mode & 0o077 == 0


@pytest.mark.long
def test_an_empty_store_without_a_model_builds_one(tmp_path: Path, free_port: int) -> None:
    command = [sys.executable, "-m", "samd_server", "run", "--data", str(tmp_path / "d")]
    command += ["--broker", f"mqtt://127.0.0.1:{free_port}", "--gateway", f"http://127.0.0.1:{free_port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        _, told = process.communicate(timeout=20)
    assert line.startswith("ready samd-server, model 0"), told
    assert process.returncode == 0
    assert Registry(tmp_path / "d/models", "severity").read(0).manifest.trained is False


def test_a_password_that_others_can_read_is_refused(uploads, broker, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    address = type(broker.address)(url=broker.address.url, username="u", password_file=str(secret))
    with pytest.raises(BrokerError, match="others can read this secret"):
        Service(address, uploads.url, tmp_path / "data")
