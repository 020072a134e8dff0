"""The curves of runs, as PNG, or with their figures as one HTML file that needs nothing else."""

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samd_server.errors import ServerError
from samd_server.tracking.history import History

CURVES: Mapping[str, str] = {
    "round/loss": "training loss",
    "round/replies": "replies",
    "round/seconds": "seconds a round",
}


def png(histories: Sequence[History], path: Path) -> None:
    """Draw the curves of runs into a PNG. Raises ServerError without matplotlib."""
    path.write_bytes(_drawn(histories, "png"))


def page(histories: Sequence[History], path: Path) -> None:
    """Write curves, settings and figures into one HTML file. Raises ServerError without matplotlib."""
    svg = _drawn(histories, "svg").decode()
    body = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Runs</title>",
        "<style>body{font:14px system-ui;margin:2em}td,th{padding:.2em .8em;text-align:left;"
        "border-bottom:1px solid #ddd}svg{max-width:100%;height:auto}</style>",
        f"<h1>{_text(', '.join(each.run for each in histories))}</h1>",
        svg[svg.index("<svg") :],
        _table("Settings", [each.run for each in histories], differing(histories, all_of_them=True)),
        _table("Figures", [each.run for each in histories], figures(histories)),
        "</html>",
    ]
    path.write_text("\n".join(body), encoding="utf-8")


def differing(histories: Sequence[History], *, all_of_them: bool = False) -> dict[str, list[Any]]:
    """The settings of each run, by name: those that differ, or all."""
    names = dict.fromkeys(key for each in histories for key in each.spec)
    rows = {name: [each.spec.get(name) for each in histories] for name in names}
    return {
        name: values
        for name, values in rows.items()
        if all_of_them or any(value != values[0] for value in values)
    }


def figures(histories: Sequence[History]) -> dict[str, list[Any]]:
    """What each run ended with, by name; None where a run does not tell it."""
    ends = [{"phase": each.phase, "loss": each.summary()["loss"], **each.metrics} for each in histories]
    names = dict.fromkeys(key for end in ends for key in end)
    return {name: [end.get(name) for end in ends] for name in names}


def _drawn(histories: Sequence[History], kind: str) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ServerError("curves need matplotlib: pip install 'samd-server[report]'") from error

    figure = Figure(figsize=(7, 2.6 * len(CURVES)), layout="constrained")
    for axes, (name, title) in zip(
        figure.subplots(len(CURVES), 1, squeeze=False)[:, 0], CURVES.items(), strict=True
    ):
        for color, each in enumerate(histories):
            rounds, values = each.curve(name)
            axes.plot(
                rounds,
                values,
                color=f"C{color % 10}",
                label=each.run,
                marker="." if len(rounds) < 30 else None,
            )
            if len(histories) == 1 and name == "round/loss":
                # one run: each device's own curve behind it
                for device in each.devices:
                    axes.plot(*each.curve(name, device), color="0.8", linewidth=0.8, zorder=0)
        axes.set_ylabel(title)
        axes.grid(visible=True, alpha=0.3)
    axes.set_xlabel("round")
    if len(histories) > 1:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    else:
        figure.suptitle(histories[0].run)
    sink = io.BytesIO()
    # fixed metadata: the same run gives the same bytes
    figure.savefig(sink, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return sink.getvalue()


def _table(title: str, runs: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> str:
    head = "".join(f"<th>{_text(run)}</th>" for run in runs)
    lines = "".join(
        f"<tr><th>{_text(name)}</th>"
        + "".join(f"<td>{_text(shown(value))}</td>" for value in values)
        + "</tr>"
        for name, values in rows.items()
    )
    return f"<h2>{_text(title)}</h2><table><tr><th></th>{head}</tr>{lines}</table>"


def shown(value: Any) -> str:
    """A value for people: four digits of a number, nothing for what is not known."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: str) -> str:
    return html.escape(value)
