"""Flower's strategies by name, guarded: what goes in was checked and copied, what comes out is checked.

What each of them does wrong by itself in Flower 1.41, and what is done about it here:

==============================  =============================================================================
Flower                          here
==============================  =============================================================================
FedAvg averages NaN             replies are judged first (``checks``), the average after
FedAvg divides by zero          nobody has no examples (``checks``), and a severe weight is at least 1
FedMedian, FedTrimmedAvg,       each gets a copy of the replies
Bulyan and QFedAvg empty the
replies that they are given
Bulyan gives nothing below      a run whose quorum is too small is refused before it starts
4 f + 3 replies, FedTrimmedAvg  (``samd_protocol.strategies.least_replies``)
cuts off nobody below 1 / beta
Krum and Bulyan compute         they see steps (weights less the global ones) in float64: distances are the
distances as |x|² + |y|² - 2xy  same, and nothing is lost in the subtraction of large numbers
in float32
QFedAvg raises a loss of 0 to   a loss counts as 0.01 at least
a negative power, so that one
perfect device stops the rest
FedOpt, FedAvgM forget their    ``state_of`` and ``restore``: it goes into the checkpoint
moments when the process ends
==============================  =============================================================================

Strategies that compute with float32 keep their bits: for them, replies are only copied.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as offered
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from samd_protocol.messages import RunSpec
from samd_protocol.runspec import problems
from samd_protocol.strategies import STRATEGIES, settings_of
from samd_server.checkpoint import Kept
from samd_server.errors import RunFailed
from samd_server.flower import ARRAYS, CONFIG, EXAMPLES, LOSS, METRICS, SERVER_NODE, SEVERE, WEIGHTS
from samd_server.grid import MqttGrid, arrays_of, metrics_of

LEAST_LOSS = 0.01
"""What a smaller loss counts as where a strategy divides by it."""

_SHIFTED = (offered.Krum, offered.MultiKrum, offered.Bulyan)
_KEPT = ("m_t", "v_t", "momentum_vector")
"""The attributes in which Flower's strategies keep what the next round needs, beside the weights."""


def of_spec(spec: RunSpec, devices: int) -> Strategy:
    """The strategy that a run asks for, over so many devices. Raises RunFailed with what to change."""
    found = problems(spec)
    if found:
        raise RunFailed("; ".join(found))
    return by_name(
        spec.strategy,
        devices,
        settings=spec.strategy_settings,
        weighting=spec.weighting,
        quorum=spec.quorum,
        learning_rate=spec.learning_rate,
        proximal_mu=spec.proximal_mu,
    )


def by_name(
    name: str,
    devices: int,
    *,
    settings: Mapping[str, float] | None = None,
    weighting: str = "examples",
    quorum: int | None = None,
    learning_rate: float = 0.01,
    proximal_mu: float = 0.0,
) -> Strategy:
    """A Flower strategy by its class name, which takes every admitted device in every round.

    With the fraction at 1 and the minimum at the number of devices, `sample_nodes` neither waits nor draws
    anything that matters. `quorum` (default: all devices) is the least number of replies that it will see.
    Raises RunFailed for a name that is not offered.
    """
    if name not in STRATEGIES:
        raise RunFailed(f"strategy {name!r} is not offered; choose one of: {', '.join(STRATEGIES)}")
    chosen = settings_of(name, settings or {})
    malicious = int(chosen.get("num_malicious_nodes", 0))
    own: dict[str, Any] = dict(chosen)
    if "num_malicious_nodes" in own:
        own["num_malicious_nodes"] = malicious
    if name == "MultiKrum":
        fewest = devices if quorum is None else quorum
        own["num_nodes_to_select"] = int(chosen["num_nodes_to_select"]) or max(1, fewest - malicious - 2)
    if name == "QFedAvg":
        own["client_learning_rate"] = chosen["client_learning_rate"] or learning_rate
        own["train_loss_key"] = LOSS
    if name == "FedProx":
        own["proximal_mu"] = proximal_mu
    made: Strategy = getattr(offered, name)(
        fraction_train=1.0,
        fraction_evaluate=1.0,
        min_train_nodes=devices,
        min_evaluate_nodes=devices,
        min_available_nodes=devices,
        weighted_by_key=SEVERE if weighting == "severe" else EXAMPLES,
        arrayrecord_key=ARRAYS,
        configrecord_key=CONFIG,
        **own,
    )
    return made


