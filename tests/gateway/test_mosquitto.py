"""The configuration for Mosquitto that the gateway writes, tried on a real one: who may do what, whom it lets
in, and gateways and devices over TLS from end to end."""

import os
import queue
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from gateway_peers import Device, Gateway, free_port, until
from mosquitto_peer import Mosquitto, installed

from samd_gateway.cli import main
from samd_gateway.mosquitto_config import acl
from samd_gateway.mosquitto_config.parties import Parties
from samd_gateway.mosquitto_config.pki import Authority
from samd_protocol import broker as brokers
from samd_protocol import envelope, topics

NOT_AUTHORIZED = 0x87
DONE = (0x00, 0x10)
"""Taken, the second when nobody subscribes to it."""


class Site:
    """A broker with the configuration of one command, and clients with its certificates."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder / "broker"
        self.port = free_port()
        # as root it would become a user who may not read the folders of a test
        itself = ("--user", "root") if os.geteuid() == 0 else ()
        self.options = ("--port", str(self.port), "--pki", *itself, *options)
        self.write()
        self.broker = Mosquitto(folder / "run", self.folder / "mosquitto.conf", self.port)
        self.url = f"mqtts://localhost:{self.port}"
        self.clients: list[Client] = []

    def write(self, *more: str) -> None:
        assert main(["mosquitto", "--out", str(self.folder), *self.options, *more]) == 0

    def address(self, name: str, *, port: int | None = None, authority: str = "ca") -> brokers.Broker:
        pki = self.folder / "pki"
        return brokers.Broker(
            url=self.url if port is None else f"mqtts://localhost:{port}",
            ca_file=str(pki / "ca.crt"),
            cert_file=str(pki / "certs" / f"{name}.crt"),
            key_file=str(pki / "keys" / f"{name}.key"),
        )

    def client(self, name: str, **options: Any) -> "Client":
        made = Client(self.address(name), name, **options)
        self.clients.append(made)
        return made

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.broker.close()


class Client:
    """One connection; what it is told is kept."""

    def __init__(self, address: brokers.Broker, name: str, will: str | None = None) -> None:
        self.inbox: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        self.connected: queue.Queue[bool] = queue.Queue()
        self.lost = threading.Event()
        self.reasons: dict[int, Any] = {}
        self.granted = threading.Event()
        self.client = brokers.make_client(address, name)
        self.client.on_connect = lambda *every: self.connected.put(not every[3].is_failure)
        self.client.on_disconnect = lambda *_: self.lost.set()
        self.client.on_connect_fail = lambda *_: self.connected.put(False)
        self.client.on_publish = self._published
        self.client.on_subscribe = lambda *_: self.granted.set()
        self.client.on_message = lambda _c, _d, message: self.inbox.put(
            (message.topic, message.payload, message.retain)
        )
        if will is not None:
            self.client.will_set(will, b"will", 1)
        brokers.connect(self.client, address, session_s=0)
        self.client.loop_start()

    def _published(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        self.reasons[mid] = reason

    def here(self) -> "Client":
        assert self.connected.get(timeout=10.0)
        return self

    @property
    def refused(self) -> bool:
        """Whether the broker closed the connection before it said a word, or said no."""
        until(lambda: self.lost.is_set() or not self.connected.empty())
        return self.connected.empty() or not self.connected.get_nowait()

    def subscribe(self, *filters: str) -> "Client":
        self.granted.clear()
        self.client.subscribe([(each, 1) for each in filters])
        assert self.granted.wait(10.0)
        return self

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> int:
        """The reason code of the PUBACK."""
        info = self.client.publish(topic, payload, 1, retain)
        until(lambda: info.mid in self.reasons)
        return int(self.reasons[info.mid].value)

    def get(self) -> tuple[str, bytes, bool]:
        return self.inbox.get(timeout=10.0)

    def die(self) -> None:
        self.client.loop_stop()
        self.client.socket().close()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if installed() is None:
        pytest.skip("no Mosquitto is installed here (apt install mosquitto)")
    made = Site(tmp_path, "--device", "bed-01", "--device", "bed-02")
    yield made
    made.close()


def test_a_device_writes_and_reads_its_own_alone(site: Site) -> None:
    one, other = site.client("bed-01").here(), site.client("bed-02").here()
    gateway = site.client("gateway.main").here().subscribe(f"{topics.ROOT}/d/+/up/#")
    assert one.publish(topics.up("bed-01", "state")) in DONE
    assert gateway.get()[0] == topics.up("bed-01", "state")
    for topic in (
        topics.up("bed-02", "alert"),
        topics.down("bed-02", "command"),
        topics.down("bed-01", "command"),
        topics.gateway_state("main"),
        topics.SERVER_ORDER,
        topics.SERVER_STATE,
        topics.MODEL,
        "elsewhere",
    ):
        assert one.publish(topic) == NOT_AUTHORIZED, topic

    one.subscribe("#", topics.down("bed-02", "command"), topics.up("bed-02", "assessment"))
    assert other.publish(topics.up("bed-02", "assessment")) in DONE
    assert gateway.publish(topics.down("bed-02", "command")) in DONE
    assert gateway.publish(topics.down("bed-01", "command")) in DONE
    assert one.get()[0] == topics.down("bed-01", "command"), "its own alone is delivered"
    assert one.inbox.empty()


def test_what_a_device_hears(site: Site) -> None:
    server, gateway = site.client("server").here(), site.client("gateway.main").here()
    assert server.publish(topics.MODEL, b"model", retain=True) in DONE
    assert server.publish(topics.model("deterioration"), b"ahead", retain=True) in DONE
    assert gateway.publish(topics.gateway_state("main"), b"here", retain=True) in DONE
    device = site.client("bed-01").here()
    device.subscribe(topics.down("bed-01", "task"), *topics.EVERY_MODEL, topics.EVERY_GATEWAY)
    heard = {device.get() for _ in range(3)}
    assert heard == {
        (topics.MODEL, b"model", True),
        (topics.model("deterioration"), b"ahead", True),
        (topics.gateway_state("main"), b"here", True),
    }
    assert server.publish(topics.down("bed-01", "task"), b"task") in DONE
    assert device.get()[1] == b"task"


def test_updates_are_for_the_server_alone(site: Site) -> None:
    everything = f"{topics.ROOT}/d/+/up/#"
    server = site.client("server").here().subscribe(topics.every_up("update"))
    gateway = site.client("gateway.main").here().subscribe(everything, topics.every_up("update"))
    device = site.client("bed-01").here()
    assert device.publish(topics.up("bed-01", "update"), b"weights") in DONE
    assert server.get()[1] == b"weights"
    assert device.publish(topics.up("bed-01", "result"), b"then") in DONE
    assert gateway.get()[1] == b"then", "the update did not come before it"
    assert gateway.publish(topics.down("bed-01", "task")) == NOT_AUTHORIZED
    assert server.publish(topics.down("bed-01", "command")) == NOT_AUTHORIZED
    assert gateway.publish(topics.MODEL) == NOT_AUTHORIZED


def test_orders_and_their_answers(site: Site) -> None:
    server = site.client("server").here().subscribe(topics.SERVER_ORDER, topics.SERVER_MODEL_ORDER)
    gateway = site.client("gateway.main").here()
    gateway.subscribe(topics.SERVER_RUN, topics.SERVER_STATE, topics.SERVER_MODEL_ANSWER)
    for topic in (topics.SERVER_ORDER, topics.SERVER_MODEL_ORDER):
        assert gateway.publish(topic) in DONE
        assert server.get()[0] == topic
        assert server.publish(topic) == NOT_AUTHORIZED
    for topic in (topics.SERVER_RUN, topics.SERVER_STATE, topics.SERVER_MODEL_ANSWER):
        assert server.publish(topic) in DONE
        assert gateway.get()[0] == topic
        assert gateway.publish(topic) == NOT_AUTHORIZED


def test_a_will_on_anothers_topic_is_dropped(site: Site) -> None:
    gateway = site.client("gateway.main").here().subscribe(topics.every_up("state"))
    site.client("bed-01", will=topics.up("bed-02", "state")).here().die()
    site.client("bed-02", will=topics.up("bed-02", "state")).here().die()
    assert gateway.get()[:2] == (topics.up("bed-02", "state"), b"will")
    assert gateway.inbox.empty()


def test_whom_it_does_not_let_in(site: Site, tmp_path: Path) -> None:
    pki = site.folder / "pki"
    old = Authority(pki, "ca", now=datetime.now(UTC) - timedelta(days=3000))
    assert old.issue("bed-03")
    rogue = Authority(tmp_path / "rogue", "ca")
    assert rogue.issue("bed-01")
    for made in (
        Client(site.address("bed-03"), "bed-03"),  # expired
        Client(  # of another authority, with the name of one that is known
            brokers.Broker(
                url=site.url,
                ca_file=str(pki / "ca.crt"),
                cert_file=str(tmp_path / "rogue/certs/bed-01.crt"),
                key_file=str(tmp_path / "rogue/keys/bed-01.key"),
            ),
            "bed-01",
        ),
        Client(brokers.Broker(url=site.url, ca_file=str(pki / "ca.crt")), "nobody"),
    ):
        site.clients.append(made)
        assert made.refused
    site.client("bed-01").here()


def test_a_revoked_certificate_is_refused_after_a_reload(site: Site) -> None:
    live = site.client("bed-02").here()
    kept = site.folder / "kept"
    kept.mkdir()
    for kind in ("certs", "keys"):
        file = site.folder / "pki" / kind / f"bed-02.{kind[:-1] if kind == 'keys' else 'crt'}"
        (kept / file.name).write_bytes(file.read_bytes())
    (kept / "bed-02.key").chmod(0o600)
    site.write("--revoke", "bed-02")
    site.broker.reload()
    address = brokers.Broker(
        url=site.url,
        ca_file=str(site.folder / "pki/ca.crt"),
        cert_file=str(kept / "bed-02.crt"),
        key_file=str(kept / "bed-02.key"),
    )

    def refused() -> bool:
        made = Client(address, "bed-02")
        site.clients.append(made)
        return made.refused

    until(refused)
    assert not live.lost.is_set() or live.client.is_connected() is False
    site.client("bed-01").here()
    assert not (site.folder / "pki/certs/bed-02.crt").exists()


def test_a_name_that_is_a_wildcard_may_do_nothing(site: Site) -> None:
    assert Authority(site.folder / "pki", "ca").issue("+", file="evil")
    evil = Client(site.address("evil"), "evil").here()
    site.clients.append(evil)
    evil.subscribe("#", f"{topics.ROOT}/d/+/up/#")
    device = site.client("bed-01").here()
    device.subscribe(topics.down("bed-01", "command"))
    assert evil.publish(f"{topics.ROOT}/d/bed-01/up/state") == NOT_AUTHORIZED
    assert device.publish(topics.up("bed-01", "state")) in DONE
    gateway = site.client("gateway.main").here()
    assert gateway.publish(topics.down("bed-01", "command")) in DONE
    device.get()
    assert evil.inbox.empty()


def test_one_connection_for_each_certificate(site: Site) -> None:
    first = site.client("bed-01").here()
    second = Client(site.address("bed-01"), "another-id")
    site.clients.append(second)
    second.here()
    assert first.lost.wait(10.0)


def test_what_is_retained_outlives_a_broker_that_ends_in_order(site: Site) -> None:
    gateway = site.client("gateway.main").here()
    assert gateway.publish(topics.gateway_state("main"), b"here", retain=True) in DONE
    site.broker.close()
    site.broker.start()
    device = Client(site.address("bed-01"), "bed-01").here()
    site.clients.append(device)
    assert device.subscribe(topics.EVERY_GATEWAY).get() == (topics.gateway_state("main"), b"here", True)


def test_it_listens_where_it_was_told_and_keeps_its_keys(site: Site, tmp_path: Path) -> None:
    text = (site.folder / "mosquitto.conf").read_text()
    assert [line for line in text.splitlines() if line.startswith("listener")] == [
        f"listener {site.port} 127.0.0.1"
    ]
    keys = list((site.folder / "pki/keys").iterdir())
    assert {key.name for key in keys} == {
        "ca.key", "broker.key", "server.key", "gateway.main.key", "bed-01.key", "bed-02.key",
    }  # fmt: skip
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    before = {key.name: key.read_bytes() for key in keys}
    site.write()
    assert {key.name: key.read_bytes() for key in keys} == before, "run again, it keeps what is good"
    crl = x509.load_pem_x509_crl((site.folder / "pki/ca.crl").read_bytes())
    assert crl.next_update_utc is not None
    assert timedelta(days=29) < crl.next_update_utc - datetime.now(UTC) <= timedelta(days=30)
    checked = subprocess.run(
        ["openssl", "verify", "-crl_check", "-CAfile", "ca.crt", "-CRLfile", "ca.crl", "certs/bed-01.crt"],
        check=False,
        capture_output=True,
        text=True,
        cwd=site.folder / "pki",
    )
    assert checked.stdout == "certs/bed-01.crt: OK\n", checked.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--device", "server"), "rename it"),
        (("--device", "gateway.main"), "rename it"),
        (("--device", "+"), "use 1 to 63 letters"),
        (("--gateway", "a/b"), "use 1 to 63 letters"),
        (("--listen", "somewhere"), "write an address"),
        (("--port", "0"), "a port lies between"),
        (("--revoke", "bed-01"), "needs --pki"),
        (("--pki", "--revoke", "bed-09"), "bed-09.crt cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    options: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mosquitto", "--out", str(tmp_path / "x"), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


def test_the_access_list_names_every_topic_of_the_wire() -> None:
    text = acl.text(Parties(gateways=["a", "b"]))
    assert text.count("topic deny samd/v1/d/+/up/update") == 2
    assert "homeassistant" not in text
    assert "topic readwrite homeassistant/#" in acl.text(Parties(), home_assistant=True)
    for topic in (topics.SERVER_ORDER, topics.SERVER_MODEL_ORDER, topics.MODEL, topics.EVERY_GATEWAY):
        assert topic in text


# from end to end


def options_of(address: brokers.Broker) -> tuple[str, ...]:
    assert address.ca_file is not None
    assert address.cert_file is not None
    assert address.key_file is not None
    return (
        *("--ca-file", address.ca_file, "--cert-file", address.cert_file, "--key-file", address.key_file),
        "--no-pages",
    )


@pytest.fixture
def over_tls(monkeypatch: pytest.MonkeyPatch) -> Callable[[brokers.Broker, str], Device]:
    """A device peer that shows its certificate."""

    def make(address: brokers.Broker, name: str) -> Device:
        monkeypatch.setattr(brokers, "Broker", lambda url: address)
        device = Device(address.url, name, interval_s=5.0)
        monkeypatch.undo()
        return device

    return make


def test_gateway_and_device_over_tls(
    site: Site, make_gateway: Callable[..., Gateway], peers: Callable, over_tls: Callable
) -> None:
    gateway = make_gateway(site.url, *options_of(site.address("gateway.main")))
    device = peers(over_tls(site.address("bed-01"), "bed-01"))
    until(lambda: (gateway.device("bed-01") or {}).get("state") == "online")
    device.assess(5)
    until(lambda: gateway.device("bed-01")["assessment"])
    sent = gateway.http.post("/api/devices/bed-01/commands", json={"body": {"type": "report"}})
    assert sent.status_code == 202
    until(lambda: device.commands)
    assert gateway.get("/healthz")["status"] == "ok"


def test_an_agent_over_tls(site: Site, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """The device's own program, with the certificate of its bed, set up by a file."""
    gateway = make_gateway(site.url, *options_of(site.address("gateway.main")))
    address = site.address("bed-01")
    settings = tmp_path / "edge.toml"
    settings.write_text(
        f'[broker]\nurl = "{address.url}"\nca_file = "{address.ca_file}"\n'
        f'cert_file = "{address.cert_file}"\nkey_file = "{address.key_file}"\n'
    )
    with (tmp_path / "edge.log").open("wb") as log:
        agent = subprocess.Popen(
            [
                *(sys.executable, "-m", "samd_edge", "run", "--device", "bed-01", "--heartbeat", "1"),
                *("--config", str(settings), "--data-dir", str(tmp_path / "edge")),
                *("--source", "sim:?scenario=sepsis&speed=60", "--no-prefork"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: (gateway.device("bed-01") or {}).get("assessment"), 60.0, "an assessment over TLS")
        until(lambda: gateway.device("bed-01")["certificate_expires_at"], 20.0, "its certificate's end")
        ends = datetime.fromisoformat(gateway.device("bed-01")["certificate_expires_at"])
        assert timedelta(days=396) < ends - datetime.now(UTC) <= timedelta(days=398)
    finally:
        agent.terminate()
        assert agent.wait(20.0) in (0, 143), (tmp_path / "edge.log").read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_gateways_that_share_over_tls_fetch_what_waits_for_one_that_is_gone(
    how: int, tmp_path: Path, make_gateway: Callable[..., Gateway], peers: Callable, over_tls: Callable
) -> None:
    site = Site(tmp_path, "--device", "bed-01", "--gateway", "one", "--gateway", "two")
    try:
        port = site.port + 1
        env = {"SAMD_DATABASE_URL": f"sqlite:///{tmp_path}/together.sqlite3"}

        def serve(name: str) -> Gateway:
            address = site.address(f"gateway.{name}", port=port)
            return make_gateway(
                address.url,
                *options_of(address),
                *("--name", name, "--share", "ward"),
                data=name,
                env=env,
            )

        one, two = serve("one"), serve("two")
        strange = Client(site.address("bed-01", port=port), "samd-gateway-one")
        site.clients.append(strange)
        assert strange.refused, "a device's certificate is good at the devices' port alone"
        device = peers(over_tls(site.address("bed-01"), "bed-01"))
        until(lambda: (two.device("bed-01") or {}).get("state") == "online")
        one.end(how)
        infos = []
        for _ in range(200):
            sealed = device.sealer.seal(envelope_of())
            infos.append(device.publish(topics.up("bed-01", "assessment"), envelope.encode(sealed)))
        for info in infos:
            info.wait_for_publish(20.0)
        committed = 'samd_gateway_messages_total{kind="assessment"}'
        until(lambda: two.metric(committed) == 200, 40.0, "the heir has fetched the rest")
        assert two.get("/healthz")["status"] == "ok"
    finally:
        site.close()


def envelope_of() -> Any:
    from gateway_peers import assessment

    return assessment(3)
