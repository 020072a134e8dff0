"""A run as HTML and as curves: where it stands, whom it waits for and why, each round, how it ended. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from samd_gateway.answers import RunOut
from samd_gateway.pages.chart import Colours
from samd_gateway.pages.panels import moment
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.texts import Texts
from samd_gateway.schedules.answers import ScheduleOut

ENDED = ("done", "failed", "stopped")
MARKS = {"done": "✓", "failed": "✕", "stopped": "■"}
CURVES_PX = 300
SHOWN_METRICS = 12


def head(run: RunOut, t: Texts) -> str:
    """The run's name, state and progress."""
    closed = sum(each.round_seconds is not None for each in run.history)
    done = run.rounds if run.state == "done" else closed
    mark = MARKS.get(run.state, "▶")
    label = t("runs.progress", done=done, rounds=run.rounds)
    named = f" <span>{escaped(run.spec['name'])}</span>" if run.spec.get("name") else ""
    why = f'<p class="run-why">{escaped(run.reason)}</p>' if run.reason else ""
    waits = f'<p class="run-why">{escaped(t("runs.waits", what=run.waiting))}</p>' if run.waiting else ""
    return (
        f'<h2 data-run="{escaped(run.id)}">{escaped(run.id)}{named}</h2>'
        f'<p class="run-state" data-state="{run.state}"><span aria-hidden="true">{mark}</span> '
        f"{escaped(t(f'runs.states.{run.state}'))}</p>{why}{waits}"
        f'<label class="run-progress">{escaped(label)} '
        f'<progress max="{max(run.rounds, 1)}" value="{done}"></progress></label>'
    )


def facts(run: RunOut, t: Texts) -> str:
    """What was asked for, who takes part, and what the latest figures are."""
    spec = run.spec
    lines = [
        ("task", spec["task"]),
        ("strategy", f"{spec['strategy']}, {spec['method']}, {spec['optimizer']}"),
        ("quorum", t("runs.of_quorum", accepted=len(run.accepted), asked=len(run.asked), quorum=run.quorum)),
        ("model", _model(run, t)),
    ]
    if run.state not in ENDED:
        lines.insert(3, ("replies", str(run.replies)))
    listed = "".join(
        f"<dt>{escaped(t(f'runs.facts.{name}'))}</dt><dd>{escaped(value)}</dd>" for name, value in lines
    )
    times = "".join(
        f"<dt>{escaped(t(f'runs.facts.{name}'))}</dt><dd>{moment(value)}</dd>"
        for name, value in (("created_at", run.created_at), ("finished_at", run.finished_at))
        if value is not None
    )
    return f'<dl class="samd-difference">{listed}{times}</dl>'


def _model(run: RunOut, t: Texts) -> str:
    if run.model_version is None:
        return t("runs.model_from", version=run.start_version)
    key = "runs.model_released" if run.released else "runs.model_kept"
    return t(key, version=run.model_version, parent=run.start_version)


def who(run: RunOut, t: Texts) -> str:
    """Those that are awaited, those that refused, and what was dropped, each with the reason."""
    parts = []
    if run.awaited or run.awaited_counts:
        rows = [(each.device, each.reason) for each in run.awaited] or [
            (str(count), reason) for reason, count in sorted(run.awaited_counts.items())
        ]
        parts.append(_table(t("runs.awaited"), (t("runs.device"), t("runs.why")), rows))
    if run.rejected:
        rows = [(each.device, each.reason or "-") for each in run.rejected]
        parts.append(_table(t("runs.rejected"), (t("runs.device"), t("runs.why")), rows))
    if run.dropped:
        rows = [(str(count), reason) for reason, count in sorted(run.dropped.items())]
        parts.append(_table(t("runs.dropped"), (t("runs.count"), t("runs.why")), rows))
    return "".join(parts)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head_ = "".join(f'<th scope="col">{escaped(each)}</th>' for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escaped(each)}</td>' for each in row)}</tr>" for row in rows)
    return (
        f'<table class="samd-table"><caption>{escaped(title)}</caption>'
        f"<thead><tr>{head_}</tr></thead><tbody>{body}</tbody></table>"
    )


def evaluation(run: RunOut, used: Mapping[str, float], t: Texts) -> str:
    """The candidate's figures beside those of the model that it started from; only once it was evaluated."""
    if run.model_version is None or not run.metrics:
        return ""
    rows = [
        (name, f"{value:.3f}", f"{used[name]:.3f}" if name in used else "–")
        for name, value in sorted(run.metrics.items())
    ]
    heads = (
        t("runs.figure"),
        t("runs.candidate", version=run.model_version),
        t("runs.in_use", version=run.start_version),
    )
    return _table(t("runs.evaluation"), heads, rows)


