"""`samd-edge run` and `samd-edge models`."""

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from samd_data.tasks import SEVERITY, TASKS
from samd_edge import config, device_db
from samd_edge.config import ConfigError, Settings
from samd_edge.database import StoreError
from samd_edge.device_db import DeviceDb
from samd_edge.models import ModelError, Shelf
from samd_protocol.errors import ProtocolError

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `run` and `models`; each sets `run`, a function of the parsed arguments to an exit code."""
    run = subparsers.add_parser(
        "run",
        help="the agent: assess live vital signs, store, send, train when asked",
        description="Reads a source, assesses each reading, keeps everything in the data directory, and "
        "talks to the broker. Without a broker it goes on and sends later. Ends with SIGTERM or Ctrl-C.",
    )
    run.add_argument("--device", help="name of this device, as in bed-01; never a patient's name")
    run.add_argument(
        "--source",
        metavar="URL",
        action="append",
        help="-, csv:FILE, replay:PATH?patient=N&speed=600, mqtt:TOPIC, hl7:PORT, fhir:PORT, fhir+poll:URL, "
        "ble:, sim:?scenario=sepsis; may be given several times",
    )
    run.add_argument(
        "--broker", metavar="URL", dest="broker_url", help="mqtt://HOST:PORT or mqtts://HOST:PORT"
    )
    run.add_argument("--data-dir", metavar="DIR", help="where everything is kept (default .samd/edge/DEVICE)")
    run.add_argument("--config", metavar="FILE", type=Path, help="TOML file; options go before it")
    run.add_argument("--model", metavar="FILE", help="a bundle to begin with, until a newer one is released")
    run.add_argument("--trainer", choices=("litert", "tensorflow"), help="what trains (default litert)")
    run.add_argument(
        "--prefork",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="start the trainer before a run asks for it (default yes; it costs memory, and saves a second)",
    )
    run.add_argument("--heartbeat", type=float, dest="heartbeat_s", metavar="S", help="seconds (default 10)")
    run.add_argument(
        "--share-signs", action="store_true", default=None, help="send the vital signs with each assessment"
    )
    run.add_argument(
        "--consent",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="consent to training of a patient whom the agent admits by itself (default: yes for a replay, "
        "else no)",
    )
    run.add_argument(
        "--train-during-alert",
        action="store_true",
        default=None,
        help="take part in a training also while an alert is active",
    )
    run.add_argument(
        "--spo2-scale", type=int, choices=(1, 2), help="NEWS2 scale, by prescription (default 1)"
    )
    run.add_argument(
        "--monitoring-interval",
        type=float,
        metavar="S",
        dest="monitoring_interval_s",
        help="a full set of observations is due at least this often (default: as the NEWS2 chart asks)",
    )
    run.add_argument(
        "--exit-at-end",
        action="store_true",
        default=None,
        help="end when the source has ended and all is sent",
    )
    run.add_argument("--log-level", choices=LEVELS, default="info", help="(default %(default)s)")
    run.set_defaults(run=run_agent, function=run_agent)

    models = subparsers.add_parser(
        "models", help="the models that a device holds", description="Lists, activates, or goes back."
    )
    models.add_argument("--device", help="name of the device")
    models.add_argument("--data-dir", metavar="DIR", type=Path, help="its data directory")
    models.add_argument("--json", action="store_true", help="one JSON object for each model")
    change = models.add_mutually_exclusive_group()
    change.add_argument(
        "--activate", type=int, metavar="V", help="use version V (the agent must not be running)"
    )
    change.add_argument("--rollback", action="store_true", help="go back to the version before")
    models.add_argument(
        "--task",
        choices=tuple(TASKS),
        default=SEVERITY,
        help="of --activate and --rollback: each task has its own active model (default: severity)",
    )
    models.set_defaults(run=list_models, function=list_models)


_OPTIONS = (
    "device",
    "source",
    "broker_url",
    "data_dir",
    "model",
    "trainer",
    "prefork",
    "heartbeat_s",
    "share_signs",
    "consent",
    "train_during_alert",
    "spo2_scale",
    "monitoring_interval_s",
    "exit_at_end",
)


def run_agent(arguments: argparse.Namespace) -> int:
    """`samd-edge run`. 0 after SIGTERM or the source's end, 130 after Ctrl-C, 2 when it cannot begin."""
    logging.basicConfig(
        level=arguments.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    from samd_data.errors import DataError

    overrides: dict[str, Any] = {name: getattr(arguments, name) for name in _OPTIONS}
    try:
        settings = config.load(arguments.config, overrides)
        device_db.make_private(settings.folder)
        with device_db.locked(settings.folder):
            return asyncio.run(_live(settings))
    except (ConfigError, StoreError, ModelError, ProtocolError, DataError) as error:
        print(f"samd-edge run: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130


async def _live(settings: Settings) -> int:
    received: list[int] = []
    asked = asyncio.Event()

    def ask_to_stop(number: int) -> None:
        received.append(number)
        asked.set()

    # before anything else: a signal that came while threads and processes are being started would be lost
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop, number)
    from samd_edge.agent import Agent

    agent = Agent(settings, announce=lambda line: print(line, flush=True), stop=asked)  # noqa: T201
    await agent.run()
    if agent.failed is not None:
        return 1
    return 130 if received and received[0] == signal.SIGINT else 0


def list_models(arguments: argparse.Namespace) -> int:
    """`samd-edge models`. 2 when there is no such data directory, or a model cannot be used."""
    try:
        folders = _folders(arguments)
        if (arguments.activate is not None or arguments.rollback) and len(folders) != 1:
            raise ModelError(f"{len(folders)} devices have data here: say which with --device or --data-dir")
        for folder in folders:
            _one(folder, arguments)
    except (ModelError, StoreError) as error:
        print(f"samd-edge models: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _folders(arguments: argparse.Namespace) -> list[Path]:
    if arguments.data_dir is not None:
        folders = [arguments.data_dir]
    elif arguments.device:
        folders = [config.DEFAULT_ROOT / arguments.device]
    else:
        folders = sorted(path.parent for path in config.DEFAULT_ROOT.glob(f"*/{device_db.FILE}"))
    for folder in folders:
        if not (folder / device_db.FILE).is_file():
            raise ModelError(f"{folder}: no device has data here; give --device or --data-dir")
    if not folders:
        raise ModelError(f"no device has data in {config.DEFAULT_ROOT}; give --device or --data-dir")
    return folders


def _one(folder: Path, arguments: argparse.Namespace) -> None:
    db = DeviceDb(folder)
    try:
        shelf = Shelf(db, folder)
        if arguments.activate is not None or arguments.rollback:
            with device_db.locked(folder):
                _change(shelf, arguments)
        for held in shelf.all():
            active, previous = shelf.active(held.task), shelf.previous(held.task)
            use = "active" if held == active else "previous" if held == previous else ""
            if arguments.json:
                line = json.dumps(
                    {
                        "device": folder.name,
                        "version": held.version,
                        "use": use or None,
                        "trained": held.trained,
                        "task": held.task,
                        "sha256": held.sha256,
                        "graph_sha256": held.graph_sha256,
                        "size": held.size,
                        "file": str(held.path),
                    }
                )
            else:
                trained = "trained" if held.trained else "untrained"
                line = (
                    f"{folder.name:<16} {held.version:>5}  {use:<8}  {trained:<9}  {held.task:<14} "
                    f"{held.size:>9} bytes  {held.sha256[:12]}"
                )
            print(line)  # noqa: T201
    finally:
        db.close()


def _change(shelf: Shelf, arguments: argparse.Namespace) -> None:
    if arguments.rollback:
        shelf.roll_back(arguments.task)
        return
    held = shelf.find(arguments.activate, task=arguments.task)
    if held is None:
        raise ModelError(
            f"version {arguments.activate} is not held for {arguments.task}; see the list without --activate"
        )
    shelf.check(held)
    shelf.activate(held)
