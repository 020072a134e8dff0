"""What can be done to many devices from the fleet's page: the fields of each action, and the action."""

import msgspec

from samd_gateway.errors import UsageError
from samd_gateway.fleet.actions import Action
from samd_gateway.pages.form import Field, Option, Values
from samd_gateway.pages.texts import Texts

KINDS = ("tag", "config", "activate", "rollback", "report")
TASKS = ("severity", "deterioration")


def fields(kind: str, t: Texts) -> tuple[Field, ...]:
    """What has to be said of an action."""

    def text(name: str, *, required: bool = False) -> Field:
        return Field(
            name=name,
            label=t(f"fleet.fields.{name}.name"),
            help=t(f"fleet.fields.{name}.help"),
            required=required,
            longest=200,
        )

    def choice(name: str) -> Field:
        options = (Option("", t("fleet.stays")), Option("yes", t("fleet.yes")), Option("no", t("fleet.no")))
        return Field(name=name, label=t(f"fleet.fields.{name}.name"), kind="select", options=options)

    task = Field(
        name="task",
        label=t("fleet.fields.task.name"),
        kind="select",
        options=tuple(Option(each, each) for each in TASKS),
        value=TASKS[0],
    )
    return {
        "tag": (text("add"), text("remove")),
        "config": (text("heartbeat_s"), choice("share_signs"), choice("consent_to_training")),
        "activate": (text("version", required=True), task),
        "rollback": (task,),
        "report": (),
    }[kind]


def action_of(kind: str, values: Values, t: Texts) -> Action:
    """The action. Raises UsageError."""
    said: dict[str, object]
    if kind == "tag":
        said = {"type": "tag", "add": _list(values["add"]), "remove": _list(values["remove"])}
        if not said["add"] and not said["remove"]:
            raise UsageError(t("fleet.no_tag"))
    elif kind == "config":
        chosen = {"": None, "yes": True, "no": False}
        said = {
            "type": "config",
            "heartbeat_s": _number(values["heartbeat_s"], t("fleet.fields.heartbeat_s.name"), t),
            "share_signs": chosen[values["share_signs"]],
            "consent_to_training": chosen[values["consent_to_training"]],
        }
    elif kind == "activate":
        version = values["version"]
        if not (version.isdecimal() and len(version) < 10):
            raise UsageError(f"{t('fleet.fields.version.name')}: {t('fleet.no_version')}")
        said = {"type": "model.activate", "task": values["task"], "version": int(version)}
    elif kind == "rollback":
        said = {"type": "model.rollback", "task": values["task"]}
    else:
        said = {"type": "report"}
    try:
        return msgspec.convert(said, Action)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error


def _list(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _number(text: str, label: str, t: Texts) -> float | None:
    if not text:
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError as error:
        raise UsageError(f"{label}: {t('runs.no_number')}") from error
