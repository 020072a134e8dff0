"""What a person says of a run, or of one that begins by the clock, as forms; and from what they sent to what
is asked of the gateway. Everything that a form leaves out has the gateway's default.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from samd_gateway.errors import UsageError
from samd_gateway.pages.form import Field, Option, Values
from samd_gateway.pages.texts import Texts
from samd_gateway.schedules.service import Wanted
from samd_protocol import runfile
from samd_protocol.messages import RunSpec
from samd_protocol.methods import METHODS, OPTIMIZERS
from samd_protocol.runspec import logit_adjustment, problems
from samd_protocol.strategies import STRATEGIES

NUMBERS: Mapping[str, type] = {
    "rounds": int,
    "quorum": int,
    "epochs": int,
    "learning_rate": float,
    "admission_deadline_s": float,
    "round_deadline_s": float,
}
TASKS = ("severity", "deterioration")


def fields(t: Texts, *, quorum: int, tasks: tuple[str, ...] = TASKS) -> tuple[Field, ...]:
    """The fields of a run, each explained."""
    standard = RunSpec()

    def number(name: str, value: object) -> Field:
        return Field(
            name=name,
            label=t(f"runs.fields.{name}.name"),
            help=t(f"runs.fields.{name}.help"),
            value=f"{value:g}" if isinstance(value, float) else str(value),
            longest=20,
        )

    def choice(name: str, values: tuple[str, ...], value: str) -> Field:
        return Field(
            name=name,
            label=t(f"runs.fields.{name}.name"),
            help=t(f"runs.fields.{name}.help"),
            kind="select",
            options=tuple(Option(each, each) for each in values),
            value=value,
        )

    return (
        Field(name="name", label=t("runs.fields.name.name"), help=t("runs.fields.name.help"), longest=120),
        choice("task", tasks, tasks[0]),
        number("rounds", standard.rounds),
        number("quorum", quorum),
        Field(
            name="devices",
            label=t("runs.fields.devices.name"),
            help=t("runs.fields.devices.help"),
            longest=10_000,
        ),
        number("epochs", standard.epochs),
        number("learning_rate", standard.learning_rate),
        choice("optimizer", OPTIMIZERS, standard.optimizer),
        choice("strategy", tuple(STRATEGIES), standard.strategy),
        choice("method", METHODS, standard.method),
        number("admission_deadline_s", standard.admission_deadline_s),
        number("round_deadline_s", standard.round_deadline_s),
        Field(
            name="file",
            label=t("runs.fields.file.name"),
            help=t("runs.fields.file.help"),
            kind="long",
            longest=runfile.MAX_BYTES,
        ),
    )


def asked(values: Values, t: Texts) -> tuple[RunSpec, list[str] | None]:
    """The run, and whom it asks (None: all that are online). Raises UsageError with the field's name."""
    if values["file"]:
        try:
            described = runfile.parse(values["file"], where=t("runs.fields.file.name"))
        except runfile.RunFileError as error:
            raise UsageError(str(error)) from error
        return described.spec, described.devices
    given: dict[str, Any] = {
        name: values[name] for name in ("name", "task", "optimizer", "strategy", "method")
    }
    for name, kind in NUMBERS.items():
        label = t(f"runs.fields.{name}.name")
        try:
            given[name] = kind(values[name].replace(",", "."))
        except ValueError as error:
            raise UsageError(f"{label}: {t('runs.no_number')}") from error
    given["logit_adjustment"] = logit_adjustment(given["task"])
    try:
        spec = msgspec.convert(given, RunSpec)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(str(error)) from error
    if found := problems(spec):
        raise UsageError("; ".join(found))
    devices = [name for name in values["devices"].replace(",", " ").split() if name]
    return spec, devices or None


def schedule_fields(t: Texts, *, quorum: int, tasks: tuple[str, ...] = TASKS) -> tuple[Field, ...]:
    """The fields of a schedule: when, and then those of the run."""

    def text(name: str, value: str = "", *, required: bool = False) -> Field:
        return Field(
            name=name,
            label=t(f"runs.schedules.fields.{name}.name"),
            help=t(f"runs.schedules.fields.{name}.help"),
            value=value,
            required=required,
            longest=120,
        )

    when = (
        text("title", required=True),
        text("cron", "30 2 * * *", required=True),
        text("timezone", "UTC", required=True),
        text("quiet"),
        text("tag"),
    )
    return when + tuple(each for each in fields(t, quorum=quorum, tasks=tasks) if each.name != "name")


def wanted(values: Values, t: Texts) -> Wanted:
    """The schedule. Raises UsageError."""
    spec, devices = asked({**values, "name": values["title"]}, t)
    return Wanted(
        name=values["title"],
        cron=values["cron"],
        timezone=values["timezone"],
        quiet=[each for each in values["quiet"].replace(",", " ").split() if each],
        spec=spec,
        devices=devices,
        tag=values["tag"] or None,
    )
