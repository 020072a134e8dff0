"""HL7 v2 ORU^R01 as bedside monitors send it (`samd_edge.sources.hl7v2`)."""

import asyncio
import atexit
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Final

from samd_data.plausibility import Rejection
from samd_data.reading import CONSCIOUSNESS, VITALS, Reading
from samd_edge.retraction import Withdrawn
from samd_edge.sources import parse
from samd_edge.sources.codes import field_of
from samd_edge.sources.hl7v2 import HL7Source, open_source
from samd_edge.sources.surroundings import PatientGuard, Surroundings
from samd_scripts.fuzzing.choices import ODD_TEXTS, Choices, signs
from samd_scripts.fuzzing.claims import Claim, all_claimed, all_withdrawn, sorted_out
from samd_scripts.fuzzing.oracle import insist
from samd_scripts.fuzzing.target import Target
from samd_scripts.fuzzing.units import UNITS, in_some_unit, stated

PATIENT: Final = "10006"
_NOW: Final = datetime(2026, 3, 1, 8, tzinfo=UTC)

_CODES: Final = {
    "heart_rate": ("8867-4^^LN", "147842^MDC_ECG_HEART_RATE^MDC"),
    "respiratory_rate": ("9279-1^^LN", "151562^MDC_RESP_RATE^MDC"),
    "spo2": ("2708-6^^LN", "150456^MDC_PULS_OXIM_SAT_O2^MDC"),
    "systolic_bp": ("8480-6^^LN", "150021^MDC_PRESS_BLD_NONINV_SYS^MDC"),
    "diastolic_bp": ("8462-4^^LN", "150022^MDC_PRESS_BLD_NONINV_DIA^MDC"),
    "temperature": ("8310-5^^LN", "150344^MDC_TEMP^MDC"),
    "supplemental_oxygen": ("3151-8^^LN",),
    "consciousness": ("80288-4^^LN",),
}
_ODD: Final = (
    *(text[:200] for text in ODD_TEXTS),
    '""', "<", ">97", "97~98", "97&1", "97^98", "=^97", "<^97", "\\X3937\\", "\\E\\", "\\.br\\",
    "\\F\\97", "\\X\\", "OFF", "INV", "QUES", "TEST", "X", "D", "W", "C", "NM", "SN", "ST", "CWE", "TS",
    "ED", "20260301080000", "20260301080000+0000", "20260301080000-0030", "00010101000000+1400",
    "99991231235959-1400", "2026030107", "10007", "10006^^^A^MR~10007^^^B^PI", "ORU^R01", "ADT^A01",
    "8859/1", "UNICODE UTF-16", "T", "3.0", "MSH", "PID", "OBX", "8867-4^^LN^9279-1^^LN", "[degF]^^UCUM",
    "kPa^^UCUM^mm[Hg]^^UCUM",
)  # fmt: skip
_ODD_OF: Final[dict[int, tuple[str, ...]]] = {
    2: ("SN", "TX", "CWE", "ED", "TS", ""),
    3: ("8867-4^^LN^9279-1^^LN", "8867-4", "8310-5^^LN", "99999-9^^LN", "MDC_TEMP^^MDC", ""),
    5: ("97", "97~98", "97^98", "=^97", "<^97", ">97", '""', "", "97&1", "\\X3937\\", "120/80", "Alert", "C"),
    6: ("[degF]^^UCUM", "kPa", "mm[Hg]", "kPa^^UCUM^mm[Hg]^^UCUM", "Hz", "%", "x", ""),
    8: ("OFF", "INV", "QUES", "TEST", "<", "N~QUES", "H"),
    11: ("X", "D", "W", "C", "P", "I", "N", "U", "Z", ""),
    14: ("20260301075500+0000", "20260301100000+0000", "20260301080000", "20260301080000-0030", '""'),
}
"""What may stand in a field of an OBX, and means something else there."""

