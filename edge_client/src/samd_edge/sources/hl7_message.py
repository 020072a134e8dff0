"""One HL7 v2 message: its header, its text, and the segments that matter here.

Parsing and escapes are python-hl7's. It gets only what is needed of a message (four kinds
of segment, and of these few fields, of bounded length): names of patients are not even looked at, and a
message of a million separators does not become a million objects.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from samd_data.plausibility import Rejection, shown

MAX_SEGMENTS: Final = 500
"""Of the four kinds that matter, in one message."""
_LONGEST_HEADER: Final = 4096
_LONGEST_FIELD: Final = 200
_LONGEST_PATIENT: Final = 1000
_MOST_PARTS: Final = 16
_MOST_PATIENT_PARTS: Final = 100
_TOO_LONG: Final = "(too long)"  # stands for a field that is no code, number or time; fits none of them

_DEFAULTS: Final = "^~\\&"
_SEGMENT: Final = re.compile(r"[A-Z][A-Z0-9]{2}")
_NEEDED: Final = {"OBR": (7,), "OBX": (2, 3, 5, 6, 8, 11, 14)}

_CHARSETS: Final = {
    "": "",
    "ASCII": "ascii",
    "UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
    "KS X 1001": "euc_kr",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
}
"""MSH-18 (HL7 table 0211) to Python's name; those that can be framed by MLLP."""


class Place(NamedTuple):
    """Where in a message: a segment, which one of its kind (from 1), the field (0: the whole segment)."""

    segment: str
    sequence: int
    field: int


class Problem(NamedTuple):
    """What was left out of a message, and where it stands there.

    ``condition``: a code of HL7 table 0357. ``fault``: the message says something wrong; without one, the
    sender itself says that there is no sound value. ``at``: when it was observed, if that is known.
    """

    rejection: Rejection
    place: Place
    condition: str
    fault: bool = True
    at: datetime | None = None


