"""Ten real patients train a model together over MQTT; each one's severity is inferred live."""

import argparse
import contextlib
import json
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from samd_data.errors import DataError
from samd_protocol import bundle as bundles
from samd_scripts.judging import after_cut, judge
from samd_scripts.network import untrained
from samd_scripts.recordings import HISTORY, Recordings, prepare, usual_labels
from samd_scripts.stack import Program, Stack, StackError, wait_until
from samd_scripts.view import live_table, save_picture, summary_panel

SPEED = 600
"""Ten minutes of a patient pass in a second."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 after a summary, 1 when a part failed, 2 for bad input, 130 when interrupted."""
    args = _arguments(argv)
    console = Console(highlight=False)
    folder = args.out or Path(".samd/demo") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except FileExistsError:
        print(f"{folder}: is there already; name another folder by --out", file=sys.stderr)
        return 2
    try:
        with Stack(folder.resolve()) as stack:
            signal.signal(signal.SIGINT, stack.interrupt)
            signal.signal(signal.SIGTERM, stack.interrupt)
            Demo(args, stack, console).run()
    except DataError as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 2
    except StackError as error:
        print(f"scripts/demo: {error}\nThe logs are in {folder / 'logs'}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        console.print(f"Ended; every program was stopped. The files are in {folder}.")
        return 130
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--data",
        default="clif-demo",
        metavar="PATH",
        help="a MIMIC-IV-ED, MIMIC-IV or CLIF folder, or 'synthetic', which needs none; "
        "default: the CLIF demo, real intensive care, downloaded once and checked by its hash",
    )
    parser.add_argument("--patients", type=int, default=10, metavar="N", help="devices; default: %(default)s")
    parser.add_argument(
        "--labels",
        choices=("five", "all"),
        help="what the model learns: the chart's points of the five signs, or of all seven inputs; "
        "default: all where the recordings tell oxygen and consciousness, else five",
    )
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="a round; default: %(default)s")
    parser.add_argument(
        "--watch",
        type=float,
        default=10.0,
        metavar="S",
        help="show the table so long; default: %(default)g s",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: .samd/demo/TIME")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="save the last table as an SVG picture")
    parser.add_argument("--keep", action="store_true", help="leave it all running until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, too")
    args = parser.parse_args(argv)
    if not 1 <= args.patients <= 50:
        parser.error("--patients: 1 to 50 devices run on one machine")
    if args.rounds < 1 or args.epochs < 1:
        parser.error("--rounds and --epochs: 1 or more")
    return args


class Demo:
    """The steps, in the order in which they happen."""

    def __init__(self, args: argparse.Namespace, stack: Stack, console: Console) -> None:
        self.args = args
        self.stack = stack
        self.console = console
        self.began = time.monotonic()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<44}"),
            BarColumn(28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )

    def run(self) -> None:
        with self.progress:
            recordings = self._recordings()
            model = self._network(self.args.labels or usual_labels(recordings))
            self._start(recordings, model)
            status = self._train(recordings)
            released = self._release(status, recordings)
        self._watch(recordings)
        self._summarise(recordings, status, released)
        if self.args.keep:
            self._keep()

    # -- steps ----------------------------------------------------------------

    def _network(self, labels: str) -> Path:
        task = self._task("Building the untrained network", 1, note="the first time: TensorFlow takes 15 s")
        model = untrained(labels)
        self._done(task, f"labels by the {'whole chart' if labels == 'all' else 'five signs of the chart'}")
        return model

    def _recordings(self) -> Recordings:
        task = self._task("Getting the recordings", 1, note=self.args.data)
        found = prepare(self.args.data, self.stack.folder / "recordings", self.args.patients)
        readings = sum(len(recording.readings) for recording in found.taking_part)
        self._done(task, f"{found.kind}: {len(found.taking_part)} patients, {readings:,} readings")
        return found

    def _start(self, recordings: Recordings, model: Path) -> None:
        devices = len(recordings.taking_part)
        task = self._task("Starting broker, gateway, devices, server", devices + 3)
        self.stack.broker()
        gateway = self.stack.gateway()
        server = self.stack.server(model)
        agents = [self._agent(number, recordings) for number in range(devices)]
        self.progress.advance(task)
        self.stack.wait_ready(gateway, 60)
        self.progress.advance(task)
        for agent in agents:
            self.stack.wait_ready(agent, 60)
            self.progress.advance(task)
        self.stack.wait_ready(server, 60)
        self.stack.wait_online(devices)
        wait_until(self._all_hold_the_graph, timeout=60, what="every device holds the network", every=0.1)
        self.progress.advance(task)
        self._done(task, f"broker {self.stack.broker_url}, gateway {self.stack.gateway_url}")

    def _agent(self, number: int, recordings: Recordings) -> Program:
        patient = recordings.taking_part[number].patient
        source = f"replay:{recordings.folder}?patient={patient}&speed={SPEED}&from={HISTORY:.0%}"
        # Intensive-care patients are rarely without an alert; a device at a bed would not train during one.
        return self.stack.agent(f"bed-{number + 1:02d}", source, "--train-during-alert")

    def _all_hold_the_graph(self) -> bool:
        self.stack.check()
        server = self.stack.api("GET", "/api/server")
        models = self.stack.api("GET", "/api/models")["models"]
        return bool(server["status"] == "online" and models)

    def _train(self, recordings: Recordings) -> dict[str, Any]:
        devices = len(recordings.taking_part)
        asked = self._task("Devices asked to take part", devices)
        rounds = self._task("Federated training, rounds", self.args.rounds)
        self.triggered = time.monotonic()
        run = self.stack.start_run(
            rounds=self.args.rounds, epochs=self.args.epochs, quorum=max(1, (8 * devices) // 10)
        )
        status: dict[str, Any] = {}
        for status in self.stack.follow_run(run, timeout=300):
            answered = len(status["accepted"]) + len(status["rejected"])
            self.progress.update(asked, completed=answered, note=f"{len(status['accepted'])} accepted")
            loss = status["metrics"].get("loss")
            note = "" if loss is None else f"loss {loss:.3f}"
            self.progress.update(rounds, completed=min(status["round"], self.args.rounds), note=note)
            self._sample()
        if status["state"] != "done":
            raise StackError(f"the run {status['state']}: {status['reason']}")
        self.progress.update(rounds, completed=self.args.rounds)
        return status

    def _release(self, status: dict[str, Any], recordings: Recordings) -> bool:
        devices = len(recordings.taking_part)
        if not status["released"]:
            self.console.print(f"The candidate was kept, not released: {status['reason']}")
            return False
        task = self._task("Devices that activated the model", devices)
        version = status["model_version"]

        def active() -> bool:
            self.stack.check()
            found = self.stack.api("GET", "/api/devices")["devices"]
            count = sum(device["model_version"] == version for device in found)
            self.progress.update(task, completed=count)
            return bool(count >= devices)

        wait_until(active, timeout=60, what=f"model {version} active on {devices} devices", every=0.1)
        self.released_after = time.monotonic() - self.triggered
        self._done(task, f"version {version}, {status['reason']}")
        return True

    def _watch(self, recordings: Recordings) -> None:
        title = f"Live: {recordings.kind} recordings at {SPEED} times real time, {self.stack.gateway_url}"
        ends = time.monotonic() + self.args.watch
        with Live(console=self.console, auto_refresh=False, transient=False) as live:
            while True:
                self.stack.check()
                table = live_table(self.stack.api("GET", "/api/devices")["devices"], title)
                live.update(table, refresh=True)
                self._sample()
                if time.monotonic() >= ends:
                    break
                time.sleep(0.5)
        self.console.print()
        if self.args.picture is not None:
            save_picture(table, self.args.picture)

    def _summarise(self, recordings: Recordings, status: dict[str, Any], released: bool) -> None:
        version = int(status["model_version"])
        path = self.stack.folder / "server" / "models" / "severity" / f"{version:06d}" / "model.samd"
        bundle = bundles.read(path)
        own = [after_cut(recording, HISTORY) for recording in recordings.taking_part]
        verdicts = {
            "own patients, later hours": judge(bundle, own),
            "patients who took no part": judge(bundle, recordings.others),
        }
        history = [entry["round_seconds"] for entry in status["history"] if entry["round_seconds"]]
        overhead = [entry["overhead_seconds"] for entry in status["history"] if entry["overhead_seconds"]]
        memory = self._memory()
        facts = {
            "model": f"version {version}, {'released' if released else 'kept'}: {path}",
            "rounds": f"{len(history)}, {_median(history):.3f} s each (median), of which "
            f"{_median(overhead):.3f} s beyond the slowest device's own training",
            "trigger to model active": f"{self.released_after:.1f} s" if released else "not released",
            "peak memory": ", ".join(f"{name} {value:.0f} MB" for name, value in memory.items()),
            "whole demo": f"{time.monotonic() - self.began:.1f} s",
            "written to": str(self.stack.folder),
        }
        summary = {
            "data": recordings.kind,
            "verdicts": {name: None if found is None else asdict(found) for name, found in verdicts.items()},
            "round_seconds": history,
            "peak_memory_mb": memory,
            "facts": facts,
        }
        text = json.dumps(summary, indent=2)
        (self.stack.folder / "summary.json").write_text(text)
        self.console.print(summary_panel(facts.items(), verdicts))
        if self.args.json:
            print(text)

    def _keep(self) -> None:
        self.console.print(
            "Everything goes on until Ctrl-C.\n"
            f"  broker   {self.stack.broker_url}\n"
            f"  watch    .venv/bin/samd-gateway devices watch --gateway {self.stack.gateway_url}\n"
            f"  API      {self.stack.gateway_url}/openapi.json\n"
            f"  page     {self.stack.gateway_url}/  (open it in a browser)"
        )
        while True:
            self.stack.check()
            time.sleep(1.0)

    # -- small things ---------------------------------------------------------

    def _task(self, description: str, total: int, note: str = "") -> Any:
        return self.progress.add_task(description, total=total, note=note)

    def _done(self, task: Any, note: str) -> None:
        total = self.progress.tasks[task].total
        self.progress.update(task, completed=total, note=note)

    def _sample(self) -> None:
        for program in self.stack.programs.values():
            program.sample_memory()

    def _memory(self) -> dict[str, float]:
        """The largest peak of each kind of process."""
        self._sample()
        peaks: dict[str, float] = {}
        for program in self.stack.programs.values():
            for role, value in program.peaks.items():
                kind = "agent" if program.name.startswith("bed-") else program.name
                name = kind if role == "main" else role if role == "trainer" else f"{kind} {role}"
                peaks[name] = max(peaks.get(name, 0.0), value)
        return peaks


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
