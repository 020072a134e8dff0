"""The access list: a device writes only below its own `up/` and reads only below its own `dn/`, what is for
all, and the births of gateways; training updates are for the server alone.
"""

from collections.abc import Iterable

from samd_gateway.mosquitto_config.parties import SERVER, Parties, common_name
from samd_protocol.topics import (
    EVERY_GATEWAY,
    MODEL,
    ROOT,
    SERVER_MODEL_ORDER,
    SERVER_ORDER,
    every_up,
    gateway_state,
)


def _gateway(name: str, *, home_assistant: bool) -> Iterable[str]:
    yield f"user {common_name(name)}"
    yield f"topic read {ROOT}/d/+/up/#"
    yield f"topic deny {every_up('update')}"
    yield f"topic write {ROOT}/d/+/dn/command"
    yield f"topic write {ROOT}/d/+/dn/config"
    yield f"topic write {SERVER_ORDER}"
    yield f"topic write {SERVER_MODEL_ORDER}"
    yield f"topic read {ROOT}/server/up/#"
    yield f"topic readwrite {gateway_state(name).removesuffix('/state')}/#"
    if home_assistant:
        yield "topic readwrite homeassistant/#"


def _server() -> Iterable[str]:
    yield f"user {SERVER}"
    yield f"topic write {ROOT}/d/+/dn/task"
    for kind in ("update", "training", "state"):
        yield f"topic read {ROOT}/d/+/up/{kind}"
    yield f"topic read {SERVER_ORDER}"
    yield f"topic read {SERVER_MODEL_ORDER}"
    yield f"topic write {ROOT}/server/up/#"
    yield f"topic readwrite {MODEL}"
    yield f"topic readwrite {MODEL}/+"


def _devices() -> Iterable[str]:
    yield f"pattern write {ROOT}/d/%u/up/#"
    yield f"pattern read {ROOT}/d/%u/dn/#"
    yield f"pattern read {ROOT}/all/dn/#"
    yield f"pattern read {EVERY_GATEWAY}"


def text(parties: Parties, *, home_assistant: bool = False) -> str:
    """The file. Whoever is not named in it, and has no name, may do nothing."""
    lines = ["# Written by samd-gateway mosquitto. Whoever has no certificate may do nothing."]
    for name in parties.gateways:
        lines += ["", f"# a gateway: {name}", *_gateway(name, home_assistant=home_assistant)]
    lines += ["", "# the Flower server: it alone sends tasks, reads updates and announces models", *_server()]
    lines += ["", "# every device, by the name in its certificate", *_devices(), ""]
    return "\n".join(lines)
