"""A file that grows: written by shells, ``tee`` and ``mv``, read line by line."""

import asyncio
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.clock import WallClock
from samd_edge.sources import SourceError, follow, open_source
from samd_edge.sources.rows import RowSource

HEADER = "observed_at,heart_rate,temperature"
BEGIN = datetime(2026, 6, 1, 8, tzinfo=UTC)
WAIT_S = 15.0


def row(minute: int, rate: int) -> str:
    return f"2026-06-01T08:{minute:02d}:00Z,{rate},37.0"


def shell(command: str, *words: object) -> None:
    """Run a shell command with ``words`` quoted into it: the writer of these tests."""
    subprocess.run(["sh", "-c", command.format(*(shlex.quote(str(word)) for word in words))], check=True)


def append(file: Path, *lines: str) -> None:
    for line in lines:
        shell("printf '%s\\n' {} >> {}", line, file)


class Reader:
    """Takes items from the source with a limit of time."""

    def __init__(self, items: AsyncIterator[Reading | Rejection]) -> None:
        self._items = items
        self._asked: asyncio.Task[Reading | Rejection] | None = None

    async def item(self) -> Reading | Rejection:
        if self._asked is None:
            self._asked = asyncio.ensure_future(anext(self._items))
        asked = self._asked
        found = await asyncio.wait_for(asyncio.shield(asked), WAIT_S)
        self._asked = None
        return found

    async def rate(self) -> float | None:
        found = await self.item()
        assert isinstance(found, Reading), found
        return found.heart_rate

    async def rejection(self) -> Rejection:
        found = await self.item()
        assert isinstance(found, Rejection)
        return found

    async def nothing(self, looks: int = 3) -> None:
        """Nothing comes while the file is looked at some times."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(anext(self._items))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._asked), looks * follow.POLL_S)

    async def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)


@asynccontextmanager
async def following(file: Path) -> AsyncIterator[Reader]:
    source = open_source(f"csv:{file}?follow=1")
    reader = Reader(aiter(source))
    try:
        yield reader
    finally:
        await reader.close()
        await source.aclose()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await test()

    asyncio.run(body())


# -- growing ----------------------------------------------------------------------------------------------


def test_lines_come_as_the_shell_appends_them(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    append(file, HEADER, row(0, 60))

    async def test() -> None:
        async with following(file) as reader:
            assert await reader.rate() == 60
            append(file, row(1, 61))
            assert await reader.rate() == 61
            append(file, row(2, 62), row(3, 63))
            assert [await reader.rate(), await reader.rate()] == [62, 63]

    run(test)


def test_json_lines_written_by_tee(tmp_path: Path) -> None:
    file = tmp_path / "bed.log"
    with subprocess.Popen(
        ["tee", "-a", str(file)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0
    ) as tee:
        pipe = tee.stdin
        assert pipe is not None

        async def test() -> None:
            async with following(file) as reader:
                for number in range(3):
                    moment = (BEGIN + timedelta(minutes=number)).isoformat()
                    pipe.write(
                        json.dumps({"observed_at": moment, "heart_rate": 70 + number}).encode() + b"\n"
                    )
                    assert await reader.rate() == 70 + number
                pipe.write(b"nonsense\n")
                assert (await reader.rejection()).row == 4

        run(test)
        pipe.close()
        assert tee.wait(WAIT_S) == 0


def test_a_line_is_taken_only_with_its_end(tmp_path: Path) -> None:
    """A number that is cut off looks like another number: 1 for 120."""
    file = tmp_path / "bed.csv"
    append(file, "observed_at,heart_rate")
    shell("printf %s {} >> {}", "2026-06-01T08:00:00Z,1", file)

    async def test() -> None:
        async with following(file) as reader:
            await reader.nothing()
            shell("printf %s {} >> {}", "2", file)
            await reader.nothing()
            shell("printf %s {} >> {}", "0\n", file)
            assert await reader.rate() == 120

    run(test)


def test_what_was_there_before_keeps_its_time_and_its_age(tmp_path: Path) -> None:
    """Patient time is the wall's: an old row is old, whenever it is read."""
    file = tmp_path / "bed.csv"
    append(file, "observed_at,heart_rate,heart_rate_age", "2020-01-01T00:00:00Z,60,120")

    async def test() -> None:
        source = open_source(f"csv:{file}?follow=1")
        assert isinstance(source.clock, WallClock)
        assert list(source.history()) == []
        reader = Reader(aiter(source))
        found = await reader.item()
        assert isinstance(found, Reading)
        assert found.observed_at == datetime(2020, 1, 1, tzinfo=UTC)
        assert found.ages == {"heart_rate": 120}
        assert source.clock.now() - found.observed_at > timedelta(days=2000)
        await source.aclose()

    run(test)


def test_a_file_that_is_not_there_yet_is_waited_for_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ward" / "bed.csv"

    async def test() -> None:
        async with following(file) as reader:
            await reader.nothing(looks=4)
            file.parent.mkdir()
            append(file, HEADER)
            await reader.nothing()
            append(file, row(0, 60))
            assert await reader.rate() == 60

    run(test)
    assert [record.getMessage() for record in caplog.records] == [
        "bed.csv is not there yet; it is waited for"
    ]


