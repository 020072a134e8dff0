"""The picture of a period: score, classes and alerts, the signs over the chart's bands, oxygen and
consciousness; one SVG with text that can be selected, no script and nothing from elsewhere.

Each kind of mark is a group with a name of its own (``flagged-spo2``, ``struck-heart_rate``, ``gap``,
``alert-raised``, ...), so that it can be found and counted. Colour is never the only sign: the bands carry
their points as numbers, rule and model differ in line style, artefacts and struck values in shape.
"""

import io
import re
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from samd_data.carry import CARRY_SECONDS
from samd_data.news2 import CHARTS, SPO2_SCALE_2_ON_AIR, SPO2_SCALE_2_ON_OXYGEN, Chart
from samd_data.plausibility import RANGES
from samd_data.severity import CLASSES
from samd_edge.report.gaps import Gap, Held, gaps, held
from samd_edge.report.record import Entered, History, Series
from samd_edge.report.thinning import COLUMNS, joined, lonely, thinned, with_holes, worst
from samd_edge.top.trends import SCALES
from samd_edge.top.words import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTTED: Final = ("respiratory_rate", "spo2", "systolic_bp", "heart_rate", "temperature")
_DAY_S: Final = 86_400.0
_INK: Final = "#1b1f24"
_GREY: Final = "#6b7682"
_BANDS: Final = {1: "#fff3bf", 2: "#ffd8a8", 3: "#ffc9c9"}
_CLASS_INK: Final = ("#2b8a3e", "#8a6d00", "#c2410c", "#c92a2a")
_WIDTH_IN: Final = 7.3
_ROWS_IN: Final = {"score": 1.0, "class": 0.62, "sign": 0.72, "entered": 0.36}
_LEGIBLE: Final = 0.1  # a band that is lower than this share of the axis has no room for its number
_FEW: Final = 150  # up to so many values each has a mark of its own
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "samd",
    "font.family": "sans-serif",
    "font.size": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "hatch.color": "#9aa5b1",
    "path.simplify": False,
}
_NO_METADATA: Final[dict[str, Any]] = {"Date": None, "Creator": None, "Format": None, "Type": None}


