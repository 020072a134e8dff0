"""Characteristic bytes of Bluetooth LE sensors: recorded ones, those of the specifications, and any others.

The recordings are published with what the sensor's own display showed: the heart rate with the tests of
movisens' SmartGattLib; thermometer (36.0, 36.2, 36.8, 34.6 and 98.5 °F), cuff (127 mmHg) and oximeter
(ChoiceMMed) in questions on Stack Overflow (54834439, 60841331, 78168365, 71264072).
"""

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.plausibility import check
from samd_edge.sources.ble_dating import Undatable, taken_at
from samd_edge.sources.ble_decoders import (
    BLOOD_PRESSURE,
    DECODERS,
    HEART_RATE,
    PLX_CONTINUOUS,
    PLX_SPOT_CHECK,
    TEMPERATURE,
    Measurement,
    clock_reading,
    decode,
)
from samd_edge.sources.ieee11073 import NoNumber, float32, sfloat
from samd_edge.sources.local_time import zone_named


def read(characteristic: int, text: str, **more: Any) -> Measurement:
    return decode(characteristic, bytes.fromhex(text), **more)


def naive(*parts: int) -> datetime:
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


# -- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7200", 114.0),
        ("F6F4", 127.0),
        ("E8F3", 100.0),
        ("0AF0", 1.0),
        ("01E0", 0.01),
        ("00F8", -204.8),  # the mantissa of NRes, but with an exponent: a number
        ("FFF7", 204.7),  # likewise of NaN
        ("FF0F", -1.0),
        ("0170", 1e7),
        ("0180", 1e-8),
        ("0000", 0.0),
        ("FF07", NoNumber.NAN),
        ("0008", NoNumber.NRES),
        ("FE07", NoNumber.ABOVE),
        ("0208", NoNumber.BELOW),
        ("0108", NoNumber.RESERVED),
    ],
)
def test_sfloat(text: str, value: object) -> None:
    assert sfloat(bytes.fromhex(text)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6C0100FF", 36.4),
        ("970D00FE", 34.79),
        ("710E00FE", 36.97),
        ("FFFFFF00", -1.0),
        ("FFFF7FFF", 838860.7),
        ("0100007F", 1e127),
        ("01000080", 1e-128),
        ("FFFF7F00", NoNumber.NAN),
        ("00008000", NoNumber.NRES),
        ("FEFF7F00", NoNumber.ABOVE),
        ("02008000", NoNumber.BELOW),
        ("01008000", NoNumber.RESERVED),
    ],
)
def test_float(text: str, value: object) -> None:
    assert float32(bytes.fromhex(text)) == value


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF))
def test_every_pattern_is_a_finite_number_or_none(short: int, long: int) -> None:
    for value in (sfloat(short.to_bytes(2, "little")), float32(long.to_bytes(4, "little"))):
        assert isinstance(value, NoNumber) or math.isfinite(value)


def test_a_number_has_all_its_bytes() -> None:
    with pytest.raises(ValueError, match="3 bytes given; this number has 2"):
        sfloat(b"\0\0\0")


# -- heart rate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "heart_rate"),
    [
        ("16485401EC02", 72.0),  # recorded: contact, two RR intervals
        ("0048", 72.0),
        ("010001", 256.0),
        ("1E4810270004", 72.0),
        ("0648", 72.0),
        ("0248", 72.0),  # contact is not supported, so its bit says nothing
        ("E0480011", 72.0),  # reserved flags, more bytes
    ],
)
def test_heart_rate(text: str, heart_rate: float) -> None:
    assert read(HEART_RATE, text) == Measurement({"heart_rate": heart_rate})


@pytest.mark.parametrize("text", ["04AA", "0448", "0548004800", "144800040004"])
def test_no_contact_is_no_heart_rate(text: str) -> None:
    measurement = read(HEART_RATE, text)
    assert measurement.fields == {}
    (rejection,) = measurement.rejections
    assert rejection.line() == "heart_rate: the sensor has no contact with the skin; place the sensor again"
    assert rejection.kind == "no_signal"


def test_a_heart_rate_of_zero_is_never_one() -> None:
    (rejection,) = read(HEART_RATE, "0600").rejections
    assert (rejection.column, rejection.reason) == ("heart_rate", "0 is outside 15 to 300 /min")


# -- pulse oximeter -----------------------------------------------------------------------------------------


def test_a_recorded_oximeter_that_measures_continuously() -> None:
    assert read(PLX_CONTINUOUS, "0C 6200 4E00 2000 000000") == Measurement({"spo2": 98.0, "heart_rate": 78.0})