# -- replaced and shortened -------------------------------------------------------------------------------


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As logrotate does it: moved away, created anew; the columns may be others."""
    file = tmp_path / "bed.csv"
    append(file, HEADER, row(0, 60))

    async def test() -> None:
        async with following(file) as reader:
            assert await reader.rate() == 60
            shell("printf '%s\\n' {} >> {}; mv {} {}.1; : > {}", row(1, 61), file, file, file, file)
            assert await reader.rate() == 61
            await reader.nothing()
            append(file, "heart_rate,observed_at", "62,2026-06-01T08:02:00Z")
            assert await reader.rate() == 62
            append(file, "0,2026-06-01T08:03:00Z")
            rejected = await reader.rejection()
            assert (rejected.row, rejected.column) == (3, "heart_rate")

    run(test)
    assert "bed.csv was replaced; reading goes on at the beginning of the new file" in caplog.text


def test_a_line_without_its_end_is_rejected_when_the_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    append(file, HEADER, row(0, 60))
    shell("printf %s {} >> {}", "2026-06-01T08:01:00Z,61,3", file)

    async def test() -> None:
        async with following(file) as reader:
            assert await reader.rate() == 60
            shell("mv {} {}.1; printf '%s\\n' {} {} > {}", file, file, HEADER, row(2, 62), file)
            rejected = await reader.rejection()
            assert rejected.row == 3
            assert "the file ends within this line" in rejected.reason
            assert await reader.rate() == 62

    run(test)


def test_a_file_cut_and_written_anew_is_read_from_its_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "bed.csv"
    append(file, HEADER, row(0, 60), row(1, 61))

    async def test() -> None:
        async with following(file) as reader:
            assert [await reader.rate(), await reader.rate()] == [60, 61]
            shell("cp {} {}.1; : > {}", file, file, file)  # copytruncate
            await reader.nothing()
            append(file, HEADER, row(2, 62))
            assert await reader.rate() == 62

    run(test)
    assert "bed.csv was cut or written anew; it is read again from its beginning" in caplog.text


def test_a_file_written_anew_at_once_and_longer_is_noticed_too(tmp_path: Path) -> None:
    """Its length alone would not tell: reading on would begin in the middle of a line."""
    file = tmp_path / "bed.csv"
    append(file, HEADER, row(0, 60))

    async def test() -> None:
        async with following(file) as reader:
            assert await reader.rate() == 60
            lines = [HEADER, *(row(minute, 70 + minute) for minute in range(1, 4))]
            shell("printf '%s\\n' {} {} {} {} > {}", *lines, file)
            assert [await reader.rate() for _ in range(3)] == [71, 72, 73]

    run(test)


def test_a_new_file_that_is_no_table_is_left_out_until_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "bed.csv"
    append(file, HEADER, row(0, 60))

    async def test() -> None:
        async with following(file) as reader:
            assert await reader.rate() == 60
            shell("mv {} {}.1; printf '%s\\n' {} {} > {}", file, file, row(1, 61), row(2, 62), file)
            rejected = await reader.rejection()
            assert (rejected.file, rejected.row) == (str(file), 1)
            assert "there is no column observed_at" in rejected.reason
            await reader.nothing()
            shell("printf '%s\\n' {} {} > {}", HEADER, row(3, 63), file)
            assert await reader.rate() == 63

    run(test)
    assert "the file is no table (there is no column observed_at) and is left out until" in caplog.text
    assert "61" not in caplog.text  # a log holds no vital sign


def test_a_file_that_is_gone_is_said_once_and_still_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, moved = tmp_path / "bed.csv", tmp_path / "moved.csv"
    append(file, HEADER, row(0, 60))

    async def test() -> None:
        async with following(file) as reader:
            assert await reader.rate() == 60
            shell("mv {} {}", file, moved)
            await reader.nothing()
            append(moved, row(1, 61))  # the writer has not noticed yet
            assert await reader.rate() == 61
            await reader.nothing()
            append(file, HEADER, row(2, 62))
            assert await reader.rate() == 62

    run(test)
    assert [record.getMessage() for record in caplog.records] == [
        "bed.csv is gone; a new one is waited for",
        "bed.csv was replaced; reading goes on at the beginning of the new file",
    ]


# -- bounds -----------------------------------------------------------------------------------------------


def test_bytes_that_are_no_text_spoil_their_value_only(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    file.write_bytes(
        f"{HEADER}\n".encode() + b"2026-06-01T08:00:00Z,6\xff,37.0\n" + f"{row(1, 61)}\n".encode()
    )

    async def test() -> None:
        async with following(file) as reader:
            assert (await reader.rejection()).column == "heart_rate"
            assert await reader.rate() is None
            assert await reader.rate() == 61

    run(test)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    append(file, HEADER)
    shell("head -c 3000000 /dev/zero | tr '\\000' x >> {}", file)
    shell("printf '\\n%s\\n' {} >> {}", row(0, 60), file)

    async def test() -> None:
        async with following(file) as reader:
            rejected = await reader.rejection()
            assert rejected.row == 2
            assert len(rejected.value) < 50
            assert await reader.rate() == 60

    run(test)


def test_it_looks_four_times_a_second_and_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bed.csv"
    append(file, HEADER, row(0, 60))
    looks: list[float] = []
    stat = os.stat

    def counted(path: Any, *more: Any, **named: Any) -> os.stat_result:
        if path == file:
            looks.append(time.monotonic())
        return stat(path, *more, **named)

    async def test() -> None:
        source = open_source(f"csv:{file}?follow=1")
        reader = Reader(aiter(source))
        assert await reader.rate() == 60
        monkeypatch.setattr(os, "stat", counted)
        await reader.nothing(looks=6)
        monkeypatch.undo()
        begin = time.monotonic()
        await source.aclose()
        assert time.monotonic() - begin < follow.POLL_S / 2
        await reader.close()

    run(test)
    assert 4 <= len(looks) <= 7
    assert all(later - earlier >= follow.POLL_S * 0.99 for earlier, later in itertools.pairwise(looks))


def test_a_reader_that_takes_nothing_holds_the_file_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are read ahead by a thousand at most, however long the file is."""
    file = tmp_path / "bed.csv"
    append(file, HEADER)
    shell("yes {} | head -n 100000 >> {}", row(0, 60), file)
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, count: int, place: int) -> bytes:
        data = pread(fd, count, place)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)

    async def test() -> None:
        source = open_source(f"csv:{file}?follow=1")
        assert isinstance(source, RowSource)
        reader = Reader(aiter(source))
        assert await reader.rate() == 60
        before = 0
        while before != sum(read):  # until it stands still
            before = sum(read)
            await asyncio.sleep(follow.POLL_S)
        await source.aclose()
        await reader.close()

    run(test)
    assert file.stat().st_size > 2_900_000
    assert sum(read) < 300_000


