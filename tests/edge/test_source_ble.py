"""``ble:``: emulated sensors of bumble over an emulated radio, by bleak's own interface; and bleak's real
backend where there is no Bluetooth."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bleak import BleakClient, BleakScanner
from bumble.device import Device
from bumble.link import LocalLink
from bumble.profiles.heart_rate_service import HeartRateService

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.sources import SourceError, open_source, parse
from samd_edge.sources.ble import BleSource
from samd_edge.sources.ble_pace import Pace
from samd_edge.sources.local_time import zone_named
from samd_edge.sources.surroundings import NO_PATIENT, WRONG_PATIENT, Surroundings

sys.path.insert(0, str(Path(__file__).parent))  # for the two that are no tests

from ble_peripheral import Peripheral, radio
from bleak_over_bumble import client_over, scanner_over

NOW = datetime(2026, 6, 1, 8, tzinfo=UTC)
QUICK = Pace(
    scan_s=0.3, rest_s=0.01, connect_s=5, read_s=1, retry_s=0.02, retry_longest_s=0.05, unusable_s=0.01
)

HASTY = replace(QUICK, connect_s=0.2)

STRAP, OXIMETER = "F1:00:00:00:00:01", "F1:00:00:00:00:02"
THERMOMETER, CUFF = "F1:00:00:00:00:03", "F1:00:00:00:00:04"
OTHER = "F1:00:00:00:00:0E"

TEN_O_CLOCK = "EA0706010A0000"  # 2026-06-01 10:00:00, which is NOW in Berlin
FIVE_PAST_FOUR = "EA07060104 0500"


def pulse(rate: int, *, contact: bool | None = True) -> bytes:
    """A heart rate measurement, as bumble's own profile writes it."""
    return bytes(HeartRateService.HeartRateMeasurement(rate, sensor_contact_detected=contact))


