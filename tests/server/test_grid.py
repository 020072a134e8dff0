"""Flower on our grid: exact averages, any order of replies, quorum and deadline on simulated time."""

import random
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg, FedMedian

from samd_protocol import tasks
from samd_protocol.errors import MessageError
from samd_protocol.tasks import Task, TrainSettings, Update, Vector
from samd_server.grid import Collected, MqttGrid, arrays_of, weights_of
from samd_server.strategies import by_name

START = np.array([1.0, -2.0, 0.5], dtype=np.float32)


def config() -> ConfigRecord:
    return ConfigRecord({"epochs": 2, "learning-rate": 0.1, "log-prior": [0.5, -0.5], "seed": 7})


def messages(grid: MqttGrid, kind: str = "train") -> list[Message]:
    strategy = by_name("FedAvg", len(grid.devices))
    configure = strategy.configure_train if kind == "train" else strategy.configure_evaluate
    return list(configure(1, arrays_of(START), config(), grid))


def ask(grid: MqttGrid, **given: object) -> Collected:
    how = {"timeout": 10.0, "quorum": None, "grace": 0.5} | given
    return grid.collect(grid.push_messages(messages(grid)), **how)  # type: ignore[arg-type]


def reply(task: Task, values: list[float], examples: int) -> Update:
    weights = Vector.of(np.array(values, dtype=np.float32))
    return Update(
        task=task.id,
        run=task.run,
        round=task.round,
        device=task.device,
        kind="train",
        num_examples=examples,
        weights=weights,
        loss=1.0,
    )


def fixed(values: list[float], examples: int) -> Callable[[Task], Update]:
    return lambda task: reply(task, values, examples)


def test_a_task_carries_what_the_strategy_configured(ward) -> None:
    ask(ward.grid())
    assert [task.device for task in ward.asked] == ["bed-01", "bed-02", "bed-03"]
    task = ward.asked[0]
    assert (task.run, task.round, task.kind, task.split) == ("run-1", 1, "train", "train")
    assert (task.deadline_s, task.graph_sha256) == (60.0, "9" * 64)
    assert task.weights.array().tolist() == START.tolist()
    assert msgspec.to_builtins(task.settings) == msgspec.to_builtins(TrainSettings()) | {
        "epochs": 2,
        "learning_rate": 0.1,
        "proximal_mu": 0.0,
        "mask_rate": 0.0,
        "log_prior": [0.5, -0.5],
        "seed": 7,
    }


def test_fedavg_is_the_weighted_mean_worked_out_by_hand(ward) -> None:
    ward.answers = {
        "bed-01": fixed([1.0, 2.0, 3.0], 1),
        "bed-02": fixed([5.0, -2.0, 0.0], 1),
        "bed-03": fixed([0.0, 8.0, 1.5], 2),
    }
    collected = ask(ward.grid())
    arrays, metrics = by_name("FedAvg", 3).aggregate_train(1, [r.message for r in collected.replies])
    # (1*1 + 1*5 + 2*0) / 4, (1*2 - 1*2 + 2*8) / 4, (1*3 + 1*0 + 2*1.5) / 4
    assert weights_of(arrays).tolist() == [1.5, 4.0, 1.5]
    assert metrics["loss"] == 1.0