# -- opening ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [("a,b\n1,2\n", "there is no column observed_at"), ("observed_at;heart_rate\n", "separated by commas")],
)
def test_a_file_that_is_no_table_is_refused_at_once(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "bed.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=reason):
        open_source(f"csv:{file}?follow=1")


def test_what_cannot_grow_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SourceError, match="is no file that can grow"):
            open_source(f"csv:{path}?follow=1")


@pytest.mark.parametrize("option", ["follow=perhaps", "follow=", "fallow=1"])
def test_a_wrong_option_is_named(tmp_path: Path, option: str) -> None:
    with pytest.raises(SourceError, match=option.partition("=")[0]):
        open_source(f"csv:{tmp_path / 'bed.csv'}?{option}")


def test_follow_off_reads_to_the_end(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    append(file, HEADER, row(0, 60))

    async def test() -> None:
        source = open_source(f"csv:{file}?follow=0")
        assert [item.heart_rate async for item in source if isinstance(item, Reading)] == [60]
        await source.aclose()

    run(test)


# -- the command ------------------------------------------------------------------------------------------


def test_infer_follows_a_file_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    """Judged by the wall: what lay there from long ago is stale, what comes now counts."""
    file = tmp_path / "bed.csv"
    append(file, HEADER, "2020-01-01T00:00:00Z,60,37.0")
    command = [sys.executable, "-m", "samd_edge", "infer", "--json"]
    with subprocess.Popen(
        [*command, "--source", f"csv:{file}?follow=1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            old = json.loads(process.stdout.readline())
            assert (old["signs"], old["stale"]) == ({}, ["heart_rate", "temperature"])
            assert (old["news2"]["low"], old["news2"]["high"]) == (0, 20)
            append(file, f"{datetime.now(UTC).isoformat()},131,37.0")
            new = json.loads(process.stdout.readline())
            assert new["news2"]["points"] == {"heart_rate": 3, "temperature": 0}
            process.send_signal(2)
            assert process.wait(WAIT_S) == 130
            assert b"Traceback" not in process.stderr.read()
        finally:
            process.kill()


def test_tail_f_feeds_the_source_of_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "bed.jsonl"
    file.touch()
    command = [sys.executable, "-m", "samd_edge", "infer", "--json", "--source", "-"]
    with (
        subprocess.Popen(["tail", "-f", str(file)], stdout=subprocess.PIPE) as tail,
        subprocess.Popen(command, stdin=tail.stdout, stdout=subprocess.PIPE) as process,
    ):
        try:
            assert process.stdout is not None
            for minute, (rate, points) in enumerate(((70, 0), (95, 1), (131, 3))):
                moment = (BEGIN + timedelta(minutes=minute)).isoformat()
                append(file, json.dumps({"observed_at": moment, "heart_rate": rate}))
                line = json.loads(process.stdout.readline())
                assert line["signs"] == {"heart_rate": rate}
                assert line["news2"]["points"] == {"heart_rate": points}
            tail.terminate()
            assert process.wait(WAIT_S) == 0
        finally:
            tail.kill()
            process.kill()
