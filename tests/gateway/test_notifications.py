"""Notifications: once for each state and channel, until they are delivered, over real servers."""

import base64
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bedside_bench import ADMIN, NURSE, Bench
from gateway_peers import Device, Gateway, Peer, until
from receivers import MailServer, Receiver, Request, verified
from sqlalchemy import select

from samd_gateway import schema
from samd_gateway.alerts import channel, webhook
from samd_gateway.alerts.channel_store import ChannelDesk, draw_key
from samd_gateway.alerts.delivery import DeliveryError, Notice
from samd_gateway.alerts.email import EmailSender
from samd_gateway.alerts.notifier import GIVE_UP_S, Notifier, claim_s, encoded, retry_in_s
from samd_gateway.alerts.outbox import key_of
from samd_gateway.alerts.webhook import WebhookSender, read_key, sign
from samd_gateway.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError, UsageError
from samd_protocol import envelope, topics
from samd_protocol.messages import Alert, GatewayAlert


@pytest.fixture
def receivers() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*arguments: Callable) -> Receiver:
        made.append(Receiver(*arguments))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


class Told(Bench):
    """A bench with channels and the worker behind them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.leads = True
        self.notifier = Notifier(
            self.database,
            {
                "webhook": WebhookSender(folder, now=lambda: self.now),
                "email": EmailSender(folder, now=lambda: self.now),
            },
            leading=lambda: self.leads,
            now=lambda: self.now,
        )
        self.channels = ChannelDesk(self.database, self.notifier, folder, now=lambda: self.now)

    def webhook(self, name: str, url: str, **more: object) -> None:
        config = {"url": url, "secret": name} | more.pop("config", {})  # type: ignore[operator]
        self.channels.put(ADMIN, name, kind="webhook", config=config, **more)  # type: ignore[arg-type]

    def pending(self) -> list[dict]:
        table = schema.notifications
        with self.database.read() as connection:
            query = select(table).where(table.c.state == "pending").order_by(table.c.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def failed(self, channel: str, attempts: int) -> dict | None:
        """The notice of a channel whose attempt of this number has failed."""
        found = [row for row in self.pending() if row["channel"] == channel and row["attempts"] == attempts]
        # while it is being sent, its next attempt is due when the claim on it ends
        return next((row for row in found if row["next_at"] != self.now + claim_s(5.0)), None)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    bench = Told(tmp_path)
    yield bench
    bench.notifier.stop()
    bench.database.close()


# what is told to whom


def test_each_state_is_told_once_to_each_channel_that_wants_it(told: Told) -> None:
    told.webhook("all", "https://a.example/x")
    told.webhook("severe", "https://b.example/x", min_severity=3)
    told.webhook("second", "https://c.example/x", step=1)
    told.webhook("off", "https://d.example/x", enabled=False)
    told.webhook(
        "everything", "https://e.example/x", config={"events": ["raised", "acknowledged", "cleared"]}
    )
    raised = told.alert("bed-01", "raised", 2)
    told.take_in(raised)
    told.take_in(raised)
    assert told.outbox() == [("raised", "all", "pending"), ("raised", "everything", "pending")]
    told.say("bed-01", "escalated", 3)
    assert told.outbox()[2:] == [("escalated", "all", "pending"), ("escalated", "severe", "pending")]
    told.desk.escalate(told.one().id, NURSE, "help")
    assert told.outbox()[4:] == [
        ("step", "all", "pending"),
        ("step", "second", "pending"),
        ("step", "severe", "pending"),
    ]
    told.desk.acknowledge([told.one().id], NURSE)
    assert told.outbox()[7:] == [("acknowledged", "everything", "pending")]
    told.say("bed-01", "deescalated", 2)
    told.say("bed-01", "cleared", 0)
    assert {channel for event, channel, _ in told.outbox()[8:] if event == "cleared"} == {
        "all",
        "severe",
        "second",
        "everything",
    }
    assert len(told.outbox()) == 12


def test_an_alert_that_was_over_before_it_was_heard_of_is_told_to_nobody(told: Told) -> None:
    told.webhook("all", "https://a.example/x")
    told.say("bed-01", "cleared", 0)
    assert told.outbox() == []


def test_a_body_holds_nothing_of_the_patient_unless_the_channel_has_opted_in(told: Told) -> None:
    with told.database.write() as connection:
        connection.execute(
            schema.admissions.insert().values(
                id="stay-1",
                device="bed-01",
                bed="12 A",
                ward="w3",
                spo2_scale=1,
                consent_to_training=False,
                admitted_at=0.0,
                admitted_by="kim",
                state="active",
            )
        )
    told.webhook("plain", "https://a.example/x")
    told.webhook("open", "https://b.example/x", config={"details": True})
    told.say("bed-01", "raised", 2)
    bodies = {row["channel"]: row["body"] for row in told.pending()}
    for word in ("news2", "stay-1", "12 A", "w3", "reason"):
        assert word not in bodies["plain"]
        assert (word in bodies["open"]) is True
    import json

    assert json.loads(bodies["plain"])["data"] == {
        "alert": told.one().id,
        "device": "bed-01",
        "kind": "severity",
        "state": "active",
        "severity": 2,
        "step": 0,
        "acknowledged": False,
        "raised_at": "2027-01-15T08:00:00+00:00",
    }


# how it is delivered


def test_a_webhook_is_signed_by_the_standard(told: Told, receivers: Callable) -> None:
    receiver = receivers()
    told.now = datetime.now(UTC).timestamp()
    told.webhook("desk", f"{receiver.url}/hook")
    told.say("bed-01", "raised", 3)
    told.notifier.start()
    until(lambda: told.outbox() == [("raised", "desk", "delivered")])
    (request,) = receiver.requests
    key = read_key(told.folder, "desk")
    assert len(key) == 32
    assert verified(request, key)
    assert not verified(request, b"another key" * 3)
    assert not verified(Request(request.headers, request.body + b" "), key)
    assert request.headers["idempotency-key"] == request.key
    assert request.content["type"] == "alert.raised"
    assert (told.folder / "secrets" / "desk").stat().st_mode & 0o777 == 0o600


def test_the_signature_is_that_of_the_specifications_own_example() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_it_is_tried_again_until_it_is_delivered_and_the_others_do_not_wait(
    told: Told, receivers: Callable
) -> None:
    release = threading.Event()

    def hang(_request: Request) -> None:
        release.wait(10.0)

    answers = iter([500, 503, None])
    hanging, failing, good = receivers(hang), receivers(lambda _: next(answers, 204)), receivers()
    for name, receiver in (("hanging", hanging), ("failing", failing), ("good", good)):
        told.webhook(name, receiver.url, config={"timeout_s": 5.0})
    told.say("bed-01", "raised", 3)
    told.notifier.start()
    until(lambda: ("raised", "good", "delivered") in told.outbox())
    errors = []
    for attempt in range(1, 4):
        row = until(lambda: told.failed("failing", attempt))  # noqa: B023 - it is called at once
        errors.append(row["error"])
        told.now = max(told.now, row["next_at"])
        told.notifier.poke()
    until(lambda: ("raised", "failing", "delivered") in told.outbox())
    assert errors == [
        "127.0.0.1 answered 500",
        "127.0.0.1 answered 503",
        "no answer from 127.0.0.1 (RemoteProtocolError)",
    ]
    assert len({request.key for request in failing.requests}) == 1
    assert len({request.body for request in failing.requests}) == 1
    assert len(failing.requests) == 4
    assert len(good.requests) == 1
    release.set()


def test_what_waits_is_sent_as_soon_as_the_channel_works_again(told: Told, receivers: Callable) -> None:
    working = threading.Event()
    receiver = receivers(lambda request: 204 if working.is_set() else 500)
    told.webhook("desk", receiver.url)
    told.say("bed-01", "raised", 3)
    told.notifier.start()
    until(lambda: told.channels.get("desk").failing == "127.0.0.1 answered 500")
    working.set()
    told.say("bed-02", "raised", 3)
    told.notifier.poke()
    until(lambda: [state for _, _, state in told.outbox()] == ["delivered", "delivered"])
    assert told.channels.get("desk").failing is None


def test_a_redirect_is_not_followed(told: Told, receivers: Callable) -> None:
    receiver = receivers(lambda request: 307)
    told.webhook("desk", receiver.url)
    told.say("bed-01", "raised", 3)
    told.notifier.start()
    until(lambda: told.channels.get("desk").failing == "127.0.0.1 answered 307")
    assert len(receiver.requests) == 1


def test_after_days_it_is_given_up_and_flagged(told: Told, receivers: Callable) -> None:
    receiver = receivers(lambda request: 500)
    told.webhook("desk", receiver.url)
    told.say("bed-01", "raised", 3)
    told.now += GIVE_UP_S
    told.notifier.start()
    until(lambda: told.outbox() == [("raised", "desk", "given-up")])
    assert told.channels.get("desk").failing == "127.0.0.1 answered 500"


def test_only_the_gateway_that_leads_delivers(told: Told, receivers: Callable) -> None:
    receiver = receivers()
    told.webhook("desk", receiver.url)
    told.leads = False
    told.say("bed-01", "raised", 3)
    told.notifier.start()
    told.notifier.poke()
    other = Notifier(
        told.database, {"webhook": WebhookSender(told.folder)}, leading=lambda: True, now=lambda: told.now
    )
    other.start()
    until(lambda: told.outbox() == [("raised", "desk", "delivered")])
    other.stop()
    assert len(receiver.requests) == 1


def test_the_waits_between_attempts_grow() -> None:
    assert [retry_in_s(attempts) for attempts in (1, 2, 3, 7, 8, 99)] == [5, 15, 60, 3600, 3600, 3600]
    assert retry_in_s(1, asked_s=30.0) == 30.0
    assert claim_s(10.0) == 42.0
    assert key_of("a", "raised", "c") != key_of("a", "raised", "d")


def test_a_mail_goes_over_tls_with_a_password_and_one_id(told: Told, tmp_path: Path) -> None:
    server = MailServer(tmp_path, "a secret of mail")
    secrets = told.folder / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "mail").touch(0o600)
    (secrets / "mail").write_text("a secret of mail\n")
    (secrets / "ca.pem").write_bytes(server.certificate.read_bytes())
    config = {
        "host": "127.0.0.1",
        "port": server.port,
        "username": "samd",
        "password": "mail",
        "ca": "ca.pem",
        "sender": "samd@hospital.example",
        "to": ["ward-3@hospital.example", "doctor@hospital.example"],
    }
    try:
        told.channels.put(ADMIN, "mail", kind="email", config=config)
        told.say("bed-01", "raised", 3)
        told.notifier.start()
        until(lambda: told.outbox() == [("raised", "mail", "delivered")])
        (mail,) = server.mails
        assert mail["subject"] == "bed-01: alert, severity 3: raised"
        assert mail["message-id"] == f"<{key_of(told.one().id, 'raised.1.1', 'mail')}@samd-gateway>"
        text = mail.get_payload()
        assert "NEWS2 7 or more" in text
        assert "nobody has acknowledged it" in text
        for word in ("NEWS2  ", "pseudonym", "bed  "):
            assert word not in text

        (secrets / "mail").write_text("another one\n")
        with pytest.raises(UnavailableError, match="answered 535"):
            told.channels.test(ADMIN, "mail")
        (secrets / "ca.pem").unlink()
        with pytest.raises(UnavailableError, match="authority"):
            told.channels.test(ADMIN, "mail")
        assert len(server.mails) == 1
    finally:
        told.notifier.stop()
        server.close()


# channels


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("webhook", {"url": "http://hospital.example/x", "secret": "s"}, "use https"),
        ("webhook", {"url": "https://u:p@hospital.example/x", "secret": "s"}, "no user name"),
        ("webhook", {"url": "https://hospital.example/x"}, "secret"),
        ("webhook", {"url": "https://hospital.example/x", "secret": "../gateway.sqlite3"}, "no path"),
        ("webhook", {"url": "https://hospital.example/x", "secret": "s", "evil": 1}, "evil"),
        ("webhook", {"url": "https://hospital.example:99999/x", "secret": "s"}, "url"),
        ("webhook", {"url": "file:///etc/passwd", "secret": "s"}, "https"),
        ("webhook", {"url": "https://hospital.example/\r\nx: y", "secret": "s"}, "https://HOST/PATH"),
        ("email", {"host": "h", "sender": "a@b", "to": []}, "to"),
        ("email", {"host": "h", "sender": "a@b\r\nbcc: x@y", "to": ["c@d"]}, "sender"),
        ("email", {"host": "mail", "sender": "a@b", "to": ["c@d"], "security": "none"}, "starttls"),
        ("email", {"host": "h", "sender": "a@b", "to": ["c@d"], "username": "u"}, "go together"),
        ("mqtt", {"details": True}, "details"),
        ("pager", {}, "webhook, email or mqtt"),
    ],
)
def test_a_channel_that_cannot_work_is_refused(told: Told, kind: str, config: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        told.channels.put(ADMIN, "c", kind=kind, config=config)
    assert told.channels.all() == []


@pytest.mark.parametrize("url", ["https://169.254.169.254/latest", "https://[fe80::1]/", "https://0.0.0.0/"])
def test_an_address_where_no_receiver_may_be_is_not_asked(url: str) -> None:
    channel.check_url("c", url)
    with pytest.raises(DeliveryError, match="where no receiver may be"):
        webhook.check_address(url)


def test_a_secret_that_others_can_read_is_not_used(told: Told) -> None:
    told.webhook("desk", "http://127.0.0.1:1/x")
    path = told.folder / "secrets" / "desk"
    path.chmod(0o644)
    with pytest.raises(UnavailableError, match="chmod 600"):
        told.channels.test(ADMIN, "desk")
    path.chmod(0o600)
    path.write_text("whsec_c2hvcnQ=\n")
    with pytest.raises(UnavailableError, match="24 to 64"):
        told.channels.test(ADMIN, "desk")
    assert draw_key(told.folder, "desk") is False


def test_channels_are_kept_changed_and_removed_and_each_is_audited(told: Told) -> None:
    told.webhook("desk", "https://a.example/x")
    with pytest.raises(ConflictError, match="there already"):
        told.channels.put(ADMIN, "desk", kind="mqtt", config={}, new=True)
    told.webhook("desk", "https://b.example/x", min_severity=2)
    with pytest.raises(ForbiddenError):
        told.channels.put(NURSE, "desk", kind="mqtt", config={})
    told.say("bed-01", "raised", 3)
    assert told.channels.get("desk").pending == 1
    told.channels.remove(ADMIN, "desk")
    assert told.outbox() == [("raised", "desk", "given-up")]
    with pytest.raises(NotFoundError):
        told.channels.get("desk")
    assert [action for _, action, _ in told.audited()] == ["channel.add", "channel.change", "channel.remove"]
    key = (told.folder / "secrets" / "desk").read_text()
    with told.database.read() as connection:
        assert key.strip() not in str(connection.execute(select(schema.audit)).all())


def test_a_notice_without_its_channels_server_fails_in_words(told: Told) -> None:
    told.webhook("desk", "http://127.0.0.1:1/x")
    notice = Notice(id=1, key="msg_1", body=encoded({"type": "alert.test"}))
    with told.database.read() as connection:
        (found,) = channel.channels(connection)
    with pytest.raises(DeliveryError, match=r"no answer from 127.0.0.1 \(ConnectError\)"):
        told.notifier.try_now(found, notice)


# over real gateways


def raise_one(device: Device, alert_id: str = "a1") -> None:
    device.send(
        topics.up(device.name, "alert"),
        Alert(
            alert_id=alert_id,
            state="raised",
            severity=3,
            observed_at=datetime.now(UTC),
            news2_low=7,
            news2_high=12,
        ),
    )


def test_a_gateway_killed_between_sending_and_marking_tells_it_again_under_the_same_key(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, receivers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    killed = threading.Event()

    def kill(_request: Request) -> int:
        if not killed.is_set():
            gateway.process.popen.send_signal(signal.SIGKILL)
            gateway.process.popen.wait(5.0)
            killed.set()
        return 204

    receiver = receivers(kill)
    config = {"url": receiver.url, "secret": "desk", "timeout_s": 0.5, "events": ["raised"]}
    answer = gateway.http.put("/api/channels/desk", json={"kind": "webhook", "config": config})
    assert answer.status_code == 200, answer.text
    raise_one(peers(Device(own_broker, name)))
    assert killed.wait(10.0)
    gateway.end(signal.SIGKILL)
    gateway.start()

    def delivered() -> bool:
        rows = gateway.get("/api/notifications", channel="desk")["notifications"]
        return [row["state"] for row in rows] == ["delivered"]

    until(delivered, 20.0)
    assert len(receiver.requests) == 2
    assert len({request.key for request in receiver.requests}) == 1
    assert len({request.body for request in receiver.requests}) == 1
    (row,) = gateway.get("/api/notifications", channel="desk")["notifications"]
    assert row["attempts"] == 2


def test_the_broker_is_told_nothing_of_the_patient(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    reader = peers(Peer(own_broker, "pager"))
    reader.subscribe(topics.gateway_alert("main"))
    assert gateway.http.put("/api/channels/broker", json={"kind": "mqtt", "config": {}}).status_code == 200
    assert gateway.http.post("/api/channels/broker/test").json()["delivered"] is True
    topic, payload = reader.inbox.get(timeout=10.0)
    assert envelope.decode(payload).data.change == "test"
    raise_one(peers(Device(own_broker, name)))
    topic, payload = reader.inbox.get(timeout=10.0)
    assert topic == "samd/v1/gateway/main/alert"
    told = envelope.decode(payload).data
    assert isinstance(told, GatewayAlert)
    assert (told.device, told.severity, told.state, told.change) == (name, 3, "active", "raised")
    until(lambda: gateway.get("/api/channels/broker")["pending"] == 0)
    with pytest.raises(queue.Empty):
        reader.inbox.get_nowait()
    late = peers(Peer(own_broker, "late"))
    late.subscribe("samd/v1/gateway/+/alert", topics.gateway_state("main"))
    topic, _ = late.inbox.get(timeout=10.0)
    assert topic == topics.gateway_state("main")
    assert late.inbox.empty()  # nothing is retained
