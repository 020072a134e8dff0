"""The runs: start one, or have one begin by the clock; watch it round by round; stop it."""

from typing import Any

from nicegui import ui

from samd_gateway import runs_query
from samd_gateway.access.actor import Actor
from samd_gateway.answers import RunOut
from samd_gateway.pages import run_form, run_view
from samd_gateway.pages.chart import DARK, LIGHT
from samd_gateway.pages.form import Form, FormDialog, Outcome, Values
from samd_gateway.pages.models import flat, row
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.site import Site
from samd_gateway.pages.view import View
from samd_gateway.schedules.answers import ScheduleOut

LOOK_S = 1.0
"""So often an open page looks; it sends only what has changed."""
LATEST = 20


def add(site: Site) -> None:
    """The page of the runs."""

    @site.page("/runs", title="runs.title", at="runs")
    async def runs(view: View) -> None:
        page = Runs(view)
        page.build()
        await page.draw()
        ui.timer(LOOK_S, page.draw)


class Runs:
    """One open page. Without `?run=` it shows the run that is going on, or the latest."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._asked = view.query.get("run", "")[:64] or None
        self._dialog = FormDialog(view)
        self._colours = LIGHT if view.theme == "light" else DARK
        self._drawn: dict[str, Any] = {}
        self._run: RunOut | None = None

    def build(self) -> None:
        """Everything that is there, still empty."""
        t = self._view.t
        with ui.element("div").classes("samd-toolbar"):
            if self._view.may("runs"):
                self._button("runs.start.name", self._ask_start, primary=True)
                self._button("runs.schedules.add.name", self._ask_schedule)
                self._stop = self._button("runs.stop.name", self._ask_stop)
                self._stop.set_visibility(False)
        with ui.element("section").classes("samd-panel") as self._panel:
            self._head = ui.html("", sanitize=False)
            self._facts = ui.html("", sanitize=False)
            self._chart = ui.echart({}).style(f"height: {run_view.CURVES_PX}px; width: 100%")
            self._chart.props["role"] = "img"
            self._chart.props["aria-label"] = t("runs.curves")
            self._who = ui.html("", sanitize=False).classes("samd-scroll")
            self._evaluation = ui.html("", sanitize=False).classes("samd-scroll")
            with ui.element("details"):
                ui.html(escaped(t("runs.rounds_table")), sanitize=False, tag="summary")
                self._rounds = ui.html("", sanitize=False).classes("samd-scroll")
        with ui.element("section").classes("samd-panel"):
            ui.html(f"<h2>{escaped(t('runs.schedules.title'))}</h2>", sanitize=False)
            self._schedules = ui.element("div").classes("samd-scroll")
        with ui.element("section").classes("samd-panel"):
            ui.html(f"<h2>{escaped(t('runs.past.title'))}</h2>", sanitize=False)
            self._past = ui.html("", sanitize=False).classes("samd-scroll")

    def _button(self, text: str, act: Any, *, primary: bool = False) -> ui.element:
        with ui.element("button").classes("samd-button primary" if primary else "samd-button") as button:
            ui.html(escaped(self._view.t(text)), sanitize=False, tag="span")
        button.props["type"] = "button"
        button.on("click", act)
        return button

    # what is drawn

    async def draw(self) -> None:
        """What there is now, where it is not what is shown."""
        gateway = self._view.site.gateway

        def read() -> tuple[RunOut | None, list[RunOut], dict[str, float]]:
            states = gateway.states()
            with gateway.database.read() as connection:
                latest = runs_query.runs(
                    connection,
                    gateway.now(),
                    states,
                    link_down_since=gateway.link.down_since,
                    limit=LATEST,
                )
                shown = latest[0] if latest else None
                if self._asked is not None:
                    shown = runs_query.run(
                        connection,
                        self._asked,
                        gateway.now(),
                        states,
                        link_down_since=gateway.link.down_since,
                    )
            return shown, latest, {} if shown is None else self._figures(shown)

        run, latest, used = await self._view.ask(read)
        schedules = await self._view.ask(gateway.schedules.all)
        self._show_run(run, used)
        t = self._view.t
        self._set(self._past, run_view.past(latest, None if run is None else run.id, t))
        if self._drawn.get("schedules") != schedules:
            self._drawn["schedules"] = schedules
            self._show_schedules(schedules)

    def _figures(self, run: RunOut) -> dict[str, float]:
        """Those of the model that a run started from."""
        for each in self._view.site.gateway.models_control.versions():
            if (each.task, each.version) == (run.spec["task"], run.start_version):
                return flat(each.metrics)
        return {}

    def _show_run(self, run: RunOut | None, used: dict[str, float]) -> None:
        t = self._view.t
        self._run = run
        if run is None:
            text = t("runs.unknown", run=self._asked) if self._asked else t("runs.none")
            self._set(self._head, f"<p>{escaped(text)}</p>")
            self._chart.set_visibility(False)
            return
        self._set(self._head, run_view.head(run, t))
        self._set(self._facts, run_view.facts(run, t))
        self._set(self._who, run_view.who(run, t))
        self._set(self._evaluation, run_view.evaluation(run, used, t))
        self._set(self._rounds, run_view.rounds(run, t))
        options = run_view.curves(run, t, self._colours)
        self._chart.set_visibility(bool(run.history))
        if self._drawn.get("curves") != options:
            self._drawn["curves"] = options
            self._chart.options.clear()
            self._chart.options.update(options)
            self._chart.update()
        if self._view.may("runs"):
            self._stop.set_visibility(run.state not in run_view.ENDED)

    def _set(self, element: ui.html, content: str) -> None:
        if self._drawn.get(str(element.id)) != content:
            self._drawn[str(element.id)] = content
            element.set_content(content)

    def _show_schedules(self, schedules: list[ScheduleOut]) -> None:
        t = self._view.t
        self._schedules.clear()
        with self._schedules:
            if not schedules:
                ui.label(t("runs.schedules.none"))
                return
            with ui.element("table").classes("samd-table"):
                names = ("name", "when", "next", "last")
                heads = "".join(
                    f'<th scope="col">{escaped(t(f"runs.schedules.{name}"))}</th>' for name in names
                )
                last = f'<th><span class="visually-hidden">{escaped(t("models.actions"))}</span></th>'
                ui.html(f"<tr>{heads}{last}</tr>", sanitize=False, tag="thead")
                with ui.element("tbody"):
                    for each in schedules:
                        with ui.element("tr"):
                            row(run_view.schedule(each, t))
                            with ui.element("td"):
                                self._schedule_buttons(each)

    def _schedule_buttons(self, schedule: ScheduleOut) -> None:
        if not self._view.may("runs"):
            return
        t, schedules = self._view.t, self._view.site.gateway.schedules

        async def switch() -> None:
            await self._view.act(
                "runs", lambda actor: schedules.change(actor, schedule.id, {"enabled": not schedule.enabled})
            )
            await self.draw()

        def ask_remove() -> None:
            def remove(actor: Actor) -> None:
                schedules.remove(actor, schedule.id)

            async def send(_values: Values) -> Outcome:
                await self._view.attempt("runs", remove)
                await self.draw()
                return Outcome(t("runs.schedules.removed"), good=True)

            self._dialog.ask(
                Form(
                    title=t("runs.schedules.remove.title", name=schedule.name),
                    lines=(t("runs.schedules.remove.explained"),),
                    submit=t("runs.schedules.remove.name"),
                ),
                send,
            )

        self._button("runs.schedules.switch_off" if schedule.enabled else "runs.schedules.switch_on", switch)
        self._button("runs.schedules.remove.name", ask_remove)

    # what people do

    def _online(self) -> int:
        return max(self._view.site.gateway.roster.counts().get("online", 0), 1)

    async def _ask_start(self) -> None:
        t, gateway = self._view.t, self._view.site.gateway

        async def send(values: Values) -> Outcome:
            spec, devices = run_form.asked(values, t)
            run = await self._view.attempt("runs", lambda actor: gateway.runs.begin(spec, devices, actor))
            self._asked = run
            await self.draw()
            return Outcome(t("runs.start.done", run=run), good=True)

        self._dialog.ask(
            Form(
                title=t("runs.start.title"),
                lines=(t("runs.start.explained"),),
                fields=run_form.fields(t, quorum=self._online()),
                submit=t("runs.start.name"),
            ),
            send,
        )

    async def _ask_schedule(self) -> None:
        t, schedules = self._view.t, self._view.site.gateway.schedules

        async def send(values: Values) -> Outcome:
            wanted = run_form.wanted(values, t)
            made = await self._view.attempt("runs", lambda actor: schedules.add(actor, wanted))
            await self.draw()
            due = ", ".join(f"{each:%Y-%m-%d %H:%M} UTC" for each in made.following[:3])
            return Outcome(t("runs.schedules.add.done", times=due), good=True)

        self._dialog.ask(
            Form(
                title=t("runs.schedules.add.title"),
                lines=(t("runs.schedules.add.explained"),),
                fields=run_form.schedule_fields(t, quorum=self._online()),
                submit=t("runs.schedules.add.name"),
            ),
            send,
        )

    def _ask_stop(self) -> None:
        t, run = self._view.t, self._run
        if run is None or run.state in run_view.ENDED:
            return

        def stop(actor: Actor) -> None:
            self._view.site.gateway.runs.end(run.id, actor)

        async def send(_values: Values) -> Outcome:
            await self._view.attempt("runs", stop)
            await self.draw()
            return Outcome(t("runs.stop.done"), good=True)

        self._dialog.ask(
            Form(
                title=t("runs.stop.title", run=run.id),
                lines=(t("runs.stop.explained"),),
                submit=t("runs.stop.name"),
            ),
            send,
        )
