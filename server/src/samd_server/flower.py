"""The one place that touches what Flower keeps internal; pinned to flwr 1.41 by a contract test.

Everything else uses public names only. Telemetry and the update check are switched off before Flower is
imported, since a ward's server tells nobody that it exists.
"""

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.supercore.run import Run

SERVER_NODE = 1
"""Node id of the server itself; devices follow from 2 on, in the order of their names."""

ARRAYS, CONFIG, METRICS, WEIGHTS = "arrays", "config", "metrics", "weights"
EXAMPLES, SEVERE, LOSS = "num-examples", "num-severe", "loss"


def prepare() -> None:
    """Silence Flower's telemetry, update check and chatter. Call it before anything imports flwr."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    os.environ.setdefault("GRPC_VERBOSITY", "error")
    # Its logger is configured (level DEBUG, a handler of its own) by its import: only then can it be calmed.
    from flwr.supercore.logger import FLOWER_LOGGER

    FLOWER_LOGGER.setLevel(logging.WARNING)
    FLOWER_LOGGER.handlers.clear()


def identify(run_number: int) -> None:
    """Tell Flower which run this process serves; a `Message` cannot be made before. Process-wide."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_number
    TaskIdentity.node_id = SERVER_NODE


def empty_run() -> "Run":
    """A run description with nothing in it: what `Grid.run` returns before somebody sets one."""
    from flwr.supercore.run import Run

    return Run.create_empty(1)


def stamp(message: "Message", message_id: str) -> None:
    """Fill in the id that the SuperLink would give; replies refer to it."""
    message.metadata.__dict__["_message_id"] = message_id
