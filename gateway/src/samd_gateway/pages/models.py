"""The models: every version with where it came from and how good it is, which is in use, and the order to
release another. The server owns the models; the page says what was asked of it and what it answered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from samd_gateway.access.actor import Actor
from samd_gateway.answers import ReleaseOut, VersionOut
from samd_gateway.pages.form import Form, FormDialog, Outcome, Values
from samd_gateway.pages.panels import moment
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.site import Site
from samd_gateway.pages.texts import Texts
from samd_gateway.pages.view import View

LOOK_S = 2.0
"""So often the page looks whether anything has changed; it is drawn anew only then."""
SHOWN = (
    "complete_macro_f1",
    "complete_balanced_accuracy",
    "masked_macro_f1",
    "complete_auroc",
    "complete_average_precision",
)
"""What stands in the table; all other figures are one click away."""


def add(site: Site) -> None:
    """The page of the models."""

    @site.page("/models", title="models.title", at="models")
    async def models(view: View) -> None:
        page = Models(view)
        await page.draw()
        ui.timer(LOOK_S, page.draw)


class Models:
    """One open page."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._dialog = FormDialog(view)
        self._body = ui.element("div")
        self._drawn: Any = None

    async def draw(self) -> None:
        """What there is now, if it is not what is shown."""
        control = self._view.site.gateway.models_control
        versions, orders = await self._view.ask(lambda: (control.versions(), control.orders(20)))
        if (versions, orders) == self._drawn:
            return
        self._drawn = (versions, orders)
        self._body.clear()
        with self._body:
            for task in dict.fromkeys(each.task for each in versions):
                self._task(task, [each for each in versions if each.task == task])
            if not versions:
                ui.label(self._view.t("models.none"))
            with ui.element("section").classes("samd-panel"):
                ui.html(ordered(orders, self._view.t), sanitize=False)

    def _task(self, task: str, versions: Sequence[VersionOut]) -> None:
        t = self._view.t
        used = next((each for each in versions if each.in_use), None)
        with ui.element("section").classes("samd-panel"):
            ui.html(f"<h2>{escaped(t('models.task', task=task))}</h2>", sanitize=False)
            with ui.element("div").classes("samd-scroll"), ui.element("table").classes("samd-table"):
                ui.html(heads(versions, t), sanitize=False, tag="thead")
                with ui.element("tbody"):
                    for each in versions:
                        with ui.element("tr"):
                            row(cells(each, versions, t))
                            with ui.element("td"):
                                self._button(each, used)
            if used is not None:
                for each in versions:
                    ui.html(figures(each, used, t), sanitize=False)

    def _button(self, version: VersionOut, used: VersionOut | None) -> None:
        t = self._view.t
        if version.in_use or not self._view.may("models"):
            return
        kind = "rollback" if used is not None and version.version < used.version else "release"
        with ui.element("button").classes("samd-button") as button:
            ui.html(escaped(t(f"models.{kind}.name")), sanitize=False, tag="span")
        button.props["type"] = "button"
        button.props["aria-label"] = t(f"models.{kind}.title", version=version.version, task=version.task)
        button.on("click", lambda: self._ask(version, used, kind))

    def _ask(self, version: VersionOut, used: VersionOut | None, kind: str) -> None:
        t, control = self._view.t, self._view.site.gateway.models_control

        def order(actor: Actor) -> int:
            return control.order(actor, version.task, version.version)

        async def send(_values: Values) -> Outcome:
            await self._view.attempt("models", order)
            return Outcome(t("models.ordered"), good=True)

        lines = [t(f"models.{kind}.explained", used="-" if used is None else used.version)]
        if not version.released:
            lines.append(t("models.kept", reason=version.reason or "-"))
        self._dialog.ask(
            Form(
                title=t(f"models.{kind}.title", version=version.version, task=version.task),
                lines=tuple(lines),
                submit=t(f"models.{kind}.name"),
            ),
            send,
        )


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a version by one name each, however deep they stand."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{key}": each for key, each in flat(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def chain(version: VersionOut, versions: Sequence[VersionOut]) -> list[int]:
    """The versions that led to one, the first one first; it ends where a parent is not known here."""
    known = {each.version: each for each in versions}
    found = [version.version]
    while (parent := known[found[0]].parent if found[0] in known else None) is not None:
        if parent in found:
            break
        found.insert(0, parent)
    return found


def _columns(versions: Sequence[VersionOut]) -> list[str]:
    told = {name for each in versions for name in flat(each.metrics)}
    return [name for name in SHOWN if name in told]


def heads(versions: Sequence[VersionOut], t: Texts) -> str:
    """The head of a task's table."""
    names = [t(f"models.{name}") for name in ("version", "lineage", "state", "devices")]
    names += [t(f"models.metrics.{name}") for name in _columns(versions)]
    cells_ = "".join(f'<th scope="col">{escaped(name)}</th>' for name in [*names, t("models.run")])
    return f'<tr>{cells_}<th><span class="visually-hidden">{escaped(t("models.actions"))}</span></th></tr>'


def row(contents: Sequence[str]) -> None:
    """Cells of a table's row, the first one its heading. A browser drops cells that are no child of a row."""
    for number, content in enumerate(contents):
        with ui.element("td" if number else "th") as cell:
            if not number:
                cell.props["scope"] = "row"
            ui.html(content, sanitize=False, tag="span")


def cells(version: VersionOut, versions: Sequence[VersionOut], t: Texts) -> list[str]:
    """One version's row, but for its button: the HTML of each cell."""
    state = "in_use" if version.in_use else "released" if version.released else "candidate"
    mark = {"in_use": "●", "released": "○", "candidate": "△"}[state]
    devices = "" if version.devices is None else str(version.devices)
    if version.devices:
        devices = f'<a href="/fleet?model_version={version.version}">{version.devices}</a>'
    told = flat(version.metrics)
    numbers = [_number(told.get(name)) for name in _columns(versions)]
    lineage = " → ".join(str(each) for each in chain(version, versions))
    why = f'<br><span class="samd-note">{escaped(version.reason)}</span>' if version.reason else ""
    run = ""
    if version.run:
        run = f'<a href="/runs?run={escaped(version.run)}">{escaped(version.run)}</a>'
    shown = f'<span aria-hidden="true">{mark}</span> {escaped(t(f"models.states.{state}"))}{why}'
    return [str(version.version), escaped(lineage), shown, devices, *numbers, run]


def figures(version: VersionOut, used: VersionOut, t: Texts) -> str:
    """All figures of a version beside those of the one in use."""
    mine, theirs = flat(version.metrics), flat(used.metrics)
    if not mine or version.version == used.version:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td>{_number(mine.get(name))}</td>'
        f"<td>{_number(theirs.get(name))}</td><td>{_change(mine.get(name), theirs.get(name))}</td></tr>"
        for name in sorted({*mine, *theirs})
    )
    summary = t("models.compare", version=version.version, used=used.version)
    names = (t("models.figure"), str(version.version), f"{used.version} ({t('models.states.in_use')})", "±")
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in names)
    return (
        f"<details><summary>{escaped(summary)}</summary>"
        f'<table class="samd-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></details>'
    )


