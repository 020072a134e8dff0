"""Why the rule and the model differ: what each of them went by. Pure.

The rule is arithmetic, and its points say all. Of the model only what goes in and what comes out is known:
these reasons are facts that make a difference likely, never an explanation of its weights.
"""

from typing import Any, Literal

from samd_gateway.ward.answers import Because
from samd_protocol.messages import Assessment

Labels = Literal["five", "all"]

NAMES = {
    "respiratory_rate": "respiration",
    "spo2": "oxygen saturation",
    "supplemental_oxygen": "oxygen given",
    "systolic_bp": "systolic pressure",
    "heart_rate": "pulse",
    "consciousness": "consciousness",
    "temperature": "temperature",
}
CLASSES = ("0", "1-4", "5-6", "7 or more")
UNSEEN = ("supplemental_oxygen", "consciousness")
"""What a model that was trained on the five signs of sensors was never told the points of."""
UNSURE = 0.6


def why_differ(
    assessment: Assessment, *, labels: Labels | None = None, spo2_scale: int | None = None
) -> list[Because]:
    """The reasons, the heaviest first; empty where there is no model or the two agree. `labels`: how the
    model's labels were made, if known; `spo2_scale`: the patient's, if known."""
    model, news2 = assessment.model, assessment.news2
    if model is None or model.severity == assessment.rule_severity:
        return []
    scored = {name: points for name, points in news2.points.items() if points}
    found = [
        _because(
            "ward.why.rule",
            {"severity": assessment.rule_severity, "points": scored},
            f"the rule is certain of {news2.low} points, class {CLASSES[assessment.rule_severity]}: "
            + (", ".join(f"{_name(name)} {points}" for name, points in scored.items()) or "no sign scores"),
        ),
        _because(
            "ward.why.model",
            {"severity": model.severity, "probability": model.probabilities[model.severity]},
            f"the model takes class {CLASSES[model.severity]} for the likeliest "
            f"({model.probabilities[model.severity]:.0%})",
        ),
    ]
    unseen = [name for name in UNSEEN if news2.points.get(name)] if labels == "five" else []
    if unseen:
        found.append(
            _because(
                "ward.why.unseen",
                {"signs": unseen},
                f"the model was trained without the points of {_list(unseen)}, which the rule counts",
            )
        )
    if spo2_scale == 2:
        found.append(
            _because(
                "ward.why.scale",
                {},
                "the rule scores oxygen saturation by scale 2, as prescribed; the model knows scale 1 only",
            )
        )
    if news2.missing and model.severity > assessment.rule_severity:
        found.append(
            _because(
                "ward.why.missing",
                {"signs": list(news2.missing), "possible": assessment.rule_severity_possible},
                f"the rule counts nothing for {_list(news2.missing)}, which is missing: the whole score may "
                f"be {news2.low} to {news2.high}",
            )
        )
    elif news2.missing:
        found.append(
            _because(
                "ward.why.model_missing",
                {"signs": list(news2.missing)},
                f"the model had to do without {_list(news2.missing)}",
            )
        )
    if assessment.artefacts:
        found.append(
            _because(
                "ward.why.artefacts",
                {"signs": list(assessment.artefacts)},
                f"the newest value of {_list(list(assessment.artefacts))} was not believed",
            )
        )
    if model.probabilities[model.severity] < UNSURE:
        found.append(
            _because(
                "ward.why.unsure",
                {"probabilities": list(model.probabilities)},
                f"the model is not sure: it gives the rule's class "
                f"{model.probabilities[assessment.rule_severity]:.0%}",
            )
        )
    if model.personal:
        found.append(
            _because(
                "ward.why.personal",
                {"version": model.version},
                "the model judges by this patient's own weights: what is usual for them counts",
            )
        )
    return found


def _because(key: str, arguments: dict[str, Any], text: str) -> Because:
    return Because(key=key, arguments=arguments, text=text)


def _name(sign: str) -> str:
    return NAMES.get(sign, sign)


def _list(signs: list[str]) -> str:
    names = [_name(sign) for sign in signs]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
