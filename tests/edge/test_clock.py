"""Patient time and wall time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samd_edge.clock import DataClock, ScaledClock, WallClock, clock_synced

BEGIN = datetime(2026, 1, 1, 8, tzinfo=UTC)


class Wall:
    """A wall clock that a test moves."""

    def __init__(self, now: datetime = datetime(2026, 6, 1, tzinfo=UTC)) -> None:
        self.moment = now

    def __call__(self) -> datetime:
        return self.moment

    def move(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def test_a_scaled_clock_runs_faster_than_the_wall() -> None:
    wall = Wall()
    clock = ScaledClock(BEGIN, 600, wall)
    assert clock.now() == BEGIN
    wall.move(6)
    assert clock.now() == BEGIN + timedelta(hours=1)


def test_to_wall_is_the_inverse_of_now() -> None:
    wall = Wall()
    clock = ScaledClock(BEGIN, 600, wall)
    origin = wall()
    wall.move(90)
    assert clock.to_wall(clock.now()) == wall()
    assert clock.to_wall(BEGIN - timedelta(hours=10)) == origin - timedelta(minutes=1)


def test_speed_one_is_real_time() -> None:
    wall = Wall()
    clock = ScaledClock(wall(), 1, wall)
    wall.move(3)
    assert clock.now() == wall()


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf"), 2e6])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        ScaledClock(BEGIN, speed)


def test_a_naive_start_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        ScaledClock(BEGIN.replace(tzinfo=None), 1)


def test_the_wall_clock_changes_nothing() -> None:
    wall = Wall()
    clock = WallClock(wall)
    assert clock.now() == wall()
    assert clock.to_wall(BEGIN) == BEGIN


def test_the_data_clock_shows_the_newest_row_and_runs_on() -> None:
    wall = Wall()
    clock = DataClock(wall)
    assert clock.now() == wall()
    clock.follow(BEGIN)
    assert clock.now() == BEGIN
    clock.follow(BEGIN - timedelta(hours=1))
    assert clock.now() == BEGIN
    wall.move(60)
    assert clock.now() == BEGIN + timedelta(minutes=1), "an old file must not stay fresh for ever"


@pytest.mark.parametrize(("state", "answer"), [(0, "synced"), (1, "synced"), (4, "synced"), (5, "unsynced")])
def test_the_kernel_is_believed(state: int, answer: str, tmp_path: Path) -> None:
    marker = tmp_path / "synchronized"
    marker.touch()
    assert clock_synced(lambda: state, marker) == answer


def test_without_a_kernel_the_mark_decides_and_unknown_is_unsynced(tmp_path: Path) -> None:
    marker = tmp_path / "synchronized"
    assert clock_synced(lambda: None, marker) == "unsynced"
    marker.touch()
    assert clock_synced(lambda: None, marker) == "synced"


def test_this_machine_answers() -> None:
    assert clock_synced() in ("synced", "unsynced")
