"""The client as a service: started anew by a command, and asked how often it had to be."""

import logging
import shlex
import subprocess
from typing import Final

from samd_edge.update.manifest import UpdateError

log = logging.getLogger(__name__)

RESTART: Final = "systemctl restart samd-edge"
RESTARTS: Final = "systemctl show --property=NRestarts --value samd-edge"
PATIENCE_S: Final = 360.0
"""A unit may wait five minutes for the time, which TLS needs, before its client is started."""


class Service:
    """`restart` is a command; `restarts` prints how often the service was started anew after a crash."""

    def __init__(self, restart: str = RESTART, restarts: str | None = RESTARTS) -> None:
        self._restart = _words(restart)
        self._restarts = None if restarts is None else _words(restarts)

    def restart(self) -> str | None:
        """Start the release that `current` names. What went wrong, or None."""
        try:
            done = subprocess.run(
                self._restart, capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{shlex.join(self._restart)}: {error}"
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [""])[-1][:200]
            return f"{shlex.join(self._restart)}: exit code {done.returncode} {reason}".rstrip()
        return None

    def restarts(self) -> int | None:
        """How often the service was started anew by whoever keeps it; None when that cannot be told."""
        if self._restarts is None:
            return None
        try:
            done = subprocess.run(self._restarts, capture_output=True, text=True, timeout=10, check=False)
            return int(done.stdout.strip())
        except (OSError, subprocess.TimeoutExpired, ValueError):
            return None


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UpdateError(f"{command!r}: is no command ({error})") from error
    if not words:
        raise UpdateError("the command is empty; leave the option out for that of the image")
    return words
