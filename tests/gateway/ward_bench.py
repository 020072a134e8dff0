"""A ward without connections: messages go in through the real recorder, commands are caught on their way."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bedside_bench import Bench
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.health_buckets import Beats
from samd_gateway.intake import Item
from samd_gateway.recorder import record, take_in
from samd_gateway.roster import Roster
from samd_gateway.states import Deaf, Policy
from samd_gateway.ward.answers import WardCard
from samd_gateway.ward.service import Ward
from samd_protocol.messages import (
    Assessment,
    CommandBody,
    Deterioration,
    Heartbeat,
    ModelView,
    News2,
    Result,
    State,
)

CLASSES = (0, 1, 1, 1, 1, 2, 2)


def severity(total: int) -> Any:
    return CLASSES[total] if total < 7 else 3


class Caught:
    """In the place of the way to the broker: what is sent is on record, and here."""

    def __init__(self, bench: "WardBench") -> None:
        self.bench = bench
        self.sent: list[tuple[str, str, CommandBody]] = []

    def send(self, bodies: Mapping[str, CommandBody], ttl_s: float, *, also: Any = None) -> dict[str, str]:
        ids = {device: f"command-{len(self.sent) + 1}" for device in bodies}
        with self.bench.database.write() as connection:
            for device, body in bodies.items():
                connection.execute(
                    schema.commands.insert().values(
                        id=ids[device],
                        device=device,
                        type=body.__struct_config__.tag,
                        body="{}",
                        issued_at=self.bench.now,
                        expires_at=self.bench.now + ttl_s,
                    )
                )
            also(connection, ids)
        self.sent += [(device, ids[device], body) for device, body in bodies.items()]
        return ids


class WardBench(Bench):
    """Real tables, roster and recorder; `now` is what the clock says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        deaf = Deaf(since=0.0, until=1.0)
        self.roster = Roster(self.database, Policy(), now=lambda: self.now, deaf=lambda: deaf)
        self.commands = Caught(self)
        self.labels: dict[int, Any] = {3: "five"}
        self.restart()

    def restart(self) -> None:
        """A new process on the same database."""
        self.ward = Ward(
            self.database,
            self.commands,  # type: ignore[arg-type]
            states=self.roster.states,
            labels=self.labels.get,
            now=lambda: self.now,
        )

    def take_in(self, *items: Item, births: dict[str, int] | None = None) -> None:
        with self.database.write() as connection:
            recorded = record(connection, list(items), Policy(), self.roster)
        take_in(recorded, self.roster, Beats())
        self.ward.committed(recorded.new)

    def birth(self, device: str, *, boot: int = 1, connection: int = 1, status: Any = "online") -> None:
        state = State(
            status=status, boot_id=f"{device}-{boot}", connection=connection, client_version="0.1.0"
        )
        self.take_in(self.item(device, state, boot=boot))

    def beat(self, device: str, *, interval_s: float = 600.0, boot: int = 1, **more: Any) -> None:
        self.take_in(self.item(device, Heartbeat(interval_s=interval_s, uptime_s=1.0, **more), boot=boot))

    def assess(
        self, device: str, low: int, high: int | None = None, *, boot: int = 1, **more: Any
    ) -> Assessment:
        """An assessment of now, complete unless `high` is given."""
        high = low if high is None else high
        told = Assessment(
            **(
                {
                    "observed_at": datetime.fromtimestamp(self.now, UTC),
                    "news2": News2(
                        total=low if low == high else None,
                        low=low,
                        high=high,
                        band="low",
                        points={"heart_rate": low},
                        missing=[] if low == high else ["consciousness"],
                    ),
                    "rule_severity": severity(low),
                    "rule_severity_possible": severity(high),
                    "severity": severity(low),
                    "disagreement": False,
                    "next_due_at": datetime.fromtimestamp(self.now + 14_400, UTC),
                }
                | more
            )
        )
        self.take_in(self.item(device, told, boot=boot))
        return told

    def patient(self, device: str, low: int, high: int | None = None, **more: Any) -> None:
        """A device that is online, with an assessment of now."""
        self.birth(device)
        self.beat(device)
        self.assess(device, low, high, **more)

    def answer(self, device: str, command: str, status: Any, reason: str | None = None) -> None:
        self.take_in(self.item(device, Result(command=command, status=status, reason=reason)))

    def cards(self) -> list[WardCard]:
        return self.ward.cards()

    def order(self) -> list[str]:
        return [card.device for card in self.cards()]

    def admissions(self) -> list[tuple[str, str, str | None]]:
        """(id, state, reason) of every admission, in their order."""
        table = schema.admissions
        with self.database.read() as connection:
            query = select(table.c.id, table.c.state, table.c.reason).order_by(table.c.admitted_at)
            return [tuple(row) for row in connection.execute(query)]

    def reading(self) -> Connection:
        return self.database.engine.connect().execution_options(samd_read=True)


def model(severity_: Any, *, version: int = 3, personal: bool = False, sure: float = 0.9) -> ModelView:
    rest = (1 - sure) / 3
    return ModelView(
        severity=severity_,
        probabilities=[sure if each == severity_ else rest for each in range(4)],
        version=version,
        personal=personal,
    )


def ahead(probability: float | None) -> Deterioration:
    return Deterioration(
        asked_at=datetime(2026, 3, 1, 8, tzinfo=UTC), horizon_h=6, version=1, probability=probability
    )
