"""A run's folder, read again: what was asked for, the numbers of each round, how it ended."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from samd_server.checkpoint import RunFolder, begun
from samd_server.errors import ServerError
from samd_server.tracking.records import Point, points

SHOWN = ("strategy", "weighting", "method", "rounds", "epochs", "learning_rate", "seed")
"""The settings that tell runs apart, in a list."""


@dataclass(frozen=True)
class History:
    """One run. `spec`: what was asked for; `records`: the lines of its metrics; `result`: how it ended, empty
    while it goes on."""

    run: str
    began_at: datetime
    spec: dict[str, Any]
    records: list[dict[str, Any]]
    result: dict[str, Any]

    @property
    def phase(self) -> str:
        return str(self.result.get("phase", "going on"))

    @property
    def points(self) -> list[Point]:
        """Every number that was said, in order. A round that was done again counts as done last."""
        latest: dict[tuple[str | None, int, frozenset[str]], Point] = {}
        for record in self.records:
            for point in points(record):
                key = (point.device, point.round, frozenset(point.values))
                latest.pop(key, None)
                latest[key] = point
        return list(latest.values())

    def curve(self, name: str, device: str | None = None) -> tuple[list[int], list[float]]:
        """Rounds and values of one number, as `round/loss`."""
        found = {
            point.round: point.values[name]
            for point in self.points
            if point.device == device and name in point.values
        }
        return sorted(found), [found[number] for number in sorted(found)]

    @property
    def devices(self) -> list[str]:
        return sorted({point.device for point in self.points if point.device is not None})

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that the run ended with."""
        return dict(self.result.get("metrics", {}))

    def summary(self) -> dict[str, Any]:
        """What a list shows of it."""
        rounds, losses = self.curve("round/loss")
        return {
            "run": self.run,
            "name": self.spec.get("name", ""),
            "began_at": self.began_at.isoformat(timespec="seconds"),
            "phase": self.phase,
            "reason": self.result.get("reason"),
            "settings": {key: self.spec[key] for key in SHOWN if key in self.spec},
            "round": rounds[-1] if rounds else 0,
            "loss": losses[-1] if losses else None,
            "model_version": self.result.get("model_version"),
            "released": bool(self.result.get("released", False)),
            "metrics": self.metrics,
        }


def all_of(data: Path) -> list[History]:
    """Every run below a server's data folder, oldest first."""
    return [read(folder) for folder in begun(data / "runs")]


def one(data: Path, run: str) -> History:
    """One run by its name, or by the beginning of it. Raises ServerError when there is none, or several."""
    folders = [folder for folder in begun(data / "runs") if folder.run.startswith(run)]
    exact = [folder for folder in folders if folder.run == run]
    if len(exact or folders) != 1:
        what = (
            "no run of that name" if not folders else f"{len(folders)} runs begin so; write more of the name"
        )
        raise ServerError(f"{data}: {run!r}: {what}; samd-server runs list --data {data}")
    return read((exact or folders)[0])


def read(folder: RunFolder) -> History:
    """Read a run's folder; a line that a crash cut off is left out. Raises RunFailed for a damaged order."""
    order = folder.order()
    return History(
        run=folder.run,
        began_at=datetime.fromtimestamp((folder.path / "order.json").stat().st_mtime, UTC),
        spec={} if order.spec is None else msgspec.to_builtins(order.spec),
        records=list(_lines(folder.path / "metrics.jsonl")),
        result=folder.result() if folder.finished else {},
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            continue
