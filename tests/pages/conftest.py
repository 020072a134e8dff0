"""Fixtures: a real broker, a real `samd-gateway serve`, devices that speak the protocol, a real browser."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))  # for pages_peers, which the tests share

from pages_peers import Bedside, Gateway, Peer, Process, Reader, launch

T = TypeVar("T")


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    process = Process("broker", "--port", "0")
    try:
        yield process.ready()
    finally:
        assert process.end() == 0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a broker of its own, so that no other module's patients are on its pages."""
    broker = Process("broker", "--port", "0")
    try:
        gateway = Gateway(broker.ready(), tmp_path_factory.mktemp("pages") / "gateway")
        gateway.broker = gateway.arguments[2]
        yield gateway
        assert gateway.end() == 0
    finally:
        broker.end()


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(broker: str, *options: str) -> Gateway:
        gateway = Gateway(broker, tmp_path / "gateway", *options)
        gateway.broker = broker
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        gateway.end()


@pytest.fixture
def own_broker() -> Iterator[str]:
    process = Process("broker", "--port", "0")
    try:
        yield process.ready()
    finally:
        process.end()


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
def bed(gateway: Gateway, peers: Callable[[Bedside], Bedside]) -> Callable[..., Bedside]:
    """A device at a bed of the module's gateway; its name is the test's own."""
    return lambda name, **options: peers(Bedside(gateway.broker, name, **options))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: while it lives, its event loop stands in the way of others in this thread."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def reader(browser: Browser) -> Iterator[Reader]:
    """Somebody before a browser; whatever the browser complains of fails the test."""
    reader = Reader(browser)
    yield reader
    reader.close()
    assert reader.faults == []
    assert reader.elsewhere == []


@pytest.fixture
def ward(reader: Reader, gateway: Gateway) -> Page:
    """The ward's page, connected."""
    return reader.open(gateway.url + "/")