_TYPES: Final = ("NM", "SN", "ST", "TX", "IS", "ID", "CE", "CWE", "CNE")
_SOUND: Final = ("", "F", "C", "P", "R", "A", "B", "S", "V")
_DOUBTFUL: Final = frozenset(
    ("INV", "NAV", "NI", "NA", "OFF", "MSK", "OTH", "NAN", "PINF", "NINF", "QUES", "EARLY", "ERLY", "BUSY")
).union(("CAL", "<", ">", "TEST", "DEMO"))
_WORDS_OF: Final = {
    "A": ("alert", "la9340-6", "248234008"),
    "C": ("confus", "la6560-2", "130987000"),
    "V": ("voice", "verbal", "la17108-4", "300202002"),
    "P": ("pain", "la17107-6", "450847001"),
    "U": ("unresponsive", "la9343-0", "422768004"),
}
_TIME: Final = re.compile(r"(\d{12})(\d\d)?(?:\.(\d{1,6})\d*)?([+-])(\d\d)(\d\d)")

_SOURCES: Final[list[tuple[HL7Source, PatientGuard]]] = []  # one bound port serves every input


def _source() -> HL7Source:
    if not _SOURCES:
        guard = PatientGuard()
        source = open_source(parse("hl7:0"), Surroundings(wall=lambda: _NOW, patient=guard))
        atexit.register(lambda: asyncio.run(source.aclose()))
        _SOURCES.append((source, guard))
    source, guard = _SOURCES[0]
    guard.admit(key="fuzz")
    guard.refusal(PATIENT)
    return source


def interpreted(frame: bytes) -> tuple[list[Reading], list[Rejection], str | None]:
    """Readings, rejections and the code of the answer, each of them judged."""
    return _interpreted(frame)[:3]


def _interpreted(frame: bytes) -> tuple[list[Reading], list[Rejection], str | None, list[Withdrawn]]:
    source = _source()
    items, answer = source.interpret(frame)
    readings, rejections, withdrawn = sorted_out(items, source.name)
    if answer is None:  # no HL7 at all, an acknowledgement, or a sender who wants none (MSH-15, MSH-16)
        return readings, rejections, None, withdrawn
    insist(b"\x0b" not in answer and b"\x1c" not in answer, "an answer that ends its own frame", answer)
    header, acknowledged, *rest = answer.decode("latin-1").rstrip("\r").split("\r")
    insist(header.startswith("MSH") and acknowledged.startswith("MSA"), "no acknowledgement", answer)
    insist(all(line.startswith("ERR") for line in rest), "other segments in an answer", answer)
    code = acknowledged.split(header[3])[1]
    insist(code in ("AA", "AE", "AR", "CA", "CE", "CR"), "a code that HL7 does not have", answer)
    insist(code[1] == "A" or not readings, "readings of a message that is refused", code, readings)
    insist(readings or rejections or code[1] == "A", "refused without a reason", answer)
    return readings, rejections, code, withdrawn


def check_hl7(frame: bytes) -> None:
    """Any bytes: each value that is taken is said by an OBX, at its time, in its unit, of this patient."""
    readings, _, _, withdrawn = _interpreted(frame)
    if not readings and not withdrawn:
        return
    first, *others = re.split(r"[\r\n]+", frame.decode("latin-1").strip())
    first = re.sub(r"[\x00-\x1f\x7f]", "", first)
    text = "\r".join((first, *others))
    for line in text.split("\r"):
        if line.startswith("PID"):
            named = _named(line.split(text[3]) + [""] * 4, text[4:5], text[5:6])
            insist(not named or PATIENT in named, "of another patient", line)
    for reading in readings:
        insist(reading.observed_at <= _NOW + timedelta(minutes=1), "a reading from the future", reading)
    all_claimed(readings, list(_claims(text)))
    all_withdrawn(withdrawn, list(_claims(text, whatever_status=True)))


def _named(fields: list[str], component: str, repetition: str) -> set[str]:
    """The identifiers in PID-3, and where there is none the one in PID-2."""
    several, one = fields[3].split(repetition), [fields[2].partition(repetition)[0]]
    for identifiers in (several, one):
        found = {_plain(identifier.partition(component)[0]) for identifier in identifiers} - {"", '""'}
        if found:
            return found
    return set()


