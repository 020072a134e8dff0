"""Alerts of devices: one row each, whatever the order of their messages; and what people do about them."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from bedside_bench import ADMIN, BEGIN, NURSE, Bench
from gateway_peers import Device, Gateway, until
from hypothesis import given, settings
from hypothesis import strategies as st

from samd_gateway.access.actor import Actor
from samd_gateway.errors import ConflictError, ForbiddenError, NotFoundError, UsageError
from samd_protocol import topics
from samd_protocol.messages import Alert

VIEWER = Actor(name="guest", role="viewer", via="api")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# by devices


def test_an_alert_is_one_row_from_raised_to_cleared(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2)
    bench.now += 10
    bench.say("bed-01", "escalated", 3)
    bench.now += 10
    bench.say("bed-01", "deescalated", 2)
    row = bench.one()
    assert (row.state, row.severity, row.peak, row.possible) == ("active", 2, 3, 3)
    assert (row.news2_low, row.news2_high) == (6, 11)
    assert row.raised_at.timestamp() == BEGIN
    assert row.waiting_since is not None
    assert row.waiting_since.timestamp() == BEGIN
    bench.now += 10
    bench.say("bed-01", "cleared", 1)
    row = bench.one()
    assert (row.state, row.severity, row.peak) == ("cleared", 2, 3)
    assert row.cleared_at is not None
    assert row.cleared_at.timestamp() == BEGIN + 30
    assert row.waiting_since is None
    assert bench.changes(row.id) == [
        ("device", "raised"),
        ("device", "escalated"),
        ("device", "deescalated"),
        ("device", "cleared"),
    ]
    assert bench.alerts(state="active") == []


STORIES = (
    [("raised", 2), ("escalated", 3), ("deescalated", 2), ("cleared", 1)],
    [("raised", 2), ("escalated", 3), ("deescalated", 2), ("escalated", 3)],
    [("raised", 3), ("deescalated", 2), ("cleared", 0)],
)


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("order"))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), story=st.sampled_from(STORIES))
def test_no_order_and_no_duplicate_changes_where_an_alert_ends(
    shared_bench: Bench, data: st.DataObject, story: list[tuple[str, int]]
) -> None:
    device = f"bed-{uuid.uuid4().hex[:8]}"
    items = [shared_bench.alert(device, state, severity) for state, severity in story]
    for item in data.draw(st.permutations(items + items[:2])):
        shared_bench.take_in(item)
    row = shared_bench.one(device=device)
    assert row.state == ("cleared" if story[-1][0] == "cleared" else "active")
    assert row.peak == max(severity for _, severity in story)
    if row.state == "active":
        assert row.severity == story[-1][1]


def test_a_late_message_cannot_bring_back_what_is_cleared(bench: Bench) -> None:
    raised = bench.alert("bed-01", "raised", 2)
    bench.take_in(bench.alert("bed-01", "cleared", 0))
    bench.take_in(raised)
    row = bench.one()
    assert (row.state, row.peak) == ("cleared", 2)
    assert bench.changes(row.id) == [("device", "cleared"), ("device", "late")]


def test_a_device_that_raises_a_cleared_alert_again_is_believed(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2)
    bench.desk.acknowledge([bench.one().id], NURSE)
    bench.say("bed-01", "cleared", 0)
    bench.now += 5
    bench.say("bed-01", "raised", 3)
    row = bench.one()
    assert (row.state, row.severity, row.acknowledged) == ("active", 3, False)
    assert row.waiting_since is not None


def test_a_newer_alert_of_a_device_takes_the_place_of_one_whose_end_was_lost(bench: Bench) -> None:
    late = bench.alert("bed-01", "escalated", 3, alert_id="old")
    bench.say("bed-01", "raised", 2, alert_id="old2")
    bench.say("bed-01", "raised", 2, alert_id="new")
    assert [(row.source_id, row.state) for row in bench.alerts(state="active")] == [("new", "active")]
    (old,) = [row for row in bench.alerts() if row.source_id == "old2"]
    assert (old.state, old.reason) == ("cleared", "its device has raised a newer one")
    bench.take_in(late)
    (older,) = [row for row in bench.alerts() if row.source_id == "old"]
    assert (older.state, older.waiting_since) == ("cleared", None)


def test_a_device_that_was_set_up_anew_is_heard_although_it_counts_from_one(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2, alert_id="before", boot=40)
    after = bench.alert("bed-01", "raised", 3, alert_id="after", boot=1)
    bench.take_in(after, births={"bed-01": 0})
    assert [row.source_id for row in bench.alerts(state="active")] == ["after"]


def test_an_id_counts_only_beside_its_device(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2)
    bench.say("bed-02", "raised", 3)
    bench.say("bed-02", "cleared", 0)
    assert [row.device for row in bench.alerts(state="active")] == ["bed-01"]


# by people


def test_an_acknowledgement_ends_when_it_becomes_worse(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2)
    alert = bench.one().id
    (outcome,) = bench.desk.acknowledge([alert], NURSE, "on my way")
    assert outcome.outcome == "acknowledged"
    row = bench.one()
    assert (row.acknowledged, row.acknowledged_by, row.note) == (True, "kim", "on my way")
    assert row.waiting_since is None
    bench.say("bed-01", "deescalated", 2)
    assert bench.one().acknowledged
    bench.now += 60
    bench.say("bed-01", "escalated", 3)
    row = bench.one()
    assert (row.acknowledged, row.note) == (False, None)
    assert row.waiting_since is not None
    assert row.waiting_since.timestamp() == BEGIN + 60
    assert bench.audited() == [("kim", "alert.acknowledge", f"alert/{alert}")]


def test_many_are_acknowledged_at_once_with_an_outcome_for_each(bench: Bench) -> None:
    for device in ("bed-01", "bed-02", "bed-03"):
        bench.say(device, "raised", 2)
    ids = {row.device: row.id for row in bench.alerts()}
    bench.desk.acknowledge([ids["bed-02"]], ADMIN)
    bench.say("bed-03", "escalated", 3)
    outcomes = bench.desk.acknowledge(
        [ids["bed-01"], ids["bed-02"], ids["bed-03"], "nothing", ids["bed-01"]],
        NURSE,
        seen=dict.fromkeys(ids.values(), 2),
    )
    assert [outcome.outcome for outcome in outcomes] == ["acknowledged", "already", "changed", "unknown"]
    assert outcomes[1].detail == "by lee"
    assert [row.device for row in bench.alerts(state="active", acknowledged=False)] == ["bed-03"]
    assert [row.device for row in bench.told[-1:]] == ["bed-01"]


def test_a_cleared_alert_that_nobody_saw_can_still_be_acknowledged(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2)
    bench.say("bed-01", "cleared", 0)
    (row,) = bench.alerts(state="cleared", acknowledged=False)
    bench.desk.acknowledge([row.id], NURSE)
    assert bench.alerts(state="cleared", acknowledged=False) == []
    assert len(bench.alerts(state="cleared", acknowledged=True)) == 1


def test_a_pause_has_a_reason_and_an_end_and_breaks_when_it_becomes_worse(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2)
    alert = bench.one().id
    row = bench.desk.pause(alert, NURSE, until=BEGIN + 600, reason="in theatre")
    assert (row.paused, row.paused_by, row.pause_reason) == (True, "kim", "in theatre")
    assert row.waiting_since is None
    bench.say("bed-01", "escalated", 3)
    row = bench.one()
    assert (row.paused, row.pause_reason) == (False, None)
    assert row.waiting_since is not None
    bench.desk.pause(alert, NURSE, until=BEGIN + 600, reason="in theatre")
    assert bench.desk.resume(alert, ADMIN).paused is False
    with pytest.raises(ConflictError, match="not paused"):
        bench.desk.resume(alert, ADMIN)
    assert bench.changes(alert) == [
        ("device", "raised"),
        ("kim", "paused"),
        ("device", "escalated"),
        ("kim", "paused"),
        ("lee", "resumed"),
    ]
    assert [action for _, action, _ in bench.audited()] == ["alert.pause", "alert.pause", "alert.resume"]


def test_help_is_called_by_hand(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2)
    row = bench.desk.escalate(bench.one().id, NURSE, "needs a doctor")
    assert row.step == 1
    assert bench.changes(row.id)[-1] == ("kim", "step")


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda desk, alert: desk.acknowledge([], NURSE), UsageError, "1 to 500"),
        (lambda desk, alert: desk.acknowledge([alert], VIEWER), ForbiddenError, "ward"),
        (lambda desk, alert: desk.acknowledge([alert], NURSE, "a\nb"), UsageError, "control"),
        (lambda desk, alert: desk.acknowledge([alert], NURSE, "x" * 501), UsageError, "500"),
        (lambda desk, alert: desk.pause(alert, NURSE, until=BEGIN + 5, reason="x"), UsageError, "minute"),
        (lambda desk, alert: desk.pause(alert, NURSE, until=BEGIN - 5, reason="x"), UsageError, "minute"),
        (lambda desk, alert: desk.pause(alert, NURSE, until=BEGIN + 9e4, reason="x"), UsageError, "day"),
        (lambda desk, alert: desk.pause(alert, NURSE, until=BEGIN + 90, reason=" "), UsageError, "why"),
        (lambda desk, alert: desk.pause(alert, VIEWER, until=BEGIN + 90, reason="x"), ForbiddenError, "ward"),
        (lambda desk, alert: desk.escalate("none", NURSE, "x"), NotFoundError, "api/alerts"),
        (lambda desk, alert: desk.escalate(alert, VIEWER, "x"), ForbiddenError, "ward"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(
    bench: Bench, act: Callable, error: type[Exception], words: str
) -> None:
    bench.say("bed-01", "raised", 2)
    alert = bench.one().id
    with pytest.raises(error, match=words):
        act(bench.desk, alert)
    assert bench.changes(alert) == [("device", "raised")]
    assert bench.audited() == []


def test_nothing_is_done_about_what_is_over(bench: Bench) -> None:
    bench.say("bed-01", "raised", 2)
    bench.say("bed-01", "cleared", 0)
    with pytest.raises(ConflictError, match="cleared already"):
        bench.desk.pause(bench.one().id, NURSE, until=BEGIN + 600, reason="x")


def test_pages_by_key_show_every_alert_once_the_worst_first(bench: Bench) -> None:
    for number in range(25):
        bench.now += 1
        bench.say(f"bed-{number:02d}", "raised", 1 + number % 3)
    found, before = [], None
    while page := bench.alerts(state="active", limit=7, before=before):
        found += page
        before = page[-1].id
    assert len({row.id for row in found}) == len(found) == 25
    keys = [(row.severity, row.raised_at) for row in found]
    assert keys == sorted(keys, reverse=True)
    latest = bench.alerts(state=None, limit=3)
    assert [row.device for row in latest] == ["bed-24", "bed-23", "bed-22"]
    assert bench.alerts(before="gone") == []


# over real connections


def send(device: Device, state: str, severity: int) -> None:
    device.send(
        topics.up(device.name, "alert"),
        Alert(
            alert_id="a1",
            state=state,
            severity=severity,
            observed_at=datetime.now(UTC),
            news2_low=5,
            news2_high=9,
        ),
    )


def test_from_the_device_to_the_api_and_back(
    shared_gateway: Gateway, broker_url: str, peers: Callable, name: str
) -> None:
    gateway = shared_gateway
    device = peers(Device(broker_url, name))
    send(device, "raised", 2)

    def mine(state: str = "active") -> list[dict]:
        return gateway.get("/api/alerts", device=name, state=state, kind="severity")["alerts"]

    (row,) = until(mine)
    url = f"/api/alerts/{row['id']}"
    answer = gateway.http.post("/api/alerts/acknowledge", json={"ids": [row["id"]], "note": "seen"})
    assert answer.json() == {"outcomes": [{"id": row["id"], "outcome": "acknowledged", "detail": None}]}
    send(device, "escalated", 3)
    until(lambda: mine()[0]["severity"] == 3)
    assert mine()[0]["acknowledged"] is False
    paused = gateway.http.post(f"{url}/pause", json={"for_s": 600, "reason": "in theatre"}).json()
    assert (paused["paused"], paused["paused_by"]) == (True, "local")
    assert gateway.http.post(f"{url}/resume").json()["paused"] is False
    assert gateway.http.post(f"{url}/escalate", json={"reason": "help"}).json()["step"] == 1
    send(device, "cleared", 1)
    until(lambda: mine() == [])
    detail = gateway.get(url)
    assert [change["change"] for change in detail["changes"]] == [
        "raised",
        "acknowledged",
        "escalated",
        "paused",
        "resumed",
        "step",
        "cleared",
    ]
    assert [row["id"] for row in mine("all")] == [row["id"]]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/alerts?state=open", None, 422),
        ("GET", "/api/alerts?limit=1001", None, 422),
        ("GET", "/api/alerts/none", None, 404),
        ("POST", "/api/alerts/acknowledge", {"ids": []}, 422),
        ("POST", "/api/alerts/none/pause", {"for_s": 600, "reason": "x"}, 404),
        ("POST", "/api/alerts/none/pause", {"reason": "x"}, 422),
        ("POST", "/api/alerts/none/pause", {"until": "2026-01-01T00:00:00", "reason": "x"}, 422),
        ("POST", "/api/alerts/none/resume", None, 404),
        ("PUT", "/api/alert-rules", {"ladder": {"severity_3": [900, 300]}}, 422),
        ("PUT", "/api/alert-rules", {"ladder": {"severity_4": [900]}}, 422),
        ("PUT", "/api/alert-rules", {"silence": {"after_s": -1}}, 422),
    ],
)
def test_bad_requests_are_problem_documents(
    shared_gateway: Gateway, method: str, path: str, body: dict | None, status: int
) -> None:
    answer: httpx.Response = shared_gateway.http.request(method, path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert len(answer.json()["detail"]) > 10
