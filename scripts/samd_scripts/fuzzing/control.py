"""What is asked of a whole agent: lines on its own socket, and the commands that they carry."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from samd_data.reading import FIELDS
from samd_edge import orders
from samd_edge.commands import CommandFailed, Refused
from samd_edge.control import Ask
from samd_protocol import examples, messages
from samd_scripts.fuzzing.bedside import START, Bedside
from samd_scripts.fuzzing.choices import Choices
from samd_scripts.fuzzing.json_parts import changed
from samd_scripts.fuzzing.oracle import LONGEST_LINE, insist, one_line, parsed
from samd_scripts.fuzzing.target import Target

_BEDS: Final[dict[float, Bedside]] = {}  # made when first needed: an agent takes a while to begin
_TIMES: Final = (
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00",
    "1969-12-31T23:00:00Z",
)


def _bed(choices: Choices) -> Bedside:
    speed = choices.pick((1.0, 600.0))
    if speed not in _BEDS:
        _BEDS[speed] = Bedside(speed)
    bed = _BEDS[speed]
    bed.fresh(spo2_scale=choices.pick((1, 2)))
    return bed


def check_control(data: bytes) -> None:
    """Any lines: each is answered, on one line of JSON, and the patient's picture stays right."""
    bed = _bed(Choices(data[-2:]))
    for line in data.splitlines(keepends=True)[:8]:
        _asked(bed, line)


def check_control_written(data: bytes) -> None:
    """Requests that are written, one part changed."""
    choices = Choices(data)
    bed = _bed(choices)
    for _ in range(choices.between(1, 3)):
        if choices.flag():
            request: Any = {"ask": "view", "hours": choices.pick((0.5, 6, 168))}
        else:
            request = {"ask": "do", "body": parsed(msgspec.json.encode(_observation(choices)))}
        text = changed(choices, request) if choices.below(4) else json.dumps(request)
        _asked(bed, text.encode("utf-8", "replace"))
        bed.wall += timedelta(seconds=choices.below(4000))


def _asked(bed: Bedside, line: bytes) -> None:
    answer = bed.do(lambda: bed.agent.control.answer(line))
    insist(b"\n" not in answer, "an answer of more than one line", answer)
    said = parsed(answer)
    insist(isinstance(said, dict) and isinstance(said.get("ok"), bool), "no answer", answer)
    if not said["ok"]:
        one_line(said["error"], longest=LONGEST_LINE + 2 * len(line))  # it quotes the line
    bed.well()


def check_orders_written(data: bytes) -> None:
    """Commands carried out by a whole agent, parts of them changed: done or refused, and the patient's
    picture stays right."""
    choices = Choices(data)
    bed = _bed(choices)
    for _ in range(choices.between(1, 4)):
        body = _observation(choices) if choices.flag() else choices.pick(list(examples.command_bodies()))
        tree = parsed(msgspec.json.encode(body))
        text = changed(choices, tree) if choices.below(4) == 3 else json.dumps(tree)
        try:
            body = msgspec.json.decode(text.encode("utf-8", "replace"), type=messages.CommandBody)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        try:
            answer = bed.do(lambda body=body: orders.execute(bed.agent, body))  # type: ignore[misc]
            msgspec.json.encode(answer.detail)
        except (Refused, CommandFailed) as refusal:
            one_line(str(refusal))
        bed.well()
        bed.wall += timedelta(seconds=choices.below(4000))


def _observation(choices: Choices) -> messages.ObservationAdd:
    by = choices.pick(("nurse-7", "", " ", "\x1b[2J"))
    if choices.flag():
        return messages.ObservationAdd(
            by=by,
            observed_at=_moment(choices),
            supplemental_oxygen=choices.pick((None, True, False)),
            consciousness=choices.pick((None, "A", "C", "V", "P", "U")),
        )
    return messages.ObservationAdd(
        by=by,
        correction=messages.Correction(
            field=choices.pick((*FIELDS, "pulse", "\n")),
            reason=choices.pick(("cuff slipped", "", "\x00")),
            observed_at=_moment(choices),
            value=choices.pick((None, 0, 1, True, 97.0, 128, 300.5, 1e300, 10**18, "A", "97", "\x1b")),
        ),
    )


def _moment(choices: Choices) -> datetime | None:
    if choices.flag():
        return None
    if choices.below(4) == 3:
        return msgspec.convert(choices.pick(_TIMES), datetime, strict=False)
    return START + timedelta(seconds=choices.between(-90_000, 4000))


def _seeds() -> Iterable[bytes]:
    yield b'{"ask": "view", "hours": 6}\n'
    for body in examples.command_bodies():
        yield b'{"ask": "do", "body": ' + msgspec.json.encode(body) + b"}\n"


TARGETS: Final = (
    Target(
        name="control",
        about="an agent's own socket: any lines",
        check=check_control,
        seeds=_seeds,
        words=(
            *Ask.__struct_fields__,
            *messages.ObservationAdd.__struct_fields__,
            "view",
            "do",
            "observation.add",
        ),
    ),
    Target(
        name="control-written",
        about="requests on an agent's own socket, one part changed",
        check=check_control_written,
        choices=True,
    ),
    Target(
        name="orders-written",
        about="commands that a whole agent carries out, one part changed",
        check=check_orders_written,
        choices=True,
    ),
)
