"""A release reaches a gateway that was away, and the newest wish wins."""

import hashlib
from collections.abc import Iterator

import msgspec
import pytest

from samd_protocol.bundle import Bundle, unpack
from samd_protocol.messages import ModelRelease
from samd_server.errors import ServerError
from samd_server.release import Releaser


@pytest.fixture
def announced() -> list[ModelRelease]:
    return []


@pytest.fixture
def releaser(free_port: int, announced: list[ModelRelease]) -> Iterator[Releaser]:
    made = Releaser(f"http://127.0.0.1:{free_port}/", announced.append, retry_s=0.02)
    made.start()
    yield made
    made.stop()


def version(bundle: Bundle, number: int) -> Bundle:
    return msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, version=number))


def test_uploaded_then_announced(releaser, announced, make_uploads, free_port, small_bundle) -> None:
    uploads = make_uploads(free_port)
    releaser.release(small_bundle)
    assert releaser.wait_announced(0, 10.0)
    (path, data), (release,) = next(iter(uploads.received.items())), announced
    assert hashlib.sha256(data).hexdigest() == release.sha256 == small_bundle.sha256
    assert path == f"/api/models/{release.sha256}.samd"
    assert release.url == f"http://127.0.0.1:{free_port}{path}"
    assert (release.version, release.size, release.task, release.trained) == (0, len(data), "severity", False)
    assert unpack(data).weights.tolist() == small_bundle.weights.tolist()


def test_a_gateway_that_is_away_gets_only_the_newest(
    releaser, announced, make_uploads, free_port, small_bundle
) -> None:
    for number in (1, 2, 3):
        releaser.release(version(small_bundle, number))
    assert not releaser.wait_announced(3, 0.1)
    assert announced == []
    uploads = make_uploads(free_port)
    assert releaser.wait_announced(3, 10.0)
    assert [release.version for release in announced] == [3]
    assert len(uploads.received) == 1


def test_each_task_has_its_own_newest(releaser, announced, make_uploads, free_port, small_bundle) -> None:
    ahead = msgspec.structs.replace(
        small_bundle, manifest=msgspec.structs.replace(small_bundle.manifest, task="deterioration", version=5)
    )
    for bundle in (version(small_bundle, 1), ahead, version(small_bundle, 2)):
        releaser.release(bundle)
    assert not releaser.wait_announced(5, 0.1, task="deterioration")
    make_uploads(free_port)
    assert releaser.wait_announced(2, 10.0)
    assert releaser.wait_announced(5, 10.0, task="deterioration")
    told = sorted((release.task, release.version) for release in announced)
    assert told == [("deterioration", 5), ("severity", 2)]


def test_waiting_gives_up_when_told_to_stop(releaser, small_bundle) -> None:
    releaser.release(small_bundle)
    assert not releaser.wait_announced(0, 600.0, stop=lambda: True)


@pytest.mark.parametrize(
    "address", ["", "gateway", "ftp://host", "http://", "http://host:port", "http://[::1"]
)
def test_an_address_that_is_none_is_refused_at_once(address: str, announced) -> None:
    with pytest.raises(ServerError, match="write http://HOST:PORT"):
        Releaser(address, announced.append)
