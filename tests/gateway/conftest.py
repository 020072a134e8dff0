"""Fixtures: a real broker, real gateways, peers that are closed again."""

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for gateway_peers, which the tests share

from gateway_peers import Gateway, Peer, Process
from postgres import PostgreSQL, binaries

T = TypeVar("T")


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    process = Process("broker", "--port", "0")
    try:
        yield process.ready()
    finally:
        assert process.end() == 0


@pytest.fixture
def own_broker() -> Iterator[str]:
    """A broker that no other test has written to."""
    process = Process("broker", "--port", "0")
    try:
        yield process.ready()
    finally:
        process.end()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server of this test run."""
    if binaries() is None:
        pytest.skip("no PostgreSQL server is installed here (apt install postgresql)")
    server = PostgreSQL()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(broker: str, *options: str, data: str = "gateway") -> Gateway:
        gateway = Gateway(broker, tmp_path / data, *options)
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        gateway.end()


@pytest.fixture
def peers() -> Iterator[Callable[[T], T]]:
    """Registers a peer to be closed."""
    made: list[Peer] = []

    def keep(peer: T) -> T:
        made.append(peer)
        return peer

    yield keep
    for peer in made:
        peer.close()


@pytest.fixture
def name() -> str:
    """A device name of this test alone."""
    return f"bed-{uuid.uuid4().hex[:6]}"


@pytest.fixture(scope="session")
def shared_gateway(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway for tests that neither restart it nor count on being alone."""
    gateway = Gateway(broker_url, tmp_path_factory.mktemp("shared") / "gateway")
    yield gateway
    assert gateway.end() == 0
