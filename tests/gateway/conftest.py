"""Fixtures: a real broker, real gateways, peers that are closed again."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for gateway_peers, which the tests share

from access_peers import Browser, Guarded, add_users
from gateway_peers import Gateway, Peer, Process
from mosquitto_peer import Mosquitto, installed
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


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto of this test alone, without access control, on a free port."""
    if installed() is None:
        pytest.skip("no Mosquitto is installed here (apt install mosquitto)")
    broker = Mosquitto(tmp_path / "mosquitto")
    try:
        yield broker
    finally:
        broker.close()


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


@pytest.fixture(scope="session", autouse=True)
def _whole_run_on_postgresql(request: pytest.FixtureRequest) -> Iterator[None]:
    """With SAMD_TEST_DATABASE=postgresql every gateway process gets a database there instead of a file."""
    if os.environ.get("SAMD_TEST_DATABASE") != "postgresql":
        yield
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    made: dict[Path, dict[str, str]] = {}

    def environment(data: Path) -> dict[str, str]:
        if data not in made:
            made[data] = server.environment(server.create())
        return made[data]

    Gateway.elsewhere = staticmethod(environment)
    yield
    Gateway.elsewhere = None


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(broker: str, *options: str, data: str = "gateway", env: dict[str, str] | None = None) -> Gateway:
        gateway = Gateway(broker, tmp_path / data, *options, env=env)
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
    gateway = Gateway(broker_url, tmp_path_factory.mktemp("shared") / "gateway", "--no-pages")
    yield gateway
    assert gateway.end() == 0


@pytest.fixture
def enter() -> Iterator[Callable[..., Browser]]:
    """A browser at this address, signed in where a name is given; closed at the end."""
    made: list[Browser] = []

    def make(url: str, name: str | None = None) -> Browser:
        browser = Browser(url)
        made.append(browser)
        if name is not None:
            assert browser.sign_in(name).status_code == 303
        return browser

    yield make
    for browser in made:
        browser.http.close()


@pytest.fixture(scope="session")
def guarded(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A gateway with a user of each role, for tests that leave these as they are."""
    gateway = Gateway(broker_url, tmp_path_factory.mktemp("guarded") / "gateway", "--no-pages")
    admin = add_users(gateway)
    yield Guarded(gateway, admin)
    admin.http.close()
    assert gateway.end() == 0