async def until(check: Callable[[], Any], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not check():  # noqa: ASYNC110  (bumble's link has no event for it)
            await asyncio.sleep(0.002)


class Bed:
    """A radio, the sensors in its range, and what the source made of them."""

    def __init__(self, link: LocalLink, central: Device) -> None:
        self.link = link
        self.central = central
        self.around = Surroundings(wall=lambda: NOW)
        self.items: list[Reading | Rejection] = []
        self.sources: list[tuple[BleSource, asyncio.Task[None]]] = []

    async def sensor(self, address: str, *services: int, **more: Any) -> Peripheral:
        return await Peripheral.start(self.link, address, services, **more)

    def read(self, *addresses: str, **settings: Any) -> BleSource:
        source = BleSource(
            "ble:",
            frozenset(addresses),
            self.around,
            scanner=scanner_over(self.central),
            client=client_over(self.central),
            pace=QUICK,
            **settings,
        )
        self.sources.append((source, asyncio.create_task(self._take(source))))
        return source

    async def _take(self, source: BleSource) -> None:
        async for item in source:
            self.items.append(item)

    async def sent(self, sensor: Peripheral, number: int, data: bytes | str) -> list[Reading | Rejection]:
        """Send, once somebody listens; what the source makes of it."""
        await until(lambda: sensor.heard(number))
        before = len(self.items)
        await sensor.send(number, bytes.fromhex(data) if isinstance(data, str) else data)
        await until(lambda: len(self.items) > before)
        return self.items[before:]

    async def close(self) -> None:
        for source, task in self.sources:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await source.aclose()


def at_a_bed(scene: Callable[[Bed], Coroutine[Any, Any, None]]) -> None:
    @contextlib.asynccontextmanager
    async def bed() -> AsyncIterator[Bed]:
        link = LocalLink()
        made = Bed(link, await radio(link, "F0:00:00:00:00:00", "bedside"))
        try:
            yield made
        finally:
            await made.close()

    async def play() -> None:
        async with bed() as made:
            await scene(made)

    asyncio.run(play())


# -- the whole path ----------------------------------------------------------------------------------------


def test_four_sensors_at_once() -> None:
    async def scene(bed: Bed) -> None:
        strap = await bed.sensor(STRAP, 0x180D)
        oximeter = await bed.sensor(OXIMETER, 0x1822)
        thermometer = await bed.sensor(THERMOMETER, 0x1809)
        cuff = await bed.sensor(CUFF, 0x1810)
        source = bed.read(zone=zone_named("Europe/Berlin"))
        assert list(source.history()) == []
        assert await bed.sent(strap, 0x2A37, pulse(72)) == [Reading(observed_at=NOW, heart_rate=72)]
        assert await bed.sent(oximeter, 0x2A5F, "0C 6200 4E00 2000 000000") == [
            Reading(observed_at=NOW, spo2=98, heart_rate=78)
        ]
        assert await bed.sent(thermometer, 0x2A1C, f"06 660100FF {FIVE_PAST_FOUR} 02") == [
            Reading(observed_at=NOW - timedelta(hours=5, minutes=55), temperature=35.8)
        ]
        assert await bed.sent(cuff, 0x2A35, f"06 7800 5000 5D00 {TEN_O_CLOCK} 4800") == [
            Reading(observed_at=NOW, systolic_bp=120, diastolic_bp=80, heart_rate=72)
        ]
        assert not thermometer.heard(0x2A1E), "a thermometer that warms up is not read"
        assert not cuff.heard(0x2A36)
        assert await bed.sent(strap, 0x2A37, pulse(151)) == [Reading(observed_at=NOW, heart_rate=151)]
        sensors = (strap, oximeter, thermometer, cuff)
        assert all(sensor.connected for sensor in sensors)
        await bed.close()
        await until(lambda: not any(sensor.connected for sensor in sensors))

    at_a_bed(scene)


def test_a_sensor_that_is_lost_is_told_once_and_found_again() -> None:
    async def scene(bed: Bed) -> None:
        strap = await bed.sensor(STRAP, 0x180D)
        bed.read()
        await bed.sent(strap, 0x2A37, pulse(70))
        await strap.drop()
        await until(lambda: len(bed.items) == 2)
        lost = bed.items[1]
        assert isinstance(lost, Rejection)
        assert (lost.column, lost.kind) == ("heart_rate", "no_signal")
        assert lost.line() == (
            f"ble::2: heart_rate: the connection to the sensor {STRAP} was lost; "
            "bring it nearer, or check its battery"
        )
        for _ in range(2):  # it comes near and goes without a word: nothing new to tell
            await strap.advertise()
            await until(lambda: strap.heard(0x2A37))
            await strap.drop()
        await strap.advertise()
        assert await bed.sent(strap, 0x2A37, pulse(71)) == [Reading(observed_at=NOW, heart_rate=71)]

    at_a_bed(scene)


def test_a_cuff_goes_after_each_measurement_and_that_is_no_loss() -> None:
    async def scene(bed: Bed) -> None:
        cuff = await bed.sensor(CUFF, 0x1810)
        bed.read()
        for systolic in ("7800", "7900"):
            (reading,) = await bed.sent(cuff, 0x2A35, f"00 {systolic} 5000 5D00")
            assert isinstance(reading, Reading)
            await cuff.drop()
            await cuff.advertise()
        assert [item.systolic_bp for item in bed.items if isinstance(item, Reading)] == [120, 121]
        assert len(bed.items) == 2

    at_a_bed(scene)


# -- whose sensor -------------------------------------------------------------------------------------------


def test_only_the_sensors_that_are_named_are_read() -> None:
    async def scene(bed: Bed) -> None:
        other = await bed.sensor(OTHER, 0x180D)
        strap = await bed.sensor(STRAP, 0x180D, advertised=False)
        bed.read(STRAP.lower(), THERMOMETER)
        assert await bed.sent(strap, 0x2A37, pulse(64)) == [Reading(observed_at=NOW, heart_rate=64)]
        thermometer = await bed.sensor(THERMOMETER, 0x1809)
        assert await bed.sent(thermometer, 0x2A1C, "00 6C0100FF") == [
            Reading(observed_at=NOW, temperature=36.4)
        ]
        assert not other.connected
        await until(lambda: not bed.central.is_scanning)  # all are there: the radio rests

    at_a_bed(scene)


def test_a_second_sensor_of_a_kind_is_not_read_and_told_once() -> None:
    async def scene(bed: Bed) -> None:
        strap = await bed.sensor(STRAP, 0x180D)
        bed.read()
        await bed.sent(strap, 0x2A37, pulse(66))
        other = await bed.sensor(OTHER, 0x180D)
        await until(lambda: len(bed.items) == 2)
        told = bed.items[1]
        assert isinstance(told, Rejection)
        assert told.line() == (
            f"ble::2: there is a second heart rate sensor, {OTHER}, which is not read; "
            f"say which is this patient's: ble:{STRAP} or ble:{OTHER}"
        )
        await strap.drop()  # the first stays the patient's, also when it is away
        await until(lambda: len(bed.items) == 3)
        await strap.advertise()
        await bed.sent(strap, 0x2A37, pulse(67))
        assert not other.connected
        assert len(bed.items) == 4

    at_a_bed(scene)


def test_of_an_oximeter_the_pulse_is_not_missed_while_the_strap_is_on() -> None:
    async def scene(bed: Bed) -> None:
        strap = await bed.sensor(STRAP, 0x180D)
        oximeter = await bed.sensor(OXIMETER, 0x1822)
        bed.read()
        finger_off = "08 FF07 FF07 000800"
        (alone, _) = await bed.sent(oximeter, 0x2A5F, finger_off)
        assert isinstance(alone, Rejection)
        await bed.sent(strap, 0x2A37, pulse(70))
        items = await bed.sent(oximeter, 0x2A5F, finger_off)
        assert [item.column for item in items if isinstance(item, Rejection)] == ["spo2"]
        await oximeter.drop()
        await until(lambda: len(bed.items) == 5)
        assert [item.column for item in bed.items if isinstance(item, Rejection)] == [
            *("spo2", "heart_rate", "spo2", "spo2"),
        ]
        (off,) = await bed.sent(strap, 0x2A37, pulse(70, contact=False))
        assert isinstance(off, Rejection)
        assert (off.column, off.kind) == ("heart_rate", "no_signal")

    at_a_bed(scene)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, ["120", WRONG_PATIENT, "122", "does not know which of its users"]),
        (2, ["measured its user 1", "121", "measured its user 1", "measured its user 255"]),
        (255, ["measured its user 1", "measured its user 2", "measured its user 1", "123"]),
    ],
)
def test_a_cuff_of_two_users_measures_one_patient(setting: int | None, expected: list[str]) -> None:
    async def scene(bed: Bed) -> None:
        cuff = await bed.sensor(CUFF, 0x1810)
        bed.read(user=setting)
        for number, user in enumerate((1, 2, 1, 255)):
            (item,) = await bed.sent(cuff, 0x2A35, f"08 {0x78 + number:02x}00 5000 5D00 {user:02x}")
            text = f"{item.systolic_bp:g}" if isinstance(item, Reading) else item.line()
            assert expected[number] in text
            assert isinstance(item, Reading) or item.column == ""
        (silent,) = await bed.sent(cuff, 0x2A35, "00 7800 5000 5D00")
        if setting is not None:
            assert isinstance(silent, Rejection)
            assert "somebody whom it does not name" in silent.reason
        bed.around.patient.discharge()
        (nobody,) = await bed.sent(cuff, 0x2A35, f"08 7800 5000 5D00 {setting or 1:02x}")
        assert isinstance(nobody, Rejection)
        assert NO_PATIENT.partition(";")[0] in nobody.reason

    at_a_bed(scene)