class MessageRefused(Exception):  # noqa: N818  (it is an answer, not a failure)
    """The whole message is refused: ``code`` AE for its content, AR for what is not taken here at all."""

    def __init__(self, code: str, condition: str, place: Place, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.code = code
        self.condition = condition
        self.place = place
        self.reason = reason
        self.remedy = remedy


class Header:
    """The MSH segment of a message, field by field as the bytes of the sender (read as Latin-1)."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = fields
        self.separator = fields[1]
        self.encoding = fields[2]
        padded = _padded(fields[2])
        self._component, self._repetition, self._subcomponent = padded[0], padded[1], padded[3]

    def field(self, number: int) -> str:
        """MSH-``number``, "" if there is none."""
        return self._fields[number].strip() if number < len(self._fields) else ""

    def component(self, number: int, component: int) -> str:
        """A component, counted from 1, of the first repetition of a field."""
        parts = self.field(number).split(self._repetition)[0].split(self._component)
        return parts[component - 1].strip() if component <= len(parts) else ""

    def line(self) -> str:
        """What an acknowledgement needs of the header, as a segment that any parser can read."""
        kept = [self.field(number) if number in (3, 4, 5, 6, 10, 11, 12) else "" for number in range(3, 13)]
        kept[6] = f"{self.component(9, 1)}{self._component}{self.component(9, 2)}{self._component}"
        return self.separator.join(("MSH" + self.separator + self.encoding, *kept))

    def num_parts(self, field: str) -> int:
        """How many separators a field holds."""
        return sum(field.count(sign) for sign in (self._component, self._repetition, self._subcomponent))


def header_of(frame: bytes) -> Header | None:
    """The header of a message; None for what is no HL7 message at all, and cannot be answered."""
    line = re.split(rb"[\r\n]", frame.strip()[:_LONGEST_HEADER], maxsplit=1)[0]
    text = re.sub(rb"[\x00-\x1f\x7f]", b"", line).decode("latin-1")  # it is sent back, and ends no frame
    if not text.startswith("MSH") or len(text) < 5:
        return None
    separator = text[3]
    encoding = text[4:].split(separator, 1)[0]
    signs = separator + _padded(encoding)
    distinct = len(set(signs)) == len(signs)
    if not 1 <= len(encoding) <= 5 or not distinct or any(not _is_separator(sign) for sign in signs):
        return None
    return Header(["MSH", separator, encoding, *text[5 + len(encoding) :].split(separator)])


def _padded(encoding: str) -> str:
    return encoding + _DEFAULTS[len(encoding) :]


def _is_separator(sign: str) -> bool:
    return sign.isascii() and sign.isprintable() and not sign.isalnum() and sign != " "


def check(header: Header) -> None:
    """Raises MessageRefused for a message that is no live ORU^R01."""
    kind, trigger = header.component(9, 1), header.component(9, 2)
    if (kind, trigger) != ("ORU", "R01"):
        condition = "200" if kind != "ORU" else "201"
        reason = f"messages of type {shown(f'{kind} {trigger}')} are not taken"
        raise MessageRefused("AR", condition, Place("MSH", 1, 9), reason, "send ORU R01")
    if header.component(11, 1) not in ("", "P"):
        reason = f"the processing id {shown(header.component(11, 1))} says that this is no real patient"
        raise MessageRefused("AR", "202", Place("MSH", 1, 11), reason, "send MSH-11 P for a patient")
    version = header.component(12, 1)
    if version and not version.startswith("2."):
        reason = f"version {shown(version)} is not read"
        raise MessageRefused("AR", "203", Place("MSH", 1, 12), reason, "send HL7 version 2")


def message_of(frame: bytes, header: Header, default_charset: str) -> Any:
    """The message, parsed: header, PID, OBR and OBX, with the fields that are needed here.

    Raises MessageRefused when it cannot be read as it is declared.
    """
    import hl7  # type: ignore[import-untyped]

    lines = _lines(frame, header, default_charset)
    kept = [header.line()]
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split(header.separator)
        kind = fields[0]
        if not _SEGMENT.fullmatch(kind):
            reason = f"line {number} is no segment"
            raise MessageRefused("AE", "100", Place("MSH", 1, 0), reason, "send whole segments, each with CR")
        if kind == "MSH":
            reason = "there are two messages in one frame"
            raise MessageRefused("AE", "100", Place("MSH", 2, 0), reason, "send each in a frame of its own")
        if kind == "PID":
            kept.append(header.separator.join(fields[:4]))
            if len(kept[-1]) > _LONGEST_PATIENT or header.num_parts(kept[-1]) > _MOST_PATIENT_PARTS:
                reason = "the identifiers of the patient are too long"
                raise MessageRefused("AE", "102", Place("PID", 1, 3), reason, "send one identifier")
        elif kind in _NEEDED:
            kept.append(_needed(kind, fields, header))
        if len(kept) > MAX_SEGMENTS:
            reason = f"there are more than {MAX_SEGMENTS} segments of observations"
            raise MessageRefused("AE", "100", Place("MSH", 1, 0), reason, "send several messages")
    return hl7.parse("\r".join(kept))


def _lines(frame: bytes, header: Header, default_charset: str) -> list[str]:
    declared = header.component(18, 1)
    charset = _CHARSETS.get(declared.upper())
    if charset is None:
        reason = f"the character set {shown(declared)} is not read"
        remedy = "send UNICODE UTF-8, ASCII or 8859/1"
        raise MessageRefused("AE", "103", Place("MSH", 1, 18), reason, remedy)
    charset = charset or default_charset
    try:
        text = frame.decode(charset).strip()
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is not in the character set {charset}"
        remedy = "say in MSH-18 which one it is in, or set encoding for this source"
        raise MessageRefused("AE", "102", Place("MSH", 1, 18), reason, remedy) from error
    text = text.replace("\r\n", "\r")
    if "\n" in text:
        if "\r" in text:  # a line feed within a segment would cut it, and with it a value
            reason = "there is a line feed within a segment"
            raise MessageRefused("AE", "100", Place("MSH", 1, 0), reason, "write it as an escape")
        text = text.replace("\n", "\r")
    return [line for line in text.split("\r") if line]


def _needed(kind: str, fields: list[str], header: Header) -> str:
    """The segment with the fields that are needed, the others empty."""
    needed = _NEEDED[kind]
    kept = [kind, *[""] * needed[-1]]
    for number in needed:
        if number < len(fields):
            field = fields[number]
            short = len(field) <= _MOST_PARTS
            if not short and (len(field) > _LONGEST_FIELD or header.num_parts(field) > _MOST_PARTS):
                field = _TOO_LONG
            kept[number] = field
    text = header.separator.join(kept).rstrip(header.separator)
    # one separator stays: the parser takes a segment without any for a text, and this one would be passed
    # over, an OBR without a time with it, and what follows would be dated by the OBR before
    return text if header.separator in text else text + header.separator


# --- fields of a parsed segment ----------------------------------------------------------------------------


def kind_of(segment: Any) -> str:
    """PID, OBR, OBX, ..."""
    return str(segment[0][0])


def repetitions_of(segment: Any, field: int) -> list[list[str]]:
    """The repetitions of a field, each as the texts of its components, escapes resolved; none if it is empty.

    Subcomponents stay together: nothing that is read here has any, and what has some fits none of it.
    (``extract_field`` of the library does as much for one component, but resolves every escape: a repetition
    count without bound, and what it cannot resolve it writes into the log.)
    """
    if field >= len(segment):
        return []
    return [
        [_resolved(segment, part if isinstance(part, str) else str(part)) for part in repetition]
        if not isinstance(repetition, str)
        else [_resolved(segment, repetition)]
        for repetition in segment[field]
    ]


def parts_of(segment: Any, field: int, num: int) -> list[str]:
    """The first ``num`` components of the first repetition of a field, "" for each that is not there."""
    repetitions = repetitions_of(segment, field)
    parts = repetitions[0] if repetitions else []
    return [*parts, *[""] * (num - len(parts))] if len(parts) < num else parts


def text_of(segment: Any, field: int) -> str:
    """The first component of a field, "" if it is not there."""
    return parts_of(segment, field, 1)[0]


def _resolved(segment: Any, text: str) -> str:
    if segment.esc not in text:
        return text.strip()
    escape = re.escape(segment.esc)
    known = rf"(?:[^{escape}]|{escape}(?:[EFHNRST]|X(?:[0-9A-Fa-f]{{2}})+){escape})*"
    if not re.fullmatch(known, text, re.DOTALL):
        return text.strip()  # no code, number or time has another escape: it stays, and fits none

    from hl7.util import unescape  # type: ignore[import-untyped]

    resolved: str = unescape(segment, text, app_map={"H": "", "N": ""})
    return resolved.strip()
