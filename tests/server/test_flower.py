"""The contract with what Flower 1.41 keeps internal, and what importing the server loads."""

import inspect
import random
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from samd_server import flower
from samd_server.errors import RunFailed
from samd_server.grid import MqttGrid, arrays_of
from samd_server.strategies import by_name


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_pinned_version() -> None:
    assert version("flwr").startswith("1.41.")


def test_a_message_cannot_be_made_before_the_process_has_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)
    with pytest.raises(RuntimeError, match="not set"):
        Message(RecordDict(), 2, MessageType.TRAIN)
    flower.identify(5)
    made = Message(RecordDict(), 2, MessageType.TRAIN)
    assert (made.metadata.run_id, made.metadata.src_node_id) == (5, flower.SERVER_NODE)
    flower.identify(6)
    assert Message(RecordDict(), 2, MessageType.TRAIN).metadata.run_id == 6


def test_the_message_id_can_be_filled_in_and_replies_refer_to_it() -> None:
    flower.identify(1)
    made = Message(RecordDict(), 2, MessageType.TRAIN)
    assert made.metadata.message_id == ""
    flower.stamp(made, "task-1")
    assert made.metadata.message_id == "task-1"
    reply = Message(RecordDict(), reply_to=made)
    assert reply.metadata.reply_to_message_id == "task-1"
    assert reply.metadata.src_node_id == 2


def test_the_run_description_and_the_grid_interface() -> None:
    assert isinstance(flower.empty_run(), Run)
    assert MqttGrid.__abstractmethods__ == frozenset()
    for name in Grid.__abstractmethods__:
        theirs, ours = getattr(Grid, name), getattr(MqttGrid, name)
        if not isinstance(theirs, property):
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), (
                name
            )


def test_sampling_neither_waits_nor_leaves_anybody_out(ward, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_seconds: float) -> None:
        raise AssertionError("sample_nodes waits")

    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", never)
    strategy = by_name("FedAvg", 3)
    for seed in range(5):
        random.seed(seed)
        for configure in (strategy.configure_train, strategy.configure_evaluate):
            made = list(configure(4, arrays_of(np.zeros(2, np.float32)), ConfigRecord({}), ward.grid()))
            assert sorted(message.metadata.dst_node_id for message in made) == [2, 3, 4]
            assert {message.content["config"]["server-round"] for message in made} == {4}


def test_fedavg_is_flowers_own() -> None:
    strategy = by_name("FedAvg", 3)
    assert type(strategy) is FedAvg
    assert isinstance(strategy, Strategy)
    with pytest.raises(RunFailed, match="strategy 'FedMagic' is not offered; choose one of: FedAvg"):
        by_name("FedMagic", 3)


def test_telemetry_update_check_and_chatter_are_off_and_tensorflow_stays_out() -> None:
    told = python(
        "import sys\n"
        "from samd_server import flower\n"
        "import samd_server.registry, samd_server.errors\n"
        "assert 'flwr' not in sys.modules, 'imported before prepare'\n"
        "flower.prepare()\n"
        "import samd_server.service\n"
        "import logging, flwr.supercore.telemetry as t, flwr.supercore.update_check as u\n"
        "import os\n"
        "assert os.environ[u.FLWR_DISABLE_UPDATE_CHECK] == '1'\n"
        "logger = logging.getLogger('flwr')\n"
        "print(t.FLWR_TELEMETRY_ENABLED, logger.level, logger.handlers, 'tensorflow' in sys.modules,"
        " 'keras' in sys.modules, 'pandas' in sys.modules)"
    )
    assert told == "0 30 [] False False False"


def test_the_command_line_imports_no_flower_before_it_is_silenced() -> None:
    assert python(
        "import sys, samd_server.cli; print('flwr' in sys.modules, 'tensorflow' in sys.modules)"
    ) == ("False False")
