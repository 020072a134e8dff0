"""The whole system in figures: ten devices, real processes, real broker, one machine.

    trigger      `training.start` published -> first training step on each device (p50, p99)
    round        what a round takes beyond the slowest device's own training (median)
    whole run    50 rounds of 20 local epochs, first trigger to announced model
    memory       peak resident memory of agent and trainer

Prints one JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from samd_protocol import envelope, topics
from samd_protocol.broker import Broker, connect, make_client
from samd_protocol.errors import MessageError
from samd_protocol.messages import Command, Training, TrainingStart
from samd_scripts.network import untrained
from samd_scripts.recordings import HISTORY, prepare
from samd_scripts.stack import Stack, StackError, wait_until


class Listener:
    """Hears triggers and first steps on the wire, as any monitor of the ward would."""

    def __init__(self, broker_url: str) -> None:
        self.triggers: dict[tuple[str, str], float] = {}
        self.steps: dict[tuple[str, str], float] = {}
        self.subscribed = threading.Event()
        self.client = make_client(Broker(url=broker_url), "bench-listener")
        self.client.on_connect = lambda client, *_: client.subscribe(
            [(f"{topics.ROOT}/d/+/dn/command", 1), (topics.every_up("training"), 1)]
        )
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = lambda _c, _d, message: self._heard(message.topic, bytes(message.payload))
        connect(self.client, Broker(url=broker_url))
        self.client.loop_start()

    def _heard(self, topic: str, payload: bytes) -> None:
        try:
            sealed = envelope.decode(payload)
        except MessageError:
            return
        device = topic.split("/")[3]
        if isinstance(sealed.data, Command) and isinstance(sealed.data.body, TrainingStart):
            self.triggers[sealed.data.body.run, device] = sealed.sent_at.timestamp()
        elif isinstance(sealed.data, Training) and sealed.data.first_step_at and sealed.data.round == 1:
            self.steps.setdefault((sealed.data.run, device), sealed.data.first_step_at.timestamp())

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--triggers", type=int, default=8, help="short runs to measure the trigger by")
    parser.add_argument("--data", default="clif-demo")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        print(json.dumps(measure(stack, args), indent=2))
    return 0


def measure(stack: Stack, args: argparse.Namespace) -> dict[str, Any]:
    model = untrained()
    recordings = prepare(args.data, stack.folder / "recordings", args.devices)
    stack.broker()
    listener = Listener(stack.broker_url)
    listener.subscribed.wait(10)
    gateway = stack.gateway()
    stack.wait_ready(gateway)
    stack.wait_ready(stack.server(model))
    for number, recording in enumerate(recordings.taking_part, start=1):
        source = f"replay:{recordings.folder}?patient={recording.patient}&speed=60&from={HISTORY:.0%}"
        stack.wait_ready(stack.agent(f"bed-{number:02d}", source, "--train-during-alert"), 60)
    stack.wait_online(args.devices)
    ready = run(stack, args.devices, rounds=1, epochs=1)
    if len(ready["accepted"]) < args.devices:
        raise StackError(f"only {len(ready['accepted'])} devices took part: {ready['rejected']}")
    for _ in range(args.triggers):
        run(stack, args.devices, rounds=1, epochs=1)
    latencies = wait_until(
        lambda: _latencies(listener, args.devices * args.triggers), timeout=10, what="every first step"
    )
    began = time.monotonic()
    whole = run(stack, args.devices, rounds=50, epochs=20)
    seconds = time.monotonic() - began
    listener.stop()
    rounds = [entry["round_seconds"] for entry in whole["history"] if entry["round_seconds"]]
    overhead = [
        entry["overhead_seconds"] for entry in whole["history"] if entry["overhead_seconds"] is not None
    ]
    agents = [program for program in stack.programs.values() if program.name.startswith("bed-")]
    for program in agents:
        program.sample_memory()
    return {
        "devices": args.devices,
        "data": recordings.kind,
        "trigger_to_first_step_ms": {
            "samples": len(latencies),
            "p50": round(float(np.percentile(latencies, 50)) * 1000, 1),
            "p99": round(float(np.percentile(latencies, 99)) * 1000, 1),
        },
        "round_ms": {
            "rounds": len(rounds),
            "median": round(statistics.median(rounds) * 1000, 1),
            "beyond_slowest_device_median": round(statistics.median(overhead) * 1000, 1),
        },
        "whole_run": {
            "rounds": 50,
            "epochs": 20,
            "seconds_first_trigger_to_announced_model": round(seconds, 2),
            "released": whole["released"],
        },
        "agent_peak_mb": round(max(program.peaks["main"] for program in agents), 1),
        "trainer_peak_mb": round(max(program.peaks.get("trainer", 0.0) for program in agents), 1),
    }


def run(stack: Stack, devices: int, *, rounds: int, epochs: int) -> dict[str, Any]:
    name = stack.start_run(rounds=rounds, epochs=epochs, quorum=devices)
    *_, status = stack.follow_run(name, timeout=300, every=0.05)
    if status["state"] != "done":
        raise StackError(f"the run {status['state']}: {status['reason']}")
    return status


def _latencies(listener: Listener, wanted: int) -> list[float]:
    known = [listener.steps[key] - began for key, began in listener.triggers.items() if key in listener.steps]
    return known if len(known) >= wanted else []


if __name__ == "__main__":
    sys.exit(main())