def _claims(text: str, *, whatever_status: bool = False) -> Iterator[Claim]:
    separator, component, repetition = text[3], text[4:5], text[5:6]
    order = ""

    def parts(field: str) -> list[str]:
        """The components of the first repetition."""
        return [_plain(part) for part in field.partition(repetition)[0].split(component)]

    for line in text.split("\r"):
        fields = [_bounded(field, component, repetition) for field in line.split(separator)] + [""] * 20
        if fields[0] == "OBR":
            order = parts(fields[7])[0]
        if fields[0] != "OBX":
            continue
        flags = {_plain(flag.split(component)[0]).upper() for flag in fields[8].split(repetition)}
        at = _at(parts(fields[14])[0] or order)
        sound = parts(fields[11])[0].upper() in _SOUND and not flags & _DOUBTFUL
        if at is None or not (sound or whatever_status):
            continue
        usable = parts(fields[2])[0].upper() in _TYPES and repetition not in fields[5]
        if not (usable or whatever_status):
            continue
        codes, unit = parts(fields[3]), parts(fields[6])
        value = [_plain(part) for part in fields[5].split(component)]
        named = _fields(codes + [""] * 6)
        if len(named) == 1:
            (field,) = named
            values = tuple(_values(field, value, unit[0]))
            known = field not in UNITS or unit[0] in UNITS[field]
            yield Claim(field, values, at, "", codes[0], partial(bool, known))


def _bounded(field: str, *separators: str) -> str:
    """What is too long, or of too many parts, says nothing."""
    return "(too long)" if len(field) > 200 or sum(map(field.count, (*separators, "&"))) > 16 else field


def _fields(codes: list[str]) -> set[str]:
    """The signs that both triplets of OBX-3 name."""
    found: set[str | None] = set()
    for code, text, system in (codes[:3], codes[3:6]):
        if system.upper() in ("LN", "LOINC"):
            found.add(field_of("loinc", code))
        elif system.upper() == "MDC":
            found |= {field_of("mdc", code), field_of("mdc", text)}
    return {field for field in found if field is not None}


def _values(field: str, value: list[str], unit: str) -> Iterator[float | bool | str]:
    said = " ".join(value).lower()
    if field == "consciousness":
        yield from (
            letter
            for letter in CONSCIOUSNESS
            if letter.lower() in said.split() or any(word in said for word in _WORDS_OF[letter])
        )
        return
    first, *rest = value
    if first in ("", "=") and rest and not any(rest[1:]):  # type SN: comparator, number, ...
        first, *rest = rest
    if not any(rest) and re.fullmatch(r"[+-]?\d*\.?\d*", first) and any(map(str.isdigit, first)):
        if field == "supplemental_oxygen":
            yield float(first) > 0
        else:
            yield from stated(field, float(first), unit)


def _plain(text: str) -> str:
    """Without escapes: those of characters by their code, and the one of the escape character."""
    text = re.sub(
        r"\\X((?:[0-9A-Fa-f]{2})+)\\", lambda found: bytes.fromhex(found[1]).decode("latin-1"), text
    )
    return text.replace("\\H\\", "").replace("\\N\\", "").strip()


def _at(text: str) -> datetime | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    digits, seconds, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    try:
        moment = datetime.strptime(f"{digits}{seconds or '00'}", "%Y%m%d%H%M%S").replace(
            tzinfo=timezone(offset)
        )
        return (moment + timedelta(microseconds=int((fraction or "0").ljust(6, "0")))).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# --- written by us, one part changed ------------------------------------------------------------------------


def check_hl7_written(data: bytes) -> None:
    """A message that is written, one field, one component or one segment changed."""
    choices = Choices(data)
    lines, fields = _message(choices)
    if not choices.below(4):
        frame = "\r".join(lines).encode()
        check_hl7(frame)
        _complete(frame, fields)
        return
    number = choices.below(len(lines))
    parts = lines[number].split("|")
    at = choices.below(len(parts) + 2)
    if parts[0] == "OBX" and choices.flag():
        at = choices.pick(list(_ODD_OF))
        parts[at] = choices.pick(_ODD_OF[at])
        lines[number] = "|".join(parts)
        check_hl7("\r".join(lines).encode())
        return
    match choices.below(8):
        case 0:
            lines.pop(number)
        case 1:
            lines.insert(number, choices.pick(lines))
        case 2:
            lines[number] = lines[number][: choices.below(len(lines[number]) + 1)]
        case 3:
            parts[min(at, len(parts) - 1)] += choices.pick(("~", "^", "&", "\\")) + choices.pick(_ODD)
            lines[number] = "|".join(parts)
        case _:
            parts += [""] * (at + 1 - len(parts))
            parts[at] = choices.pick(_ODD)
            lines[number] = "|".join(parts)
    check_hl7(choices.pick(("\r", "\n", "\r\n")).join(lines).encode("utf-8", "replace"))