# -- how old ------------------------------------------------------------------------------------------------


def test_a_measurement_of_unknown_age_is_refused_and_flags_no_sign() -> None:
    async def scene(bed: Bed) -> None:
        cuff = await bed.sensor(CUFF, 0x1810)
        bed.read()
        (item,) = await bed.sent(cuff, 0x2A35, f"02 7800 5000 5D00 {TEN_O_CLOCK}")
        assert isinstance(item, Rejection)
        assert item.column == ""
        assert item.line() == (
            "ble::1: the measurement carries the time of a clock whose zone is not known: it may be hours "
            "old; say the zone of the sensor's clock, as in ble:?zone=Europe/Berlin, or zone=local for that "
            "of this machine"
        )

    at_a_bed(scene)


@pytest.mark.parametrize(("service", "number", "more"), [(0x1805, 0x2A2B, "010000"), (0x1810, 0x2A08, "")])
def test_the_clock_of_the_sensor_is_read(service: int, number: int, more: str) -> None:
    """It stands on 2017; the measurement is of 90 s before it was read."""

    async def scene(bed: Bed) -> None:
        shown = bytes.fromhex(f"E1070101003000{more}")
        cuff = await bed.sensor(CUFF, 0x1810, readable={service: {number: shown}})
        bed.read()
        (item,) = await bed.sent(cuff, 0x2A35, "02 7800 5000 5D00 E10701 01002E1E")
        assert item == Reading(observed_at=NOW - timedelta(seconds=90), systolic_bp=120, diastolic_bp=80)

    at_a_bed(scene)


