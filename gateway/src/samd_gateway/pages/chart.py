"""The time line as options of ECharts: score, severity and probability over one axis of time.

Pure: from a `Timeline` to a dictionary. Where nothing was assessed the lines break, and the gap is shown.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from samd_gateway.pages.texts import Texts
from samd_gateway.ward.answers import Timeline, TimelinePoint


class Colours(msgspec.Struct, frozen=True, kw_only=True):
    """Those of `samd.css`, for a canvas that does not know style sheets."""

    text: str
    soft: str
    line: str
    ground: str
    range: str
    model: str
    probability: str
    alert: str
    gap: str


LIGHT = Colours(
    text="#12191d",
    soft="#47545c",
    line="#c3ccd1",
    ground="#ffffff",
    range="#005f73",
    model="#8a3d00",
    probability="#5b3a8c",
    alert="#c92a36",
    gap="#8a94a6",
)
DARK = Colours(
    text="#e9eef0",
    soft="#aebbc2",
    line="#36444c",
    ground="#182126",
    range="#83cddb",
    model="#ffb46b",
    probability="#c9b1f2",
    alert="#e0525a",
    gap="#868ca8",
)

CLASSES = ("0", "1–4", "5–6", "≥ 7")
HEIGHT_PX = 548
_GRIDS = ((34, 220), (300, 90), (436, 80))
"""Top and height of each pane, pixels."""


def options(timeline: Timeline, t: Texts, colours: Colours) -> dict[str, Any]:
    """What ECharts draws."""
    begin, end = _ms(timeline.since), _ms(timeline.until)
    text = {"color": colours.soft, "fontSize": 13}
    rows = _broken(timeline)
    most = max([9, *(point.high for point in timeline.points)])
    return {
        "animation": False,
        "backgroundColor": "transparent",
        "textStyle": {"color": colours.text, "fontFamily": "inherit"},
        "legend": {
            "top": 0,
            "left": 0,
            "itemWidth": 18,
            "itemHeight": 8,
            "textStyle": text,
            "data": [
                t(f"patient.chart.{name}") for name in ("certain", "possible", "rule", "model", "probability")
            ],
        },
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": colours.ground,
            "borderColor": colours.line,
            "textStyle": {"color": colours.text},
        },
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "grid": [{"left": 52, "right": 16, "top": top, "height": height} for top, height in _GRIDS],
        "xAxis": [
            {
                "type": "time",
                "gridIndex": pane,
                "min": begin,
                "max": end,
                "axisLabel": {"show": pane == len(_GRIDS) - 1, "hideOverlap": True, **text},
                "axisLine": {"lineStyle": {"color": colours.line}},
                "axisTick": {"show": False},
                "splitLine": {"show": False},
            }
            for pane in range(len(_GRIDS))
        ],
        "yAxis": [
            _axis(0, t("patient.chart.score"), colours, max=most, min=0),
            _axis(
                1,
                t("patient.chart.severity"),
                colours,
                min=0,
                max=3,
                interval=1,
                axisLabel={":formatter": f"(value) => {list(CLASSES)!r}[value] ?? ''", **text},
            ),
            _axis(
                2,
                t("patient.chart.probability"),
                colours,
                min=0,
                max=100,
                interval=50,
                axisLabel={"formatter": "{value} %", **text},
            ),
        ],
        "series": _series(timeline, rows, t, colours),
    }


def _axis(pane: int, name: str, colours: Colours, **more: Any) -> dict[str, Any]:
    return {
        "type": "value",
        "gridIndex": pane,
        "name": name,
        "nameTextStyle": {"color": colours.soft, "fontSize": 13, "align": "left", "padding": [0, 0, 0, -46]},
        "nameGap": 10,
        "axisLabel": {"color": colours.soft, "fontSize": 13},
        "splitLine": {"lineStyle": {"color": colours.line, "opacity": 0.5}},
        **more,
    }


def _series(
    timeline: Timeline, rows: Sequence[TimelinePoint | float], t: Texts, colours: Colours
) -> list[dict[str, Any]]:
    def values(of: Any) -> list[list[float | None]]:
        return [[row, None] if isinstance(row, float) else [_ms(row.at), of(row)] for row in rows]

    def line(
        name: str, pane: int, data: Any, colour: str, kind: str = "solid", **more: Any
    ) -> dict[str, Any]:
        alone = len(timeline.points) < 60
        return {
            "type": "line",
            "name": t(f"patient.chart.{name}"),
            "xAxisIndex": pane,
            "yAxisIndex": pane,
            "step": "end",
            "symbol": "circle",
            "symbolSize": 4,
            "showSymbol": alone,
            "color": colour,
            "lineStyle": {"width": 2, "type": kind, "color": colour},
            "data": data,
            **more,
        }

    probability = values(lambda row: None if row.probability is None else round(100.0 * row.probability, 1))
    return [
        line("certain", 0, values(lambda row: row.low), colours.range, markArea=_areas(timeline, t, colours)),
        line(
            "possible",
            0,
            values(lambda row: row.high),
            colours.range,
            "dashed",
            markLine=_marks(timeline, colours),
        ),
        # the space between the two, drawn as their difference upon the lower one
        {
            "type": "line",
            "xAxisIndex": 0,
            "yAxisIndex": 0,
            "stack": "range",
            "step": "end",
            "symbol": "none",
            "silent": True,
            "tooltip": {"show": False},
            "lineStyle": {"opacity": 0},
            "data": values(lambda row: row.low),
        },
        {
            "type": "line",
            "xAxisIndex": 0,
            "yAxisIndex": 0,
            "stack": "range",
            "step": "end",
            "symbol": "none",
            "silent": True,
            "tooltip": {"show": False},
            "lineStyle": {"opacity": 0},
            "areaStyle": {"color": colours.range, "opacity": 0.2},
            "data": values(lambda row: row.high - row.low),
        },
        line("rule", 1, values(lambda row: row.rule_severity), colours.range),
        line("model", 1, values(lambda row: row.model_severity), colours.model, "dotted"),
        line("probability", 2, probability, colours.probability),
    ]


def _areas(timeline: Timeline, t: Texts, colours: Colours) -> dict[str, Any]:
    """Alerts from raised to cleared, and the gaps."""
    end = _ms(timeline.until)
    shown: list[Any] = [
        [
            {
                "xAxis": max(_ms(alert.raised_at), _ms(timeline.since)),
                "itemStyle": {"color": colours.alert, "opacity": 0.14},
                "name": t(f"patient.chart.alert.{alert.kind}", severity=CLASSES[alert.peak]),
                "label": {"color": colours.alert},
            },
            {"xAxis": end if alert.cleared_at is None else _ms(alert.cleared_at)},
        ]
        for alert in timeline.alerts
    ]
    shown += [
        [
            {
                "xAxis": max(_ms(gap.since), _ms(timeline.since)),
                "itemStyle": {"color": colours.gap, "opacity": 0.22},
                "name": t("patient.chart.gap"),
                "label": {"color": colours.soft, "position": "insideBottomRight"},
            },
            {"xAxis": end if gap.until is None else _ms(gap.until)},
        ]
        for gap in timeline.gaps
    ]
    return {"silent": True, "label": {"fontSize": 11, "position": "insideTopRight"}, "data": shown}


def _marks(timeline: Timeline, colours: Colours) -> dict[str, Any]:
    """Where the chart asks for more, and where another model began to judge."""
    levels: list[dict[str, Any]] = [
        {
            "yAxis": level,
            "label": {"formatter": str(level), "position": "insideEndTop", "color": colours.soft},
        }
        for level in (5, 7)
    ]
    changes = [
        {
            "xAxis": _ms(change.at),
            "label": {
                "formatter": "–"
                if change.after is None
                else f"v{change.after}{'*' if change.personal else ''}",
                "color": colours.model,
                "position": "end",
            },
            "lineStyle": {"color": colours.model, "type": "dotted"},
        }
        for change in timeline.model_changes
    ]
    return {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"color": colours.soft, "type": "dashed", "width": 1},
        "data": [*levels, *changes],
    }


def _broken(timeline: Timeline) -> list[TimelinePoint | float]:
    """The points, and between them the times at which the lines break: right after the last before a gap."""
    begins = sorted(_ms(gap.since) for gap in timeline.gaps)
    found: list[TimelinePoint | float] = []
    for point in timeline.points:
        at = _ms(point.at)
        while begins and begins[0] < at:
            begin = begins.pop(0)
            if found:
                found.append(begin + 1.0)
        found.append(point)
    if found and begins:
        found.append(begins[0] + 1.0)
    elif found and timeline.points:
        # the last word holds until now, unless the gap says otherwise
        found.append(timeline.points[-1].model_copy(update={"at": timeline.until}))
    return found


def _ms(moment: datetime) -> float:
    return round(moment.timestamp() * 1000.0)
