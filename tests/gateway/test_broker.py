"""The embedded broker as a user starts it, and what of MQTT 5 it honours."""

import signal
import socket
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
import pytest
from gateway_peers import Peer, Process, free_port, until

from samd_gateway.cli import main


def properties(**values: object) -> mqtt.Properties:
    made = mqtt.Properties(mqtt.PacketTypes.PUBLISH)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_without_process_and_port(number: int, code: int) -> None:
    process = Process("broker", "--port", str(free_port()))
    port = int(process.ready().rsplit(":", 1)[1])
    children = psutil.Process(process.popen.pid).children(recursive=True)
    assert len(children) == 1
    listening = {c.laddr.ip for c in children[0].net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    assert process.end(number) == code
    assert not children[0].is_running()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    assert process.errors == []


def test_it_leaves_nothing_even_when_killed() -> None:
    process = Process("broker", "--port", "0")
    process.ready()
    (child,) = psutil.Process(process.popen.pid).children()
    process.end(signal.SIGKILL)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, what="child gone")


@pytest.mark.parametrize("program", ["broker", "serve"])
def test_a_port_in_use_is_one_sentence(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        assert main([program, "--port", str(port)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"samd-gateway: port {port} on 127.0.0.1 is in use; stop the program that listens there, "
        f"or choose another port: samd-gateway {program} --port {port + 1}\n"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - refused
@pytest.mark.parametrize(("program", "remedy"), [("broker", "Mosquitto"), ("serve", "proxy")])
def test_no_other_host_than_loopback(
    program: str, remedy: str, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([program, "--host", host, "--port", "0"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert ("write an address" if (program, host) == ("serve", "example.org") else remedy) in told


class Listener(Peer):
    """Keeps whole messages, with their properties."""

    def __init__(self, url: str, client_id: str, topic: str) -> None:
        self.got: list[mqtt.MQTTMessage] = []
        super().__init__(url, "listener", client_id=client_id)
        self.subscribe(topic)

    def arrived(self, message: mqtt.MQTTMessage) -> None:
        self.got.append(message)


def test_it_honours_what_the_wire_needs(broker_url: str, peers: object, name: str) -> None:
    """Retained messages and their removal, expiry, user properties, wills, sessions, and 1 MiB."""
    topic = f"samd/v1/test/{name}"
    sender = peers(Peer(broker_url, "sender"))
    sender.client.publish(topic, b"kept", 1, True, properties(UserProperty=[("a", "b")])).wait_for_publish(5)
    sender.client.publish(
        f"{topic}/x", b"brief", 1, True, properties(MessageExpiryInterval=1)
    ).wait_for_publish(5)
    one = peers(Listener(broker_url, f"{name}-1", topic))
    until(lambda: one.got)
    assert (one.got[0].payload, one.got[0].retain) == (b"kept", True)
    assert one.got[0].properties.UserProperty == [("a", "b")]
    sender.publish(topic, b"", retain=True).wait_for_publish(5)
    until(lambda: len(one.got) == 2)

    threading.Event().wait(1.2)  # the expiry itself is what is waited for
    two = peers(Listener(broker_url, f"{name}-2", f"{topic}/#"))
    sender.publish(topic, b"x" * 1_000_000)
    until(lambda: two.got)
    assert [len(message.payload) for message in two.got] == [1_000_000]  # nothing retained came before it

    two.client.disconnect()
    two.client.loop_stop()
    sender.publish(topic, b"meanwhile").wait_for_publish(5)
    three = peers(Listener(broker_url, f"{name}-2", f"{topic}/#"))
    until(lambda: three.got)
    assert three.got[0].payload == b"meanwhile"