def test_a_recorded_spot_check_of_an_oximeter_whose_clock_was_never_set() -> None:
    """Measurement ongoing, low perfusion: both are passed."""
    assert read(PLX_SPOT_CHECK, "17 6100 6000 E1070101012213 2000 200000") == Measurement(
        {"spo2": 97.0, "heart_rate": 96.0},
        stamped=True,
        taken_at=naive(2017, 1, 1, 1, 34, 19),
        clock_set=False,
    )


def test_of_three_metrics_the_normal_one_counts() -> None:
    text = "1F 6000 4600 3000 2600 3100 2700 0000 000000 E8F3"
    assert read(PLX_CONTINUOUS, text).fields == {"spo2": 96.0, "heart_rate": 70.0}


def test_fractions_of_percent_and_a_missing_pulse() -> None:
    measurement = read(PLX_CONTINUOUS, "00 CFF3 FF07")
    assert measurement.fields == {"spo2": 97.5}
    (rejection,) = measurement.rejections
    assert (rejection.column, rejection.kind) == ("heart_rate", "no_signal")
    assert rejection.reason == "the sensor sent no value (not a number)"


PASSED = {5: "measurement ongoing", 7: "validated", 8: "fully qualified", 9: "from storage"}


@pytest.mark.parametrize("bit", range(16))
@pytest.mark.parametrize("characteristic", [PLX_CONTINUOUS, PLX_SPOT_CHECK])
def test_measurement_status_of_an_oximeter(characteristic: int, bit: int) -> None:
    flags = "04" if characteristic == PLX_CONTINUOUS else "02"
    status = (1 << bit).to_bytes(2, "little").hex()
    measurement = read(characteristic, f"{flags} 6000 4600 {status}")
    assert measurement.stored == (bit == 9)
    if bit < 5 or bit in PASSED:
        assert measurement.fields == {"spo2": 96.0, "heart_rate": 70.0}
        return
    assert measurement.fields == {}
    assert [(item.column, item.kind) for item in measurement.rejections] == [
        ("spo2", "no_signal"),
        ("heart_rate", "no_signal"),
    ]


@pytest.mark.parametrize("bit", range(24))
@pytest.mark.parametrize("characteristic", [PLX_CONTINUOUS, PLX_SPOT_CHECK])
def test_device_and_sensor_status_of_an_oximeter(characteristic: int, bit: int) -> None:
    flags = "08" if characteristic == PLX_CONTINUOUS else "04"
    status = (1 << bit).to_bytes(3, "little").hex()
    measurement = read(characteristic, f"{flags} 6000 4600 {status}")
    if bit in (5, *range(16, 24)):  # low perfusion, reserved
        assert measurement.fields == {"spo2": 96.0, "heart_rate": 70.0}
    else:
        assert measurement.fields == {}
        assert {item.kind for item in measurement.rejections} == {"no_signal"}


def test_the_reason_says_all_that_the_oximeter_says() -> None:
    rejection = read(PLX_CONTINUOUS, "0C 6000 4600 0040 108800").rejections[0]
    assert rejection.line() == (
        "spo2: the oximeter says: the measurement is questionable, the signal is poor, the sensor is not on "
        "the patient, the sensor is disconnected; place the sensor again"
    )


# -- thermometer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "temperature", "taken"),
    [
        ("06 680100FF E207030A153400 02", 36.0, naive(2018, 3, 10, 21, 52, 0)),
        ("06 6A0100FF E207030A141400 02", 36.2, naive(2018, 3, 10, 20, 20, 0)),
        ("06 700100FF E207030A141B00 02", 36.8, naive(2018, 3, 10, 20, 27, 0)),
        ("06 5A0100FF E207030A141F00 02", 34.6, naive(2018, 3, 10, 20, 31, 0)),
    ],
)
def test_recorded_temperatures(text: str, temperature: float, taken: datetime) -> None:
    assert read(TEMPERATURE, text) == Measurement({"temperature": temperature}, stamped=True, taken_at=taken)


@pytest.mark.parametrize(
    ("text", "temperature"),
    [("00 6C0100FF", 36.4), ("00 710E00FE", 36.97), ("01 DA0300FF", 37.0), ("01 E90300FF", 37.833333)],
)
def test_celsius_and_fahrenheit(text: str, temperature: float) -> None:
    assert read(TEMPERATURE, text) == Measurement({"temperature": temperature})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("00 DA0300FF", "98.6 is outside 25 to 45 °C, and looks like °F"),
        ("01 720100FF", "37 °F is no body temperature (77 to 113 °F)"),
        ("00 FFFF7F00", "the sensor sent no value (not a number)"),
    ],
)
def test_a_temperature_in_the_wrong_unit_is_refused(text: str, reason: str) -> None:
    measurement = read(TEMPERATURE, text)
    assert measurement.fields == {}
    assert reason in measurement.rejections[0].reason


