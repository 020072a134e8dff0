"""`samd-gateway devices` and `devices watch`."""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from samd_gateway.client import Client, say
from samd_gateway.errors import UnavailableError

REFRESH_S = 1.0


def show(client: Client, arguments: argparse.Namespace) -> int:
    """The table once, or the API's answer as JSON."""
    answer = client.get("/api/devices")
    if arguments.json:
        say(json.dumps(answer))
        return 0
    from rich.console import Console

    from samd_gateway.tables import devices_table

    if not answer["devices"]:
        say("no device was heard of yet; start one: samd-edge run --device NAME --source SOURCE")
        return 0
    Console().print(devices_table(answer["devices"]))
    return 0


def watch(
    client: Client, arguments: argparse.Namespace, *, sleep: Callable[[float], None] = time.sleep
) -> int:
    """The table again and again, until Ctrl-C, or `--for` seconds."""
    from rich.console import Console
    from rich.live import Live

    from samd_gateway.tables import devices_table

    answer: dict[str, Any] = client.get("/api/devices")
    end = None if arguments.seconds is None else time.monotonic() + arguments.seconds
    with Live(devices_table(answer["devices"]), console=Console(), auto_refresh=False) as live:
        while end is None or time.monotonic() < end:
            sleep(REFRESH_S)
            try:
                answer, title = client.get("/api/devices"), None
            except UnavailableError:
                # the last table would look like the present
                answer = {"devices": [_past(device) for device in answer["devices"]]}
                title = f"the gateway at {client.url} does not answer; trying again"
            live.update(devices_table(answer["devices"], title), refresh=True)
    return 0


def _past(device: dict[str, Any]) -> dict[str, Any]:
    return device | {"state": "unknown", "data_age_s": None}
