"""Alerts on a topic of the broker, for whoever subscribes there: device, class and state, nothing more."""

from datetime import datetime

from samd_gateway.alerts.channel import Channel, Mqtt
from samd_gateway.alerts.delivery import DeliveryError, Notice
from samd_gateway.errors import UnavailableError
from samd_gateway.link import Link
from samd_protocol import topics
from samd_protocol.envelope import Sealer
from samd_protocol.messages import GatewayAlert


class BrokerSender:
    """Publishes notices at QoS 1 and waits until the broker has them."""

    def __init__(self, link: Link, sealer: Sealer, gateway: str) -> None:
        self._link = link
        self._sealer = sealer
        self._topic = topics.gateway_alert(gateway)

    def send(self, channel: Channel, notice: Notice) -> str | None:
        if not isinstance(channel.config, Mqtt):
            raise DeliveryError(f"channel {channel.name} is none of the broker's")
        content = notice.content
        data = content["data"]
        message = GatewayAlert(
            key=notice.key,
            alert=data["alert"],
            change=content["type"].removeprefix("alert."),
            changed_at=datetime.fromisoformat(content["timestamp"]),
            device=data["device"],
            kind=data["kind"],
            state=data["state"],
            severity=data["severity"],
            step=data["step"],
            acknowledged=data["acknowledged"],
        )
        try:
            info = self._link.publish(self._topic, self._sealer.seal(message))
            info.wait_for_publish(channel.config.timeout_s)
        except (UnavailableError, RuntimeError, ValueError) as error:
            raise DeliveryError("the broker cannot be reached now") from error
        if not info.is_published():
            raise DeliveryError(f"the broker has not confirmed it within {channel.config.timeout_s:g} s")
        return None
