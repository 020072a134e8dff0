"""`samd-server`: export, train, run, runs, models."""

import argparse
import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from samd_data.errors import DataError
from samd_protocol import bundle as bundles
from samd_protocol.broker import DEFAULT_URL, Broker
from samd_protocol.errors import ProtocolError
from samd_server import __version__
from samd_server.errors import ServerError
from samd_server.model_commands import TASKS, add_export_parser, add_train_parser
from samd_server.run_commands import add_runs_parser

if TYPE_CHECKING:
    from samd_server.registry import Registry

DEFAULT_GATEWAY = "http://127.0.0.1:8080"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    parser = _parser()
    args = parser.parse_args(argv)
    logging.basicConfig(
        level=getattr(args, "log_level", "WARNING"), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return int(args.run(args))
    except (ServerError, ProtocolError, DataError) as error:
        print(f"samd-server: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"samd-server: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samd-server", description="The Flower server: builds, trains and releases models."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_export_parser(commands)
    add_train_parser(commands)
    run = commands.add_parser(
        "run", help="wait for runs and lead them", description="The Flower server, waiting for runs."
    )
    run.add_argument("--broker", default=DEFAULT_URL, metavar="URL", help="default: %(default)s")
    run.add_argument("--username", metavar="NAME", help="name at the broker")
    run.add_argument("--password-file", metavar="FILE", help="password at the broker, a file of mode 0600")
    run.add_argument("--ca-file", metavar="FILE", help="certificate authority of an mqtts:// broker")
    run.add_argument("--cert-file", metavar="FILE", help="our certificate for the broker")
    run.add_argument("--key-file", metavar="FILE", help="its key, a file of mode 0600")
    run.add_argument(
        "--gateway", default=DEFAULT_GATEWAY, metavar="URL", help="serves the models; default: %(default)s"
    )
    run.add_argument(
        "--gateway-token-file",
        metavar="FILE",
        help="a token with the scope models for a gateway that has users, a file of mode 0600",
    )
    run.add_argument("--gateway-ca-file", metavar="FILE", help="certificate authority of an https:// gateway")
    run.add_argument(
        "--data", type=Path, default=Path(".samd/server"), metavar="DIR", help="default: %(default)s"
    )
    run.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="first model of a task's empty store; without it an untrained one is built (needs TensorFlow); "
        "once for each task",
    )
    run.add_argument(
        "--task",
        choices=TASKS,
        action="append",
        help="what it trains and releases, once for each task (default: severity)",
    )
    run.add_argument(
        "--track",
        default="",
        metavar="NAMES",
        help="also tell the runs' metrics to: tensorboard, wandb (offline without WANDB_API_KEY), or both",
    )
    run.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    run.set_defaults(run=_run)
    add_runs_parser(commands)
    models = commands.add_parser("models", help="list the versions in the model store")
    models.add_argument("--data", type=Path, default=Path(".samd/server"), metavar="DIR")
    models.add_argument("--task", choices=TASKS, default=TASKS[0], help="default: %(default)s")
    models.add_argument("--json", action="store_true", help="one JSON line per version")
    models.set_defaults(run=_models)
    return parser


def _run(args: argparse.Namespace) -> int:
    from samd_server import flower
    from samd_server.registry import Registry

    flower.prepare()
    from samd_server.release import check_token
    from samd_server.service import Service, import_model, make_private
    from samd_server.tracking import check

    # Until the service can be asked to stop: also ends the building of a first model.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    broker = Broker(
        url=args.broker,
        username=args.username,
        password_file=args.password_file,
        ca_file=args.ca_file,
        cert_file=args.cert_file,
        key_file=args.key_file,
    )
    tracking = [name.strip() for name in args.track.split(",") if name.strip()]
    check(tracking)
    _ = broker.address  # a wrong address is told before a first model is built
    check_token(args.gateway, args.gateway_token_file)
    make_private(args.data)
    wanted = list(dict.fromkeys(args.task or [TASKS[0]]))
    registries = [Registry(args.data / "models", task) for task in wanted]
    given = {bundles.read(path).manifest.task: path for path in args.model}
    for task, path in given.items():
        if task not in wanted:
            raise ServerError(f"{path}: a model for {task!r}; name that task, too: --task {task}")
    for registry in registries:
        if registry.released is None:
            if registry.task in given:
                import_model(registry, given[registry.task])
            else:
                _build_first(registry)
    service = Service(
        broker,
        args.gateway,
        args.data,
        tasks=wanted,
        tracking=tracking,
        gateway_token_file=args.gateway_token_file,
        gateway_ca_file=args.gateway_ca_file,
    )
    received: list[int] = []

    def end(number: int, _frame: object) -> None:
        received.append(number)
        service.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    held = ", ".join(
        f"model {registry.released}" + ("" if registry.task == TASKS[0] else f" for {registry.task}")
        for registry in registries
    )
    print(f"ready samd-server, {held}, broker {args.broker}", flush=True)
    service.serve()
    return 130 if signal.SIGINT in received else 0


def _build_first(registry: "Registry") -> None:
    from samd_server.service import import_model

    print("no model yet: building an untrained network with TensorFlow, some 15 seconds", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "untrained.samd"
        # In a process of its own: a server that holds TensorFlow would need 700 MB for nothing.
        done = subprocess.run(
            [sys.executable, "-m", "samd_server", "export", "--task", registry.task, "--out", str(path)],
            check=False,
            stdout=sys.stderr,
        )
        if done.returncode != 0:
            raise ServerError("the first model could not be built; see above, or give one by --model FILE")
        import_model(registry, path)


def _models(args: argparse.Namespace) -> int:
    from samd_server.registry import Registry

    registry = Registry(args.data / "models", args.task)
    versions = registry.versions()
    if not versions:
        raise ServerError(f"{args.data}: holds no model; start one by samd-server run")
    for version in versions:
        card = registry.card(version)
        if args.json:
            print(msgspec.json.encode(card).decode())
        else:
            mark = "*" if version == registry.released else " "
            found = card.metrics.get("complete", {})
            told = (("macro-F1", "macro_f1"), ("AUROC", "auroc"), ("average precision", "average_precision"))
            shown = "".join(f"  {name} {found[key]:.3f}" for name, key in told if found.get(key) is not None)
            print(f"{mark} {version:>4}  {card.decision:<9}{shown}  {card.reason}")
    return 0