def rounds(run: RunOut, t: Texts) -> str:
    """The rounds as a table: what the curves show, for whoever cannot see them."""
    names = metric_names(run)
    heads = [t("runs.round"), t("runs.facts.replies"), t("runs.dropped_short"), t("runs.seconds"), *names]
    rows = [
        (
            str(each.round),
            str(each.replies),
            str(sum(each.dropped.values())),
            "–" if each.round_seconds is None else f"{each.round_seconds:.2f}",
            *(f"{each.metrics[name]:.4f}" if name in each.metrics else "–" for name in names),
        )
        for each in reversed(run.history)
    ]
    return _table(t("runs.rounds_table"), heads, rows)


def metric_names(run: RunOut) -> list[str]:
    """The figures that the rounds told, loss first."""
    told = {name for each in run.history for name in each.metrics}
    return sorted(told, key=lambda name: (name != "loss", name))[:SHOWN_METRICS]


def curves(run: RunOut, t: Texts, colours: Colours) -> dict[str, Any]:
    """What ECharts draws: the loss, and how long each round took; a round without a figure is a gap."""
    at = [each.round for each in run.history]
    first = next((name for name in metric_names(run) if name == "loss"), None)
    axis = {"axisLine": {"lineStyle": {"color": colours.line}}, "axisLabel": {"color": colours.soft}}
    split = {"splitLine": {"lineStyle": {"color": colours.line}}}
    series = [
        {
            "name": t("runs.seconds"),
            "type": "bar",
            "yAxisIndex": 1,
            "itemStyle": {"color": colours.line},
            "data": [each.round_seconds for each in run.history],
        }
    ]
    if first is not None:
        series.append(
            {
                "name": t("runs.loss"),
                "type": "line",
                "itemStyle": {"color": colours.range},
                "connectNulls": False,
                "data": [each.metrics.get(first) for each in run.history],
            }
        )
    return {
        "animation": False,
        "textStyle": {"color": colours.text},
        "legend": {"top": 0, "textStyle": {"color": colours.text}},
        "tooltip": {"trigger": "axis", "confine": True},
        "grid": {"left": 52, "right": 52, "top": 40, "bottom": 44},
        "xAxis": {
            "type": "category",
            "data": at,
            "name": t("runs.round"),
            "nameLocation": "middle",
            "nameGap": 26,
        }
        | axis,
        "yAxis": [
            {"type": "value", "scale": True, "name": t("runs.loss")} | axis | split,
            {"type": "value", "name": t("runs.seconds"), "splitLine": {"show": False}} | axis,
        ],
        "series": series,
    }


def past(runs: Sequence[RunOut], chosen: str | None, t: Texts) -> str:
    """The latest runs as links."""
    if not runs:
        return f"<p>{escaped(t('runs.none'))}</p>"
    heads = "".join(
        f'<th scope="col">{escaped(t(f"runs.past.{name}"))}</th>'
        for name in ("run", "state", "task", "rounds", "model", "when")
    )
    rows = "".join(
        f"<tr{' aria-current=true' if each.id == chosen else ''}>"
        f'<td><a href="/runs?run={escaped(each.id)}">{escaped(each.id)}</a> '
        f"{escaped(each.spec.get('name', ''))}</td>"
        f'<td><span aria-hidden="true">{MARKS.get(each.state, "▶")}</span> '
        f"{escaped(t(f'runs.states.{each.state}'))}</td>"
        f"<td>{escaped(each.spec['task'])}</td><td>{len(each.history)} / {each.rounds}</td>"
        f"<td>{escaped(_model(each, t))}</td><td>{moment(each.created_at)}</td></tr>"
        for each in runs
    )
    return f'<table class="samd-table"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def schedule(row: ScheduleOut, t: Texts) -> list[str]:
    """One schedule: when it is due, and what became of it the last time; the HTML of each cell."""
    quiet = t("runs.schedules.quiet", spans=", ".join(row.quiet)) if row.quiet else ""
    following = ", ".join(moment(each) for each in row.following[:3])
    due = following if row.enabled else escaped(t("runs.schedules.off"))
    last = ""
    if row.last_at is not None:
        last = f"{moment(row.last_at)}: {escaped(row.last_outcome or '-')}"
    when = (
        f"<code>{escaped(row.cron)}</code> {escaped(row.timezone)}"
        f'<br><span class="samd-note">{escaped(quiet)}</span>'
    )
    return [escaped(row.name), when, due, last]
