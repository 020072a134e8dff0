"""The link on a real broker: what is let in, what is dropped, what outlives the broker."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from samd_protocol import envelope, tasks, topics
from samd_protocol.envelope import Sealer
from samd_protocol.messages import ModelRelease, RunOrder, RunSpec, RunStatus, ServerState, State
from samd_protocol.tasks import Task, TrainSettings, Update, Vector
from samd_server.link import Link

ONLINE = ServerState(status="online", version="1")
OFFLINE = ServerState(status="offline", version="1")
RELEASE = ModelRelease(version=1, sha256="0" * 64, size=1, url="http://h/m", task="severity", trained=True)
UPDATE = Update(task="t", run="r", round=1, device="bed-01", kind="train", error="x")


class Heard:
    """What the link lets through."""

    def __init__(self) -> None:
        self.orders: list[RunOrder] = []
        self.updates: list[Update] = []
        self.states: list[tuple[str, State]] = []


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def link(broker, heard: Heard) -> Iterator[Link]:
    made = Link(
        broker.address,
        Sealer("server", 1),
        on_order=heard.orders.append,
        on_update=heard.updates.append,
        on_state=lambda device, state: heard.states.append((device, state)),
    )
    made.start(OFFLINE)
    assert made.connected.wait(20)
    yield made
    made.stop(OFFLINE)


def state(status: str, *, connection: int) -> State:
    return State(status=status, boot_id="b", connection=connection, client_version="0")  # type: ignore[arg-type]


def test_what_is_not_ours_is_dropped_counted_and_logged_once(link, heard, peers, eventually, caplog) -> None:
    good = tasks.encode(UPDATE)
    with caplog.at_level(logging.WARNING, "samd_server.link"):
        for payload in (b"", b"\x00rubbish", good[:-3], good[:-3]):
            peers.client.publish(topics.up("bed-01", "update"), payload, qos=1)
        peers.client.publish(topics.up("bed-02", "update"), good, qos=1)  # bed-02 says that it is bed-01
        peers.client.publish(topics.SERVER_ORDER, b"{}", qos=1)
        peers.client.publish(topics.up("bed-03", "state"), b"[]", qos=1)
        peers.say(topics.up("bed-04", "state"), Sealer("bed-05", 1).seal(state("online", connection=1)))
        peers.say(topics.SERVER_ORDER, Sealer("gateway.g", 1).seal(ONLINE))
        peers.client.publish(topics.up("bed-01", "update"), good, qos=1)
        eventually(lambda: heard.updates)
    assert heard.updates == [UPDATE]
    assert (heard.orders, heard.states) == ([], [])
    assert sum(link.dropped.values()) == 9
    assert link.dropped["forged"] == 2
    about = [record.getMessage().split()[4] for record in caplog.records]
    assert sorted(about) == sorted(set(about)), "once per sender"
    assert len(about) == 5


def test_a_defect_in_one_message_does_not_deafen_the_server(link, heard, peers, eventually, caplog) -> None:
    link._on_update = lambda update: 1 / 0
    peers.client.publish(topics.up("bed-01", "update"), tasks.encode(UPDATE), qos=1)
    peers.order("stop", "run-1")
    eventually(lambda: heard.orders)
    assert link.dropped == {"defect": 1}
    assert "ZeroDivisionError" in caplog.text


def test_a_late_will_loses_to_a_later_birth(link, heard, peers, eventually) -> None:
    def says(status: str, boot: int, connection: int) -> None:
        sealed = Sealer("bed-01", boot).seal(state(status, connection=connection))
        peers.say(topics.up("bed-01", "state"), sealed)

    says("online", 1, 1)
    says("online", 1, 2)
    says("offline", 1, 1)  # the will of the first connection, late
    says("online", 2, 1)
    says("offline", 1, 2)  # the will of the boot before, late
    says("offline", 2, 1)
    eventually(lambda: len(heard.states) == 4)
    assert [(s.status, s.connection) for _, s in heard.states] == [
        ("online", 1),
        ("online", 2),
        ("online", 1),
        ("offline", 1),
    ]


def test_an_expired_order_is_dropped(link, heard, peers, eventually) -> None:
    sealer = Sealer("gateway.g", 1)
    for run, seconds in (("old", -1), ("new", 60)):
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        order = RunOrder(action="start", run=run, spec=RunSpec(), devices=["a"])
        peers.say(topics.SERVER_ORDER, sealer.seal(order, expires_at=expires))
    eventually(lambda: heard.orders)
    assert [order.run for order in heard.orders] == ["new"]
    assert link.dropped == {"expired": 1}


def test_an_order_is_handled_before_it_is_acknowledged(link, peers, eventually) -> None:
    steps: list[str] = []
    ack = link._client.ack
    link._on_order = lambda order: steps.append(f"kept {order.run}")
    link._client.ack = lambda mid, qos: (steps.append("acknowledged"), ack(mid, qos))
    peers.order("start", "run-1", RunSpec(), ["a"])
    eventually(lambda: len(steps) == 2)
    assert steps == ["kept run-1", "acknowledged"]


def test_what_is_retained_is_there_again_after_a_broker_that_forgot_it(
    link, broker, peers, eventually
) -> None:
    link.publish_state(ONLINE)
    link.publish_release(RELEASE)
    link.publish_run(RunStatus(run="r", phase="training", round=1))
    link.publish_run(RunStatus(run="r", phase="training", round=2))
    eventually(lambda: len(peers.runs) == 2 and peers.releases and peers.states)
    for said in (peers.runs, peers.releases, peers.states):
        said.clear()
    broker.stop()
    eventually(lambda: not link.connected.is_set())
    link.publish_run(RunStatus(run="r", phase="training", round=3))
    broker.start()
    eventually(lambda: peers.runs and peers.releases and peers.states)
    assert peers.releases[-1] == RELEASE
    assert peers.states[-1] == ONLINE
    eventually(lambda: [status.round for status in peers.runs] == [3])


def test_a_task_arrives_whole(link, peers, eventually) -> None:
    import numpy as np

    values = np.arange(200_000, dtype=np.float32)
    task = Task(
        id="t",
        run="r",
        round=1,
        device="bed-01",
        kind="train",
        graph_sha256="",
        deadline_s=0.5,
        weights=Vector.of(values),
        settings=TrainSettings(),
    )
    peers.answers["bed-01"] = lambda task: None
    link.send_task("bed-01", task)
    eventually(lambda: peers.asked)
    assert msgspec.structs.replace(peers.asked[0]) == task
    assert envelope.MAX_BYTES < len(tasks.encode(task)) < tasks.MAX_TASK_BYTES


def test_saying_goodbye(broker, peers, heard, eventually) -> None:
    link = Link(
        broker.address,
        Sealer("server", 1),
        on_order=heard.orders.append,
        on_update=heard.updates.append,
        on_state=lambda *_: None,
    )
    link.publish_state(ONLINE)
    link.start(OFFLINE)
    eventually(lambda: peers.states == [ONLINE])
    link.stop(OFFLINE)
    eventually(lambda: peers.states == [ONLINE, OFFLINE])
