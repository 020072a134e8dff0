"""A real Mosquitto, as a process of one test."""

import shutil
import signal
import socket
import subprocess
from pathlib import Path

from gateway_peers import free_port, until

OPEN = """listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 100000
max_inflight_messages 100
persistence false
"""


def installed() -> str | None:
    """Where the program is; None where it is not."""
    return shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


class Mosquitto:
    """One broker: with a configuration file of its own, or open to this machine."""

    def __init__(self, folder: Path, configuration: Path | None = None, port: int | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port() if port is None else port
        if configuration is None:
            configuration = folder / "open.conf"
            configuration.write_text(OPEN.format(port=self.port))
        self.configuration = configuration
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        program = installed()
        assert program is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self.configuration)], stdout=log, stderr=log, cwd=self.folder
            )
        until(self._accepts, 10.0, "Mosquitto")

    def _accepts(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def reload(self) -> None:
        """Read access list and revocation list anew."""
        self._process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10.0)