@pytest.mark.parametrize("site", range(256))
def test_only_a_body_temperature_counts(site: int) -> None:
    """1 armpit, 2 body, 3 ear, 4 finger, 5 gastro-intestinal, 6 mouth, 7 rectum, 8 toe, 9 tympanum."""
    own = read(TEMPERATURE, f"04 6C0100FF {site:02x}")
    told_once = read(TEMPERATURE, "00 6C0100FF", site=site)
    assert own == told_once
    if site in (1, 2, 3, 5, 6, 7, 9):
        assert own.fields == {"temperature": 36.4}
    else:
        assert own.fields == {}
        assert own.rejections[0].kind == "no_signal"
    assert read(TEMPERATURE, "04 6C0100FF 02", site=site).fields == {"temperature": 36.4}, (
        "its own site counts"
    )


# -- blood pressure -----------------------------------------------------------------------------------------


def test_a_recorded_cuff() -> None:
    """With reserved flags and a reserved status bit, as it was sent."""
    assert read(BLOOD_PRESSURE, "DE F6F4 16F3 FF07 E4070114082B00 B2F2 01 8000") == Measurement(
        {"systolic_bp": 127.0, "diastolic_bp": 79.0, "heart_rate": 69.0},
        stamped=True,
        taken_at=naive(2020, 1, 20, 8, 43, 0),
        user=1,
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("00 7800 5000 5D00", {"systolic_bp": 120.0, "diastolic_bp": 80.0}),
        ("01 A0F0 64F0 7CF0", {"systolic_bp": 120.009869, "diastolic_bp": 75.006168}),
        ("04 7800 5000 5D00 4800", {"systolic_bp": 120.0, "diastolic_bp": 80.0, "heart_rate": 72.0}),
        ("08 7800 5000 5D00 FF", {"systolic_bp": 120.0, "diastolic_bp": 80.0}),
        ("10 7800 5000 5D00 0400", {"systolic_bp": 120.0, "diastolic_bp": 80.0}),  # an irregular pulse
        ("00 7800 FF07 FF07", {"systolic_bp": 120.0}),
    ],
)
def test_blood_pressure(text: str, fields: dict[str, float]) -> None:
    assert read(BLOOD_PRESSURE, text).fields == fields


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0x01, "the body moved"),
        (0x02, "the cuff was too loose"),
        (0x20, "the cuff was not in the right position"),
        (0x23, "the body moved, the cuff was too loose, the cuff was not in the right position"),
    ],
)
def test_a_cuff_that_doubts_itself_measured_nothing(status: int, text: str) -> None:
    measurement = read(BLOOD_PRESSURE, f"14 7800 5000 5D00 4800 {status:02x}00")
    assert measurement.fields == {}
    assert [item.column for item in measurement.rejections] == ["systolic_bp", "diastolic_bp", "heart_rate"]
    assert {item.reason for item in measurement.rejections} == {f"the cuff says: {text}"}
    assert {item.kind for item in measurement.rejections} == {"no_signal"}


@pytest.mark.parametrize(("status", "beyond"), [(0x08, "above"), (0x10, "below"), (0x18, "outside")])
def test_a_pulse_that_the_cuff_cannot_measure_is_left_out(status: int, beyond: str) -> None:
    measurement = read(BLOOD_PRESSURE, f"14 7800 5000 5D00 4800 {status:02x}00")
    assert measurement.fields == {"systolic_bp": 120.0, "diastolic_bp": 80.0}
    assert (
        measurement.rejections[0].reason == f"the cuff says: the pulse rate is {beyond} what it can measure"
    )


def test_kilopascal_read_as_millimetres_are_refused() -> None:
    measurement = read(BLOOD_PRESSURE, "00 A0F0 64F0 7CF0")
    assert "systolic_bp" not in measurement.fields
    assert measurement.rejections[0].reason == "16 is outside 30 to 300 mmHg"


# -- anything -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("characteristic", "text"),
    [
        (HEART_RATE, ""),
        (HEART_RATE, "00"),
        (HEART_RATE, "0148"),
        (PLX_CONTINUOUS, "00 6200 4E"),
        (PLX_CONTINUOUS, "01 6200 4E00 6200 4E"),
        (PLX_SPOT_CHECK, "01 6100 6000 E107010101"),
        (TEMPERATURE, "00 6C0100"),
        (TEMPERATURE, "04 6C0100FF"),
        (BLOOD_PRESSURE, "00 7800 5000"),
        (BLOOD_PRESSURE, "1E 7800 5000 5D00 E4070114082B00 4800 01 80"),
    ],
)
def test_a_torn_message_gives_nothing(characteristic: int, text: str) -> None:
    measurement = read(characteristic, text)
    assert (measurement.fields, measurement.torn) == ({}, True)
    assert "bytes are too few" in measurement.rejections[0].reason


