"""`samd-server export` and `samd-server train`; also `python -m samd_server.model_commands`.

Importing this module loads neither TensorFlow nor an interpreter.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samd_protocol.errors import BundleError
from samd_server.errors import ServerError

TASKS = ("severity", "deterioration")
_TAU = {"severity": 1.0, "deterioration": 0.0}


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
        help="what the score sums: five signs, or all seven inputs of NEWS2 (default: five)",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        default=TASKS[0],
        help="what it is asked: the severity now, or whether the score reaches 7 within six hours",
    )
    parser.add_argument(
        "--hidden", type=_widths, default=(32, 16), metavar="N,N", help="hidden layers (default: 32,16)"
    )
    parser.add_argument("--seed", type=_natural, default=0, help="of the first weights (default: 0)")
    parser.add_argument("--name", default="", help="name of the model (default: the task)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="describe the bundle as JSON on stdout")
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    """Export; 0, or 2 with one line on stderr."""
    from samd_data.features import FeatureSpec
    from samd_data.tasks import task_of
    from samd_protocol import bundle

    try:
        _refuse_to_replace(args.out, args.force)
        from samd_server.export import export

        spec = FeatureSpec(task_of(args.task).features, args.labels)
        made = export(spec, args.hidden, args.seed, args.name, task=args.task)
        written = bundle.write(args.out, made)
    except (BundleError, ServerError, OSError) as error:
        return _complain(error)
    return _tell(args, written)


def add_train_parser(subparsers: Any) -> None:
    """Add `train` to the subcommands of an argparse parser; sets `run`, a function of the arguments."""
    parser = subparsers.add_parser(
        "train",
        help="train centrally on a data set that you hold, as the reference",
        description="Train centrally, on recordings that are all in one place, as the reference for "
        "federated training. Judged on the last 30 % of each patient (six hours purged on both sides of the "
        "cut) and on every fifth patient, who is left out; complete and with signs masked.",
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="a folder or file of recordings, or clif-demo"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the bundle to write (.samd)")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="FILE",
        help="the bundle to start from (default: export a new network first, 15 s)",
    )
    parser.add_argument("--labels", choices=("five", "all"), help="of a new network (default: five)")
    parser.add_argument("--task", choices=TASKS, help="of a new network (default: severity)")
    parser.add_argument("--hidden", type=_widths, metavar="N,N", help="of a new network (default: 32,16)")
    parser.add_argument("--epochs", type=int, default=60, help="default: 60")
    parser.add_argument("--learning-rate", type=float, default=0.003, help="of Adam (default: 0.003)")
    parser.add_argument(
        "--mask-rate", type=float, default=0.15, help="share of signs hidden in each epoch (default: 0.15)"
    )
    parser.add_argument(
        "--logit-adjustment",
        type=float,
        metavar="TAU",
        help="weight of the class prior in the loss, 0 for none (default: 1; of deterioration 0, whose "
        "probability is shown)",
    )
    parser.add_argument(
        "--trainer", choices=("litert", "tensorflow"), default="litert", help="default: litert"
    )
    parser.add_argument("--seed", type=_natural, default=0, help="of everything drawn (default: 0)")
    parser.add_argument(
        "--patients", type=_positive, metavar="N", help="only those N with the most readings (default: all)"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="describe the bundle as JSON on stdout")
    parser.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> int:
    """Train; 0, or 2 with one line on stderr."""
    from samd_data.errors import DataError
    from samd_data.features import FeatureSpec
    from samd_data.tasks import task_of
    from samd_protocol import bundle
    from samd_server import central, cohort

    try:
        _refuse_to_replace(args.out, args.force)
        if args.start is not None and (args.labels or args.hidden or args.task):
            raise ServerError(
                "--task, --labels and --hidden are of a new network; with --from, its bundle says them"
            )
        model = bundle.read(args.start) if args.start is not None else None
        task = args.task or TASKS[0] if model is None else model.manifest.task
        tau = args.logit_adjustment
        settings = central.Settings(
            epochs=args.epochs,
            learning_rate=args.learning_rate,
            mask_rate=args.mask_rate,
            logit_adjustment=_TAU.get(task, 1.0) if tau is None else tau,
            seed=args.seed,
            trainer=args.trainer,
        )
        if model is not None:
            spec = central.spec_of(model)
        else:
            spec = FeatureSpec(task_of(task).features, args.labels or "five")
        rows = cohort.load(args.data, spec, seed=args.seed, limit=args.patients, task=task)
        if model is None:
            model = central.untrained(spec, args.hidden or (32, 16), args.seed, task)
        with _progress(settings.epochs) as on_epoch:
            trained = central.train(model, rows, settings, on_epoch)
        written = bundle.write(args.out, trained)
    except (BundleError, DataError, ServerError, OSError, ValueError) as error:
        return _complain(error)
    return _tell(args, written)


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[int, float], None]]:
    """A progress bar on stderr, if somebody is looking."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=epochs)
        yield lambda epoch, loss: progress.update(bar, completed=epoch, description=f"loss {loss:.3f}")


def _scored(metrics: dict[str, Any]) -> Iterator[str]:
    """One line per set of rows: what the model reached on it."""
    for name, title in (
        ("holdout", "hold-out, complete"),
        ("holdout_masked", "hold-out, signs masked"),
        ("unseen", "other patients, complete"),
        ("unseen_masked", "other patients, signs masked"),
    ):
        found = metrics.get(name)
        if found is not None:
            yield f"  {title:29} " + (_ranked(found) if "auroc" in found else _classed(found))


def _classed(found: dict[str, Any]) -> str:
    shown = ("macro_f1", "balanced_accuracy", "recall_urgent", "recall_high")
    told = [_number(found[key]) for key in shown]
    absent = f"; absent: {', '.join(found['absent'])}" if found["absent"] else ""
    return (
        f"macro-F1 {told[0]}, balanced accuracy {told[1]}, "
        f"recall of 5 or more {told[2]}, of 7 or more {told[3]} ({found['rows']} rows{absent})"
    )


def _ranked(found: dict[str, Any]) -> str:
    shown = ("auroc", "average_precision", "calibration_error", "rule_auroc", "rule_average_precision")
    told = [_number(found[key]) for key in shown]
    return (
        f"AUROC {told[0]}, average precision {told[1]}, calibration error {told[2]}; "
        f"NEWS2 itself {told[3]}, {told[4]} ({found['rows']} rows, {found['positives']} positive)"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _tell(args: argparse.Namespace, written: Any) -> int:
    manifest = written.manifest
    told = {
        "file": str(args.out),
        "sha256": written.sha256,
        "bytes": written.size,
        "name": manifest.name,
        "task": manifest.task,
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
        for line in _scored(manifest.metrics):
            print(line)  # noqa: T201
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


def _positive(text: str) -> int:
    value = _natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is too few; give 1 or more")
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
    add_train_parser(subparsers)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