def test_that_an_old_measurement_failed_says_nothing_of_now() -> None:
    async def scene(bed: Bed) -> None:
        cuff = await bed.sensor(CUFF, 0x1810)
        bed.read(zone=zone_named("Europe/Berlin"))
        loose = "7800 5000 5D00"
        old = await bed.sent(cuff, 0x2A35, f"12 {loose} {FIVE_PAST_FOUR} 0200")
        now = await bed.sent(cuff, 0x2A35, f"12 {loose} {TEN_O_CLOCK} 0200")
        assert [item.column for item in old if isinstance(item, Rejection)] == ["", ""]
        assert [item.column for item in now if isinstance(item, Rejection)] == ["systolic_bp", "diastolic_bp"]

    at_a_bed(scene)


def test_a_thermometer_on_a_finger_says_so_once_and_for_all() -> None:
    async def scene(bed: Bed) -> None:
        thermometer = await bed.sensor(THERMOMETER, 0x1809, readable={0x1809: {0x2A1D: b"\x04"}})
        bed.read()
        (item,) = await bed.sent(thermometer, 0x2A1C, "00 6C0100FF")
        assert isinstance(item, Rejection)
        assert "measured at: finger" in item.reason
        assert await bed.sent(thermometer, 0x2A1C, "04 6C0100FF 03") == [
            Reading(observed_at=NOW, temperature=36.4)
        ]

    at_a_bed(scene)


# -- what goes wrong ----------------------------------------------------------------------------------------


def test_a_sensor_that_wants_to_be_paired_is_named_and_holds_up_nobody(caplog: Any) -> None:
    async def scene(bed: Bed) -> None:
        await bed.sensor(CUFF, 0x1810, paired=True)
        strap = await bed.sensor(STRAP, 0x180D)
        bed.read()
        await bed.sent(strap, 0x2A37, pulse(70))
        await until(lambda: "cannot be read" in caplog.text)
        assert f"If it has to be paired: bluetoothctl pair {CUFF}" in caplog.text
        assert caplog.text.count(f"{CUFF} cannot be read") == 1, "tried again and again, told once"
        assert await bed.sent(strap, 0x2A37, pulse(71)) == [Reading(observed_at=NOW, heart_rate=71)]

    at_a_bed(scene)


def test_a_torn_message_gives_nothing_and_the_next_is_read() -> None:
    async def scene(bed: Bed) -> None:
        strap = await bed.sensor(STRAP, 0x180D)
        bed.read()
        (torn,) = await bed.sent(strap, 0x2A37, "01")
        assert isinstance(torn, Rejection)
        assert "bytes are too few" in torn.reason
        assert await bed.sent(strap, 0x2A37, pulse(70)) == [Reading(observed_at=NOW, heart_rate=70)]

    at_a_bed(scene)


