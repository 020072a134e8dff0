"""One example of every message, task and update: for the documents, and for whoever writes a client.

The sender, the times and the ids are fixed, so that the documents made from them only change with the wire.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np

from samd_protocol import messages, tasks
from samd_protocol.envelope import Envelope, Sealer
from samd_protocol.messages import Channel, Message

RUN = "run-2026-03-01-0800"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def start() -> datetime:
    """The time at which every example is sent."""
    return datetime(2026, 3, 1, 8, 0, 0, tzinfo=UTC)


def message_id(number: int) -> str:
    """The id of the example with this number."""
    return f"00000000-0000-4000-8000-{number:012d}"


def message(kind: type) -> Message:
    """The example of one type of message."""
    return next(item for item in _messages() if type(item) is kind)


def _messages() -> Iterator[Message]:
    now = start()
    yield messages.State(
        status="online", boot_id="5f0c2b7e", connection=1, client_version="0.1.0", model_version=3
    )
    yield messages.Heartbeat(
        interval_s=10.0,
        uptime_s=3600.0,
        load_1m=0.12,
        memory_available_mb=412.0,
        resident_mb=58.5,
        temperature_c=None,
        disk_free_mb=20480.0,
        outbox_depth=0,
        dead_letters=0,
        reading_age_s=4.0,
        model_version=3,
    )
    yield messages.Assessment(
        observed_at=now - timedelta(seconds=4),
        news2=messages.News2(
            total=None,
            low=5,
            high=8,
            band="medium",
            points={
                "heart_rate": 1,
                "respiratory_rate": 2,
                "spo2": 1,
                "systolic_bp": 0,
                "temperature": 1,
                "supplemental_oxygen": 0,
            },
            missing=["consciousness"],
        ),
        rule_severity=2,
        rule_severity_possible=3,
        severity=2,
        disagreement=False,
        model=messages.ModelView(severity=2, probabilities=[0.03, 0.17, 0.62, 0.18], version=3),
        missing=["consciousness"],
        stale=[],
        reading_age_s=4.0,
        signs=None,
        artefacts={"temperature": "jump"},
        due=["consciousness"],
        next_due_at=now,
        deterioration=messages.Deterioration(
            asked_at=now,
            horizon_h=6,
            version=2,
            probability=0.31,
            possible=["stable", "deteriorates"],
            calibration="temperature",
        ),
    )
    yield messages.Alert(
        alert_id=message_id(900),
        state="raised",
        severity=2,
        observed_at=now - timedelta(seconds=4),
        news2_low=5,
        news2_high=8,
        possible=3,
    )
    yield messages.Training(run=RUN, round=2, phase="training", progress=0.4, first_step_at=now)
    yield messages.Result(command=message_id(8), status="rejected", reason="no data")
    yield messages.Config(version=4, heartbeat_s=10.0, share_signs=False, consent_to_training=True)
    yield messages.Command(
        expires_at=now + timedelta(seconds=15),
        body=messages.TrainingStart(run=RUN, task="severity", model_version=3, graph_sha256=SHA256),
    )
    yield messages.ModelRelease(
        version=3,
        sha256=SHA256,
        size=65788,
        url=f"http://127.0.0.1:8080/api/models/{SHA256}",
        task="severity",
        trained=True,
    )
    yield messages.RunOrder(
        action="start", run=RUN, spec=messages.RunSpec(rounds=20, quorum=2), devices=["bed-01", "bed-02"]
    )
    yield messages.RunStatus(
        run=RUN,
        phase="training",
        round=2,
        rounds=20,
        quorum=2,
        replies=1,
        awaited={"training": 1},
        metrics={"loss": 0.71, "examples": 480.0},
        round_seconds=0.4,
    )
    yield messages.ModelOrder(task="severity", version=2)
    yield messages.ModelAnswer(order=message_id(14), status="done", reason="version 2 is in use again")
    yield messages.ServerState(
        status="online", version="0.1.0", model_version=3, graph_sha256=SHA256, task="severity"
    )
    yield messages.GatewayState(status="online", version="0.1.0")
    yield messages.GatewayAlert(
        key="msg_5f1d0c6f2b9a4e0c8d3b7a6190e2f4c5",
        alert="8c1f0a52d94e6b7310fa",
        change="escalated",
        changed_at=start(),
        device="bed-01",
        kind="severity",
        state="active",
        severity=3,
        step=1,
    )


def command_bodies() -> Iterator[messages.CommandBody]:
    """One example of every command."""
    yield messages.TrainingStart(run=RUN, task="severity", model_version=3, graph_sha256=SHA256)
    yield messages.TrainingStop(run=RUN)
    yield messages.ModelActivate(version=2)
    yield messages.ModelActivate(version=2, task="deterioration")
    yield messages.ModelRollback()
    yield messages.ObservationAdd(
        by="nurse-7", observed_at=start(), supplemental_oxygen=True, consciousness="A"
    )
    yield messages.ObservationAdd(
        by="nurse-7",
        correction=messages.Correction(
            field="systolic_bp", reason="cuff slipped", observed_at=start(), value=128.0
        ),
    )
    yield messages.PatientAdmit(
        admission="adm-0042", spo2_scale=2, monitoring_interval_s=3600.0, consent_to_training=True
    )
    yield messages.PatientDischarge(admission="adm-0042", keep=False)
    yield messages.Report()


def sender(channel: Channel) -> str:
    """The name with which the sender of a channel signs its envelopes."""
    return {"device": "bed-01", "gateway": "gateway.ward-3", "server": "server"}[channel.sender]


def envelope(channel: Channel) -> Envelope:
    """The example of one channel, in its envelope."""
    number = messages.CHANNELS.index(channel) + 1
    sealer = Sealer(sender(channel), 12, now=start, clock=lambda: "synced", new_id=lambda: message_id(number))
    orders = (messages.RunOrder, messages.ModelOrder)
    expires_at = start() + timedelta(seconds=15) if channel.message in orders else None
    shown = message(channel.message)
    if isinstance(shown, messages.ModelRelease) and "{task}" in channel.topic:
        shown = msgspec.structs.replace(shown, version=2, task="deterioration")
    return sealer.seal(shown, expires_at=expires_at)


def task() -> tasks.Task:
    """A training task with a vector of four weights."""
    return tasks.Task(
        id=message_id(100),
        run=RUN,
        round=2,
        device="bed-01",
        kind="train",
        graph_sha256=SHA256,
        deadline_s=60.0,
        weights=tasks.Vector.of(np.array([0.0, 0.5, -1.0, 2.0], np.float32)),
        settings=tasks.TrainSettings(epochs=5, mask_rate=0.15, log_prior=[-0.4, -1.4, -3.0, -3.2], seed=7),
    )


def update() -> tasks.Update:
    """The answer to `task`."""
    return tasks.Update(
        task=message_id(100),
        run=RUN,
        round=2,
        device="bed-01",
        kind="train",
        num_examples=240,
        weights=tasks.Vector.of(np.array([0.1, 0.4, -1.1, 2.0], np.float32)),
        loss=0.71,
        seconds=0.21,
        started_at=start().timestamp(),
    )


def report() -> tasks.Update:
    """The answer to an `evaluate` task."""
    counts = [[40, 3, 0, 0], [4, 30, 2, 0], [0, 2, 9, 1], [0, 0, 1, 8]]
    return tasks.Update(
        task=message_id(101),
        run=RUN,
        round=20,
        device="bed-01",
        kind="evaluate",
        num_examples=100,
        report=tasks.EvaluationReport(confusion=counts, confusion_masked=counts, loss=0.44),
        seconds=0.02,
    )
