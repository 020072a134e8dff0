"""Every strategy against numbers worked out by hand, the traps of Flower, and what a checkpoint keeps."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from samd_protocol.messages import RunSpec
from samd_protocol.strategies import STRATEGIES, least_replies, settings_of
from samd_protocol.tasks import Task, Update, Vector
from samd_server import flower
from samd_server.checkpoint import Kept, RunFolder
from samd_server.errors import RunFailed
from samd_server.flower import ARRAYS, METRICS, WEIGHTS
from samd_server.grid import MqttGrid, arrays_of, metrics_of, num_severe
from samd_server.strategies import Averaging, Result, aggregate, by_name, of_spec, restore, state_of

flower.identify(1)
START = np.array([1.0, 1.0], dtype=np.float32)


def result(*weights: float, rows: int = 1, severe: int = 0, loss: float = 1.0) -> Result:
    return Result(np.array(weights, dtype=np.float32), rows, severe, loss)


LINE = [result(2, 1), result(3, 1), result(4, 1), result(5, 1), result(100, 1)]
"""Five devices, the last of them out of line."""


def averaged(
    name: str, results: Sequence[Result], settings: dict[str, float] | None = None, **given: object
) -> list[float]:
    made = by_name(name, len(results), settings=settings, **given)  # type: ignore[arg-type]
    return Averaging(made, len(results)).round(1, START, results).tolist()


def rounds(strategy: Strategy, *each: Sequence[Result]) -> list[list[float]]:
    averaging, weights, found = Averaging(strategy, len(each[0])), START, []
    for number, results in enumerate(each, start=1):
        weights = averaging.round(number, weights, results)
        found.append(weights.tolist())
    return found


# -- averages ----------------------------------------------------------------------------------------------


def test_fedavg_weighs_by_rows_or_by_severe_rows() -> None:
    results = [result(0, 4, rows=30, severe=0), result(4, 0, rows=10, severe=2)]
    assert averaged("FedAvg", results) == [1.0, 3.0]
    assert averaged("FedAvg", results, weighting="severe") == [3.0, 1.0]  # 1 to 3
    assert averaged("FedProx", results, proximal_mu=0.1) == [1.0, 3.0]


def test_fedavgm_keeps_a_share_of_the_last_step() -> None:
    strategy = by_name("FedAvgM", 2, settings={"server_momentum": 0.5, "server_learning_rate": 1.0})
    first = [result(2, 1), result(2, 1)]
    second = [result(3, 1), result(3, 1)]
    # the first step is +1; then +1 again and half of the last
    assert rounds(strategy, first, second) == [[2.0, 1.0], [3.5, 1.0]]


def test_fedadam_and_fedyogi_take_their_step() -> None:
    settings = {"eta": 0.5, "beta_1": 0.5, "beta_2": 0.5, "tau": 0.5}
    results = [result(3, 1), result(3, 1)]
    # step 2: m = 1, v = 2; Adam's rate is eta * sqrt(1 - .5²) / (1 - .5²)
    rate = 0.5 * math.sqrt(0.75) / 0.75
    assert averaged("FedAdam", results, settings) == pytest.approx([1 + rate / (math.sqrt(2) + 0.5), 1.0])
    assert averaged("FedYogi", results, settings) == pytest.approx([1 + 0.5 / (math.sqrt(2) + 0.5), 1.0])


def test_the_robust_ones_are_not_drawn_away_by_one() -> None:
    assert averaged("FedAvg", LINE)[0] == pytest.approx(22.8)
    assert averaged("FedMedian", LINE) == [4.0, 1.0]
    assert averaged("FedTrimmedAvg", LINE, {"beta": 0.2}) == [4.0, 1.0]
    # Krum, f = 1: the sum to the 2 nearest is 1 + 4 for 2 and 5, and 1 + 1 for 3 and 4: the first of these
    assert averaged("Krum", LINE, {"num_malicious_nodes": 1}) == [3.0, 1.0]
    # MultiKrum averages 3 and 4, n - f - 2 of them
    assert averaged("MultiKrum", LINE) == [3.5, 1.0]
    assert averaged("MultiKrum", LINE, {"num_nodes_to_select": 1}) == [3.0, 1.0]


def test_bulyan_with_one_liar_among_seven() -> None:
    results = [result(value, 1) for value in (1, 2, 3, 4, 5, 6, 100)]
    # 7 - 2 are selected (the nearest to their own: 3 and 4, then 2 and 5, then 1 or 6); of those the 3 values
    # nearest to the median are averaged
    assert averaged("Bulyan", results)[0] == pytest.approx(3.0, abs=0.51)
    assert averaged("Bulyan", [result(value, 1) for value in (3, 3, 3, 3, 3, 3, 100)]) == [3.0, 1.0]


def test_qfedavg_follows_the_one_who_does_worse() -> None:
    results = [result(2, 1, loss=1.0), result(1, 2, loss=4.0)]
    # q 1, L 1: delta = loss * (start - weights), h = |start - weights|² + loss; sums: [-1, -4] and 1+1 + 1+4
    found = averaged("QFedAvg", results, {"q": 1.0, "client_learning_rate": 1.0})
    assert found == pytest.approx([1 + 1 / 7, 1 + 4 / 7])
    even = averaged("QFedAvg", results, {"q": 0.0, "client_learning_rate": 0.5})
    assert even == pytest.approx([1.5, 1.5])


# -- traps -------------------------------------------------------------------------------------------------


def test_one_perfect_device_does_not_stop_qfedavg() -> None:
    results = [result(2, 1, loss=0.0), result(2, 1, loss=1.0)]
    found = averaged("QFedAvg", results, {"q": 0.5, "client_learning_rate": 1.0})
    # a loss of 0 counts as .01: delta .1 + 1; h .5 * (10 + 1) + .1 + 1
    assert found[0] == pytest.approx(1 + 1.1 / 6.6, rel=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_replies_stay_whole(name: str) -> None:
    results = [result(value, 1) for value in range(2, 9)]
    grid = MqttGrid("run", [f"d{n}" for n in range(7)], lambda *_: None, graph_sha256="")
    strategy = by_name(name, 7, proximal_mu=0.1)
    asked = list(strategy.configure_train(1, arrays_of(START), ConfigRecord({}), grid))
    replies = [
        Message(
            RecordDict({ARRAYS: arrays_of(each.weights), METRICS: metrics_of(1, 0, 1.0)}), reply_to=message
        )
        for message, each in zip(asked, results, strict=True)
    ]
    first = aggregate(strategy, 1, replies, START)
    assert [reply.content[ARRAYS][WEIGHTS].numpy()[0] for reply in replies] == [2, 3, 4, 5, 6, 7, 8]
    again = by_name(name, 7, proximal_mu=0.1)
    list(again.configure_train(1, arrays_of(START), ConfigRecord({}), grid))
    assert aggregate(again, 1, replies, START).tobytes() == first.tobytes()
    assert first.dtype == np.float32


def test_krum_sees_small_steps_on_large_weights() -> None:
    start = np.full(2, 1000.0, dtype=np.float32)
    steps = (0.25, 0.5, 0.5625, 0.75, 8.0)
    results = [Result(start + np.float32(step), 1, 0, 1.0) for step in steps]
    found = Averaging(by_name("Krum", 5), 5).round(1, start, results)
    # in float32, |x|² + |y|² - 2xy of a thousand has steps of a quarter: each distance would be noise
    assert found.tolist() == [1000.5625, 1000.5625]


def test_a_strategy_that_gives_nothing_fails_the_run_in_words() -> None:
    with pytest.raises(RunFailed, match="round 1: the strategy gave no weights"):
        averaged("Bulyan", LINE)
    with pytest.raises(RunFailed, match="round 1: the strategy gave weights that cannot be used"):
        averaged("FedAvg", [result(3e38, 1, rows=1), result(3e38, 1, rows=1)] * 2 + [result(math.nan, 1)])


def test_severe_rows_are_the_upper_half_of_the_classes() -> None:
    assert num_severe([100, 50, 3, 4]) == 7
    assert num_severe([100, 9]) == 9
    assert num_severe([]) == 0


# -- what is asked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_flowers_own_with_its_settings(name: str) -> None:
    spec = RunSpec(strategy=name, quorum=7, proximal_mu=0.1, learning_rate=0.02)
    made = of_spec(spec, 9)
    assert type(made).__module__.startswith("flwr.serverapp.strategy.")
    assert type(made).__name__ == name
    for key, value in settings_of(name, {}).items():
        if (name, key) not in (("MultiKrum", "num_nodes_to_select"), ("QFedAvg", "client_learning_rate")):
            assert getattr(made, key) == value
    if name == "MultiKrum":
        assert made.num_nodes_to_select == 4  # 7 - 1 - 2
    if name == "QFedAvg":
        assert made.client_learning_rate == 0.02
    if name == "FedProx":
        assert made.proximal_mu == 0.1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"strategy": "FedMagic"}, r"strategy 'FedMagic' is not offered; choose one of: FedAvg, FedAvgM"),
        ({"strategy": "fedadam"}, r"did you mean 'FedAdam'\? choose one of"),
        ({"strategy": "Krum", "quorum": 4}, "quorum is 4: Krum as set needs 5 replies"),
        ({"strategy": "Bulyan", "quorum": 6}, "Bulyan as set needs 7 replies"),
        ({"strategy": "FedTrimmedAvg", "quorum": 4}, "FedTrimmedAvg as set needs 5 replies"),
        ({"strategy": "FedMedian", "quorum": 2}, "FedMedian as set needs 3 replies"),
        ({"strategy": "FedProx"}, "proximal_mu: FedProx needs one above 0"),
        ({"strategy": "FedAvg", "strategy_settings": {"eta": 1.0}}, "FedAvg has no 'eta'; it has no setting"),
        (
            {"strategy": "FedAdam", "strategy_settings": {"beta_3": 1.0}},
            r"FedAdam has no 'beta_3'; did you mean 'beta_[12]'\?",
        ),
        (
            {"strategy": "FedAdam", "strategy_settings": {"beta_1": 1.0}},
            "beta_1 is 1; it lies between 0 and 0.9999",
        ),
        (
            {"strategy": "Krum", "quorum": 9, "strategy_settings": {"num_malicious_nodes": 1.5}},
            "num_malicious_nodes is 1.5; it is a whole number",
        ),
        ({"weighting": "sever"}, "weighting 'sever' is not offered; did you mean 'severe'"),
        ({"weighting": "severe", "strategy": "FedMedian", "quorum": 3}, "FedMedian counts every reply alike"),
        ({"method": "dito"}, r"method 'dito' is not offered; did you mean 'ditto'\?"),
        ({"method": "ditto"}, "personal_mu: ditto needs its lambda above 0"),
        ({"method": "fedprox"}, "proximal_mu: the method fedprox needs one above 0"),
        ({"rehearsal": 5}, "rehearsal: none leaves no personal model"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_its_remedy(fields: dict, reason: str) -> None:
    with pytest.raises(RunFailed, match=reason):
        of_spec(RunSpec(**fields), 9)


def test_least_replies() -> None:
    assert [least_replies(name, {}) for name in STRATEGIES] == [1, 1, 1, 1, 1, 3, 5, 5, 5, 7, 1]
    assert least_replies("FedTrimmedAvg", {"beta": 0.1}) == 10
    assert least_replies("FedTrimmedAvg", {"beta": 0.0}) == 1
    assert least_replies("MultiKrum", {"num_nodes_to_select": 6}) == 9


# -- what a checkpoint keeps -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("FedAvg", set()),
        ("FedAvgM", {"momentum_vector"}),
        ("FedAdam", {"m_t", "v_t"}),
        ("FedYogi", {"m_t", "v_t"}),
    ],
)
def test_a_strategy_goes_on_as_if_it_had_never_stopped(name: str, kept: set[str]) -> None:
    first, second = [result(2, 0), result(3, 0.5)], [result(1, 4), result(0, 2)]
    whole = rounds(by_name(name, 2), first, second)[1]
    before = by_name(name, 2)
    weights = Averaging(before, 2).round(1, START, first)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(state_of(before)), type=dict[str, Kept])
    assert set(state) == kept
    after = by_name(name, 2)
    restore(after, state, 2)
    assert Averaging(after, 2).round(2, weights, second).tolist() == whole


def test_a_state_that_is_not_the_strategys_is_refused() -> None:
    state = {"m_t": Kept("<f4", bytes(8))}
    for strategy, size in ((by_name("FedAvg", 2), 2), (by_name("FedAdam", 2), 3)):
        with pytest.raises(RunFailed, match=r"m_t is not of Fed.*; start a new run"):
            restore(strategy, state, size)
    with pytest.raises(RunFailed, match="cannot be read"):
        restore(by_name("FedAdam", 2), {"m_t": Kept("<f9", b"")}, 2)


def test_a_killed_run_gives_the_weights_of_one_that_was_not(make_ward, small_bundle, tmp_path: Path) -> None:
    spec = RunSpec(rounds=4, quorum=3, strategy="FedAdam", seed=3)
    devices = ["a", "b", "c"]
    whole = make_ward(devices).loop(spec, tmp_path / "whole", small_bundle).run()

    class Crash(BaseException):
        pass

    ward = make_ward(devices)
    loop = ward.loop(spec, tmp_path / "killed", small_bundle)

    def crash(task: Task) -> Update:
        if task.round == 3:
            raise Crash
        return ward.honest(task)

    ward.answering("b", split="train", instead=crash)
    with pytest.raises(Crash):
        loop.run()
    kept = RunFolder(tmp_path / "killed", "run-1").load()
    assert kept is not None
    assert kept.round == 2
    assert set(kept.strategy) == {"m_t", "v_t"}
    outcome = make_ward(devices).loop(spec, tmp_path / "killed", small_bundle).run()
    assert outcome.weights.tobytes() == whole.weights.tobytes()


def test_a_checkpoint_of_before_has_no_state(small_bundle, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run-1")
    old = {
        "run": "run-1",
        "round": 2,
        "weights": Vector.of(small_bundle.weights),
        "label_counts": [1, 1, 1, 1],
        "parent_version": 0,
    }
    folder.path.mkdir()
    (folder.path / "checkpoint.msgpack").write_bytes(msgspec.msgpack.encode(old))
    point = folder.load()
    assert point is not None
    assert point.strategy == {}
