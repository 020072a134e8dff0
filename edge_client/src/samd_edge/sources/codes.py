"""What the codes of HL7 and FHIR mean: the field of a LOINC or MDC code, units, answers on consciousness.

Sources. LOINC codes and answer codes: loinc.org. MDC codes: ISO/IEEE 11073-10101, as the IHE profile PCD-01
sends them, compared with the HL7 Denmark core guide (value set ``IEEEBasicObservation``), the guide of the
German intensive-care module (MII ICU) and published messages of monitors; a code is the partition times
65536 plus the term. Note that 151570 is the rate in the airway, and 151578 the one by chest impedance.
SNOMED CT: the UK Core value set ACVPU. Units: UCUM, and the MDC codes of the dimensions.

Skin, blood and room temperatures are never a body temperature here; pressures whose vessel is not named
(150017, 150018: any invasive channel, also a venous one) and those of one posture are no blood pressure here.
"""

import math
import re
from typing import Final, Literal, NamedTuple

from samd_data.errors import DataError
from samd_data.plausibility import RANGES, shown, temperature_celsius
from samd_data.reading import Consciousness

System = Literal["loinc", "mdc"]

PANELS: Final = frozenset({"85354-9", "85353-1"})
"""LOINC panels (blood pressure, vital signs): they mean nothing themselves, their members count."""

_MOST_OXYGEN: Final = 100.0  # L/min; high-flow therapy ends at about 80


