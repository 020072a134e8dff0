"""May a run begin, and whom does it ask? Pure functions of the server's word and of the devices' states."""

from collections.abc import Mapping, Sequence

from samd_gateway.errors import ConflictError, NotFoundError
from samd_protocol.messages import RunSpec, Served, ServerState


def served(server: ServerState | None, spec: RunSpec) -> Served:
    """What the run starts from. Raises ConflictError when no server is online, it serves another task, or
    its model cannot be trained by the method."""
    if server is None or server.status != "online":
        raise ConflictError("no server is online, and a run needs one; start it: samd-server run")
    if server.model_version is None or server.graph_sha256 is None:
        raise ConflictError("the server has no model to start from; give it one: samd-server export")
    found = server.served(spec.task)
    if found is None:
        offered = [each for each in (server.task, *(one.task for one in server.others)) if each]
        raise ConflictError(
            f"the server trains {' and '.join(map(repr, offered))}, not {spec.task!r}; "
            f"choose --task {offered[0] if offered else 'severity'}"
        )
    if spec.method != "none" and spec.method not in found.methods:
        able = ", ".join(found.methods) or "none"
        raise ConflictError(
            f"method: the server's model cannot be trained by {spec.method!r}; choose one of: {able}"
        )
    return found


def asked(devices: Sequence[str] | None, states: Mapping[str, str], quorum: int) -> list[str]:
    """The devices to ask, sorted: those named, or all that are online. `states`: each known device's.

    Raises NotFoundError for one that nobody knows, ConflictError for fewer than the quorum."""
    if devices is None:
        found = sorted(name for name, state in states.items() if state == "online")
    else:
        found = sorted(set(devices))
        unknown = [name for name in found if name not in states]
        if unknown:
            raise NotFoundError(f"no device {unknown[0]!r} is known here; GET /api/devices lists them")
    if len(found) < quorum:
        which = "are online" if devices is None else "were named"
        raise ConflictError(
            f"{len(found)} devices {which} and the quorum is {quorum}; start more or lower it"
        )
    return found
