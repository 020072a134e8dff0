"""`samd-server export` and `samd-server train`; also `python -m samd_server.model_commands`.

Importing this module loads neither TensorFlow nor an interpreter.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samd_protocol.errors import BundleError
from samd_server.errors import ServerError


def add_export_parser(subparsers: Any) -> None:
    """Add `export` to the subcommands of an argparse parser; sets `run`, a function of the arguments."""
    parser = subparsers.add_parser(
        "export",
        help="build the network and write an untrained bundle",
        description="Build the network with TensorFlow, export it to TFLite, and write an untrained bundle.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the bundle to write (.samd)")
    parser.add_argument(
        "--labels",
        choices=("five", "all"),
        default="five",
        help="what the severity sums: five signs, or all seven inputs of NEWS2 (default: five)",
    )
    parser.add_argument(
        "--hidden", type=_widths, default=(32, 16), metavar="N,N", help="hidden layers (default: 32,16)"
    )
    parser.add_argument("--seed", type=_natural, default=0, help="of the first weights (default: 0)")
    parser.add_argument("--name", default="severity", help="name of the model (default: severity)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="describe the bundle as JSON on stdout")
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    """Export; 0, or 2 with one line on stderr."""
    from samd_data.features import FeatureSpec
    from samd_protocol import bundle

    try:
        _refuse_to_replace(args.out, args.force)
        from samd_server.export import export

        made = export(FeatureSpec(labels=args.labels), args.hidden, args.seed, args.name)
        written = bundle.write(args.out, made)
    except (BundleError, ServerError, OSError) as error:
        return _complain(error)
    return _tell(args, written)


def _tell(args: argparse.Namespace, written: Any) -> int:
    manifest = written.manifest
    told = {
        "file": str(args.out),
        "sha256": written.sha256,
        "bytes": written.size,
        "name": manifest.name,
        "version": manifest.version,
        "trained": manifest.trained,
        "labels": manifest.features.labels,
        "features": manifest.features.size,
        "weights": manifest.weights_size,
        "metrics": manifest.metrics,
    }
    if args.json:
        print(json.dumps(told, indent=2))  # noqa: T201 - this is the command's answer
    else:
        state = "trained" if manifest.trained else "untrained"
        print(  # noqa: T201
            f"{args.out}: {manifest.name} version {manifest.version}, {state}, "
            f"{manifest.features.size} features, {manifest.weights_size} weights, {written.size} bytes"
        )
    return 0


def _refuse_to_replace(path: Path, force: bool) -> None:
    if path.is_dir():
        raise ServerError(f"{path}: is a folder; name a file, for example {path / 'model.samd'}")
    if path.exists() and not force:
        raise ServerError(f"{path}: exists; give --force to replace it, or another --out")


def _complain(error: Exception) -> int:
    sys.stderr.write(f"samd-server: {error}\n")
    return 2


def _natural(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return value


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = (0,)
    if min(widths) < 1 or max(widths) > 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of layer widths such as 32,16 (1 to 4096)")
    return widths


def main(arguments: Sequence[str] | None = None) -> int:
    """The two commands alone, without the rest of the server."""
    parser = argparse.ArgumentParser(prog="samd-server", description="Models: export and central training.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    add_export_parser(subparsers)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