def test_the_result_does_not_depend_on_who_was_quicker(make_ward) -> None:
    names = [f"bed-{number:02d}" for number in range(10)]
    results = set()
    for seed in range(6):
        random.seed(seed)  # Flower draws the order of the nodes from the global generator
        ward = make_ward(random.sample(names, 10))
        ward.delays = {name: random.random() for name in names}
        collected = ask(ward.grid())
        arrays, _ = by_name("FedAvg", 10).aggregate_train(1, [r.message for r in collected.replies])
        results.add(weights_of(arrays).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("strategy", [FedAvg, FedMedian])
def test_flowers_own_loop_runs_on_the_grid(ward, strategy: type[FedAvg]) -> None:
    chosen = strategy(min_available_nodes=3, weighted_by_key="num-examples")
    result = chosen.start(ward.grid(), arrays_of(START), num_rounds=3)
    assert result.train_metrics_clientapp.keys() == {1, 2, 3}
    assert weights_of(result.arrays).shape == (3,)
    assert result.evaluate_metrics_clientapp[3]["confusion"] == [
        4,
        1,
        0,
        0,
        1,
        4,
        0,
        0,
        0,
        0,
        5,
        0,
        0,
        0,
        0,
        5,
    ]
    assert ward.asked[0].settings.epochs == 1


def test_pull_leaves_open_what_is_not_there_yet(ward) -> None:
    ward.delays = {"bed-01": 5.0, "bed-02": 0.0, "bed-03": 0.0}
    grid = ward.grid()
    ids = list(grid.push_messages(messages(grid)))
    assert len(list(grid.pull_messages([ids[2]]))) == 1
    assert len(list(grid.pull_messages(ids))) == 1  # bed-02, which arrived while bed-03 was asked for
    assert len(list(grid.pull_messages(ids))) == 0
    ward.inbox.wait(0)
    ward.inbox.time = 5.0
    assert [m.metadata.reply_to_message_id for m in grid.pull_messages(ids)] == [ids[0]]


def test_everybody_answers(ward) -> None:
    collected = ask(ward.grid(), quorum=2)
    assert [r.device for r in collected.replies] == ["bed-01", "bed-02", "bed-03"]
    assert (collected.dropped, collected.awaited) == ({}, {})
    assert ward.inbox.time == pytest.approx(0.01)


def test_one_that_is_offline_is_not_awaited_once_the_quorum_is_in(ward) -> None:
    ward.answers["bed-02"] = lambda task: None
    grid = ward.grid()
    grid.set_online("bed-02", False)
    collected = ask(grid, quorum=2)
    assert collected.awaited == {"bed-02": "offline"}
    assert ward.inbox.time == pytest.approx(0.01)


def test_a_last_will_ends_the_waiting(ward) -> None:
    ward.answers["bed-02"] = lambda task: None
    grid = ward.grid()
    ward.inbox.at(0.2, lambda: grid.set_online("bed-02", False))
    assert ask(grid, quorum=2).awaited == {"bed-02": "offline"}
    assert ward.inbox.time == pytest.approx(0.2)


@pytest.mark.parametrize(("delay", "end"), [(0.01, 0.51), (3.0, 6.0), (7.0, 10.0)])
def test_a_silent_one_is_awaited_for_the_grace(ward, delay: float, end: float) -> None:
    """Half a second, or as long again as the quorum took; never beyond the deadline."""
    ward.answers["bed-02"] = lambda task: None
    ward.delays = {"bed-01": delay, "bed-03": delay}
    assert ask(ward.grid(), quorum=2).awaited == {"bed-02": "silent"}
    assert ward.inbox.time == pytest.approx(end)


def test_below_the_quorum_it_waits_until_the_deadline_and_no_longer(ward) -> None:
    ward.answers = {"bed-02": lambda task: None, "bed-03": lambda task: None}
    collected = ask(ward.grid(), quorum=2)
    assert [r.device for r in collected.replies] == ["bed-01"]
    assert collected.awaited == {"bed-02": "silent", "bed-03": "silent"}
    assert ward.inbox.time == 10.0


def test_without_a_quorum_flower_waits_for_all_until_the_deadline(ward) -> None:
    ward.answers["bed-02"] = lambda task: None
    grid = ward.grid()
    grid.deadline_s = 4.0
    assert len(list(grid.send_and_receive(messages(grid), timeout=3600.0))) == 2
    assert ward.inbox.time == 4.0


def test_a_stop_is_seen_within_a_quarter_of_a_second(ward) -> None:
    ward.answers = {name: (lambda task: None) for name in ward.names}
    stopped = []
    ward.inbox.at(1.1, lambda: stopped.append(True))
    ask(ward.grid(), quorum=2, timeout=600.0, stop=lambda: bool(stopped))
    assert 1.1 <= ward.inbox.time <= 1.35


def test_late_second_and_foreign_answers_are_ignored_and_counted(ward) -> None:
    ward.answers["bed-02"] = lambda task: None
    grid = ward.grid()
    first = ask(grid, quorum=2)
    late = fixed([9.0, 9.0, 9.0], 5)(ward.asked[1])
    second = first.replies[0].update
    ward.asked.clear()
    ward.answers["bed-02"] = lambda task: msgspec.structs.replace(
        fixed([0.0, 0.0, 0.0], 1)(task), task=next(t.id for t in ward.asked if t.device == "bed-01")
    )
    ward.delays["bed-01"] = 0.1
    for update in (late, second, second):
        grid.deliver(update)
    collected = ask(grid, quorum=2)
    assert [r.device for r in collected.replies] == ["bed-01", "bed-03"]
    assert collected.awaited == {"bed-02": "silent"}
    assert grid.ignored == {"late": 3, "foreign": 1}


def test_unusable_answers_are_dropped_with_their_reason_and_never_averaged(ward) -> None:
    ward.answers["bed-02"] = fixed([np.nan, 0.0, 0.0], 5)
    ward.answers["bed-03"] = fixed([0.0, 0.0], 5)
    collected = ask(ward.grid(), quorum=1)
    assert [r.device for r in collected.replies] == ["bed-01"]
    assert collected.dropped == {"bed-02": "not finite", "bed-03": "wrong size"}


def test_damaged_messagepack_is_refused_before_the_grid() -> None:
    task = Task(
        id="t",
        run="r",
        round=1,
        device="bed-01",
        kind="train",
        graph_sha256="",
        deadline_s=1,
        weights=Vector.of(START),
        settings=tasks.TrainSettings(),
    )
    good = tasks.encode(fixed([1.0, 2.0, 3.0], 5)(task))
    assert tasks.decode_update(good).num_examples == 5
    for cut in range(len(good)):
        with pytest.raises(MessageError):
            tasks.decode_update(good[:cut])
    payload = bytes(Vector.of(np.array([1.0, 2.0, 3.0], dtype=np.float32)).data)
    at = good.index(payload)
    with pytest.raises(MessageError, match="damaged"):
        tasks.decode_update(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])


