"""The acknowledgement of an HL7 v2 message, made by python-hl7."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from samd_edge.sources.hl7_message import Header, Problem

_MOST_ERRORS: Final = 10
_LONGEST_TEXT: Final = 240


def acknowledgement(
    header: Header, code: str, problems: Sequence[Problem], *, now: datetime, message: Any = None
) -> bytes | None:
    """The answer to a message, or None where the sender wants none (HL7 chapter 2, MSH-15 and MSH-16).

    What was left out is told twice: in words in MSA-3, which every engine shows, and with its place in an ERR
    segment each. ``message``: the parsed message, if there is one.
    """
    import hl7  # type: ignore[import-untyped]

    code = _mode(header, code)
    if not code:
        return None
    ack = (message or hl7.parse(header.line())).create_ack(code, message_id=secrets.token_hex(10))
    ack[0].assign_field(now.strftime("%Y%m%d%H%M%S+0000"), 7)
    if header.field(18):
        ack[0].assign_field(header.field(18), 18)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        ack[1].assign_field(ack.escape(_said(problems[0], 150) + more), 3)
    severity = "E" if code[1] != "A" else "W"
    for problem in problems[:_MOST_ERRORS]:
        error = ack.create_segment([ack.create_field(["ERR"])])
        for component, part in enumerate(problem.place, start=1):
            if part:
                error.assign_field(str(part), 2, 1, component)
        error.assign_field(problem.condition, 3, 1, 1)
        error.assign_field("HL70357", 3, 1, 3)
        error.assign_field(severity, 4)
        error.assign_field(ack.escape(_said(problem, _LONGEST_TEXT)), 8)
        ack.append(error)
    return str(ack).encode("latin-1", "replace")


def _said(problem: Problem, limit: int) -> str:
    rejection = problem.rejection
    text = f"{rejection.column}: " if rejection.column else ""
    text = " ".join(f"{text}{rejection.reason}; {rejection.remedy}".split()).replace("°", "")
    text = text.encode("ascii", "replace").decode("ascii")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _mode(header: Header, code: str) -> str:
    """The code to answer with, as the sender asks: AA, AE, AR, or CA, CE, CR; "" for no answer."""
    accept, application = header.field(15), header.field(16)
    good = code == "AA"
    if not accept and not application:
        return code
    wanted = {"AL"} | ({"SU"} if good else {"ER"})
    if application in wanted:
        return code
    return f"C{code[1]}" if accept in wanted else ""
