"""The broker's settings: nothing secret is shown, nothing that was asked for is passed over."""

import os
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from samd_protocol import broker
from samd_protocol.broker import Broker
from samd_protocol.errors import BrokerError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://localhost", ("localhost", 1883, False)),
        ("mqtt://127.0.0.1:1884", ("127.0.0.1", 1884, False)),
        ("mqtts://broker.ward-3.example", ("broker.ward-3.example", 8883, True)),
        ("mqtts://broker:443/", ("broker", 443, True)),
        ("MQTT://Broker", ("broker", 1883, False)),
        ("mqtt://[::1]:1885", ("::1", 1885, False)),
        ("mqtts://[fe80::1]", ("fe80::1", 8883, True)),
    ],
)
def test_an_address_is_read(url: str, address: tuple[str, int, bool]) -> None:
    assert Broker(url=url).address == address


def test_the_default_is_the_own_machine() -> None:
    assert Broker().address == ("127.0.0.1", 1883, False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:1883",
        "127.0.0.1:1883",
        "//localhost",
        "mqtt:",
        "mqtt://",
        "mqtt://:1883",
        "mqtt:///topic",
        "http://localhost",
        "ws://localhost",
        "mqtt://host:port",
        "mqtt://host:0",
        "mqtt://host:65536",
        "mqtt://host:-1",
        "mqtt://host/topic",
        "mqtt://host?tls=1",
        "mqtt://host#x",
        "mqtt://two hosts",
        "mqtt://[::1",
        "mqtt://ho*st",
    ],
)
def test_any_other_url_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(BrokerError, match="write mqtt://HOST:PORT or mqtts://HOST:PORT") as caught:
        _ = Broker(url=url).address
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://nurse:s3cret@host",
        "mqtt://nurse:s3cret@host:port",
        "mqtt://:s3cret@host",
        "mqtts://nurse:s3cret@[::1",
        "http://nurse:s3cret@host",
        "nurse:s3cret@host",
        "mqtt://s3cret@host",
    ],
)
def test_a_password_in_a_url_is_refused_and_never_shown(url: str) -> None:
    with pytest.raises(BrokerError, match="do not belong into the URL") as caught:
        _ = Broker(url=url).address
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(caught.value.__cause__)


@given(st.text(max_size=40) | st.text("mqts:/@[]0189.a%?#", max_size=30).map(lambda text: f"mqtt://{text}"))
def test_any_text_is_an_address_or_refused(url: str) -> None:
    try:
        host, port, _ = Broker(url=url).address
    except BrokerError:
        return
    assert host
    assert 1 <= port <= 65535


def secret_file(path: Path, content: bytes = b"s3cret\n", mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_is_one_line_of_a_private_file(tmp_path: Path, mode: int) -> None:
    assert broker.read_secret(secret_file(tmp_path / "password", mode=mode)) == "s3cret"
    assert broker.read_secret(secret_file(tmp_path / "other", "pass wört".encode())) == "pass wört"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path / "password", mode=mode)
    with pytest.raises(BrokerError, match=f"run: chmod 600 {path}"):
        broker.read_secret(path)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"  \n", b"s3cret\nmore\n", b"\xff\xfes3cret", b"s3\x00cret"]
)
def test_what_is_not_one_line_is_no_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BrokerError) as caught:
        broker.read_secret(secret_file(tmp_path / "password", content))
    assert "s3" not in str(caught.value)


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="missing: cannot be read"):
        broker.read_secret(str(tmp_path / "missing"))
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(BrokerError, match="folder: is no file"):
        broker.read_secret(str(tmp_path / "folder"))


class Certificates:
    """A certificate authority for an hour, a broker's certificate and a device's, as files."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self.folder = folder
        self.ca_file = self._write("authority.crt", self._signed(self._name, self._key, authority=True))
        for name in ("broker", "device"):
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            self._write(f"{name}.crt", self._signed(subject, key, authority=False))
            self._write(f"{name}.key", self._private(key, serialization.NoEncryption()))
            locked = self._private(key, serialization.BestAvailableEncryption(b"s3cret"))
            self._write(f"{name}.locked.key", locked)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.touch(0o600)
        path.write_bytes(data)
        return str(path)

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    @staticmethod
    def _private(
        key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption
    ) -> bytes:
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def with_tls(certificates: Certificates, **changes: str | None) -> Broker:
    settings = {
        "url": "mqtts://localhost",
        "ca_file": certificates.ca_file,
        "cert_file": certificates.path("device.crt"),
        "key_file": certificates.path("device.key"),
        **changes,
    }
    return Broker(**settings)  # type: ignore[arg-type]


def shaken_hands(
    client: ssl.SSLContext, server: ssl.SSLContext, name: str
) -> tuple[str | None, dict[str, object]]:
    """A real TLS handshake in memory; returns the protocol and the certificate that the server saw."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (near, far):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert done == {near, far}
    return near.version(), far.getpeercert() or {}


def servers_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca_file)
    context.load_cert_chain(certificates.path("broker.crt"), certificates.path("broker.key"))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_broker_and_device_prove_themselves_to_each_other(certificates: Certificates) -> None:
    context = broker.tls_context(with_tls(certificates))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    version, seen = shaken_hands(context, servers_context(certificates), "localhost")
    assert version in ("TLSv1.2", "TLSv1.3")
    assert seen["subject"] == ((("commonName", "device"),),)


