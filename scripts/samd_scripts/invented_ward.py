"""An invented ward for pictures and trials: synthetic patients whose last day is sent over MQTT at once.

The signs come from `samd_data.synthetic`, the scores from `samd_data.news2`. What the messages say of a model
is made up from the score: it is there so that every part of a page has something to show, and means nothing.
"""

import threading
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Literal, Self

import numpy as np

from samd_data import news2
from samd_data.reading import Reading
from samd_data.severity import severity_of
from samd_data.synthetic import generate
from samd_protocol import broker as brokers
from samd_protocol import envelope, topics
from samd_protocol.messages import (
    Alert,
    Assessment,
    Command,
    Deterioration,
    Heartbeat,
    Message,
    ModelView,
    News2,
    PatientAdmit,
    Result,
    Severity,
    State,
)

Kind = Literal["state", "heartbeat", "assessment", "alert", "result"]
HOURS = 25
BEAT_S = 5.0
CLASSES: tuple[Severity, ...] = (0, 1, 2, 3)
SIGNS = ("heart_rate", "respiratory_rate", "spo2", "systolic_bp", "temperature")


class InventedBed:
    """One device with its patient. It answers every command with `done`."""

    def __init__(self, url: str, name: str, readings: Sequence[Reading], *, seed: int, shares: bool) -> None:
        self.name = name
        self._readings = readings
        self._random = np.random.default_rng(seed)
        self._shares = shares
        self._sealer = envelope.Sealer(name, 1, clock=lambda: "synced")
        self._client = brokers.make_client(brokers.Broker(url=url), f"{name}-{uuid.uuid4().hex[:6]}")
        self._ready = threading.Event()
        self._admitted = threading.Event()
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _c, _d, message: self._asked(bytes(message.payload))
        self._client.will_set(topics.up(name, "state"), self._sealed(self._state("offline")), 1, retain=True)
        brokers.connect(self._client, brokers.Broker(url=url))
        self._client.loop_start()
        if not self._ready.wait(10.0):
            raise RuntimeError(f"{name}: the broker did not take the subscription within 10 s")
        self.send("state", self._state("online"), retain=True)
        self.beat()

    def wait_admitted(self, seconds: float = 20.0) -> None:
        """Until its patient was admitted from a page or the API."""
        if not self._admitted.wait(seconds):
            raise RuntimeError(f"{self.name}: nobody was admitted within {seconds:g} s")

    def send(self, kind: Kind, message: Message, *, retain: bool = False) -> None:
        self._client.publish(topics.up(self.name, kind), self._sealed(message), 1, retain)

    def beat(self) -> None:
        self.send("heartbeat", Heartbeat(interval_s=BEAT_S, uptime_s=3600.0, model_version=3, outbox_depth=0))

    def play(self, *, until: datetime, missing: Sequence[str] = ()) -> Iterator[int]:
        """Send the whole past, the last reading at `until`; yields the certain score after each."""
        first = self._readings[-1].observed_at
        for reading in self._readings:
            at = until - (first - reading.observed_at)
            shown = self._assessment(reading, at, until, missing)
            self.send("assessment", shown)
            yield shown.news2.low

    def alarm(self, score: int, at: datetime) -> None:
        self.send(
            "alert",
            Alert(
                alert_id=f"{self.name}-1",
                state="raised",
                severity=_class(score),
                observed_at=at,
                news2_low=score,
                news2_high=score,
            ),
        )

    def vanish(self) -> None:
        """Drop the connection without a word: the broker sends the will."""
        self._client.loop_stop()
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _assessment(
        self, reading: Reading, at: datetime, now: datetime, missing: Sequence[str]
    ) -> Assessment:
        left_out = dict.fromkeys(missing) if at == now else {}
        fields = {name: getattr(reading, name) for name in (*SIGNS, "supplemental_oxygen", "consciousness")}
        taken = Reading(observed_at=at, **(fields | left_out))
        scored = news2.score(taken)
        rule, possible = _class(scored.low), _class(scored.high)
        logits = -np.abs(np.arange(4) - (scored.low + self._random.normal(0.0, 1.5)) / 2.6) * 2.2
        shares = np.exp(logits) / np.exp(logits).sum()
        model = CLASSES[int(shares.argmax())]
        hours = None if scored.band == "high" else 1.0 if scored.band != "low" else 4.0
        ahead = float(np.clip(scored.low / 11.0 + self._random.normal(0.0, 0.04), 0.01, 0.98))
        return Assessment(
            observed_at=at,
            news2=News2(
                total=scored.total,
                low=scored.low,
                high=scored.high,
                band=scored.band,
                points=scored.points,
                missing=scored.missing,
            ),
            rule_severity=rule,
            rule_severity_possible=possible,
            severity=max(rule, model),
            disagreement=abs(rule - model) >= 2,
            model=ModelView(severity=model, probabilities=[round(float(s), 3) for s in shares], version=3),
            missing=scored.missing,
            reading_age_s=max(0.0, (now - at).total_seconds()) + 2.0,
            signs={name: value for name, value in (fields | left_out).items() if value is not None}
            if self._shares
            else None,
            next_due_at=None if hours is None else at + timedelta(hours=hours),
            deterioration=Deterioration(
                asked_at=at.replace(minute=0, second=0, microsecond=0),
                horizon_h=6,
                version=2,
                probability=round(ahead, 3),
                possible=["deteriorates"]
                if ahead > 0.7
                else ["stable"]
                if ahead < 0.3
                else ["stable", "deteriorates"],
                calibration="temperature",
            ),
        )

    def _connected(self, *_: object) -> None:
        self._client.subscribe(topics.down(self.name, "command"), 1)

    def _asked(self, payload: bytes) -> None:
        asked = envelope.decode(payload)
        if isinstance(asked.data, Command):
            self.send("result", Result(command=asked.id, status="done"))
            if isinstance(asked.data.body, PatientAdmit):
                self._admitted.set()

    def _state(self, status: str) -> State:
        return State(
            status=status,  # type: ignore[arg-type]  # the words of the protocol, checked as they are sealed
            boot_id=f"{self.name}-boot-1",
            connection=1,
            client_version="0.1.0",
            model_version=3,
        )

    def _sealed(self, message: Message) -> bytes:
        return envelope.encode(self._sealer.seal(message))


