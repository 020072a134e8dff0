"""A run as one TOML file, from text to `RunSpec`; every error names the file, the place and the remedy.

    name = "Ditto on the ICU demo"      # a label for people
    rounds = 20
    quorum = 8
    devices = ["bed-01", "bed-02"]      # whom to ask; without it all that are online

    [training]
    epochs = 5
    learning_rate = 0.01

    [strategy]
    name = "FedAdam"
    weighting = "severe"
    eta = 0.05                          # the strategy's own settings

    [personalisation]
    method = "ditto"
    mu = 0.1

An unknown key is an error, never passed over: a misspelt one would leave a default in its place, unseen.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from samd_protocol.errors import ProtocolError
from samd_protocol.messages import RunSpec
from samd_protocol.runspec import choose, logit_adjustment, problems
from samd_protocol.topics import valid_name

MAX_BYTES: Final = 65_536

PLACES: Final[Mapping[str, Mapping[str, str]]] = {
    "": {
        "name": "name",
        "task": "task",
        "rounds": "rounds",
        "quorum": "quorum",
        "seed": "seed",
        "admission_deadline_s": "admission_deadline_s",
        "round_deadline_s": "round_deadline_s",
    },
    "training": {
        "epochs": "epochs",
        "learning_rate": "learning_rate",
        "optimizer": "optimizer",
        "proximal_mu": "proximal_mu",
        "mask_rate": "mask_rate",
        "logit_adjustment": "logit_adjustment",
    },
    "strategy": {"name": "strategy", "weighting": "weighting"},
    "personalisation": {
        "method": "method",
        "epochs": "personal_epochs",
        "learning_rate": "personal_learning_rate",
        "mu": "personal_mu",
        "alpha": "personal_alpha",
        "alpha_rate": "personal_alpha_rate",
        "rehearsal": "rehearsal",
    },
}
"""Where each field of `RunSpec` stands in the file: by section, by key."""

_SETTINGS: Final = "strategy_settings"


class RunFileError(ProtocolError):
    """A run file cannot be used; one sentence for each thing that is wrong, separated by semicolons."""


class RunFile(NamedTuple):
    """What a file asks for; `devices` is None for all that are online."""

    spec: RunSpec
    devices: list[str] | None


def read(path: Path) -> RunFile:
    """Read and check a file. Raises RunFileError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunFileError(f"{path}: more than {MAX_BYTES} bytes; a description of a run is shorter")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise RunFileError(f"{path}: is not UTF-8 ({error.reason}); save it as UTF-8") from error
    return parse(text, where=str(path))


def parse(text: str, *, where: str = "run file") -> RunFile:
    """Check the text of a file. Raises RunFileError with all that is wrong in it."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RunFileError(f"{where}: no TOML ({error}); correct that place") from error
    wrong: list[str] = []
    fields: dict[str, Any] = {}
    for section, keys in PLACES.items():
        table = document if not section else document.get(section, {})
        if not isinstance(table, dict):
            wrong.append(f"{section} is no section; write [{section}] on a line of its own")
            continue
        wrong += _take(section, keys, table, fields)
    devices = _devices(document.get("devices"), wrong)
    if not wrong:
        try:
            adjusted = {"logit_adjustment": logit_adjustment(fields.get("task", "severity"))}
            spec = RunSpec(**(adjusted | fields))
        except ValueError as error:
            wrong.append(_placed(str(error)))
        else:
            wrong += map(_placed, problems(spec))
    if wrong:
        raise RunFileError(f"{where}: " + "; ".join(wrong))
    return RunFile(spec, devices)


def _take(
    section: str, keys: Mapping[str, str], table: Mapping[str, Any], fields: dict[str, Any]
) -> Iterable[str]:
    """Put the values of one section into `fields`; what is wrong with them."""
    beside = [name for name in PLACES if name] + ["devices"] if not section else []
    defaults = RunSpec()
    for key, value in table.items():
        place = f"[{section}] {key}" if section else key
        if key in beside:
            continue
        field = keys.get(key)
        if field is None and section == "strategy":
            if isinstance(value, bool) or not isinstance(value, int | float):
                yield f"{place} is {value!r}; it is a number"
            else:
                fields.setdefault(_SETTINGS, {})[key] = float(value)
            continue
        if field is None:
            yield f"{place} is not known; {_remedy(key, section, keys)}"
            continue
        kind = type(getattr(defaults, field))
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)  # noqa: PLW2901
        if type(value) is not kind:
            what = {int: "a whole number", float: "a number", str: "a text in quotes"}[kind]
            yield f"{place} is {value!r}; it is {what}"
            continue
        fields[field] = value


def _remedy(key: str, section: str, keys: Mapping[str, str]) -> str:
    for other, theirs in PLACES.items():
        if key in theirs and other != section:
            return f"it belongs to [{other}]" if other else "it belongs before the first section"
    return choose(key, [*keys, *([] if section else ["devices", *filter(None, PLACES)])])


def _devices(given: Any, wrong: list[str]) -> list[str] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not given or not all(isinstance(name, str) for name in given):
        wrong.append('devices is a list of names, as ["bed-01", "bed-02"]; leave it out to ask all')
        return None
    unusable = [name for name in given if not valid_name(name)]
    if unusable:
        wrong.append(f"devices: {unusable[0]!r} is no name: letters, digits, dots, dashes and underscores")
    return sorted(set(given))


def _placed(problem: str) -> str:
    """The sentence with the place in the file instead of the field of `RunSpec`."""
    field = problem.split(" ", 1)[0].rstrip(":")
    if field == _SETTINGS:
        return "[strategy]" + problem[len(field) + 1 :]
    for section, keys in PLACES.items():
        for key, name in keys.items():
            if name == field and section:
                return f"[{section}] {key}" + problem[len(field) :]
    return problem