class Unusable:
    """Reads a source of bleak's real backend for three scans, on a machine where it cannot work."""

    def __init__(self) -> None:
        self.scans = 0

    def scanner(self, **settings: Any) -> BleakScanner:
        self.scans += 1
        return BleakScanner(**settings)

    async def scene(self) -> None:
        source = BleSource(
            "ble:", frozenset(), Surroundings(), scanner=self.scanner, client=BleakClient, pace=HASTY
        )

        async def take() -> None:
            async for _ in source:
                pytest.fail("there is nothing to read")

        task = asyncio.create_task(take())
        await until(lambda: self.scans == 3)
        assert not task.done(), "the source goes on trying"
        await source.aclose()
        await task


def test_without_a_message_bus_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    asyncio.run(Unusable().scene())
    (record,) = caplog.records
    assert record.getMessage() == (
        "Bluetooth cannot be used: the system's message bus does not run; start it: systemctl start dbus; "
        "trying again every 0.01 s"
    )


@pytest.fixture
def message_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[None]:
    """A D-Bus on which no Bluetooth service is; "silent": and where no answer comes through."""
    program = shutil.which("dbus-daemon")
    if program is None and os.environ.get("CI"):
        pytest.fail("dbus-daemon is not installed; run: apt-get install dbus")
    if program is None:
        pytest.skip("dbus-daemon is not installed; run: apt-get install dbus")
    rights = '<allow send_destination="*"/>'
    if request.param != "silent":
        rights = '<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>'
    config = tmp_path / "bus.conf"
    config.write_text(
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" '
        '"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd"><busconfig><type>custom</type>'
        f"<listen>unix:path={tmp_path}/bus</listen><auth>EXTERNAL</auth>"
        f'<policy context="default">{rights}<allow own="*"/></policy></busconfig>'
    )
    command = [program, f"--config-file={config}", "--nofork", "--print-address=1"]
    bus = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert bus.stdout is not None
    try:
        assert bus.stdout.readline().startswith("unix:")
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
        yield
    finally:
        bus.terminate()
        bus.wait(10)
        bus.stdout.close()


@pytest.mark.parametrize(
    ("message_bus", "told"),
    [
        (
            "without bluez",
            "its service does not run; install the package bluez and run: systemctl start bluet",
        ),
        ("silent", "its service does not answer; run: systemctl restart bluetooth"),
    ],
    indirect=["message_bus"],
)
@pytest.mark.usefixtures("message_bus")
def test_without_the_bluetooth_service_one_line_says_what_to_do(told: str, caplog: Any) -> None:
    asyncio.run(Unusable().scene())
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Bluetooth cannot be used: {told}")


# -- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ble:heart", "'heart' is no address of a sensor"),
        ("ble:F1:00:00:00:00", "is no address of a sensor"),
        ("ble:?addresses=F1:00:00:00:00:01,x", "'x' is no address of a sensor"),
        ("ble:?zone=Middle/Earth", "no time zone 'Middle/Earth' is known here"),
        ("ble:?user=256", "it is 0 to 255"),
        ("ble:?user=me", "user"),
        ("ble:?adapter=hci1", "no option 'adapter' in 'ble'; it has addresses, zone, user"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(text: str, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        parse("ble:"),
        parse("ble:f1:00:00:00:00:01?zone=local&user=2"),
        parse("ble:?addresses=F1:00:00:00:00:01,F1:00:00:00:00:02"),
        parse("ble:", {"addresses": ["F1:00:00:00:00:01"], "zone": "Europe/Berlin"}),
        parse("ble:6B29FC40-CA47-1067-B31D-00DD010662DA"),
    ],
)
def test_settings_that_work_open_nothing_yet(url: Any) -> None:
    source = open_source(url)
    assert isinstance(source, BleSource)
    asyncio.run(source.aclose())
