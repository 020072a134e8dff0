"""Topic names.

A device writes only below its own `up/` and reads only its own `dn/`, `all/dn/` and the births of gateways.
No name of a patient and no record number ever stands in a topic: a device is named after its bed or its
number, with letters, digits, dot, dash and underscore only, so that a name can never be a wildcard.
"""

import re
from typing import Literal, get_args

from samd_protocol.errors import MessageError

ROOT = "samd/v1"

DeviceUp = Literal["state", "heartbeat", "assessment", "alert", "training", "result", "config", "update"]
DeviceDown = Literal["command", "config", "task"]

MODEL = f"{ROOT}/all/dn/model"
"""The released model for severity. Each other task has a topic below it, so that one release never takes the
place of another that a device has still to hear of."""
EVERY_MODEL = (MODEL, f"{MODEL}/+")
"""The filters for the released models of all tasks."""
SERVER_ORDER = f"{ROOT}/server/dn/run"
SERVER_RUN = f"{ROOT}/server/up/run"
SERVER_MODEL_ORDER = f"{ROOT}/server/dn/model"
SERVER_MODEL_ANSWER = f"{ROOT}/server/up/model"
SERVER_STATE = f"{ROOT}/server/up/state"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def valid_name(name: str) -> bool:
    """Whether a name may stand in a topic: 1 to 63 letters, digits, dots, dashes, underscores."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return the name, or raise MessageError('name') for one that may not stand in a topic."""
    if not valid_name(name):
        raise MessageError(
            "name",
            f"{name!r} is no device name: use 1 to 63 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or a digit",
        )
    return name


def up(device: str, kind: DeviceUp) -> str:
    """The topic on which a device writes."""
    return f"{ROOT}/d/{check_name(device)}/up/{kind}"


def down(device: str, kind: DeviceDown) -> str:
    """The topic on which a device reads."""
    return f"{ROOT}/d/{check_name(device)}/dn/{kind}"


def model(task: str) -> str:
    """The topic on which the released model of a task is announced."""
    return MODEL if task == "severity" else f"{MODEL}/{check_name(task)}"


def is_model(topic: str) -> bool:
    """Whether a release is announced there."""
    return topic == MODEL or topic.startswith(f"{MODEL}/")


def every_up(kind: DeviceUp) -> str:
    """The filter for one kind of message from all devices."""
    return f"{ROOT}/d/+/up/{kind}"


EVERY_GATEWAY = f"{ROOT}/gateway/+/state"
"""The filter for births and last wills of all gateways, which devices may read."""


def gateway_state(gateway: str) -> str:
    """Birth and last will of one gateway."""
    return f"{ROOT}/gateway/{check_name(gateway)}/state"


def gateway_alert(gateway: str) -> str:
    """Where a gateway tells of alerts, if it was asked to."""
    return f"{ROOT}/gateway/{check_name(gateway)}/alert"


def parse_up(topic: str) -> tuple[str, str]:
    """Split a device's topic into (device, kind); raises MessageError('topic') for any other topic."""
    parts = topic.split("/")
    if len(parts) == 6 and parts[:3] == [*ROOT.split("/"), "d"] and parts[4] == "up":
        device, kind = parts[3], parts[5]
        if valid_name(device) and kind in get_args(DeviceUp):
            return device, kind
    raise MessageError("topic", f"{topic!r} is no topic on which a device writes")
