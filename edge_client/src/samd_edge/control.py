"""The agent's socket on the spot: what `samd-edge top` and `samd-edge observe` ask a running agent.

`DATA_DIR/agent.sock`, a Unix socket that only the owner of the data directory can open; it carries vital
signs, and none of it leaves the machine. One JSON object a line asks, one answers:

==============================================  ==========================================================
asked                                           answered
==============================================  ==========================================================
``{"ask": "view", "hours": 6}``                 ``{"ok": true, "view": {...}}`` (``view.View``)
``{"ask": "do", "body": {"type": ...}}``        ``{"ok": true, "status": "done", "detail": {...}}``
``{"ask": "updating", "on": true}``             ``{"ok": true}``; the broker is told, also at the end
anything else                                   ``{"ok": false, "error": "..."}``
==============================================  ==========================================================

``body`` is a command of the wire (``observation.add``, ``patient.admit``, ``patient.discharge``); here it is
carried out for whoever may open the socket, who could also read the store itself.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_data.plausibility import printable
from samd_edge.commands import Answer, CommandFailed, Refused
from samd_edge.view import View
from samd_protocol.messages import CommandBody, ObservationAdd, PatientAdmit, PatientDischarge

log = logging.getLogger(__name__)

FILE: Final = "agent.sock"
MAX_LINE: Final = 65_536
MAX_HOURS: Final = 168.0
PATIENCE_S: Final = 5.0

_encoder = msgspec.json.Encoder()


class ControlError(Exception):
    """No agent answers, or it refuses; the text is one line."""


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request."""

    ask: str
    hours: float = 6.0
    on: bool = True
    body: msgspec.Raw = msgspec.Raw(b"null")


_asks = msgspec.json.Decoder(Ask)
_bodies = msgspec.json.Decoder(ObservationAdd | PatientAdmit | PatientDischarge)


class Control:
    """Listens beside the agent. `view` draws so many hours; `execute` carries a command out."""

    def __init__(
        self,
        folder: Path,
        *,
        view: Callable[[float], View],
        execute: Callable[[CommandBody], Answer],
        updating: Callable[[bool], None] = lambda _on: None,
    ) -> None:
        self._folder = folder
        self._view = view
        self._execute = execute
        self._updating = updating
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. What an agent that was killed left behind is replaced; the data directory is locked."""
        (self._folder / FILE).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with _short(self._folder) as path:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_LINE)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Listen no more, and end what is being asked."""
        if self._server is None:
            return
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._server.wait_closed()
        (self._folder / FILE).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None  # noqa: S101  (asyncio serves in a task)
        self._talks.add(talk)
        try:
            while line := await reader.readline():
                writer.write(self.answer(line) + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):  # a line without end, or a peer that has gone
            pass
        finally:
            self._talks.discard(talk)
            writer.close()

    def answer(self, line: bytes) -> bytes:
        """The answer to one line; whatever stands in it, there is one."""
        try:
            asked = _asks.decode(line)
            if asked.ask == "view":
                if not 0 < asked.hours <= MAX_HOURS:
                    raise ControlError(f"hours is {asked.hours:g}: it lies above 0 and up to {MAX_HOURS:g}")
                return _encoder.encode({"ok": True, "view": self._view(asked.hours)})
            if asked.ask == "do":
                done = self._execute(_bodies.decode(asked.body))
                detail = {**done.detail, **done.here}
                return _encoder.encode({"ok": True, "status": "done", "detail": detail})
            if asked.ask == "updating":
                self._updating(asked.on)
                return _encoder.encode({"ok": True})
            raise ControlError(f"{asked.ask!r} cannot be asked; view, do and updating can")
        except (Refused, CommandFailed, ControlError) as error:
            return _encoder.encode({"ok": False, "error": printable(str(error))})
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _encoder.encode({"ok": False, "error": printable(f"this is no request ({error})")})


def ask(folder: Path, request: dict[str, Any], *, patience_s: float = PATIENCE_S) -> dict[str, Any]:
    """Ask the agent that runs on this data directory; raises ControlError, also when it refuses."""
    if not (folder / FILE).exists():
        raise ControlError(f"{folder}: no agent runs here; start it with samd-edge run")
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short(folder) as path:
            connection.settimeout(patience_s)
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except TimeoutError as error:
        raise ControlError(f"{folder}: the agent does not answer within {patience_s:g} s") from error
    except OSError as error:
        raise ControlError(
            f"{folder}: no agent answers ({error.strerror}); start it with samd-edge run"
        ) from error
    if not line:
        raise ControlError(f"{folder}: the agent ended while it was asked")
    answer: dict[str, Any] = json.loads(line)
    if not answer.get("ok"):
        raise ControlError(str(answer.get("error")))
    return answer


def listens(folder: Path) -> bool:
    """Whether an agent listens here: one that was killed leaves its socket behind."""
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short(folder) as path:
            connection.settimeout(PATIENCE_S)
            connection.connect(path)
    except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # one that is busy, or another person's, is there
        return True
    return True


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A path of the socket that fits into the 108 bytes that the kernel allows, however deep the folder."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{FILE}"
    finally:
        os.close(handle)