def aggregate(
    strategy: Strategy, number: int, replies: Sequence[Message], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The new weights float32[P] of a round, from replies that `checks` has passed; they are left whole.

    `weights` are those that the round began with. Raises RunFailed when the strategy gives nothing usable.
    """
    shifted = isinstance(strategy, _SHIFTED)
    start = weights.astype(np.float64) if shifted else None
    floor = LEAST_LOSS if isinstance(strategy, offered.QFedAvg) else None
    copies = [_copied(reply, start, floor) for reply in replies]
    try:
        arrays, _ = strategy.aggregate_train(number, copies)
    except (AggregationError, InconsistentMessageReplies, ValueError, ArithmeticError) as error:
        raise RunFailed(f"round {number}: {type(strategy).__name__} cannot average ({error})") from error
    if arrays is None:
        raise RunFailed(f"round {number}: the strategy gave no weights")
    found = arrays[WEIGHTS].numpy()
    new = np.ascontiguousarray(found if start is None else found + start, dtype=np.float32).ravel()
    if new.shape != weights.shape or not np.isfinite(new).all():
        raise RunFailed(f"round {number}: the strategy gave weights that cannot be used")
    return new


def _copied(reply: Message, start: NDArray[np.float64] | None, floor: float | None) -> Message:
    content = reply.content
    arrays = cast("ArrayRecord", content[ARRAYS])[WEIGHTS].numpy()
    arrays = arrays.copy() if start is None else arrays.astype(np.float64) - start
    metrics = dict(cast("MetricRecord", content[METRICS]))
    if floor is not None:
        metrics[LOSS] = max(cast("float", metrics[LOSS]), floor)
    made = RecordDict({ARRAYS: ArrayRecord({WEIGHTS: Array(arrays)}), METRICS: MetricRecord(metrics)})
    return Message(made, dst_node_id=SERVER_NODE, message_type=reply.metadata.message_type)


# -- what the checkpoint holds -----------------------------------------------------------------------------


def state_of(strategy: Strategy) -> dict[str, Kept]:
    """What the strategy keeps between rounds beside the weights; empty for most of them."""
    found = {}
    for name in _KEPT:
        value = getattr(strategy, name, None)
        if value:
            array = value[WEIGHTS] if isinstance(value, dict) else value[0]
            found[name] = Kept(array.dtype.str, np.ascontiguousarray(array).tobytes())
    return found


def restore(strategy: Strategy, state: Mapping[str, Kept], size: int) -> None:
    """Put a kept state back. Raises RunFailed for one that is not this strategy's."""
    for name, kept in state.items():
        try:
            array = np.frombuffer(kept.data, dtype=np.dtype(kept.dtype)).copy()
        except (TypeError, ValueError) as error:
            raise RunFailed(f"the checkpoint's {name} cannot be read ({error}); start a new run") from error
        if name not in _KEPT or not hasattr(strategy, name) or array.shape != (size,):
            raise RunFailed(f"the checkpoint's {name} is not of {type(strategy).__name__}; start a new run")
        setattr(strategy, name, [array] if name == "momentum_vector" else {WEIGHTS: array})


# -- without a wire ----------------------------------------------------------------------------------------


class Result(NamedTuple):
    """What one device sends in one round: weights float32[P], its rows, those of severe classes, its loss."""

    weights: NDArray[np.float32]
    num_examples: int
    num_severe: int
    loss: float


class Averaging:
    """A strategy over plain arrays, for benchmarks: the same calls in the same order as a run makes them.

    Needs `flower.identify` to have been called.
    """

    def __init__(self, strategy: Strategy, devices: int) -> None:
        self._strategy = strategy
        names = [f"device-{number:06d}" for number in range(devices)]
        self._grid = MqttGrid("averaging", names, lambda *_: None, graph_sha256="")

    def round(
        self, number: int, weights: NDArray[np.float32], results: Iterable[Result]
    ) -> NDArray[np.float32]:
        """The new weights float32[P] from the results of the first, second, ... device."""
        asked = sorted(
            self._strategy.configure_train(number, arrays_of(weights), ConfigRecord({}), self._grid),
            key=lambda message: message.metadata.dst_node_id,
        )
        replies = [
            Message(
                RecordDict(
                    {
                        ARRAYS: arrays_of(result.weights),
                        METRICS: metrics_of(result.num_examples, result.num_severe, result.loss),
                    }
                ),
                reply_to=message,
            )
            for message, result in zip(asked, results, strict=False)
        ]
        return aggregate(self._strategy, number, replies, weights)
