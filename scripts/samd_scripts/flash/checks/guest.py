"""The way into the machine under test: a shell behind a virtual serial port, in the test's own copy alone."""

import base64
import contextlib
import itertools
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from samd_scripts.flash.disk import Put, link
from samd_scripts.flash.errors import CheckFailed
from samd_scripts.flash.overlay import UNITS
from samd_scripts.stack import StackError

HERE: Final = Path(__file__).parent / "guest"
FOLDER: Final = "/opt/samd-check"
PYTHON: Final = "PYTHONPATH=/opt/samd/current/site PYTHONDONTWRITEBYTECODE=1 python3"


def files(gateway_port: int, *, with_shell: bool) -> dict[str, Put]:
    """What the copy under test has and no other image: the shell, and the gateway's port on the machine's own
    loopback address, so that the address of a released model is the same for all devices."""
    socket_unit = f"[Socket]\nListenStream=127.0.0.1:{gateway_port}\n"
    proxy = f"[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd 10.0.2.2:{gateway_port}\n"
    found = {
        f"{UNITS}/samd-check-gateway.socket": Put(socket_unit.encode()),
        f"{UNITS}/samd-check-gateway.service": Put(proxy.encode()),
        f"{UNITS}/sockets.target.wants/samd-check-gateway.socket": link(f"{UNITS}/samd-check-gateway.socket"),
    }
    if with_shell:
        found |= {
            f"{UNITS}/samd-check.service": Put((HERE / "samd-check.service").read_bytes()),
            f"{UNITS}/multi-user.target.wants/samd-check.service": link(f"{UNITS}/samd-check.service"),
            f"{FOLDER}/shell": Put((HERE / "shell").read_bytes(), 0o755),
            f"{FOLDER}/look.py": Put((HERE / "look.py").read_bytes()),
            f"{FOLDER}/measure.py": Put((HERE / "measure.py").read_bytes()),
        }
    return found


class Guest:
    """The shell of one boot. Raises StackError when it does not answer, CheckFailed when a command fails."""

    def __init__(self, channel: Path, alive: Callable[[], bool]) -> None:
        self._channel = channel
        self._alive = alive
        self._socket: socket.socket | None = None
        self._received = b""
        self._numbers = itertools.count(1)

    def wait(self, timeout_s: float = 240.0) -> None:
        """Until the shell is there; what is said before that goes nowhere."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            with contextlib.suppress(StackError):
                self.run("true", timeout_s=5.0)
                return
        raise StackError(f"the machine's shell does not answer within {timeout_s:g} s")

    def run(self, command: str, *, timeout_s: float = 300.0, allow_failure: bool = False) -> str:
        """What a command printed."""
        number = str(next(self._numbers))
        connection = self._connect()
        connection.sendall(f"{number} {base64.b64encode(command.encode()).decode()}\n".encode())
        ends = time.monotonic() + timeout_s
        while True:
            words = self._line(ends).split(b" ")
            # an answer to a question that was given up may come late
            if len(words) == 3 and words[0].decode(errors="replace") == number:
                break
        code, printed = int(words[1]), base64.b64decode(words[2]).decode(errors="replace")
        if code and not allow_failure:
            raise CheckFailed(f"in the machine: {command[:120]} ended with {code}: {printed[-600:]}")
        return printed

    def json(self, command: str, *, timeout_s: float = 300.0) -> Any:
        """The JSON that a command printed last."""
        printed = self.run(command, timeout_s=timeout_s)
        try:
            return json.loads(printed.strip().splitlines()[-1])
        except (IndexError, json.JSONDecodeError) as error:
            raise CheckFailed(f"in the machine: {command[:120]} printed no JSON: {printed[-600:]}") from error

    def _connect(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX)
            try:
                made.connect(str(self._channel))
            except OSError as error:
                made.close()
                time.sleep(0.1)
                raise StackError(f"no way into the machine ({error.strerror})") from error
            self._socket = made
        return self._socket

    def _line(self, ends: float) -> bytes:
        assert self._socket is not None
        while b"\n" not in self._received:
            left = ends - time.monotonic()
            if left <= 0:
                raise StackError("the machine's shell did not answer in time")
            if not self._alive():
                raise StackError("the machine ended")
            self._socket.settimeout(min(left, 1.0))
            with contextlib.suppress(TimeoutError):
                piece = self._socket.recv(65_536)
                if not piece:
                    raise StackError("the machine closed its shell")
                self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        return line

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