def picture(history: History, zone: tzinfo) -> str:
    """The SVG element of a period. Raises ImportError without matplotlib."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, sum(_heights()) * 1.16))
        FigureCanvasSVG(figure)
        _draw(figure, history, zone)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=_NO_METADATA)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # As wide as the page lets it be; matplotlib gives it a size in points.
    return re.sub(r'^<svg ([^>]*?)height="[^"]*" ?([^>]*?)width="[^"]*"', r"<svg \1\2", text, count=1)


def _draw(figure: "Figure", history: History, zone: tzinfo) -> None:
    grid = {"height_ratios": _heights(), "hspace": 0.12}
    axes: list[Axes] = list(figure.subplots(len(_heights()), 1, sharex=True, gridspec_kw=grid))
    figure.subplots_adjust(left=0.15, right=0.975, top=0.99, bottom=0.05)
    missing = gaps(history)
    stands = worst(held(history), history.since, history.until)
    _score(axes[0], history, stands)
    _classes(axes[1], stands)
    for axis, name in zip(axes[2:-1], PLOTTED, strict=True):
        _sign(axis, history, name, missing)
    _entered(axes[-1], history)
    for axis in axes:
        _shade(axis, history, missing)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.tick_params(length=2, pad=2)
    _time_axis(axes[-1], history, zone)


def _heights() -> list[float]:
    rows = _ROWS_IN
    return [rows["score"], rows["class"], *[rows["sign"]] * len(PLOTTED), rows["entered"]]


def _name(axis: "Axes", text: str) -> None:
    """What an axis shows, upright: nobody turns the head to read it."""
    axis.set_ylabel(text, rotation=0, ha="left", va="center", linespacing=1.1)
    axis.yaxis.set_label_coords(-0.175, 0.5)


def _days(times: Any) -> Any:
    return np.asarray(times, dtype=np.float64) / _DAY_S


def _time_axis(axis: "Axes", history: History, zone: tzinfo) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=zone, minticks=4, maxticks=12)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=zone)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_formatter(formatter)
    margin = max(1.0, history.until - history.since) * 0.004
    axis.set_xlim(_days(history.since - margin), _days(history.until + margin))


def _shade(axis: "Axes", history: History, missing: list[Gap]) -> None:
    for gap in missing:
        start = history.since if gap.start is None else max(gap.start, history.since)
        axis.axvspan(
            _days(start), _days(gap.end), facecolor="none", hatch="////", edgecolor="#9aa5b1", lw=0, gid="gap"
        )


# -- score, classes, alerts ----------------------------------------------------------------------------------


def _score(axis: "Axes", history: History, stands: list[Held]) -> None:
    _name(axis, "NEWS2")
    axis.axhspan(4.5, 6.5, color=_BANDS[2], lw=0)
    axis.axhspan(6.5, 21, color=_BANDS[3], lw=0)
    axis.set_ylim(-0.5, 21)
    axis.set_yticks([0, 5, 7, 12, 20])
    times, lows, highs = _steps(stands)
    axis.fill_between(times, lows, highs, color="#4263eb", alpha=0.25, lw=0, gid="score-range")
    axis.plot(times, lows, color=_INK, lw=1.2, gid="score")
    marks = {"raised": "^", "escalated": "^", "deescalated": "v", "cleared": "v"}
    for state, mark in marks.items():
        rows = [row for row in history.alerts if row.alert.state == state and row.at >= history.since]
        if rows:
            axis.plot(
                _days([row.at for row in rows]),
                [19.3] * len(rows),
                mark,
                color="#c92a2a" if mark == "^" else _GREY,
                markerfacecolor="#c92a2a" if mark == "^" else "white",
                ms=5,
                gid=f"alert-{state}",
            )
    for row in history.alerts:
        if row.at >= history.since:
            axis.axvline(_days(row.at), color="#c92a2a", lw=0.5, ls=":", gid="alert-time")
            if row.alert.state == "cleared":
                continue  # it carries the patient's class, and is at no level any more
            axis.annotate(
                str(row.alert.severity),
                (_days(row.at), 19.3),
                xytext=(4, -2.5),
                textcoords="offset points",
                fontsize=6.5,
            )


def _steps(stands: list[Held]) -> tuple[Any, Any, Any]:
    """Corners of the step line and its range; NaN where no judgement stood."""
    times: list[float] = []
    lows: list[float] = []
    highs: list[float] = []
    end = None
    for each in stands:
        if end is not None and each.start > end + 1.0:
            times.append(end)
            lows.append(np.nan)
            highs.append(np.nan)
        times += [each.start, each.end]
        lows += [each.run.low] * 2
        highs += [each.run.high] * 2
        end = each.end
    return _days(times), np.asarray(lows, dtype=float), np.asarray(highs, dtype=float)


def _classes(axis: "Axes", stands: list[Held]) -> None:
    _name(axis, "severity")
    axis.set_ylim(-0.5, 3.6)
    axis.set_yticks(range(4), CLASSES)
    for level in range(4):
        axis.axhline(level, color="#dee2e6", lw=0.5, zorder=0)
    for each in stands:
        if each.run.disagreement:
            axis.axvspan(
                _days(each.start), _days(each.end), color="#d0bfff", alpha=0.5, lw=0, gid="disagreement"
            )
        if each.run.possible > each.run.rule:
            axis.fill_between(
                _days([each.start, each.end]),
                each.run.rule,
                each.run.possible,
                color="#4263eb",
                alpha=0.15,
                lw=0,
                gid="possible",
            )
    rule = _class_steps(stands, "rule")
    axis.plot(*rule, color=_INK, lw=1.4, gid="rule", label="rule")
    model = _class_steps(stands, "model")
    axis.plot(
        model[0], model[1] + 0.12, color="#7048e8", lw=1.2, ls=(0, (3, 1.5)), gid="model", label="model"
    )


def _class_steps(stands: list[Held], which: str) -> tuple[Any, Any]:
    times: list[float] = []
    values: list[float] = []
    end = None
    for each in stands:
        value = getattr(each.run, which)
        if end is not None and each.start > end + 1.0:
            times.append(end)
            values.append(np.nan)
        times += [each.start, each.end]
        values += [np.nan if value < 0 else value] * 2
        end = each.end
    return _days(times), np.asarray(values, dtype=float)


# -- signs ---------------------------------------------------------------------------------------------------


def _sign(axis: "Axes", history: History, name: str, missing: list[Gap]) -> None:
    _name(axis, f"{NAMES[name]}\n{RANGES[name].unit}")
    low, high = _limits(history, name)
    axis.set_ylim(low, high)
    _chart(axis, history, name, low, high)
    if name == "systolic_bp":
        _line(axis, history, "diastolic_bp", missing, colour="#1971c2", width=0.7)
        _wrong(axis, history, "diastolic_bp", low)
    _line(axis, history, name, missing)
    _wrong(axis, history, name, low)


def _limits(history: History, name: str) -> tuple[float, float]:
    low, high = SCALES[name]
    for field in (name, "diastolic_bp") if name == "systolic_bp" else (name,):
        for series in (history.values[field], history.flagged[field], history.struck[field]):
            if len(series):
                values = np.asarray(series.values)
                low, high = min(low, float(values.min())), max(high, float(values.max()))
    margin = (high - low) * 0.08
    return low - margin, high + margin


def _chart(axis: "Axes", history: History, name: str, low: float, high: float) -> None:
    """The bands of the chart with their points; those that hang on oxygen only where oxygen was given."""
    if name != "spo2" or history.spo2_scale == 1:
        _bands(axis, CHARTS[name], low, high, None)
        return
    _bands(axis, SPO2_SCALE_2_ON_AIR, low, high, None)
    for entry in history.oxygen:
        if entry.value is True:
            start, end = _valid(history, entry, history.oxygen)
            _bands(axis, SPO2_SCALE_2_ON_OXYGEN, low, high, (start, end))


def _bands(axis: "Axes", chart: Chart, low: float, high: float, during: tuple[float, float] | None) -> None:
    # A value is rounded to the chart's resolution first: its bands meet half a step beyond the last value.
    edges = [low, *((upper + 0.5) / chart.steps for upper in chart.upper), high]
    for number, points in enumerate(chart.points):
        bottom, top = max(low, edges[number]), min(high, edges[number + 1])
        if points == 0 or top <= bottom:
            continue
        look: dict[str, Any] = {"color": _BANDS[points], "lw": 0, "zorder": 0}
        if during is None:
            axis.axhspan(bottom, top, gid=f"band-{points}", **look)
        else:
            axis.fill_between(_days(during), bottom, top, gid=f"band-{points}-on-oxygen", **look)
        if (top - bottom) / (high - low) < _LEGIBLE:
            continue
        axis.text(
            1.006,
            (bottom + top) / 2,
            str(points),
            transform=axis.get_yaxis_transform(),
            fontsize=6,
            va="center",
            color=_GREY,
        )


def _line(
    axis: "Axes", history: History, name: str, missing: list[Gap], *, colour: str = _INK, width: float = 1.0
) -> None:
    """The values that count. A line joins two while the earlier one is valid, and never over a gap."""
    series = history.values[name]
    if not len(series):
        if name != "diastolic_bp":
            axis.text(0.5, 0.5, "no value in this period", transform=axis.transAxes, ha="center", va="center")
        return
    times, values = np.asarray(series.times), np.asarray(series.values)
    longest_s = max(CARRY_SECONDS[name], 3 * (history.until - history.since) / COLUMNS)
    alone = lonely(joined(times, longest_s, missing))
    marked = np.ones(len(times), dtype=bool) if len(times) <= _FEW else alone
    if marked.any():
        few = thinned(times[marked], values[marked], history.since, history.until)
        axis.plot(_days(few[0]), few[1], "o", color=colour, ms=1.8, gid=f"points-{name}")
    times, values = thinned(times, values, history.since, history.until)
    times, values = with_holes(times, values, joined(times, longest_s, missing))
    axis.plot(_days(times), values, color=colour, lw=width, gid=f"values-{name}")


def _wrong(axis: "Axes", history: History, name: str, low: float) -> None:
    """What is not scored: artefacts as open diamonds, struck values as crosses, and, at the foot, when
    nothing could be measured."""
    flagged, struck = history.flagged[name], history.struck[name]
    if len(flagged):
        axis.plot(
            *_few(flagged, history), "D", ms=3.2, mfc="white", mec="#862e9c", mew=0.8, gid=f"flagged-{name}"
        )
    if len(struck):
        axis.plot(*_few(struck, history), "x", ms=4, mec="#c92a2a", mew=1.1, gid=f"struck-{name}")
    nothing = history.unmeasured[name]
    if len(nothing):
        times = np.asarray(nothing)
        few, _ = thinned(times, np.zeros(len(times)), history.since, history.until)
        axis.plot(
            _days(few),
            [low] * len(few),
            "|",
            ms=9,
            mec="#862e9c",
            mew=1.4,
            clip_on=False,
            gid=f"no-value-{name}",
        )


def _few(series: Series, history: History) -> tuple[Any, Any]:
    times, values = thinned(np.asarray(series.times), np.asarray(series.values), history.since, history.until)
    return _days(times), values


# -- what a person entered -----------------------------------------------------------------------------------


def _entered(axis: "Axes", history: History) -> None:
    axis.set_ylim(-0.6, 1.6)
    axis.set_yticks([1, 0], ["oxygen", "conscious"])
    for level, entries, name in ((1, history.oxygen, "oxygen"), (0, history.consciousness, "consciousness")):
        for entry in entries:
            start, end = _valid(history, entry, entries)
            if end <= history.since:
                continue
            bad = entry.value is True or (isinstance(entry.value, str) and entry.value != "A")
            text = entry.value if isinstance(entry.value, str) else "on oxygen" if entry.value else "air"
            left = max(start, history.since)
            axis.plot(
                _days([left, end]),
                [level, level],
                color="#c2410c" if bad else "#2b8a3e",
                lw=5 if bad else 2,
                solid_capstyle="butt",
                gid=f"{name}-{text.replace(' ', '-')}",
            )
            axis.annotate(
                text,
                (_days(left), level),
                xytext=(1, 3.5),
                textcoords="offset points",
                fontsize=6,
                annotation_clip=True,
            )


def _valid(history: History, entry: Entered, entries: list[Entered]) -> tuple[float, float]:
    """From when to when an entry held: until the next one, and no longer than 12 h."""
    place = entries.index(entry)
    following = entries[place + 1].start if place + 1 < len(entries) else history.until
    return entry.start, min(following, entry.last + CARRY_SECONDS["consciousness"], history.until)