def ordered(orders: Sequence[ReleaseOut], t: Texts) -> str:
    """What was asked of the server, with its answers."""
    title = f"<h2>{escaped(t('models.orders.title'))}</h2>"
    if not orders:
        return f"{title}<p>{escaped(t('models.orders.none'))}</p>"
    heads_ = "".join(
        f'<th scope="col">{escaped(t(f"models.orders.{name}"))}</th>'
        for name in ("at", "who", "what", "status")
    )
    rows = "".join(
        f"<tr><td>{moment(each.at)}</td><td>{escaped(each.actor)}</td>"
        f"<td>{escaped(t(f'models.{each.action}.title', version=each.version, task=each.task))}</td>"
        f"<td>{escaped(t(f'models.orders.{each.status}'))}"
        f"{': ' + escaped(each.reason) if each.reason else ''}</td></tr>"
        for each in orders
    )
    return f'{title}<table class="samd-table"><thead><tr>{heads_}</tr></thead><tbody>{rows}</tbody></table>'


def _number(value: float | None) -> str:
    """A figure with three decimals, a count without; a dash where it was not told, which is not 0."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value == int(value) and abs(value) > 1 else f"{value:.3f}"


def _change(mine: float | None, theirs: float | None) -> str:
    if mine is None or theirs is None:
        return "–"
    return f"{mine - theirs:+.3f}"
