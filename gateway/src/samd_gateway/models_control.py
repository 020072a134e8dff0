"""The models as people work with them: every version with its lineage and what became of it, which device
runs which, and the order to release one. The server owns the store and releases; the gateway asks it to.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import desc, func, select

from samd_gateway import queries, schema
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.answers import ReleaseOut, VersionOut
from samd_gateway.errors import ConflictError, NotFoundError
from samd_gateway.link import Link
from samd_gateway.modelfiles import ModelFiles
from samd_gateway.schema import Database
from samd_protocol import topics
from samd_protocol.envelope import Sealer
from samd_protocol.messages import ModelOrder

ORDER_EXPIRES_S = 60.0


class ModelsControl:
    """One for each gateway."""

    def __init__(
        self,
        database: Database,
        files: ModelFiles,
        link: Link,
        sealer: Sealer,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._files = files
        self._link = link
        self._sealer = sealer
        self._now = now

    def versions(self) -> list[VersionOut]:
        """Every version that is known, the newest first: those whose file is here, and candidates that a run
        left at the server (`kept`)."""
        with self._database.read() as connection:
            server = queries.server_state(connection)
            running = self._running(connection)
            runs = {
                (json.loads(row["spec"]).get("task", "severity"), row["model_version"]): row
                for row in queries.rows(
                    connection, select(schema.runs).where(schema.runs.c.model_version.is_not(None))
                )
            }
        in_use = set()
        if server is not None:
            in_use = {(server.task, server.model_version)}
            in_use |= {(each.task, each.model_version) for each in server.others}
        found: dict[tuple[str, int], VersionOut] = {}
        for entry in self._files.entries():
            manifest = entry["manifest"]
            key = (manifest["task"], manifest["version"])
            run = runs.get(key)
            found[key] = VersionOut(
                task=key[0],
                version=key[1],
                parent=manifest["parent"],
                trained=manifest["trained"],
                in_use=key in in_use,
                released=run is None or bool(run["released"]),
                reason=None if run is None else run["reason"],
                run=manifest["provenance"].get("run"),
                metrics=manifest["metrics"],
                sha256=entry["sha256"],
                devices=running.get(key[1], 0) if key[0] == "severity" else None,
            )
        for key, run in runs.items():
            if key not in found:
                found[key] = _candidate(key, run, in_use=key in in_use)
        return sorted(found.values(), key=lambda each: (each.task, -each.version))

    def _running(self, connection: Any) -> dict[int, int]:
        table = schema.devices
        query = (
            select(table.c.model_version, func.count())
            .where(table.c.model_version.is_not(None))
            .group_by(table.c.model_version)
        )
        return {version: count for version, count in connection.execute(query).tuples()}  # noqa: C416 - typed

    def order(self, actor: Actor, task: str, version: int) -> int:
        """Ask the server to make a version the released one; returns the order's number.

        Raises NotFoundError for a version that nobody knows, ConflictError without server or where it is in
        use already, UnavailableError without broker."""
        actor.need("models")
        known = {(each.task, each.version): each for each in self.versions()}
        wanted = known.get((task, version))
        if wanted is None:
            raise NotFoundError(
                f"no version {version} for {task[:64]!r}; GET /api/models/versions lists them"
            )
        if wanted.in_use:
            raise ConflictError(f"version {version} for {task} is in use already")
        with self._database.read() as connection:
            server = queries.server_state(connection)
        if server is None or server.status != "online":
            raise ConflictError("no server is online, and it owns the models; start it: samd-server run")
        before = next((each.version for each in known.values() if each.task == task and each.in_use), None)
        now = self._now()
        expires = datetime.fromtimestamp(now + ORDER_EXPIRES_S, UTC)
        sealed = self._sealer.seal(ModelOrder(task=task, version=version), expires_at=expires)
        action = "rollback" if before is not None and version < before else "release"
        with self._database.write() as connection:
            number = connection.execute(
                schema.releases.insert().values(
                    at=now, actor=actor.name, task=task, version=version, action=action, order=sealed.id
                )
            ).inserted_primary_key
            audit.record(
                connection,
                actor,
                f"model.{action}",
                f"model/{task}",
                now=now,
                before={"version": before},
                after={"version": version},
            )
            # within the transaction: an order that cannot be sent leaves nothing behind
            self._link.publish(topics.SERVER_MODEL_ORDER, sealed)
        return int(number[0]) if number else 0

    def orders(self, limit: int = 50) -> list[ReleaseOut]:
        """What was asked of the server, the latest first, with its answers."""
        table = schema.releases
        with self._database.read() as connection:
            found = queries.rows(connection, select(table).order_by(desc(table.c.id)).limit(limit))
        now = self._now()
        return [
            ReleaseOut(
                id=row["id"],
                at=queries.at(row["at"]),
                actor=row["actor"],
                task=row["task"],
                version=row["version"],
                action=row["action"],
                status=row["status"] or ("expired" if now > row["at"] + ORDER_EXPIRES_S else "waiting"),
                reason=row["reason"] or None,
                answered_at=queries.moment(row["answered_at"]),
            )
            for row in found
        ]


def _candidate(key: tuple[str, int], run: dict[str, Any], *, in_use: bool) -> VersionOut:
    """A version that only the server holds, as the run's end told it."""
    status = json.loads(run["status"]) if run["status"] else {}
    return VersionOut(
        task=key[0],
        version=key[1],
        parent=run["start_version"],
        trained=True,
        in_use=in_use,
        released=bool(run["released"]),
        reason=run["reason"],
        run=run["id"],
        metrics=status.get("metrics", {}),
        sha256=None,
        devices=None,
    )