def _complete(frame: bytes, fields: dict[str, str | bool]) -> None:
    """Nothing of a sound message is lost; what was converted may have ended up just beyond its range."""
    readings, rejections, code = interpreted(frame)
    insist(code == "AA" or rejections, "a sound message that is refused", frame)
    told = {rejection.column for rejection in rejections}
    for field in fields:
        present = readings and getattr(readings[0], field) is not None
        insist(present or (field in VITALS and field in told), f"{field} is gone", frame, rejections)


def _message(choices: Choices) -> tuple[list[str], dict[str, str | bool]]:
    fields = signs(choices) or {"heart_rate": "88"}
    seconds = choices.below(90_000)
    time = (_NOW - timedelta(seconds=seconds)).strftime("%Y%m%d%H%M%S+0000")
    own = choices.flag()  # the time stands in each OBX, or in the OBR
    lines = [
        r"MSH|^~\&|MONITOR|ICU|SAMD|BED-01|20260301080000+0000||ORU^R01^ORU_R01|4711|P|2.6",
        f"PID|||{PATIENT}^^^WARD^MR||DOE^JANE",
        f"OBR|1||||||{'' if own else time}",
    ]
    pressure = choices.pick(("mm[Hg]", "kPa"))
    for number, (field, value) in enumerate(fields.items(), start=1):
        code = choices.pick(_CODES[field])
        if field in ("systolic_bp", "diastolic_bp"):
            code = _CODES[field][0]  # both of one method, or they are no pair
            text, unit = (
                (str(value), "mm[Hg]") if pressure == "mm[Hg]" else (f"{float(value) / 7.5:.3f}", "kPa")
            )
        elif field == "consciousness":
            text, unit = str(value), ""
        elif field == "supplemental_oxygen":
            text, unit = ("2" if value else "0"), "L/min"
        else:
            text, unit = in_some_unit(choices, field)
        kind = "ST" if field == "consciousness" else choices.pick(("NM", "ST"))
        lines.append(f"OBX|{number}|{kind}|{code}||{text}|{unit}^^UCUM|||||F|||{time if own else ''}")
    return lines, fields


def _seeds() -> Iterable[bytes]:
    for data in (b"", b"\x55" * 60, b"\xa5\x01\xff" * 20, b"\x01" * 90, b"\xff" * 90):
        yield "\r".join(_message(Choices(data))[0]).encode()
    yield b"MSH|^~\\&|A|B|C|D|20260301080000||ACK|1|P|2.6\rMSA|AA|7\r"
    yield b"MSH|^~\\&\r"


TARGETS: Final = (
    Target(
        name="hl7",
        about="an HL7 v2 message: any bytes",
        check=check_hl7,
        seeds=_seeds,
        words=(
            *(
                "MSH|^~\\&|",
                "\rPID|",
                "\rOBR|",
                "\rOBX|",
                "ORU^R01",
                "NM",
                "SN",
                "CWE",
                "|||||F",
                "UNICODE UTF-8",
            ),
            *(code for codes in _CODES.values() for code in codes),
            *(
                "[degF]",
                "Cel",
                "kPa",
                "mm[Hg]",
                "/min",
                "^^UCUM",
                "20260301075900+0000",
                "\\X39\\",
                '""',
                "~",
                "OFF",
            ),
        ),
    ),
    Target(
        name="hl7-written",
        about="an HL7 v2 message, one part changed",
        check=check_hl7_written,
        choices=True,
    ),
)
