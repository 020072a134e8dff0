"""The devices and the runs as tables for a terminal. Pure: from the API's answers to rich renderables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

SIGNS = (
    ("respiratory_rate", "RR"),
    ("spo2", "SpO2"),
    ("supplemental_oxygen", "O2"),
    ("systolic_bp", "BP"),
    ("heart_rate", "HR"),
    ("consciousness", "C"),
    ("temperature", "T"),
)
"""The signs in the order of the NEWS2 chart, with the short names of the table."""

STATE_STYLE = {"online": "green", "stale": "yellow", "offline": "red", "unknown": "dim"}
CLASS_STYLE = ("green", "cyan", "yellow", "red")
CLASS_NAME = ("0", "1-4", "5-6", "7+")


def span(seconds: float | None) -> str:
    """A duration in words short enough for a column; `?` where it is not known."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def score(news2: Mapping[str, Any]) -> str:
    """The total, or the range while inputs are missing."""
    if news2["total"] is not None:
        return str(news2["total"])
    return f"{news2['low']}–{news2['high']}"


def points(news2: Mapping[str, Any]) -> Text:
    """Points per sign in the chart's order; a missing sign is `?`, which is not 0."""
    text = Text()
    for name, short in SIGNS:
        if name in news2["points"]:
            value = news2["points"][name]
            text.append(f"{short}{value} ", style=("dim", "cyan", "yellow", "bold red")[min(value, 3)])
        else:
            text.append(f"{short}? ", style="magenta")
    text.rstrip()
    return text


def _short(names: Sequence[str]) -> str:
    known = dict(SIGNS)
    return " ".join(known.get(name, name) for name in names)


def outlook(deterioration: Mapping[str, Any] | None) -> Text:
    """The probability of 7 or more within the horizon; `?` where it was not asked, `~` where uncalibrated."""
    if deterioration is None:
        return Text("–")
    probability = deterioration["probability"]
    if probability is None:
        return Text("?", style="magenta")
    # A set that leaves nothing but "deteriorates" is the one answer that stands out.
    alone = deterioration["possible"] == ["deteriorates"]
    uncertain = "~" if deterioration["calibration"] == "none" else ""
    return Text(f"{uncertain}{probability:.0%}", style="bold red" if alone else "")


def device_row(device: Mapping[str, Any]) -> list[str | Text]:
    """One row: state, NEWS2, points, model, agreement, missing, age of the reading, model version."""
    state = Text(device["state"], style=STATE_STYLE[device["state"]])
    version = "–" if device["model_version"] is None else str(device["model_version"])
    assessment = device["assessment"]
    if assessment is None:
        return [device["name"], state, "–", "no assessment yet", "–", "–", "–", "–", "?", version]
    news2, model = assessment["news2"], assessment["model"]
    current = device["state"] == "online"
    severity = assessment["rule_severity"]
    if model is None:
        opinion, agreement = Text("no model", style="dim"), Text("–")
    else:
        probability = model["probabilities"][model["severity"]]
        opinion = Text(
            f"{CLASS_NAME[model['severity']]} {probability:.0%}", style=CLASS_STYLE[model["severity"]]
        )
        agreement = (
            Text("disagree", style="bold red") if assessment["disagreement"] else Text("agree", style="green")
        )
    missing = Text(_short(assessment["missing"]), style="magenta")
    ahead = outlook(assessment.get("deterioration"))
    if assessment["stale"]:
        missing.append(f" old: {_short(assessment['stale'])}", style="yellow")
    row: list[str | Text] = [
        device["name"],
        state,
        Text(f"{score(news2)} {news2['band']}", style=CLASS_STYLE[severity]),
        points(news2),
        opinion,
        agreement,
        ahead,
        missing,
        span(device["data_age_s"]),
        version,
    ]
    if not current:  # what is shown is of the past, and must not look like the present
        row[2:8] = [Text(str(cell), style="dim strike") if cell else cell for cell in row[2:8]]
    return row


def devices_table(devices: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """The table of `devices` and `devices watch`."""
    table = Table(
        title=title, caption="struck through: not the present. Research software, no medical device"
    )
    for heading in (
        "device",
        "state",
        "NEWS2",
        "points",
        "model",
        "rule/model",
        "7+ in 6 h",
        "missing",
        "age",
        "model v",
    ):
        table.add_column(heading, no_wrap=heading in ("device", "state", "NEWS2", "7+ in 6 h"))
    for device in devices:
        table.add_row(*device_row(device))
    return table


def runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """The table of `runs list`."""
    table = Table()
    for heading in ("run", "state", "round", "devices", "model", "began", "reason"):
        table.add_column(heading, no_wrap=heading in ("run", "state"))
    for run in runs:
        released = "" if run["model_version"] is None else f"{run['model_version']}"
        if released and not run["released"]:
            released += " (not released)"
        table.add_row(
            run["id"],
            run["state"],
            f"{run['round']}/{run['rounds']}",
            f"{len(run['admitted'])} of {len(run['asked'])}",
            released,
            run["created_at"][:19].replace("T", " "),
            run["reason"] or run["waiting"] or "",
        )
    return table
