"""Who connects, and what each is called in its certificate: that name is all that the broker knows of it.

A device is called by its own name, a gateway `gateway.NAME`, the server `server`. So no device may be called
like the other two.
"""

from collections.abc import Sequence

import msgspec

from samd_gateway.errors import UsageError
from samd_protocol.topics import valid_name

SERVER = "server"
BROKER = "broker"
GATEWAY_PREFIX = "gateway."


class Parties(msgspec.Struct, frozen=True, kw_only=True):
    """Those that connect to one broker. Two gateways or more share (`serve --share`)."""

    gateways: Sequence[str] = ("main",)
    devices: Sequence[str] = ()

    def check(self) -> None:
        """Raises UsageError for a name that could mean somebody else, or none."""
        if not self.gateways:
            raise UsageError("--gateway: name at least one")
        for option, names in (("--gateway", self.gateways), ("--device", self.devices)):
            for name in names:
                if not valid_name(name):
                    raise UsageError(
                        f"{option} {name[:70]!r}: use 1 to 63 letters, digits, dots, dashes and underscores, "
                        "beginning with a letter or a digit"
                    )
        for name in self.devices:
            if name in (SERVER, BROKER) or name.startswith(GATEWAY_PREFIX):
                raise UsageError(f"--device {name}: is the broker's word for a part of the system; rename it")


def common_name(gateway: str) -> str:
    """What a gateway is called in its certificate."""
    return f"{GATEWAY_PREFIX}{gateway}"