class InventedWard:
    """Beds that go on beating until the end of the `with` block."""

    def __init__(self, url: str, beds: int, *, seed: int = 4) -> None:
        recordings = generate(beds, HOURS, seed)
        self.beds = [
            InventedBed(url, f"bed-{number:02d}", recording.readings, seed=number, shares=number % 2 == 0)
            for number, recording in enumerate(recordings, 1)
        ]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeats", daemon=True)

    def play(self) -> None:
        """Everybody's last day; what is missing, silent or ringing is spread over the beds."""
        now = datetime.now(UTC)
        courses = [
            bed.play(until=now, missing=MISSING.get(number % 6, ())) for number, bed in enumerate(self.beds)
        ]
        scores = [0] * len(courses)
        for steps in zip(*courses, strict=False):
            scores = list(steps)
            self._stopping.wait(0.05)  # not all of a day at once: the gateway would take it for a flood
        for bed, score in zip(self.beds, scores, strict=True):
            if score >= 5:
                bed.alarm(score, now)
        self.beds[-1].vanish()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(5.0)
        for bed in self.beds:
            bed.close()

    def _beat(self) -> None:
        while not self._stopping.wait(BEAT_S):
            for bed in self.beds[:-1]:
                bed.beat()


def _class(score: int) -> Severity:
    return CLASSES[severity_of(score)]


MISSING = {1: ("consciousness",), 3: ("supplemental_oxygen", "consciousness"), 5: ("temperature",)}
