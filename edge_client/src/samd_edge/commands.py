"""Commands: each executed once, never after it has expired, always answered.

`Commands.receive` is the shell around `execute`: expiry, duplicates, the memory of results. A command that is
repeated gets the same bytes of the same result again, and is not executed twice, not even after a restart.
One that an agent died over is answered `failed`: whether it took effect cannot be told, so it is not tried
again.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from samd_edge.device_db import DeviceDb
from samd_edge.outbox import RESULT, Entry, Outbox
from samd_protocol import envelope, topics
from samd_protocol.envelope import Envelope, Sealer
from samd_protocol.errors import MessageError
from samd_protocol.messages import Command, CommandBody, Result

log = logging.getLogger(__name__)

RESULT_EXPIRES: Final = timedelta(hours=1)


class Refused(Exception):  # noqa: N818  (an answer, not a fault)
    """A command is not carried out; the text is the reason that the sender gets."""


class CommandFailed(Exception):  # noqa: N818  (an answer, like the other)
    """A command was begun and did not succeed; the text says why."""


class Answer:
    """How `execute` ends: `done`, or `accepted` for what goes on in the background. `here` is told
    on the spot only, by the agent's socket: it may hold a vital sign, and stands in no result and no log."""

    def __init__(self, *, accepted: bool = False, here: dict[str, Any] | None = None, **detail: Any) -> None:
        self.accepted = accepted
        self.here = here or {}
        self.detail = detail


class Commands:
    """Receives commands. `execute` carries one out, and raises Refused or CommandFailed."""

    def __init__(
        self,
        db: DeviceDb,
        outbox: Outbox,
        sealer: Sealer,
        *,
        execute: Callable[[CommandBody], Answer],
        wall: Callable[[], datetime],
    ) -> None:
        self._db = db
        self._outbox = outbox
        self._sealer = sealer
        self._execute = execute
        self._wall = wall
        self._topic = topics.up(sealer.device, "result")

    def receive(self, payload: bytes) -> Result | None:
        """Take a message from `dn/command`; the result, or None when an older result was sent again.

        Raises MessageError for a message that is no command.
        """
        received = envelope.decode(payload)
        if not isinstance(received.data, Command):
            raise MessageError("malformed", f"a message of type {received.type!r} is no command")
        return self._once(received, received.data)

    def _once(self, received: Envelope, command: Command) -> Result | None:
        expires_at = command.expires_at
        if expires_at.tzinfo is None:
            raise MessageError("malformed", "a command whose expiry has no zone: write it in UTC with a Z")
        seen, earlier = self._db.seen(received.id)
        if seen:
            if earlier is None:
                return self._answer(
                    received.id,
                    Result(
                        command=received.id,
                        status="failed",
                        reason="the device was restarted while it carried this out; look at its state",
                    ),
                )
            self._put(envelope.decode(earlier).id, earlier)
            return None
        now = self._wall()
        # what has expired is not remembered: it will be expired for ever, and costs no write
        if now >= expires_at:
            late = (now - expires_at).total_seconds()
            expired = Result(
                command=received.id, status="expired", reason=f"came {late:.1f} s after its expiry"
            )
            return self._send(expired)
        self._db.take_up(received.id, expires_at, now)
        try:
            answer = self._execute(command.body)
        except Refused as refusal:
            result = Result(command=received.id, status="rejected", reason=str(refusal))
        except CommandFailed as failure:
            result = Result(command=received.id, status="failed", reason=str(failure))
        else:
            status = "accepted" if answer.accepted else "done"
            result = Result(command=received.id, status=status, detail=answer.detail)  # type: ignore[arg-type]
        return self._answer(received.id, result)

    def _answer(self, message_id: str, result: Result) -> Result:
        sealed = self._sealer.seal(result, expires_at=self._wall() + RESULT_EXPIRES)
        payload = envelope.encode(sealed)
        self._db.finish(message_id, payload)
        self._put(sealed.id, payload)
        log.info(
            "command %s: %s%s", message_id, result.status, f" ({result.reason})" if result.reason else ""
        )
        return result

    def _send(self, result: Result) -> Result:
        sealed = self._sealer.seal(result, expires_at=self._wall() + RESULT_EXPIRES)
        self._put(sealed.id, envelope.encode(sealed))
        return result

    def _put(self, message_id: str, payload: bytes) -> None:
        expires_at = self._wall() + RESULT_EXPIRES
        self._outbox.put([Entry(RESULT, "result", self._topic, message_id, payload, expires_at)])
