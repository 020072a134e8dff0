"""What a notification is to those who deliver it, and how an attempt fails."""

from typing import Any, Protocol

import msgspec

from samd_gateway.alerts.channel import Channel


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One state of one alert for one channel. `key` and `body` are the same in every attempt."""

    id: int
    key: str
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The body, decoded."""
        return msgspec.json.decode(self.body, type=dict[str, Any])


class DeliveryError(Exception):
    """An attempt failed; the text is one sentence without the body. It is tried again, after `retry_after_s`
    at the earliest where the receiver asked for that."""

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Sender(Protocol):
    """Delivers by one kind of channel. Returns once the receiver has taken it over."""

    def send(self, channel: Channel, notice: Notice) -> str | None:
        """Returns a remark for people, if there is one. Raises DeliveryError."""
