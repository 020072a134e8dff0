"""Sources: a recording that is played, a file, and a pipe that speaks when it likes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import Reading, Recording
from samd_data.table import write_csv
from samd_edge import sources
from samd_edge.clock import DataClock, WallClock
from samd_edge.sources import SourceError, open_source, parse
from samd_edge.sources.replay import Replay, read_file, split
from samd_edge.sources.rows import TableSource

BEGIN = datetime(2024, 3, 1, 8, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def recording(count: int = 10, minutes: float = 30) -> list[Reading]:
    return [
        Reading(observed_at=BEGIN + timedelta(minutes=minutes * index), heart_rate=60.0 + index % 100)
        for index in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_csv(tmp_path / "7.csv", recording())
    write_csv(tmp_path / "8.csv", recording(3))
    return tmp_path


async def collect(source: Any) -> list[Any]:
    items = [item async for item in source]
    await source.aclose()
    return items


class Time:
    """A wall that only ``sleep`` moves."""

    def __init__(self) -> None:
        self.moment = NOW
        self.slept: list[float] = []

    def wall(self) -> datetime:
        return self.moment

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.moment += timedelta(seconds=seconds)


def test_a_replay_may_be_told_by_a_table(folder: Path) -> None:
    source = open_source(parse(f"replay:{folder}", {"patient": 7, "speed": 600, "from": "50%"}))
    assert (source.clock.speed, len(list(source.history()))) == (600.0, 5)


# -- the URL -----------------------------------------------------------------------------------------------


def test_a_url_is_taken_apart() -> None:
    url = parse("replay:data/icu demo?patient=7&speed=600&from=70%")
    assert (url.kind, url.path) == ("replay", "data/icu demo")
    assert url.options == {"patient": "7", "speed": "600", "from": "70%"}
    assert parse("csv:/a/b.csv") == sources.SourceURL("csv:/a/b.csv", "csv", "/a/b.csv", {})
    assert parse("-").kind == "stdin"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "write replay:PATH"),
        ("file.csv", "write replay:PATH"),
        ("mystery:x", "known are ble, csv, fhir, fhir.poll, hl7"),
        ("csv:", "names no file"),
        ("csv:/nowhere/x.csv", "cannot be read"),
        ("replay:", "names no data set"),
        ("replay:/nowhere", "no such file or folder"),
        ("replay:/nowhere?patient", "write options as"),
    ],
)
def test_a_source_that_cannot_be_opened_says_why_in_one_line(url: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        open_source(url)
    assert "\n" not in str(caught.value)


# -- replay ------------------------------------------------------------------------------------------------


def test_a_recording_is_played_as_if_it_happened_now(folder: Path) -> None:
    time = Time()
    readings = recording()
    replay = Replay(
        readings[:7], readings[7:], readings[7].observed_at, 600, wall=time.wall, sleep=time.sleep
    )
    history = list(replay.history())
    played = asyncio.run(collect(replay))
    assert [reading.heart_rate for reading in [*history, *played]] == [60.0 + index for index in range(10)]
    assert history[-1].observed_at == NOW - timedelta(minutes=30)
    assert played[0].observed_at == NOW
    assert played[2].observed_at == NOW + timedelta(hours=1)
    assert time.slept == pytest.approx([3.0, 3.0]), "30 min at 600 times the speed"
    assert replay.clock.now() == played[2].observed_at
    assert replay.clock.to_wall(played[1].observed_at) == NOW + timedelta(seconds=3)


def test_a_reading_is_never_early_even_if_a_sleep_is_short() -> None:
    time = Time()

    async def short(seconds: float) -> None:
        await time.sleep(max(seconds / 2, 1e-3))

    readings = recording(3)
    replay = Replay([], readings, BEGIN, 60, wall=time.wall, sleep=short)

    async def check() -> None:
        async for reading in replay:
            assert isinstance(reading, Reading)
            assert reading.observed_at <= replay.clock.now()

    asyncio.run(check())


def test_a_replay_that_is_late_catches_up() -> None:
    time = Time()
    replay = Replay([], recording(), BEGIN, 1, wall=time.wall, sleep=time.sleep)
    time.moment += timedelta(days=1)
    assert len(asyncio.run(collect(replay))) == 10
    assert time.slept == []


def test_open_source_splits_history_from_live(folder: Path) -> None:
    source = open_source(f"replay:{folder}?patient=7&speed=1000000&from=70%", wall=lambda: NOW)
    assert [reading.heart_rate for reading in source.history()] == [60.0 + index for index in range(7)]
    assert source.clock.speed == 1e6
    assert source.clock.now() == NOW


def test_a_whole_recording_plays_by_default_and_then_ends(folder: Path) -> None:
    source = open_source(f"replay:{folder / '8.csv'}?speed=1000000")
    assert list(source.history()) == []
    assert len(asyncio.run(collect(source))) == 3


def test_an_iso_time_begins_there(folder: Path) -> None:
    source = open_source(f"replay:{folder}?patient=7&from=2024-03-01T09:45:00Z", wall=lambda: NOW)
    history = list(source.history())
    assert len(history) == 4
    assert history[-1].observed_at == NOW - timedelta(minutes=15)


@pytest.mark.parametrize(
    ("begin", "before"), [("0%", 0), ("70%", 7), ("100%", 10), ("5%", 1), ("2024-03-01T08:00:00Z", 0)]
)
def test_where_live_play_begins(begin: str, before: int) -> None:
    assert split(recording(), begin)[0] == before


@pytest.mark.parametrize(
    "begin", ["101%", "-1%", "x%", "nan%", "noon", "2024-03-01T08:00:00", "2025-01-01T00:00:00Z"]
)
def test_a_beginning_that_is_none_is_refused(begin: str) -> None:
    with pytest.raises(SourceError, match="from="):
        split(recording(), begin)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("?patient=9", "no patient '9'; it has 7, 8"),
        ("", "holds 2 patients; choose one with .patient=N: 7, 8"),
        ("?patient=7&speed=0", "speed=0"),
        ("?patient=7&speed=fast", "speed=fast"),
        ("?patient=7&pace=2", "no option 'pace'"),
        ("?patient=../8", "no patient"),
    ],
)
def test_what_cannot_be_played_says_why(folder: Path, options: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        open_source(f"replay:{folder}{options}")
    assert "\n" not in str(caught.value)


def test_a_file_is_one_patient(folder: Path) -> None:
    with pytest.raises(SourceError, match="file of one patient"):
        open_source(f"replay:{folder / '7.csv'}?patient=8")
    empty = folder / "9.csv"
    empty.write_text("observed_at,spo2\n")
    with pytest.raises(SourceError, match="no readings"):
        open_source(f"replay:{empty}")


def test_rows_out_of_order_are_played_in_order(tmp_path: Path) -> None:
    write_csv(tmp_path / "7.csv", list(reversed(recording())))
    assert Recording("7", read_file(tmp_path / "7.csv")).readings[0].heart_rate == 60


def test_a_recording_of_its_own_format_loads_no_data_set_reader(folder: Path) -> None:
    code = (
        "import sys\nfrom samd_edge.sources import open_source\n"
        f"open_source('replay:{folder}?patient=7')\n"
        "heavy = ('pandas', 'pyarrow', 'tensorflow', 'samd_data.datasets')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# -- files and pipes ---------------------------------------------------------------------------------------

CSV = "observed_at,heart_rate,spo2\n2024-03-01T08:00:00Z,70,97\n2024-03-01T09:00:00Z,999,96\n"


def test_a_file_gives_its_rows_and_what_was_rejected(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    file.write_text(CSV)
    source = open_source(f"csv:{file}")
    assert list(source.history()) == []
    items = asyncio.run(collect(source))
    assert [type(item) for item in items] == [Reading, Rejection, Reading]
    assert items[1].row == 3
    assert items[2].heart_rate is None


def test_the_clock_of_a_file_follows_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    file.write_text(CSV)
    source = open_source(f"csv:{file}", wall=lambda: NOW)

    async def times() -> list[datetime]:
        return [source.clock.now() async for item in source if isinstance(item, Reading)]

    assert asyncio.run(times()) == [BEGIN, BEGIN + timedelta(hours=1)]
    asyncio.run(source.aclose())


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "empty"), ("a,b\n1,2\n", "observed_at"), ("observed_at;spo2\n", "commas")],
)
def test_a_file_that_is_no_table_is_refused_when_it_is_opened(
    tmp_path: Path, content: str, reason: str
) -> None:
    file = tmp_path / "bed.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=reason):
        open_source(f"csv:{file}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a folder"):
        open_source(f"csv:{tmp_path}")


def test_a_long_file_passes_whole(tmp_path: Path) -> None:
    write_csv(tmp_path / "long.csv", recording(3500, 1))
    assert len(asyncio.run(collect(open_source(f"csv:{tmp_path / 'long.csv'}")))) == 3500


@pytest.fixture
def pipe() -> Iterator[tuple[int, Callable[[str], None]]]:
    read, write = os.pipe()

    def say(text: str) -> None:
        os.write(write, text.encode())

    yield read, say
    os.close(write)


JSON = '{"observed_at": "2024-03-01T08:00:00Z", "heart_rate": %d}\n'


def test_each_line_of_a_pipe_passes_as_soon_as_it_is_complete(
    pipe: tuple[int, Callable[[str], None]],
) -> None:
    fd, say = pipe

    async def talk() -> list[float | None]:
        source = TableSource(fd, "-", WallClock())
        rows = aiter(source)
        heard = []
        for rate in (70, 71, 72):
            line = JSON % rate
            say(line[:20])
            waiting = asyncio.ensure_future(anext(rows))
            await asyncio.sleep(0)
            assert not waiting.done()
            say(line[20:])
            item = await asyncio.wait_for(waiting, 10)
            assert isinstance(item, Reading)
            heard.append(item.heart_rate)
        await source.aclose()
        return heard

    assert asyncio.run(talk()) == [70, 71, 72]


def test_closing_does_not_wait_for_a_silent_pipe(pipe: tuple[int, Callable[[str], None]]) -> None:
    fd, say = pipe

    async def hang_up() -> None:
        source = TableSource(fd, "-", DataClock())
        rows: AsyncIterator[Any] = aiter(source)
        say(JSON % 70)
        await asyncio.wait_for(anext(rows), 10)
        await asyncio.wait_for(source.aclose(), 10)

    asyncio.run(hang_up())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_pipe_that_says_nothing_at_all_is_an_error() -> None:
    read, write = os.pipe()
    os.close(write)

    async def listen() -> None:
        source = TableSource(read, "-", WallClock())
        try:
            async for _ in source:
                pass
        finally:
            await source.aclose()

    with pytest.raises(DataError, match="empty"):
        asyncio.run(listen())


def test_a_source_is_iterated_over_once(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    file.write_text(CSV)
    source = open_source(f"csv:{file}")

    async def twice() -> None:
        async for _ in source:
            pass
        async for _ in source:
            pass

    with pytest.raises(RuntimeError, match="once"):
        asyncio.run(twice())
    asyncio.run(source.aclose())