class UnitError(ValueError):
    """A value cannot be brought into its field's unit. ``reason`` says why, ``remedy`` what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class UnknownUnitError(UnitError):
    """The text is no unit of this field; where a sender writes a unit several times, another may be."""


class _Meaning(NamedTuple):
    field: str
    rank: int  # of several methods that measured one field at one time, the lowest counts
    name: str = ""  # MDC: the reference id


_LOINC: Final[dict[str, _Meaning]] = {
    "8867-4": _Meaning("heart_rate", 0),
    "8889-8": _Meaning("heart_rate", 1),  # by pulse oximetry
    "9279-1": _Meaning("respiratory_rate", 1),
    "59408-5": _Meaning("spo2", 0),  # by pulse oximetry
    "2708-6": _Meaning("spo2", 1),  # in arterial blood
    "76215-3": _Meaning("systolic_bp", 0),  # invasive
    "76213-8": _Meaning("diastolic_bp", 0),
    "76534-7": _Meaning("systolic_bp", 1),  # noninvasive
    "76535-4": _Meaning("diastolic_bp", 1),
    "8480-6": _Meaning("systolic_bp", 2),
    "8462-4": _Meaning("diastolic_bp", 2),
    "8329-5": _Meaning("temperature", 0),  # core
    "60836-4": _Meaning("temperature", 0),  # oesophageal
    "60838-0": _Meaning("temperature", 0),  # nasopharyngeal
    "8332-9": _Meaning("temperature", 0),  # rectal
    "8333-7": _Meaning("temperature", 1),  # tympanic
    "8331-1": _Meaning("temperature", 1),  # oral
    "8310-5": _Meaning("temperature", 2),  # body, site not said
    "8328-7": _Meaning("temperature", 3),  # axillary
    "80288-4": _Meaning("consciousness", 0),  # level of consciousness, AVPU
    "67775-7": _Meaning("consciousness", 0),  # level of responsiveness, AVPU
    "3151-8": _Meaning("supplemental_oxygen", 0),  # inhaled oxygen flow rate
}

_MDC: Final[dict[str, _Meaning]] = {
    "147842": _Meaning("heart_rate", 0, "MDC_ECG_HEART_RATE"),
    "149530": _Meaning("heart_rate", 1, "MDC_PULS_OXIM_PULS_RATE"),
    "149514": _Meaning("heart_rate", 2, "MDC_PULS_RATE"),
    "149522": _Meaning("heart_rate", 2, "MDC_BLD_PULS_RATE_INV"),
    "149546": _Meaning("heart_rate", 3, "MDC_PULS_RATE_NON_INV"),
    "151594": _Meaning("respiratory_rate", 0, "MDC_CO2_RESP_RATE"),
    "151570": _Meaning("respiratory_rate", 0, "MDC_AWAY_RESP_RATE"),
    "151562": _Meaning("respiratory_rate", 1, "MDC_RESP_RATE"),
    "151650": _Meaning("respiratory_rate", 2, "MDC_ACOUSTIC_RESP_RATE"),
    "151578": _Meaning("respiratory_rate", 3, "MDC_TTHOR_RESP_RATE"),
    "151658": _Meaning("respiratory_rate", 4, "MDC_PULS_OXIM_PLETH_RESP_RATE"),
    "150456": _Meaning("spo2", 0, "MDC_PULS_OXIM_SAT_O2"),
    "150324": _Meaning("spo2", 1, "MDC_SAT_O2_ART"),
    "150033": _Meaning("systolic_bp", 0, "MDC_PRESS_BLD_ART_SYS"),
    "150034": _Meaning("diastolic_bp", 0, "MDC_PRESS_BLD_ART_DIA"),
    "150037": _Meaning("systolic_bp", 0, "MDC_PRESS_BLD_ART_ABP_SYS"),
    "150038": _Meaning("diastolic_bp", 0, "MDC_PRESS_BLD_ART_ABP_DIA"),
    "150021": _Meaning("systolic_bp", 1, "MDC_PRESS_BLD_NONINV_SYS"),
    "150022": _Meaning("diastolic_bp", 1, "MDC_PRESS_BLD_NONINV_DIA"),
    "150301": _Meaning("systolic_bp", 1, "MDC_PRESS_CUFF_SYS"),
    "150302": _Meaning("diastolic_bp", 1, "MDC_PRESS_CUFF_DIA"),
    "150368": _Meaning("temperature", 0, "MDC_TEMP_CORE"),
    "150372": _Meaning("temperature", 0, "MDC_TEMP_ESOPH"),
    "150380": _Meaning("temperature", 0, "MDC_TEMP_NASOPH"),
    "150348": _Meaning("temperature", 0, "MDC_TEMP_FOLEY"),
    "188420": _Meaning("temperature", 0, "MDC_TEMP_RECT"),
    "188456": _Meaning("temperature", 0, "MDC_TEMP_GIT"),
    "150392": _Meaning("temperature", 1, "MDC_TEMP_TYMP"),
    "188428": _Meaning("temperature", 1, "MDC_TEMP_EAR"),
    "188424": _Meaning("temperature", 1, "MDC_TEMP_ORAL"),
    "150364": _Meaning("temperature", 2, "MDC_TEMP_BODY"),
    "188452": _Meaning("temperature", 3, "MDC_TEMP_AXILLA"),
    "150344": _Meaning("temperature", 4, "MDC_TEMP"),  # a channel of a monitor, site not said
}

_BY_SYSTEM: Final[dict[str, dict[str, _Meaning]]] = {
    "loinc": _LOINC,
    "mdc": _MDC | {meaning.name: meaning for meaning in _MDC.values()},
}


def field_of(system: System, code: str) -> str | None:
    """The field of a reading that a LOINC or MDC code fills, None when it fills none.

    MDC: the number ("150456") or the reference id ("MDC_PULS_OXIM_SAT_O2"). A panel fills none itself.
    ``supplemental_oxygen`` is coded as a flow: see ``oxygen_of``.
    """
    meaning = _BY_SYSTEM[system].get(code.strip())
    return meaning.field if meaning else None


def rank_of(system: System, code: str) -> int:
    """Which of several methods that measured one field at one time goes before: the lowest (0 is best).

    An ECG before a pulse, a core temperature before one in the armpit, an arterial line before a cuff; a
    systolic and a diastolic pressure belong together only when they are of one rank. Raises ``KeyError``
    for a code that ``field_of`` does not know.
    """
    return _BY_SYSTEM[system][code.strip()].rank


# --- units -------------------------------------------------------------------------------------------------

# Written in lower case; braces and what is in them (UCUM annotations such as {beats}) are taken off before.
_PER_MINUTE: Final = dict.fromkeys(
    (
        *("/min", "1/min", "min-1", "per min", "per minute", "bpm", "beats/min", "beats/minute", "beat/min"),
        *("beats per minute", "breaths/min", "breaths/minute", "breath/min", "breaths per minute", "rpm"),
        *("resp/min", "br/min", "264864", "mdc_dim_beat_per_min", "264928", "mdc_dim_resp_per_min"),
        "mdc_dim_per_min",
    ),
    1.0,
) | dict.fromkeys(("hz", "/s", "1/s", "264640", "mdc_dim_hz"), 60.0)
_PERCENT: Final = dict.fromkeys(("%", "percent", "pct", "262688", "mdc_dim_percent"), 1.0)
_PRESSURE: Final = (
    dict.fromkeys(("mm[hg]", "mmhg", "mm hg", "266016", "mdc_dim_mmhg"), 1.0)
    | dict.fromkeys(("kpa", "265987", "mdc_dim_kilo_pascal"), 7.500616827)
    | dict.fromkeys(("cm[h2o]", "cmh2o", "266048", "mdc_dim_cm_h2o"), 0.735559121)
)
_FLOW: Final = dict.fromkeys(
    ("l/min", "l/minute", "lpm", "liters/min", "litres/min", "265216", "mdc_dim_l_per_min"), 1.0
) | dict.fromkeys(("ml/min", "265234", "mdc_dim_milli_l_per_min"), 0.001)
_TEMPERATURE: Final[dict[str, Literal["C", "F", "K"]]] = {
    **dict.fromkeys(("cel", "degc", "deg c", "°c", "c", "celsius", "268192", "mdc_dim_degc"), "C"),
    **dict.fromkeys(("[degf]", "degf", "deg f", "°f", "f", "fahrenheit", "266560", "mdc_dim_fahr"), "F"),
    **dict.fromkeys(("k", "kelvin", "266528", "mdc_dim_kelvin"), "K"),
}
_NO_UNIT: Final = frozenset({"", "262656", "mdc_dim_dimless"})

_UNITS: Final[dict[str, dict[str, float]]] = {
    "heart_rate": _PER_MINUTE,
    "respiratory_rate": _PER_MINUTE,
    "spo2": _PERCENT,
    "systolic_bp": _PRESSURE,
    "diastolic_bp": _PRESSURE,
    "supplemental_oxygen": _FLOW,
}
_KNOWN: Final = {
    "heart_rate": "/min, {beats}/min, Hz",
    "respiratory_rate": "/min, {breaths}/min, Hz",
    "spo2": "%",
    "systolic_bp": "mm[Hg], kPa, cm[H2O]",
    "diastolic_bp": "mm[Hg], kPa, cm[H2O]",
    "temperature": "Cel, [degF], K",
    "supplemental_oxygen": "L/min, mL/min",
}


def in_unit(field: str, value: float, unit: str | None) -> float:
    """A measured ``value`` in the unit of its ``field``; an oxygen flow in L/min.

    ``unit``: UCUM, what people write for it, or MDC (number or reference id). Where no unit is given, rates,
    percents and flows are taken as they are; a temperature is, because °C and °F do not overlap; a pressure
    only above all that it could be in kPa. The result may still be implausible: that is for ``clean`` to say.

    Raises ``UnitError`` for a unit that is unknown or does not fit, ``KeyError`` for a field without a unit.
    """
    name = re.sub(r"\{[^{}]*\}", "", unit or "").strip().lower()
    if name in _NO_UNIT and not (unit or "").strip().startswith("{"):
        return _without_unit(field, value)
    if field == "temperature":
        return _temperature(value, _TEMPERATURE.get(name), unit or "")
    factor = _UNITS[field].get(name)
    if factor is None:
        raise _unknown_unit(field, unit or "")
    return value if factor == 1.0 else round(value * factor, 6)


def _temperature(value: float, scale: Literal["C", "F", "K"] | None, unit: str) -> float:
    if scale is None:
        raise _unknown_unit("temperature", unit)
    if scale == "C":
        return value
    if scale == "K":
        return round(value - 273.15, 6)
    return _celsius(value, "F")


def _without_unit(field: str, value: float) -> float:
    if field == "temperature":
        return _celsius(value, None)
    if _UNITS[field] is _PRESSURE:
        most_in_kpa = RANGES[field].high / _PRESSURE["kpa"]
        if value <= most_in_kpa:
            reason = f"{shown(value)} without a unit could be mmHg or kPa"
            raise UnitError(reason, f"give the unit; known are {_KNOWN[field]}")
    return value


def _celsius(value: float, unit: Literal["F"] | None) -> float:
    try:
        return temperature_celsius(value, unit)
    except DataError as error:
        reason, _, remedy = str(error).partition("; ")
        raise UnitError(reason, remedy or "measure again") from error


def _unknown_unit(field: str, unit: str) -> UnknownUnitError:
    return UnknownUnitError(
        f"the unit {shown(unit)} is not known for this sign", f"known are {_KNOWN[field]}"
    )


def oxygen_of(flow: float) -> bool:
    """Whether a flow of oxygen (L/min) is supplemental oxygen: any above 0 is, 0 says that there is none.

    Raises ``UnitError`` for a flow that nobody is given.
    """
    if not (math.isfinite(flow) and 0 <= flow <= _MOST_OXYGEN):
        reason = f"{shown(flow)} is no flow of oxygen (0 to {_MOST_OXYGEN:g} L/min)"
        raise UnitError(reason, "check the flow and its unit")
    return flow > 0


# --- consciousness -----------------------------------------------------------------------------------------

_ANSWERS: Final[dict[str, Consciousness]] = {
    **dict.fromkeys(("a", "alert", "mentally alert", "la9340-6", "248234008"), "A"),
    **dict.fromkeys(
        ("c", "confusion", "confused", "new confusion", "acute confusion", "la6560-2", "130987000"), "C"
    ),
    **dict.fromkeys(
        ("v", "voice", "verbal", "responds to voice", "response to voice", "la17108-4", "300202002"), "V"
    ),
    **dict.fromkeys(
        ("p", "pain", "painful", "responds to pain", "response to pain", "la17107-6", "450847001"), "P"
    ),
    **dict.fromkeys(("u", "unresponsive", "la9343-0", "422768004"), "U"),
}


def consciousness_of(*answers: str | None) -> Consciousness | None:
    """A C V P U of the codes and texts of one answer (LOINC answer, SNOMED CT, letter or word).

    None where none of them is known, or where two that are known contradict each other. A score, such as
    that of the Glasgow scale, is never turned into one.
    """
    known = {
        _ANSWERS[text]
        for answer in answers
        if answer and (text := answer.strip().lower().removesuffix("(finding)").strip()) in _ANSWERS
    }
    return known.pop() if len(known) == 1 else None
