"""The thread that does to alerts what time asks for, on the gateway that leads."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import settings
from samd_gateway.alerts import ladder, silence, store
from samd_gateway.alerts.answers import AlertRow
from samd_gateway.alerts.rules import LADDER, SILENCE, Ladder, Silence
from samd_gateway.schema import Database

log = logging.getLogger(__name__)

LOOK_S = 1.0
RELOAD_S = 60.0


class Clock:
    """Looks once a second. `changed` is told of each row after its commit."""

    def __init__(
        self,
        database: Database,
        watch: silence.Watch,
        *,
        leading: Callable[[], bool],
        changed: Callable[[Sequence[AlertRow]], None] = lambda alerts: None,
        tend: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`tend` does what else falls due in the ward."""
        self._database = database
        self._watch = watch
        self._leading = leading
        self._changed = changed
        self._tend = tend
        self._now = now
        self._loaded_at = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        failing = False
        while not self._stopping.wait(LOOK_S):
            try:
                if self._leading():
                    self.look()
                failing = False
            except SQLAlchemyError as error:
                if not failing:
                    log.error("alerts cannot be watched (%s); trying again each second", type(error).__name__)
                failing = True

    def look(self) -> None:
        """Do what is due now."""
        now = self._now()
        with self._database.read() as connection:
            if now - self._loaded_at > RELOAD_S:
                self._watch.load(connection, now)
                self._loaded_at = now
            rules = settings.get(connection, SILENCE, Silence())
            steps = settings.get(connection, LADDER, Ladder())
            due, over = self._watch.look(connection, now, rules)
            waits = ladder.waits(connection, steps, now)
        rows: list[dict[str, Any]] = []
        if due or over:
            with self._database.write() as connection:
                rows += silence.raise_all(connection, due, now)
                rows += silence.clear_all(connection, over, now)
        if waits:
            with self._database.write() as connection:
                rows += ladder.end_pauses(connection, now)
                rows += ladder.climb(connection, steps, now)
        if rows:
            self._changed([store.answer(row) for row in rows])
        self._tend()