def test_a_device_that_comes_back_gets_its_open_task_again(ward) -> None:
    ward.answers["bed-02"] = lambda task: None
    grid = ward.grid()

    def come_back() -> None:
        ward.answers.pop("bed-02")
        grid.set_online("bed-02", True)

    ward.inbox.at(0.1, lambda: grid.set_online("bed-02", False))
    ward.inbox.at(2.0, come_back)
    ward.answers["bed-03"] = lambda task: None
    ward.inbox.at(3.0, lambda: grid.set_online("bed-01", True))
    collected = ask(grid, quorum=2, timeout=20.0)
    sent = [task.id for task in ward.asked if task.device == "bed-02"]
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert [r.device for r in collected.replies] == ["bed-01", "bed-02"]
    assert sum(task.device == "bed-01" for task in ward.asked) == 1, "an answered task is not sent again"


def test_refusals_end_an_exchange_only_beside_a_valid_answer(ward) -> None:
    """Two quick refusals must not cut off the one that computes for 5 s."""
    refusal = lambda task: msgspec.structs.replace(fixed([0.0], 1)(task), error="no rows")  # noqa: E731
    ward.answers = {"bed-01": refusal, "bed-02": refusal}
    ward.delays["bed-03"] = 5.0
    collected = ask(ward.grid(), quorum=2, refusals_count=True)
    assert [r.device for r in collected.replies] == ["bed-03"]


def test_a_name_twice_is_one_device(make_ward) -> None:
    assert make_ward(["a", "b", "a"]).grid().devices == ["a", "b"]
