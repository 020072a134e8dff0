"""What an HL7 v2 message gives: values left out with their place, messages refused, any bytes at all."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import hl7
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samd_data.plausibility import Rejection, check
from samd_data.reading import Reading
from samd_edge.retraction import Retraction, Withdrawn
from samd_edge.sources import parse
from samd_edge.sources.hl7v2 import HL7Source, open_source
from samd_edge.sources.surroundings import Surroundings

# python-hl7 makes the acknowledgements, and takes the time for them from what Python 3.12 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
AT = datetime(2026, 3, 2, 11, 59, tzinfo=UTC)
SPO2 = "OBX|9|NM|2708-6^Oxygen saturation^LN||97|%^^UCUM|||||F"


@pytest.fixture
def source() -> Iterator[HL7Source]:
    made = open_source(parse("hl7:0"), Surroundings(wall=lambda: NOW))
    yield made
    asyncio.run(made.aclose())


@pytest.fixture(scope="module")
def any_source() -> Iterator[HL7Source]:
    """One source for many messages."""
    made = open_source(parse("hl7:0"), Surroundings(wall=lambda: NOW))
    yield made
    asyncio.run(made.aclose())


def obx(code: str, value: str, unit: str = "", *, kind: str = "NM", rest: str = "|||||F") -> str:
    return f"OBX|1|{kind}|{code}||{value}|{unit}{rest}"


def oru(
    *segments: str,
    patient: str = "PID|||10006^^^WARD^MR||DOE^JANE",
    observed: str = "20260302115900+0000",
    kind: str = "ORU^R01^ORU_R01",
    header: str = "P|2.6",
) -> str:
    first = rf"MSH|^~\&|MONITOR|ICU|SAMD|BED-01|20260302120000+0000||{kind}|4711|{header}"
    return "\r".join((first, patient, f"OBR|1||||||{observed}", *segments)) + "\r"


def take(source: HL7Source, message: str) -> tuple[list[Reading], list[Rejection], hl7.Message]:
    items, answer = source.interpret(message.encode())
    assert answer is not None
    readings = [item for item in items if isinstance(item, Reading)]
    return readings, [item for item in items if isinstance(item, Rejection)], hl7.parse(answer)


# --- values ------------------------------------------------------------------------------------------------

WRONG = [
    # an OBX that holds something wrong, the column of its rejection, the reason
    (obx("8867-4^^LN", "0", "/min"), "heart_rate", "0 is outside 15 to 300 /min"),
    (obx("59408-5^^LN", "120", "%"), "spo2", "120 is outside 30 to 100 %"),
    (obx("59408-5^^LN", "0.97", "%"), "spo2", "looks like a fraction"),
    (obx("59408-5^^LN", "0.97", "1"), "spo2", "the unit '1' is not known"),
    (obx("8310-5^^LN", "98.6", "Cel"), "temperature", "looks like °F"),
    (obx("8310-5^^LN", "37.0", "[degF]"), "temperature", "37 °F is no body temperature"),
    (obx("8310-5^^LN", "37,2", "Cel"), "temperature", "'37,2' is no number"),
    (obx("8310-5^^LN", "37", "Cel^^^[degF]"), "temperature", "looks like °C"),
    (obx("8480-6^^LN", "120 mmHg", "", kind="ST"), "systolic_bp", "is no number"),
    (obx("8480-6^^LN", "120/80", "mmHg", kind="ST"), "systolic_bp", "is no number"),
    (obx("8480-6^^LN", "^120^/^80", "mmHg", kind="SN"), "systolic_bp", "or a ratio"),
    (obx("8480-6^^LN", "&gt;^200", "mmHg", kind="SN"), "systolic_bp", "is a bound"),
    (obx("8480-6^^LN", ">^200", "mmHg", kind="SN"), "systolic_bp", "is a bound"),
    (obx("8480-6^^LN", "16"), "systolic_bp", "could be mmHg or kPa"),
    (obx("8480-6^^LN", "120", "psi"), "systolic_bp", "the unit 'psi' is not known"),
    (obx("8480-6^^LN", "120", "mmHg^^^kPa"), "systolic_bp", "contradict each other"),
    (obx("8480-6^^LN", "120~130", "mmHg"), "systolic_bp", "several values"),
    (obx("8867-4^^LN", "1e2", "/min"), "heart_rate", "'1e2' is no number"),
    (obx("8867-4^^LN", "NaN", "/min"), "heart_rate", "'NaN' is no number"),
    (obx("8867-4^^LN", "\u0661\u0662\u0663", "/min"), "heart_rate", "is no number"),
    (obx("8867-4^^LN", "9" * 5000, "/min"), "heart_rate", "'(too long)' is no number"),
    (obx("8867-4^^LN", "8" * 199, "/min"), "heart_rate", "is outside 15 to 300"),
    (obx("8867-4^^LN", "72\\.sp99999\\", "/min"), "heart_rate", "is no number"),
    (obx("8867-4^^LN", "72^Normal", "", kind="CWE"), "heart_rate", "'CWE' is no number"),
    (obx("8867-4^^LN", "72", "/min", rest="|||||Q"), "heart_rate", "status 'Q'"),
    (obx("8867-4^^LN", "72", "/min", rest="||DEMO|||R"), "heart_rate", "demonstration"),
    (obx("8867-4^^LN", "72", "/min", rest="||H~TEST|||R"), "heart_rate", "test data"),
    (obx("80288-4^^LN", "15"), "consciousness", "'NM' is no answer"),
    (obx("80288-4^^LN", "15", kind="ST"), "consciousness", "'15' is no level"),
    (obx("80288-4^^LN", "LA9340-6^Unresponsive^LN", kind="CWE"), "consciousness", "LA"),
    (obx("3151-8^^LN", "2000", "L/min"), "supplemental_oxygen", "no flow of oxygen"),
    (obx("8867-4^^LN^9279-1^^LN", "72"), "", "two different signs"),
    (obx("8867-4^^LN", "72", rest="|||||D|||20260302"), "observed_at", "is no time"),
    (obx("8867-4^^LN", "72", rest="|||||F|||20260302"), "observed_at", "is no time"),
    (obx("8867-4^^LN", "72", rest="|||||F|||20260230120000+0000"), "observed_at", "is no time"),
    (obx("8867-4^^LN", "72", rest="|||||F|||20260302115900"), "observed_at", "has no offset from UTC"),
    (obx("8867-4^^LN", "72", rest="|||||F|||20260302115900+9900"), "observed_at", "is no time"),
    (obx("8867-4^^LN", "72", rest="|||||F|||00010101000000+1400"), "observed_at", "is no time"),
    (obx("8867-4^^LN", "72", rest="|||||F|||20260302130000+0000"), "observed_at", "3600 s in the future"),
    (obx("8867-4^^LN", "72", rest='|||||F|||""'), "observed_at", "there is no time of observation"),
]  # fmt: skip

NO_VALUE = [
    # an OBX whose sender says itself that there is no sound value, the kind of its rejection, the reason
    (obx("8867-4^^LN", "72", "/min", rest="||QUES|||R"), "implausible", "questionable"),
    (obx("8867-4^^LN", "300", "/min", rest="||>|||R"), "implausible", "above what"),
    (obx("8867-4^^LN", "72", "/min", rest="||INV|||R"), "no_signal", "flag INV"),
    (obx("8867-4^^LN", "72", "/min", rest="|||||X"), "no_signal", "status X"),
    (obx("8867-4^^LN", "", kind="", rest="|||||X"), "no_signal", "status X"),
    (obx("8867-4^^LN", "8388607", "/min", rest="|||||X"), "no_signal", "status X"),
    (obx("8867-4^^LN", "", "/min"), "no_signal", "there is no value"),
    (obx("8867-4^^LN", '""', "/min"), "no_signal", "there is no value"),
]  # fmt: skip


@pytest.mark.parametrize(("segment", "column", "reason"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_value_is_left_out_with_its_place(
    source: HL7Source, segment: str, column: str, reason: str
) -> None:
    readings, (rejection,), ack = take(source, oru(segment))
    assert (readings, str(ack["MSA.F1"])) == ([], "AE")
    assert (rejection.column, rejection.kind) == (column, "implausible")
    assert reason in f"{rejection.reason}; {rejection.remedy}"
    assert rejection.file == f"{source.name} OBX 1"
    assert (str(ack.segment("ERR")(2)).rpartition("^")[0], str(ack["ERR.F4"])) == ("OBX^1", "E")
    beside, (again,), ack = take(source, oru("NTE|1||a note", segment, SPO2))
    assert (again, str(ack["MSA.F1"]), str(ack["ERR.F4"])) == (
        rejection if column != "spo2" else again,
        "AA",
        "W",
    )
    assert beside == [Reading(observed_at=AT, spo2=97)]


@pytest.mark.parametrize(("segment", "kind", "reason"), NO_VALUE, ids=range(len(NO_VALUE)))
def test_a_sender_that_has_no_value_is_not_told_off(
    source: HL7Source, segment: str, kind: str, reason: str
) -> None:
    readings, (rejection,), ack = take(source, oru(segment))
    assert (readings, str(ack["MSA.F1"]), str(ack["ERR.F4"])) == ([], "AA", "W")
    assert (rejection.column, rejection.kind) == ("heart_rate", kind)
    assert reason in rejection.reason


def test_observations_that_are_of_no_sign_are_accepted_and_named(source: HL7Source) -> None:
    readings, rejections, ack = take(source, oru(obx("2345-7^Glucose^LN", "5.4", "mmol/L")))
    assert (readings, rejections, str(ack["MSA.F1"])) == ([], [], "AA")
    assert str(ack["MSA.F3"]) == "no observation is of a sign; send LOINC or MDC codes"


def test_two_values_of_one_sign_at_one_time(source: HL7Source) -> None:
    channel, core = "150344^MDC_TEMP^MDC", "150368^MDC_TEMP_CORE^MDC"
    (reading,), (rejection,), _ = take(
        source, oru(obx(channel, "37.1", "Cel"), obx(channel, "33.0", "Cel"), SPO2)
    )
    assert reading.present() == ("spo2",)
    assert rejection.reason == "there are two values of one time, 37.1 and 33"
    (reading,), _, _ = take(source, oru(obx(channel, "37.1", "Cel"), obx(channel, "37.10", "Cel")))
    assert reading.temperature == 37.1
    (reading,), _, _ = take(source, oru(obx(channel, "33.0", "Cel"), obx(core, "37.2", "Cel")))
    assert reading.temperature == 37.2


def test_pressures_of_the_cuff_and_of_the_artery_are_never_paired(source: HL7Source) -> None:
    cuff = [obx("150021^^MDC", "118", "mmHg"), obx("150022^^MDC", "75", "mmHg")]
    artery = [obx("150037^^MDC", "96", "mmHg"), obx("150038^^MDC", "52", "mmHg")]
    for segments, expected in (
        ([*cuff, *artery], (96, 52)),
        ([*cuff, artery[0]], (96, None)),
        ([cuff[0], artery[1]], (118, None)),
    ):
        (reading,), rejections, _ = take(source, oru(*segments))
        assert (reading.systolic_bp, reading.diastolic_bp) == expected
        assert rejections == []
    readings, rejections, _ = take(source, oru(obx("150021^^MDC", "70", "mmHg"), cuff[1]))
    assert readings == []
    assert [r.reason for r in rejections] == ["diastolic 75 is not below systolic 70"] * 2


def test_another_sensor_steps_in_and_the_sign_is_not_in_doubt(source: HL7Source) -> None:
    ecg, pulse = obx("147842^MDC_ECG_HEART_RATE^MDC", "0", "/min"), obx("149530^^MDC", "72", "/min")
    (reading,), (rejection,), _ = take(source, oru(ecg, pulse))
    assert reading.heart_rate == 72
    assert rejection.column == ""
    assert rejection.reason == "heart_rate: 0 is outside 15 to 300 /min (another value of it was taken)"


# --- what is taken back ------------------------------------------------------------------------------------

WITHDRAWS, MARKS = "the sender withdraws the value", "the sender marks the value as wrong"
CORRECTS = "the sender corrects the value"


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        (obx("8867-4^^LN", "72", "/min", rest="|||||D"), Withdrawn("heart_rate", AT, 72.0, WITHDRAWS)),
        (obx("8867-4^^LN", "72", "/min", rest="|||||w"), Withdrawn("heart_rate", AT, 72.0, MARKS)),
        (obx("8867-4^^LN", "", rest="|||||D"), Withdrawn("heart_rate", AT, None, WITHDRAWS)),
        (obx("8867-4^^LN", '""', rest="|||||D"), Withdrawn("heart_rate", AT, None, WITHDRAWS)),
        (obx("8867-4^^LN", "GONE", kind="TX", rest="|||||D"), Withdrawn("heart_rate", AT, None, WITHDRAWS)),
        (obx("8867-4^^LN", "72", "/min", rest="||QUES|||W"), Withdrawn("heart_rate", AT, 72.0, MARKS)),
        (obx("8480-6^^LN", "16", "kPa", rest="|||||W"), Withdrawn("systolic_bp", AT, 120.009869, MARKS)),
        (obx("3151-8^^LN", "2", "L/min", rest="|||||W"), Withdrawn("supplemental_oxygen", AT, True, MARKS)),
        (obx("8867-4^^LN", "", rest="||OFF|||C"), Withdrawn("heart_rate", AT, None, CORRECTS)),
    ],
)  # fmt: skip
def test_a_value_that_is_taken_back(source: HL7Source, segment: str, expected: Withdrawn) -> None:
    items, answer = source.interpret(oru(segment).encode())
    assert items[-1] == Retraction(values=(expected,), by=source.name)
    assert answer is not None
    assert str(hl7.parse(answer)["MSA.F1"]) == "AA"


def test_a_correction_gives_the_right_value_in_the_same_step(source: HL7Source) -> None:
    corrected = obx("8867-4^^LN", "85", "/min", rest="|||||C")
    reading = Reading(observed_at=AT, heart_rate=85, spo2=97)
    items, _ = source.interpret(oru(corrected, SPO2).encode())
    taken_back = Withdrawn("heart_rate", AT, None, CORRECTS)
    assert items == [Retraction(values=(taken_back,), by=source.name, instead=(reading,))]
    old = obx("8867-4^^LN", "80", "/min")
    assert source.interpret(oru(old, corrected, SPO2).encode())[0] == items, "of two, the correction counts"
    withdrawn = obx("8867-4^^LN", "80", "/min", rest="|||||D")
    items, _ = source.interpret(oru(withdrawn, old.replace("80", "85"), SPO2).encode())
    taken_back = Withdrawn("heart_rate", AT, 80.0, WITHDRAWS)
    assert items == [Retraction(values=(taken_back,), by=source.name, instead=(reading,))]


def test_what_a_message_takes_back_it_does_not_give(source: HL7Source) -> None:
    given, withdrawn = obx("8867-4^^LN", "80", "/min"), obx("8867-4^^LN", "80", "/min", rest="|||||W")
    items, _ = source.interpret(oru(given, withdrawn, SPO2).encode())
    taken_back = Withdrawn("heart_rate", AT, 80.0, MARKS)
    spo2 = Reading(observed_at=AT, spo2=97)
    assert items == [Retraction(values=(taken_back,), by=source.name, instead=(spo2,))]
    ecg = obx("147842^MDC_ECG_HEART_RATE^MDC", "80", "/min")
    pulse = obx("149530^^MDC", "80", "/min", rest="|||||D")
    items, _ = source.interpret(oru(ecg, pulse).encode())
    assert items == [Reading(observed_at=AT, heart_rate=80)], "another method still says so"


# --- messages ----------------------------------------------------------------------------------------------

REFUSED = [
    # a message that is refused as a whole, the answer, the place of the error, the reason
    (oru(SPO2, kind="ADT^A01"), "AR", "MSH^1^9", "messages of type 'ADT A01' are not taken"),
    (oru(SPO2, kind="ORU^R30"), "AR", "MSH^1^9", "messages of type 'ORU R30' are not taken"),
    (oru(SPO2, kind="ORU"), "AR", "MSH^1^9", "messages of type 'ORU' are not taken"),
    (oru(SPO2, kind=""), "AR", "MSH^1^9", "are not taken"),
    (oru(SPO2, header="T|2.6"), "AR", "MSH^1^11", "the processing id 'T' says"),
    (oru(SPO2, header="D|2.6"), "AR", "MSH^1^11", "the processing id 'D' says"),
    (oru(SPO2, header="P|3.0"), "AR", "MSH^1^12", "version '3.0' is not read"),
    (oru(SPO2, header="P|2.6||||||KLINGON"), "AE", "MSH^1^18", "the character set 'KLINGON'"),
    (oru(SPO2, header="P|2.6||||||ASCII").replace("JANE", "JÄNE"), "AE", "MSH^1^18", "not in the character"),
    (oru(SPO2).replace("|97|", "|9\n7|"), "AE", "MSH^1", "there is a line feed within a segment"),
    (oru(SPO2).replace("|97|", "|9\r7|"), "AE", "MSH^1", "line 5 is no segment"),
    (oru(SPO2) * 2, "AE", "MSH^2", "there are two messages in one frame"),
    (oru(*[SPO2] * 600), "AE", "MSH^1", "there are more than 500 segments"),
    (oru(SPO2, patient="PID|||" + "~".join(["1"] * 999)), "AE", "PID^1^3", "identifiers of the patient"),
    (oru(SPO2, observed=""), "AE", "OBX^1^14", "there is no time of observation"),
    (oru(SPO2, observed="20260302115900"), "AE", "OBX^1^14", "has no offset from UTC"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "code", "place", "reason"), REFUSED, ids=[reason for *_, reason in REFUSED]
)
def test_a_message_that_is_refused(
    source: HL7Source, message: str, code: str, place: str, reason: str
) -> None:
    readings, rejections, ack = take(source, message)
    assert readings == []
    assert (str(ack["MSA.F1"]), str(ack["MSA.F2"]), str(ack.segment("ERR")(2))) == (code, "4711", place)
    assert reason in str(ack["MSA.F3"])
    assert reason in rejections[0].reason
    assert take(source, oru(SPO2))[0] == [Reading(observed_at=AT, spo2=97)]


# --- any bytes ---------------------------------------------------------------------------------------------

WORDS = (
    r'MSH OBX OBR PID | ^ ~ \ & 8867-4 LN MDC 147842 72 97.5 NM SN ST CWE F X /min -0 1e999 "" 999999999999'
    r" 20260302115900+0000 20260302115900 80288-4 A C D W ORU R01 P 2.6 8859/1 \F\ \.sp9\ \X é"
)
PIECES = (*WORDS.split(), "\r", "\n", "\x00")
MESSAGES = [
    oru(SPO2, obx("8480-6^^LN", "16", "kPa"), obx("8462-4^^LN", "80", "mm[Hg]"), header="P|2.6||||||8859/1"),
    oru(obx("HR^x^L^147842^MDC_ECG_HEART_RATE^MDC", "^72", kind="SN"), obx("80288-4^^LN", "A", kind="CWE")),
]
CHANGES = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 4), st.binary(max_size=6)), max_size=8)


def changed(message: str, changes: list[tuple[int, int, bytes]]) -> bytes:
    data = message.encode()
    for at, num_gone, instead in changes:
        data = data[:at] + instead + data[at + num_gone :]
    return data


FRAMES = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(PIECES), max_size=60).map(lambda parts: f"MSH|^~\\&|{''.join(parts)}".encode()),
    st.lists(st.sampled_from(PIECES), max_size=30).map(
        lambda parts: oru(f"OBX|1|NM|8867-4^^LN||{''.join(parts)}").encode()
    ),
    st.builds(changed, st.sampled_from(MESSAGES), CHANGES),
)


@settings(max_examples=500, deadline=None)
@given(frame=FRAMES)
def test_any_bytes_give_sound_readings_or_reasons(any_source: HL7Source, frame: bytes) -> None:
    items, answer = any_source.interpret(frame)
    given = [one for item in items for one in (item.instead if isinstance(item, Retraction) else (item,))]
    for item in given:
        if isinstance(item, Reading):
            assert item.present()
            assert item.observed_at <= NOW + timedelta(minutes=1)
            assert {check(field, getattr(item, field)) for field in item.present()} == {None}
        else:
            assert item.reason
            assert item.remedy
            assert "\n" not in item.line()
    if answer is not None:
        assert b"\x0b" not in answer
        assert b"\x1c" not in answer
        code = hl7.parse(answer, encoding="latin-1").segment("MSA")(1)
        assert str(code) in ("AA", "AE", "AR", "CA", "CE", "CR")
