"""Every method against steps worked out by hand, with a hand-made gradient in place of a network.

The loss is half the squared distance to a target, so that the gradient is `weights - target`; one epoch is
one plain step against it. The target of the device's rows is [4, -2, 8]; all numbers below are exact in
float32.
"""

from typing import Any

import numpy as np
import pytest

from samd_edge.personalisation import MethodError, State, by_name, head_of
from samd_edge.runtime import Floats, TrainState
from samd_protocol.bundle import Layer
from samd_protocol.methods import METHODS, PERSONAL, possible
from samd_protocol.tasks import TrainSettings

LAYERS = [Layer(name="a", shape=[2], part="body"), Layer(name="b", shape=[1], part="head")]
HEADLESS = [Layer(name="a", shape=[2]), Layer(name="b", shape=[1])]
TARGET = np.array([4.0, -2.0, 8.0], dtype=np.float32)
WEIGHTS = np.zeros(3, dtype=np.float32)
HALF = TrainSettings(epochs=2, learning_rate=0.5)


def vector(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)


class Device:
    """Takes exact steps, and notes what each pass was asked for."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, state: TrainState, **given: Any) -> tuple[TrainState, float]:
        self.calls.append(given | {"draw": given["generator"].random()})
        gradient = state.weights - TARGET + given["mu"] * (state.weights - given["anchor"])
        after = state.weights - given["learning_rate"] * given["trainable"] * gradient
        loss = float(np.square(state.weights - TARGET).sum() / 2)
        return state._replace(weights=after.astype(np.float32), t=state.t + 1), loss

    @property
    def personal(self) -> list[bool]:
        return [call["personal"] for call in self.calls]


def apply(
    name: str, state: State | None = None, weights: Floats = WEIGHTS, settings: TrainSettings = HALF
) -> tuple[Floats, State, dict[str, float], Device]:
    device, method = Device(), by_name(name, LAYERS)
    before = method.init(weights) if state is None else state
    update, after, metrics = method.apply(before, weights, device, settings, np.random.default_rng(7))
    return update, after, dict(metrics), device


def personalise(
    name: str, state: State, weights: Floats, settings: TrainSettings = HALF
) -> tuple[State, Floats, Device]:
    device, method = Device(), by_name(name, LAYERS)
    after, _ = method.personalise(state, weights, device, settings, np.random.default_rng(7))
    return after, method.infer_weights(after, weights), device


# -- what is sent ------------------------------------------------------------------------------------------

TWO_STEPS = [3.0, -1.5, 6.0]
"""From 0 half the way to the target, and half of the rest."""


def test_none_sends_its_two_steps_and_keeps_nothing() -> None:
    update, state, metrics, device = apply("none")
    assert update.tolist() == TWO_STEPS
    assert metrics == {"loss": 10.5, "alpha": 1.0}  # (2² + 1² + 4²) / 2 before the second step
    assert state.rounds == 1
    assert by_name("none", LAYERS).infer_weights(state, vector(1, 2, 3)).tolist() == [1, 2, 3]
    assert device.personal == [False, False]


def test_fedprox_is_held_back_by_its_term() -> None:
    settings = TrainSettings(epochs=2, learning_rate=0.5, proximal_mu=0.5)
    update, _, _, device = apply("fedprox", settings=settings)
    # first step [2, -1, 4]; then the gradient is [-2, 1, -4] + 0.5 * [2, -1, 4] = [-1, .5, -2]
    assert update.tolist() == [2.5, -1.25, 5.0]
    assert all(call["anchor"].tolist() == [0, 0, 0] for call in device.calls)


def test_fedprox_without_its_term_says_what_to_give() -> None:
    with pytest.raises(MethodError, match="fedprox needs a proximal_mu above 0"):
        apply("fedprox")


@pytest.mark.parametrize("name", ["finetune", "ditto", "apfl"])
def test_what_is_sent_is_fedavgs_whatever_is_kept_beside_it(name: str) -> None:
    expected, _, _, plain = apply("none")
    update, _, _, device = apply(name, State(vector(9, 9, 9), rounds=3))
    assert update.tolist() == expected.tolist()
    shared = [call["draw"] for call in device.calls if not call["personal"]]
    assert shared == [call["draw"] for call in plain.calls]
    assert not set(shared) & {call["draw"] for call in device.calls if call["personal"]}


@pytest.mark.parametrize("name", ["fedper", "fedrep"])
def test_a_head_is_never_sent(name: str) -> None:
    received = vector(0, 0, -5)
    update, state, _, _ = apply(name, State(vector(70, 70, 4), rounds=1), received)
    assert update.tolist() == [3.0, -1.5, -5.0]
    assert state.personal[2] == 7.0  # 4 -> 6 -> 7
    assert by_name(name, LAYERS).infer_weights(state, vector(1, 2, 3)).tolist() == [1, 2, 7]


# -- what is kept ------------------------------------------------------------------------------------------


def test_finetune_trains_on_from_the_final_weights() -> None:
    _, state, _, device = apply("finetune")
    assert device.personal == [False, False]  # the rounds cost what FedAvg costs
    settings = TrainSettings(epochs=2, learning_rate=0.5, personal_epochs=1, personal_mu=9.0)
    after, used, device = personalise("finetune", state, vector(2, 0, 0), settings)
    assert after.personal.tolist() == used.tolist() == [3, -1, 4]
    assert device.personal == [True]
    assert device.calls[0]["anchor"].tolist() == [2, 0, 0]
    assert device.calls[0]["mu"] == 9.0


def test_ditto_keeps_a_vector_pulled_towards_what_was_received() -> None:
    settings = TrainSettings(epochs=1, learning_rate=0.5, personal_epochs=2, personal_mu=1.0)
    update, state, metrics, device = apply(
        "ditto", State(vector(8, 2, 0), rounds=4), vector(4, 2, 0), settings
    )
    # v: [8, 2, 0] - .5 * ([4, 4, -8] + [4, 0, 0]) = [4, 0, 4]; - .5 * ([0, 2, -4] + [0, -2, 4]) = [4, 0, 4]
    assert state == State(state.personal, rounds=5)
    assert state.personal.tolist() == [4, 0, 4]
    assert update.tolist() == [4, 0, 4]  # [4, 2, 0] - .5 * [0, 4, -8]
    assert metrics["personal_loss"] == 10.0  # (0² + 2² + 4²) / 2
    assert device.personal == [False, True, True]
    assert by_name("ditto", LAYERS).infer_weights(state, vector(1, 2, 3)) is state.personal


def test_ditto_closes_with_the_final_weights_as_its_anchor() -> None:
    settings = TrainSettings(epochs=1, learning_rate=0.5, personal_mu=1.0)
    after, _, device = personalise("ditto", State(vector(0, 0, 0), rounds=4), vector(4, 2, 0), settings)
    # - .5 * ([-4, 2, -8] + [-4, -2, 0])
    assert after.personal.tolist() == [4, 0, 4]
    assert device.personal == [True]


def test_fedper_trains_body_and_head_together_and_holds_the_body_alone() -> None:
    settings = TrainSettings(epochs=1, learning_rate=0.5, proximal_mu=1.0)
    update, state, _, device = apply("fedper", State(vector(70, 70, 4), rounds=1), vector(2, 0, -5), settings)
    assert device.calls[0]["trainable"].tolist() == [1, 1, 1]
    assert device.calls[0]["anchor"].tolist() == [2, 0, 4]
    assert update.tolist() == [3, -1, -5]
    assert state.personal.tolist() == [3, -1, 6]


@pytest.mark.parametrize("name", ["fedper", "fedrep"])
def test_closing_fits_the_head_to_the_final_body(name: str) -> None:
    after, used, device = personalise(name, State(vector(70, 70, 0), rounds=1), vector(1, 2, -5))
    assert used.tolist() == [1, 2, 6]
    assert [call["trainable"].tolist() for call in device.calls] == [[0, 0, 1]] * 2
    assert after.rounds == 2


def test_fedrep_fits_the_head_first_and_then_the_body() -> None:
    settings = TrainSettings(epochs=1, learning_rate=0.5, personal_epochs=2, personal_learning_rate=0.25)
    update, state, _, device = apply("fedrep", State(vector(70, 70, 0), rounds=1), vector(2, 0, -5), settings)
    assert device.personal == [True, True, False]
    assert [call["trainable"].tolist() for call in device.calls] == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    assert [call["learning_rate"] for call in device.calls] == [0.25, 0.25, 0.5]
    assert state.personal.tolist() == [2, 0, 3.5]  # 0 -> 2 -> 3.5
    assert update.tolist() == [3, -1, -5]


def test_apfl_moves_its_own_vector_by_the_step_of_the_mixture() -> None:
    settings = TrainSettings(epochs=1, learning_rate=0.5, personal_alpha=0.25)
    state = State(vector(8, 0, 0), rounds=0)
    update, after, metrics, device = apply("apfl", state, vector(0, 0, 0), settings)
    # w: [2, -1, 4]; mixture .25 * [8, 0, 0] + .75 * w = [3.5, -.75, 3]; its step: half the way
    assert update.tolist() == [2, -1, 4]
    assert after.personal.tolist() == [8.25, -0.625, 2.5]
    assert after.alpha == metrics["alpha"] == 0.25
    assert device.personal == [False, True]
    used = by_name("apfl", LAYERS).infer_weights(after, vector(4, 0, 0))
    assert used.tolist() == [5.0625, -0.15625, 0.625]


def test_apfl_takes_its_share_from_the_state_later_on() -> None:
    _, after, _, _ = apply("apfl", State(vector(8, 0, 0), alpha=0.75, rounds=2))
    assert after.alpha == 0.75


@pytest.mark.parametrize(("targets", "alpha"), [(1.0, 0.75), (2.0, 0.25), (0.0, 0.25)])
def test_apfl_shifts_its_share_towards_the_better_side(targets: float, alpha: float) -> None:
    # w is an eighth of the target. With v at the target, the mixture steps towards v: the share grows. With v
    # at twice the target, or at 0, it steps away from v.
    settings = TrainSettings(epochs=1, learning_rate=0.5, personal_alpha_rate=0.25)
    state = State((targets * TARGET).astype(np.float32), alpha=0.5, rounds=1)
    closed, _, _ = personalise("apfl", state, TARGET / 8, settings)
    assert closed.alpha == pytest.approx(alpha, abs=1e-6)


def test_apfls_share_stays_a_share() -> None:
    settings = TrainSettings(epochs=1, learning_rate=0.5, personal_alpha_rate=3.0)
    assert personalise("apfl", State(TARGET, alpha=0.5, rounds=1), TARGET / 8, settings)[0].alpha == 1.0
    assert personalise("apfl", State(0 * TARGET, alpha=0.5, rounds=1), TARGET / 8, settings)[0].alpha == 0.0


def test_a_device_that_never_took_part_is_assessed_by_the_global_model() -> None:
    for name in METHODS:
        method = by_name(name, LAYERS)
        assert method.infer_weights(method.init(TARGET), TARGET).tolist() == TARGET.tolist(), name


# -- which layout can do what ------------------------------------------------------------------------------


def test_the_head_is_read_from_the_layout() -> None:
    assert head_of(LAYERS).tolist() == [0, 0, 1]
    assert head_of(HEADLESS).tolist() == [0, 0, 0]


def test_methods_that_need_a_head_refuse_a_layout_without_one() -> None:
    assert possible(LAYERS) == list(METHODS)
    assert possible(HEADLESS) == ["none", "finetune", "fedprox", "ditto", "apfl"]
    for layers in (HEADLESS, [Layer(name="a", shape=[3], part="head")]):
        with pytest.raises(MethodError, match=r"fedrep keeps the head .* choose one of: none, finetune"):
            by_name("fedrep", layers)
    with pytest.raises(MethodError, match="there is no method 'magic'; choose one of: none, finetune"):
        by_name("magic", LAYERS)


def test_the_names_are_those_of_the_protocol() -> None:
    assert [by_name(name, LAYERS).name for name in METHODS] == list(METHODS)
    assert set(PERSONAL) < set(METHODS)