def test_a_broker_of_another_name_or_another_authority_is_refused(certificates: Certificates) -> None:
    context = broker.tls_context(with_tls(certificates))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shaken_hands(context, servers_context(certificates), "elsewhere")
    system = broker.tls_context(Broker(url="mqtts://localhost"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken_hands(system, servers_context(certificates), "localhost")


def test_the_key_must_be_private(certificates: Certificates) -> None:
    key = Path(certificates.path("device.key"))
    key.chmod(0o644)
    try:
        with pytest.raises(BrokerError, match="chmod 600"):
            broker.make_client(with_tls(certificates), "bed-01")
    finally:
        key.chmod(0o600)


def test_an_encrypted_key_is_refused_and_asks_nobody(certificates: Certificates) -> None:
    with pytest.raises(BrokerError, match="cannot be used as certificate and key"):
        broker.make_client(with_tls(certificates, key_file=certificates.path("device.locked.key")), "bed-01")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ca_file": "missing.crt"}, "missing.crt: cannot be used as the broker's authority"),
        ({"cert_file": None}, "give both files or neither"),
        ({"key_file": None}, "give both files or neither"),
        ({"key_file": "missing.key"}, "missing.key: cannot be read"),
        ({"cert_file": "missing.crt"}, "missing.crt, .*cannot be used as certificate and key"),
        ({"url": "mqtt://localhost"}, "not encrypted, yet TLS files are given"),
        ({"password_file": "p"}, "give the user name too"),
        ({"username": "nurse", "password_file": "missing"}, "missing: cannot be read"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(
    certificates: Certificates, changes: dict[str, str | None], match: str
) -> None:
    with pytest.raises(BrokerError, match=match) as caught:
        broker.make_client(with_tls(certificates, **changes), "bed-01")
    assert "\n" not in str(caught.value)


def test_files_that_do_not_belong_together_are_refused(certificates: Certificates) -> None:
    with pytest.raises(BrokerError, match="cannot be used"):
        broker.make_client(with_tls(certificates, key_file=certificates.path("broker.key")), "bed-01")
    with pytest.raises(BrokerError, match="authority"):
        broker.make_client(with_tls(certificates, ca_file=certificates.path("device.key")), "bed-01")


class Peer:
    """The broker's end of one TLS connection on 127.0.0.1: packets in and out, byte by byte."""

    def __init__(self, context: ssl.SSLContext, listener: socket.socket) -> None:
        listener.settimeout(20)
        raw, _ = listener.accept()
        raw.settimeout(20)
        self.socket = context.wrap_socket(raw, server_side=True)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, "the client closed the connection"
            data += more
        return data

    def packet(self) -> tuple[int, bytes]:
        """First byte and body of the next packet; short ones only."""
        first, length = self.exactly(2)
        assert length < 128
        return first, self.exactly(length)


def test_what_a_client_says_to_the_broker(certificates: Certificates, tmp_path: Path) -> None:
    context = servers_context(certificates)
    received = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = with_tls(
            certificates,
            url=f"mqtts://127.0.0.1:{listener.getsockname()[1]}",
            username="bed-01",
            password_file=secret_file(tmp_path / "password"),
        )
        client = broker.make_client(settings, "edge-01", manual_ack=True, max_inflight=7)
        assert not client.is_connected()
        arrived: list[mqtt.MQTTMessage] = []

        def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            arrived.append(message)
            received.set()

        client.on_message = on_message
        broker.connect(client, settings, keepalive=45)
        client.loop_start()
        try:
            peer = Peer(context, listener)
            with peer.socket:
                first, body = peer.packet()
                assert first == 0x10, "CONNECT"
                assert body[:6] == b"\x00\x04MQTT"
                assert body[6] == 5
                assert body[7] == 0b1100_0000, "user name, password, and no clean start"
                assert body[8:10] == (45).to_bytes(2, "big")
                assert body[10:16] == b"\x05\x11" + (86_400).to_bytes(4, "big"), "the session lives for a day"
                assert body[16:] == b"\x00\x07edge-01\x00\x06bed-01\x00\x06s3cret"
                peer.socket.sendall(b"\x20\x03\x00\x00\x00")  # CONNACK
                peer.socket.sendall(b"\x32\x07\x00\x01t\x00\x09\x00x")  # PUBLISH, QoS 1, number 9
                assert received.wait(20)
                client.publish("after", b"y", qos=0)
                assert peer.packet()[0] == 0x30, "the message was not acknowledged by itself"
                client.ack(arrived[0].mid, arrived[0].qos)
                first, body = peer.packet()
                assert (first, body[:2]) == (0x40, b"\x00\x09"), "PUBACK, once it is asked for"
                for _ in range(9):
                    client.publish("more", b"z", qos=1)
                client.publish("last", b"z", qos=0)
                numbers = [peer.packet()[0] for _ in range(8)]
                assert numbers == [0x32] * 7 + [0x30], "seven in flight, the others wait"
                client.disconnect()
        finally:
            client.loop_stop()
    assert not client.is_connected()


def test_the_secret_stands_in_no_repr(tmp_path: Path) -> None:
    password = secret_file(tmp_path / "password")
    settings = Broker(username="nurse", password_file=password)
    assert "s3cret" not in repr(settings)
    assert os.path.basename(password) in repr(settings)
