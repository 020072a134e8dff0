"""What is wrong with the description of a run, in sentences that say where and what to do instead.

`RunSpec` itself refuses numbers out of range when it is made. Names, and what does not go together, are
judged here: by the command line before it asks, by the gateway before it calls a device, by the server before
it trains.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

from samd_protocol.bundle import Layer
from samd_protocol.messages import RunSpec
from samd_protocol.methods import METHODS, OPTIMIZERS, PERSONAL, refusal
from samd_protocol.strategies import STRATEGIES, UNWEIGHTED, WEIGHTINGS, least_replies

LOGIT_ADJUSTMENT: Final = {"severity": 1.0, "deterioration": 0.0}
"""By task, where a run does not say: an adjusted network answers as if every class were as common, which lets
it find the rare ones; a probability that is shown must not be of such a world."""


def logit_adjustment(task: str) -> float:
    """What a run for a task is adjusted by unless it says."""
    return LOGIT_ADJUSTMENT.get(task, 1.0)


def problems(spec: RunSpec, layers: Sequence[Layer] | None = None) -> list[str]:
    """Why a run cannot be as described; empty when it can. With `layers`, of this model.

    Each sentence begins with the field that it is about.
    """
    return [
        *_strategy_problems(spec),
        *_method_problems(spec),
        *([] if layers is None or spec.method not in METHODS else _layout_problems(spec, layers)),
    ]


def _strategy_problems(spec: RunSpec) -> Iterable[str]:
    name = spec.strategy
    if name not in STRATEGIES:
        yield f"strategy {name!r} is not offered; {choose(name, STRATEGIES)}"
        return
    known = STRATEGIES[name]
    sound = True
    for key, value in sorted(spec.strategy_settings.items()):
        if key not in known:
            sound = False
            remedy = choose(key, known) if known else "it has no setting; leave it out"
            yield f"strategy_settings: {name} has no {key!r}; {remedy}"
            continue
        setting = known[key]
        if not setting.low <= value <= setting.high:
            sound = False
            between = f"{setting.low:g} and {setting.high:g}"
            yield f"strategy_settings: {key} is {value:g}; it lies between {between}"
        elif setting.whole and value != int(value):
            sound = False
            yield f"strategy_settings: {key} is {value:g}; it is a whole number"
    if spec.weighting not in WEIGHTINGS:
        yield f"weighting {spec.weighting!r} is not offered; {choose(spec.weighting, WEIGHTINGS)}"
    elif spec.weighting != "examples" and name in UNWEIGHTED:
        yield f"weighting: {name} counts every reply alike; leave it out, or choose another strategy"
    if name == "FedProx" and spec.proximal_mu <= 0:
        yield "proximal_mu: FedProx needs one above 0, as 0.01; without it, it is FedAvg"
    if sound and spec.quorum < (needed := least_replies(name, spec.strategy_settings)):
        yield (
            f"quorum is {spec.quorum}: {name} as set needs {needed} replies for what it promises; raise the "
            "quorum or set it for fewer"
        )


def _method_problems(spec: RunSpec) -> Iterable[str]:
    if spec.optimizer not in OPTIMIZERS:
        yield f"optimizer {spec.optimizer!r} is not offered; {choose(spec.optimizer, OPTIMIZERS)}"
    if spec.method not in METHODS:
        yield f"method {spec.method!r} is not offered; {choose(spec.method, METHODS)}"
        return
    if spec.method == "fedprox" and spec.proximal_mu <= 0:
        yield "proximal_mu: the method fedprox needs one above 0, as 0.01; without it, it is none"
    if spec.method == "ditto" and spec.personal_mu <= 0:
        yield "personal_mu: ditto needs its lambda above 0, as 0.1; without it each device learns alone"
    if spec.rehearsal and spec.method not in PERSONAL:
        yield f"rehearsal: {spec.method} leaves no personal model that could rehearse; leave it out"


def _layout_problems(spec: RunSpec, layers: Sequence[Layer]) -> Iterable[str]:
    reason = refusal(spec.method, layers)
    if reason is not None:
        yield f"method: {reason}"


def choose(wrong: str, offered: Iterable[str]) -> str:
    """What to write instead: the name that was probably meant, and all that there are."""
    names = {name.lower(): name for name in offered}
    near = difflib.get_close_matches(wrong.lower(), names, n=1, cutoff=0.75)
    meant = f"did you mean {names[near[0]]!r}? " if near else ""
    return f"{meant}choose one of: {', '.join(names.values())}"
