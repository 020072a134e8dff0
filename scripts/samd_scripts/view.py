"""What the demo shows: the live table of patients, and the summary."""

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from samd_data.reading import COLUMNS
from samd_data.severity import CLASSES
from samd_scripts.judging import Verdict

SHORT = {
    "heart_rate": "HR",
    "respiratory_rate": "RR",
    "spo2": "SpO2",
    "systolic_bp": "SBP",
    "temperature": "Temp",
    "supplemental_oxygen": "O2",
    "consciousness": "ACVPU",
}
STYLES = ("green", "yellow", "dark_orange", "bold red")


def live_table(devices: Iterable[Mapping[str, Any]], title: str) -> Table:
    """One row a patient: NEWS2 with the points of each sign, the model beside it, what is missing, age."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("device", no_wrap=True)
    table.add_column("NEWS2", justify="right", no_wrap=True)
    for sign in COLUMNS:
        table.add_column(SHORT[sign], justify="right", no_wrap=True)
    for heading in ("rule", "model", "agree", "not known", "age", "version", "alert"):
        table.add_column(heading, no_wrap=heading != "not known")
    for device in devices:
        table.add_row(*_row(device))
    return table


def save_picture(table: Table, path: Path) -> None:
    """The table as an SVG picture, as wide as it needs."""
    console = Console(record=True, width=150, file=io.StringIO())
    console.print(table)
    svg = console.export_svg(title="scripts/demo")
    # A picture in a README loads nothing from elsewhere: the reader's own monospaced font will do.
    path.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))


def _row(device: Mapping[str, Any]) -> list[RenderableType]:
    assessment = device["assessment"]
    if assessment is None:
        return [device["name"], Text(device["state"], "dim"), *[""] * 7, *["-"] * 7]
    news2 = assessment["news2"]
    low, high = news2["low"], news2["high"]
    certain, possible = assessment["rule_severity"], assessment["rule_severity_possible"]
    total = str(news2["total"]) if news2["total"] is not None else f"{low}-{high}"
    points: list[RenderableType] = []
    for sign in COLUMNS:
        value = news2["points"].get(sign)
        points.append(
            Text("?", "dim") if value is None else Text(str(value), "bold red" if value == 3 else "")
        )
    rule = CLASSES[certain] if certain == possible else f"{CLASSES[certain]}..{CLASSES[possible]}"
    model = assessment["model"]
    if model is None:
        judged, agree, version = Text("none yet", "dim"), "-", "-"
    else:
        severity = model["severity"]
        judged = Text(f"{CLASSES[severity]} {model['probabilities'][severity]:.0%}", STYLES[severity])
        agree = "no" if assessment["disagreement"] else "yes"
        version = str(model["version"])
    unknown = ", ".join(
        [SHORT[sign] for sign in assessment["missing"]]
        + [
            f"{SHORT.get(sign, sign)} (old)"
            for sign in assessment["stale"]
            if sign not in assessment["missing"]
        ]
    )
    alert = device["alert"]
    shown = "" if alert is None or alert["state"] == "cleared" else alert["state"]
    state = "" if device["state"] == "online" else f" ({device['state']})"
    return [
        device["name"] + state,
        Text(total, STYLES[certain]),
        *points,
        Text(rule, STYLES[certain]),
        judged,
        agree,
        unknown or "nothing",
        f"{assessment['age_s']:.0f} s",
        version,
        Text(shown, "bold red"),
    ]


def verdict_table(verdicts: Mapping[str, Verdict | None]) -> Table:
    """Scores of the released model: complete rows and rows with hidden signs, per group of patients."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in (
        "judged on",
        "patients",
        "hours",
        "macro-F1",
        "balanced accuracy",
        "recall 5 or more",
        "recall 7 or more",
        "absent classes",
    ):
        table.add_column(heading, justify="left" if heading in ("judged on", "absent classes") else "right")
    for name, verdict in verdicts.items():
        if verdict is None:
            table.add_row(name, "0", "0", *["undefined"] * 4, "no labelled hour")
            continue
        for kind, found in (("complete", verdict.complete), ("signs hidden", verdict.masked)):
            table.add_row(
                f"{name}, {kind}",
                str(verdict.patients),
                str(found["rows"]),
                *(
                    _score(found[key])
                    for key in ("macro_f1", "balanced_accuracy", "recall_urgent", "recall_high")
                ),
                ", ".join(repr(name) for name in found["absent"]) or "-",
            )
    return table


def _score(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def summary_panel(lines: Iterable[tuple[str, str]], verdicts: Mapping[str, Verdict | None]) -> Panel:
    """The last thing that the demo shows."""
    facts = Table.grid(padding=(0, 2))
    for name, value in lines:
        facts.add_row(Text(name, "bold"), value)
    return Panel(Group(verdict_table(verdicts), facts), title="Summary", title_align="left")