@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=24), st.none() | st.integers(0, 255))
def test_any_bytes_give_values_in_range_or_reasons(
    characteristic: int, data: bytes, site: int | None
) -> None:
    measurement = decode(characteristic, data, site=site)
    for field, value in measurement.fields.items():
        assert check(field, value) is None
    assert measurement.fields or measurement.rejections
    for rejection in measurement.rejections:
        assert rejection.reason
        assert rejection.remedy
        assert rejection.column not in measurement.fields


# -- when it was taken --------------------------------------------------------------------------------------

NOW = datetime(2026, 6, 1, 8, tzinfo=UTC)
BERLIN = zone_named("Europe/Berlin")


def stamped(*parts: int, **more: Any) -> Measurement:
    return Measurement({"temperature": 37.0}, stamped=True, taken_at=naive(*parts) if parts else None, **more)


def test_what_has_no_time_was_just_taken_unless_it_was_stored() -> None:
    fresh = Measurement({"heart_rate": 60.0})
    assert taken_at(fresh, NOW, ahead=None, zone=None) == NOW
    stored = Measurement({"spo2": 96.0}, stored=True)
    found = taken_at(stored, NOW, ahead=None, zone=BERLIN)
    assert found == Undatable(
        "the measurement comes from the sensor's memory, without a time", "measure again"
    )


def test_a_time_is_placed_by_the_zone_and_never_after_its_arrival() -> None:
    def placed(*parts: int) -> datetime | Undatable:
        return taken_at(stamped(*parts), NOW, ahead=None, zone=BERLIN)

    assert placed(2026, 6, 1, 9, 59, 30) == NOW - timedelta(seconds=30)
    assert placed(2026, 6, 1, 4, 0, 0) == NOW - timedelta(hours=6)
    assert placed(2026, 6, 1, 10, 0, 45) == NOW, "a clock that is a little fast"
    late = placed(2026, 6, 1, 11, 0, 0)
    assert late == Undatable(
        "the measurement is dated 60 minutes in the future", "set the clock of the sensor"
    )


def test_a_time_without_a_zone_may_be_of_any_age() -> None:
    """09:59:30 is half a minute old in Berlin, and 14 hours on the date line: nothing tells them apart."""
    found = taken_at(stamped(2026, 6, 1, 9, 59, 30), NOW, ahead=None, zone=None)
    assert isinstance(found, Undatable)
    assert "ble:?zone=Europe/Berlin" in found.remedy


def test_the_sensors_own_clock_goes_before_the_zone() -> None:
    """A clock that stands on 2017 still tells how long ago it measured."""
    shown = clock_reading(bytes.fromhex("E1070101003000 07 00 00"))
    assert shown == naive(2017, 1, 1, 0, 48, 0)
    assert shown is not None
    ahead = shown.replace(tzinfo=UTC) - NOW
    found = taken_at(stamped(2017, 1, 1, 0, 46, 30), NOW, ahead=ahead, zone=BERLIN)
    assert found == NOW - timedelta(seconds=90)


@pytest.mark.parametrize(
    ("measurement", "reason"),
    [
        (stamped(2026, 6, 1, 10, clock_set=False), "the sensor's clock was not set when it measured"),
        (stamped(), "the time stamp of the measurement is no date"),
        (stamped(1, 1, 1), "the time stamp of the measurement is no date"),
    ],
)
def test_a_time_that_is_none_is_refused(measurement: Measurement, reason: str) -> None:
    found = taken_at(measurement, NOW, ahead=None, zone=BERLIN)
    assert isinstance(found, Undatable)
    assert found.reason == reason


@pytest.mark.parametrize(
    "text", ["00000000000000", "E4070001010101", "E4070100010101", "E4070D01010101", "E4070101180000", "E407"]
)
def test_a_clock_that_shows_no_time(text: str) -> None:
    assert clock_reading(bytes.fromhex(text)) is None


@given(
    st.datetimes(),
    st.none() | st.timedeltas(timedelta(days=-400_000), timedelta(days=400_000)),
    st.sampled_from([None, BERLIN, zone_named("local")]),
)
def test_no_measurement_is_ever_from_the_future(shown: datetime, ahead: timedelta | None, zone: Any) -> None:
    found = taken_at(Measurement(stamped=True, taken_at=shown), NOW, ahead=ahead, zone=zone)
    assert isinstance(found, Undatable) or found <= NOW


def test_a_local_zone_knows_summer_from_winter() -> None:
    hour = timedelta(hours=1)
    assert BERLIN.in_utc(naive(2026, 7, 1, 12)) == datetime(2026, 7, 1, 12, tzinfo=timezone(2 * hour))
    assert BERLIN.in_utc(naive(2026, 1, 1, 12)) == datetime(2026, 1, 1, 12, tzinfo=timezone(hour))
    with pytest.raises(ValueError, match="has a zone already"):
        BERLIN.in_utc(NOW)
