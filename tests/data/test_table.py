"""CSV and JSON lines: good rows pass, bad ones are told with file, row and column."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.errors import DataError
from samd_data.plausibility import RANGES, Rejection
from samd_data.reading import CONSCIOUSNESS, Reading
from samd_data.table import read_rows, write_csv

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = "observed_at,heart_rate,spo2,temperature,supplemental_oxygen,consciousness\n"
TIME = "2026-01-01T00:00:00Z"


def read(text: str, name: str = "a.csv", **options: Any) -> tuple[list[Reading], list[Rejection]]:
    items = list(read_rows(io.StringIO(text), name, **options))
    return (
        [item for item in items if isinstance(item, Reading)],
        [item for item in items if isinstance(item, Rejection)],
    )


def test_a_good_row() -> None:
    readings, rejections = read(f"{HEADER}2026-01-01T02:00:00+02:00,80, 97 ,36.9,yes,a\n")
    assert readings == [
        Reading(
            observed_at=NOW,
            heart_rate=80,
            spo2=97,
            temperature=36.9,
            supplemental_oxygen=True,
            consciousness="A",
        )
    ]
    assert rejections == []


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "NaN", "null", "None"])
def test_missing_cells(cell: str) -> None:
    readings, rejections = read(f"{HEADER}{TIME},{cell},97,{cell},{cell},{cell}\n")
    assert readings == [Reading(observed_at=NOW, spo2=97)]
    assert rejections == []


@pytest.mark.parametrize(
    ("cells", "column", "reason", "remedy"),
    [
        ("8o,97,36,,", "heart_rate", "'8o' is not a number", "leave the cell empty"),
        ("1_0,97,36,,", "heart_rate", "not a number", ""),
        ("1e999,97,36,,", "heart_rate", "inf is not", ""),
        ("0,97,36,,", "heart_rate", "0 is outside 15 to 300 /min", "leads"),
        ("80,98%,36,,", "spo2", "'98%' is not a number", "percent"),
        ("80,0.98,36,,", "spo2", "looks like a fraction", "98 and not 0.98"),
        ("80,97,98.6,,", "temperature", "looks like °F", "98.6 °F is 37.0 °C"),
        ("80,97,36,maybe,", "supplemental_oxygen", "neither true nor false", "true or false"),
        ("80,97,36,2,", "supplemental_oxygen", "'2'", ""),
        ("80,97,36,,Alert", "consciousness", "not one of A C V P U", "A C V P U"),
    ],
)
def test_a_bad_cell_is_told_and_the_rest_of_the_row_passes(
    cells: str, column: str, reason: str, remedy: str
) -> None:
    readings, (rejection,) = read(f"{HEADER}{TIME},80,97,36,,\n{TIME},{cells}\n")
    assert (rejection.file, rejection.row, rejection.column) == ("a.csv", 3, column)
    assert reason in rejection.reason
    assert remedy in rejection.remedy
    assert rejection.line().startswith(f"a.csv:3: {column}: ")
    good, kept = readings
    assert getattr(kept, column) is None
    assert good.heart_rate == 80
    others = {"heart_rate": 80, "spo2": 97, "temperature": 36}
    others.pop(column, None)
    assert {field: getattr(kept, field) for field in others} == others


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2026-01-01T00:00:00,80,97,36,,", "no time zone"),
        ("2026-01-01,80,97,36,,", "no time zone"),
        (",80,97,36,,", "no time of observation"),
        ("yesterday,80,97,36,,", "is no time"),
        ("1767225600,80,97,36,,", "no time"),
        ("0001-01-01T00:00:00+10:00,80,97,36,,", "outside the calendar"),
        ("0001-01-01T00:00:00Z,80,97,36,,", "is not in the years 1900 to 2999"),
        ("9999-12-31T23:59:59Z,80,97,36,,", "is not in the years 1900 to 2999"),
        (f"{TIME},80,97", "3 cells and the header 6"),
        (f"{TIME},80,97,36,,,,", "8 cells and the header 6"),
        (f'{TIME},"80,97,36,,', "quotes"),
        (f"{TIME},80,97,36,,{'A' * 100_000}", "quotes"),
    ],
)
def test_a_row_that_cannot_be_trusted_is_rejected_whole(line: str, reason: str) -> None:
    readings, (rejection,) = read(f"{HEADER}{line}\n{TIME},81,97,36,,\n")
    assert reason in rejection.reason
    assert rejection.row == 2
    assert len(rejection.line()) < 300
    assert [reading.heart_rate for reading in readings] == [81]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("heart_rate,spo2\n80,97\n", "no column observed_at"),
        (f"{TIME},80,97\n", "no column observed_at"),
        ("observed_at;heart_rate\n", "not separated by commas"),
        ("observed_at\theart_rate\n", "not separated by commas"),
        ("observed_at,spo2,spo2\n", "twice"),
        ("observed_at,pulse\n", "no column of a vital sign"),
        ('observed_at,"spo2\n', "broken quotes"),
        ("\x00\x01PNG\n", "no column observed_at"),
    ],
)
def test_a_file_that_is_no_table_raises_one_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith("a.csv")
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_known_is_told_once() -> None:
    readings, (rejection,) = read(f"\ufeffobserved_at,pulse,spo2\n{TIME},80,97\n{TIME},80,98\n")
    assert [reading.spo2 for reading in readings] == [97, 98]
    assert (rejection.row, rejection.column) == (1, "pulse")
    assert "heart_rate" in rejection.remedy


def test_blank_lines_count_as_lines() -> None:
    _, (rejection,) = read(f"{HEADER}\n\n{TIME},1,97,36,,\n")
    assert rejection.row == 4


def test_ages() -> None:
    readings, rejections = read(
        f"observed_at,spo2,spo2_age,heart_rate,heart_rate_age\n{TIME},97,60,80,old\n{TIME},97,,80,-1\n"
    )
    assert readings[0] == Reading(observed_at=NOW, spo2=97, ages={"spo2": 60})
    assert readings[1] == Reading(observed_at=NOW, spo2=97)
    assert [(item.row, item.column) for item in rejections] == [(2, "heart_rate"), (3, "heart_rate")]
    assert "stale" in rejections[0].reason


@pytest.mark.parametrize("age", ["1e300", "3155760001", f"1{'0' * 300}", f"{'9' * 400}"])
def test_an_age_that_leaves_the_calendar_is_no_age(age: str) -> None:
    line = f'{{"observed_at":"{TIME}","spo2":97,"heart_rate":80,"ages":{{"spo2":{age}}}}}'
    readings, (rejection,) = read(line, "a.jsonl")
    assert readings[0].spo2 is None
    assert rejection.column in ("spo2", "")
    table = f"observed_at,spo2,heart_rate,spo2_age\n{TIME},97,80,{age.replace('9' * 400, '1e999')}\n"
    readings, (rejection,) = read(table)
    assert readings == [Reading(observed_at=NOW, heart_rate=80)]
    assert (rejection.column, rejection.row) == ("spo2", 2)
    assert "may be stale" in rejection.reason


def test_an_unknown_name_without_end_is_told_short() -> None:
    for text in (f"observed_at,spo2,{'x' * 60_000}\n", f'{{"{"x" * 60_000}": 1, "observed_at": "{TIME}"}}\n'):
        items = read(text, "a.txt")[1]
        assert [item.column for item in items] == ["x" * 40]
        assert len(items[0].line()) < 400


def test_what_a_terminal_would_obey_is_shown_escaped() -> None:
    _, (column, cell) = read(f"observed_at,spo2,\x1b[2J\n{TIME},97\x1b[31m\x07\u202e,\n")
    assert cell.line().startswith(r"a.csv:2: spo2: '97\x1b[31m\x07\u202e' is not a number")
    assert r"'\x1b[2J' is no column" in column.line()
    assert column.line().isprintable()
    with pytest.raises(DataError) as caught:
        read("observed_at,\x1b[2J,\x1b[2J\n")
    assert str(caught.value).isprintable()


def test_json_lines() -> None:
    whole = Reading(
        observed_at=NOW, heart_rate=80, supplemental_oxygen=False, consciousness="C", ages={"heart_rate": 5}
    )
    text = (
        msgspec.json.encode(whole).decode() + f'\n\n{{"observed_at":"{TIME}","spo2":null,"heart_rate":81}}\n'
    )
    for name in ("a.jsonl", "stdin", "a.ndjson"):
        assert read(text, name) == ([whole, Reading(observed_at=NOW, heart_rate=81)], [])
    assert read(text, "a.csv", format="jsonl")[0][0] == whole


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ("{", "", "no JSON object"),
        ("[1]", "", "no JSON object"),
        ('{"observed_at":1}', "observed_at", "no time"),
        ('{"spo2":97}', "observed_at", "no time"),
        (f'{{"observed_at":"{TIME}","spo2":NaN}}', "", "no JSON object"),
        (f'{{"observed_at":"{TIME}","spo2":"97"}}', "spo2", "'97' is not a number"),
        (f'{{"observed_at":"{TIME}","spo2":true}}', "spo2", "not a number"),
        (f'{{"observed_at":"{TIME}","spo2":1{"0" * 400}}}', "spo2", ""),
        (f'{{"observed_at":"{TIME}","supplemental_oxygen":1}}', "supplemental_oxygen", "neither"),
        (f'{{"observed_at":"{TIME}","consciousness":{{}}}}', "consciousness", "A C V P U"),
        (f'{{"observed_at":"{TIME}","ages":[1]}}', "ages", "no object"),
        (f'{{"observed_at":"{TIME}","spo2":97,"ages":{{"spo2":"x"}}}}', "spo2", "stale"),
        (f'{{"observed_at":"{TIME}","pulse":97}}', "pulse", "no field that is known"),
        (f'{{"observed_at":"{TIME}","spo2":96,"spo2":80}}', "", "the key 'spo2' stands twice"),
        (f'{{"observed_at":"{TIME}","spo2":96,"sp\\u006f2":80}}', "", "the key 'spo2' stands twice"),
        (f'{{"observed_at":"{TIME}","spo2":96,"ages":{{"spo2":9,"spo2":0}}}}', "", "'spo2' stands twice"),
        ("[" * 60_000, "", "no JSON object"),
    ],
)
def test_bad_json(line: str, column: str, reason: str) -> None:
    readings, rejections = read(
        f'{{"observed_at":"{TIME}","spo2":96}}\n{line}\n{{"observed_at":"{TIME}","spo2":98}}\n', "a.jsonl"
    )
    (rejection,) = rejections
    assert rejection.row == 2
    assert rejection.column in (column, "")
    assert reason in rejection.reason
    assert [readings[0].spo2, readings[-1].spo2] == [96, 98]
    assert all(reading.spo2 in (96, 98, None) for reading in readings)


def test_no_line_is_waited_for_before_the_one_at_hand_is_given() -> None:
    class Live(io.StringIO):
        """A stream that ends the test when it is asked for more than was used."""

        asked = 0

        def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
            self.asked += 1
            return super().readline(-1 if size is None else size)

    stream = Live(f"{HEADER}{TIME},80,97,36,,\n{TIME},81,97,36,,\n")
    rows = read_rows(stream, "stdin")
    assert next(rows).heart_rate == 80  # type: ignore[union-attr]
    assert stream.asked == 2
    assert next(rows).heart_rate == 81  # type: ignore[union-attr]
    assert stream.asked == 3


@given(st.text(max_size=300))
def test_no_text_makes_the_reader_fail_in_another_way(text: str) -> None:
    for start in ("", HEADER, "{"):
        try:
            for item in read_rows(io.StringIO(start + text), "x"):
                if isinstance(item, Rejection):
                    assert "\n" not in item.line()
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)


numbers = {field: st.none() | st.floats(limits.low, limits.high) for field, limits in RANGES.items()}
numbers["diastolic_bp"] = st.none() | st.floats(10, 29)
readings = st.builds(
    Reading,
    observed_at=st.integers(0, 10**9).map(lambda ms: NOW + timedelta(milliseconds=ms)),
    supplemental_oxygen=st.none() | st.booleans(),
    consciousness=st.none() | st.sampled_from(CONSCIOUSNESS),
    **numbers,
)


@given(st.lists(readings, max_size=5), st.booleans())
def test_what_is_written_is_read_again_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, aged: bool
) -> None:
    if aged:
        rows = [msgspec.structs.replace(row, ages=dict.fromkeys(row.present(), 12.25)) for row in rows]
    path = tmp_path_factory.mktemp("table") / "p.csv"
    write_csv(path, rows)
    with path.open(encoding="utf-8") as stream:
        assert list(read_rows(stream, "p.csv")) == rows
    assert [file.name for file in path.parent.iterdir()] == ["p.csv"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_csv(path, [Reading(observed_at=NOW, spo2=97)])
    before = path.read_text(encoding="utf-8")

    def broken() -> Any:
        yield Reading(observed_at=NOW)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_csv(path, broken())
    assert path.read_text(encoding="utf-8") == before
