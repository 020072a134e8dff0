"""What the broker hears of the devices, kept in memory in the order in which it came."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from samd_scripts.stack import StackError


@dataclass(frozen=True)
class Heard:
    """One message. `at` is this computer's monotonic clock."""

    at: float
    device: str
    kind: str
    id: str
    boot: int
    data: dict[str, Any]


class Hearing:
    """Subscribes to everything that devices say. Use as a `with` block."""

    def __init__(self, broker_url: str) -> None:
        host, port = broker_url.removeprefix("mqtt://").rsplit(":", 1)
        self._address = (host, int(port))
        self._changed = threading.Condition()
        self._heard: list[Heard] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="flash-test", protocol=mqtt.MQTTv5)
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe("samd/v1/d/+/up/#", qos=1)

    def __enter__(self) -> Self:
        self._client.connect(*self._address, clean_start=True)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, _client: Any, _userdata: Any, message: Any) -> None:
        parts = message.topic.split("/")
        if parts[-1] == "update":
            return
        try:
            sealed = msgspec.json.decode(message.payload)
        except msgspec.DecodeError:
            return
        with self._changed:
            self._heard.append(
                Heard(time.monotonic(), parts[3], parts[-1], sealed["id"], sealed["boot"], sealed["data"])
            )
            self._changed.notify_all()

    def all(self, device: str, kind: str, *, since: float = 0.0) -> list[Heard]:
        """What a device said of one kind since then."""
        with self._changed:
            return [
                one for one in self._heard if (one.device, one.kind) == (device, kind) and one.at >= since
            ]

    def boot(self, device: str) -> int:
        """The number of an agent's latest start that was heard of, 0 before the first."""
        with self._changed:
            return max((one.boot for one in self._heard if one.device == device), default=0)

    def wait(
        self,
        device: str,
        kind: str,
        fits: Callable[[dict[str, Any]], bool] = lambda _data: True,
        *,
        since: float,
        timeout_s: float,
        after_boot: int = -1,
        check: Callable[[], None] = lambda: None,
    ) -> Heard:
        """The first message that fits, of an agent that was started later than `after_boot` says. Raises
        StackError after the time; `check` may raise earlier."""
        ends = time.monotonic() + timeout_s
        while True:
            for one in self.all(device, kind, since=since):
                if one.boot > after_boot and fits(one.data):
                    return one
            if time.monotonic() > ends:
                raise StackError(f"{device}: no fitting {kind} within {timeout_s:g} s")
            check()
            with self._changed:
                self._changed.wait(0.5)
