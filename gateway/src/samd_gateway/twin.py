"""Is another gateway of this name at the broker? It would answer for this one, and each would undo the other.

On one database the table `gateways` tells (see `cluster`). Two that have different databases show at the
broker: the other one's birth comes on this one's own topic; and two with one client id (the folder of one is
a copy of the other's) throw each other out again and again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from samd_protocol import envelope
from samd_protocol.errors import MessageError
from samd_protocol.messages import GatewayState

WINDOW_S = 120.0
OFTEN = 2
"""Once is a broker that had not noticed yet that this gateway was gone; or one that was started anew."""
TAKEN_OVER = 0x8E


class Twin:
    """Told of what is sent and heard on the gateway's own topic."""

    def __init__(self, name: str, topic: str, *, now: Callable[[], float] = time.time) -> None:
        self._name = name
        self._topic = topic
        self._now = now
        self._lock = threading.Lock()
        self._ours: deque[str] = deque(maxlen=1000)
        self._times: deque[float] = deque(maxlen=16)
        self._other: str | None = None
        self.taken_over = 0

    def said(self, id_: str) -> None:
        """A state message of ours."""
        with self._lock:
            self._ours.append(id_)

    def heard(self, payload: bytes, *, retained: bool) -> bool:
        """A message on the own topic; whether the own state has to be said again."""
        if not payload or retained:
            return False  # the last word of an earlier life of this gateway, or its removal
        try:
            message = envelope.decode(payload)
        except MessageError:
            return False
        with self._lock:
            if message.id in self._ours or not isinstance(message.data, GatewayState):
                return False
            if message.device != f"gateway.{self._name}":
                return False
            if message.data.status == "offline":
                # its goodbye or its will stands where ours should
                self._other = None
                return True
            self._other = message.data.version
            return False

    def lost(self, reason: Any) -> None:
        """The connection ended."""
        if getattr(reason, "value", None) == TAKEN_OVER:
            with self._lock:
                self.taken_over += 1
                self._times.append(self._now())

    @property
    def problem(self) -> str | None:
        """One sentence with the remedy; None while this gateway is alone with its name."""
        with self._lock:
            other = self._other
            lately = sum(abs(self._now() - at) < WINDOW_S for at in self._times)
        remedy = "stop one of the two, or start it with another --name"
        if other is not None:
            return f"another gateway named {self._name} is at this broker (version {other[:32]}); {remedy}"
        if lately >= OFTEN:
            return (
                f"another gateway named {self._name} takes this one's place at the broker again and again, "
                f"{lately} times of late; {remedy}, and with a --data folder of its own"
            )
        return None
