"""Models: fetched in pieces, verified before anything is loaded, old or new but whole."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from samd_data.reading import Reading
from samd_edge.control import ask
from samd_edge.device_db import DeviceDb
from samd_edge.model_fetch import Fetcher, Transient, check_release, fetch_once
from samd_edge.models import Held, ModelError, Shelf
from samd_protocol import topics
from samd_protocol.errors import BundleError
from samd_protocol.messages import ModelActivate, ModelRelease, ModelRollback

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FileServer:
    """Serves one file, and `others` by their path; `cut` ends each answer after so many bytes, `ranges` says
    whether it knows ranges."""

    def __init__(self) -> None:
        self.data = b""
        self.others: dict[str, bytes] = {}
        self.cut: int | None = None
        self.ranges = True
        self.status = 200
        self.requests: list[str | None] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                if outer.status != 200:
                    self.send_error(outer.status)
                    return
                begin = int(wanted[6:-1]) if wanted and outer.ranges else 0
                data = outer.others.get(self.path, outer.data)
                body = data[begin:]
                self.send_response(206 if begin else 200)
                if begin:
                    self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/*")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if outer.cut is None else body[: outer.cut])
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/model.samd"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    db = DeviceDb(tmp_path / "device")
    yield Shelf(db, tmp_path / "device")
    db.close()


def release(server: FileServer, path: Path, version: int = 1, **changes: Any) -> ModelRelease:
    server.data = data = path.read_bytes()
    values = {
        "version": version,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "url": server.url,
        "task": "severity",
        "trained": True,
    }
    return ModelRelease(**(values | changes))  # type: ignore[arg-type]


class Ending:
    """What the fetcher came to."""

    def __init__(self, shelf: Shelf, **options: Any) -> None:
        self.held: Held | None = None
        self.error: str | None = None
        self._over = threading.Event()
        options = {"retry_s": (0.01, 0.02), "max_attempts": 20} | options
        self.fetcher = Fetcher(shelf, done=self._done, failed=self._failed, now=lambda: NOW, **options)
        self.fetcher.start()

    def _done(self, _release: ModelRelease, held: Held) -> None:
        self.held = held
        self._over.set()

    def _failed(self, _release: ModelRelease, text: str) -> None:
        self.error = text
        self._over.set()

    def of(self, wanted: ModelRelease) -> "Ending":
        self.fetcher.want(wanted)
        assert self._over.wait(20)
        self.fetcher.stop()
        return self


def leftovers(shelf: Shelf) -> list[str]:
    return sorted(path.name for path in shelf.folder.iterdir()) if shelf.folder.exists() else []


def test_fetched_verified_and_kept(
    server: FileServer, shelf: Shelf, make_bundle: Callable[..., Path]
) -> None:
    wanted = release(server, make_bundle(3), 3)
    held = Ending(shelf).of(wanted).held
    assert held is not None
    assert (held.version, held.sha256, held.trained) == (3, wanted.sha256, True)
    assert leftovers(shelf) == [f"3-{wanted.sha256}.samd"]
    assert held.path.read_bytes() == server.data
    Ending(shelf).of(wanted)
    assert len(server.requests) == 1, "what is held is not fetched again"
    held.path.write_bytes(b"damaged")
    assert Ending(shelf).of(wanted).held == held
    assert held.path.read_bytes() == server.data, "what was damaged on the disk is fetched again"


@pytest.mark.parametrize("ranges", [True, False])
def test_interrupted_it_goes_on_where_it_ended(
    server: FileServer, shelf: Shelf, make_bundle: Callable[..., Path], ranges: bool
) -> None:
    wanted = release(server, make_bundle())
    server.cut, server.ranges = len(server.data) // 3 + 1, ranges
    if ranges:
        assert Ending(shelf).of(wanted).held is not None
        assert server.requests == [None, f"bytes={server.cut}-", f"bytes={2 * server.cut}-"]
    else:
        part = shelf.folder / "part"
        shelf.folder.mkdir(parents=True)
        with pytest.raises(Transient):
            fetch_once(wanted, part)
        server.cut = None
        fetch_once(wanted, part)
        assert part.read_bytes() == server.data, "a server that knows no ranges sends all of it again"


@pytest.mark.parametrize("where", [0, 100, -1])
def test_tampered_it_is_never_kept(
    server: FileServer, shelf: Shelf, make_bundle: Callable[..., Path], where: int
) -> None:
    wanted = release(server, make_bundle())
    damaged = bytearray(server.data)
    damaged[where] ^= 1
    server.data = bytes(damaged)
    ending = Ending(shelf).of(wanted)
    assert "does not match the announced size and hash" in str(ending.error)
    assert (leftovers(shelf), shelf.all()) == ([], [])


def test_truncated_longer_and_missing_it_is_given_up(
    server: FileServer, shelf: Shelf, make_bundle: Callable[..., Path]
) -> None:
    wanted = release(server, make_bundle())
    whole = server.data
    server.data = whole[:-10]
    assert "given up after 3 attempts" in str(Ending(shelf, max_attempts=3).of(wanted).error)
    server.data = whole + b"more"
    assert "does not match" in str(Ending(shelf, max_attempts=3).of(wanted).error)
    server.status = 404
    assert "given up after 2 attempts" in str(Ending(shelf, max_attempts=2).of(wanted).error)
    assert shelf.all() == []


def test_a_file_that_is_no_bundle_or_another_version(
    server: FileServer, shelf: Shelf, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"PK no bundle")
    assert "no bundle" in str(Ending(shelf).of(release(server, wrong)).error)
    assert "the file says 2" in str(Ending(shelf).of(release(server, make_bundle(2), 7)).error)
    assert (leftovers(shelf), shelf.all()) == ([], [])


@pytest.mark.parametrize(
    "changes",
    [{"url": "file:///etc/passwd"}, {"url": "ftp://h/m"}, {"size": 0}, {"size": 10**12}, {"sha256": "xyz"}],
    ids=str,
)
def test_announcements_that_cannot_be_true(
    server: FileServer, make_bundle: Callable[..., Path], changes: dict[str, Any]
) -> None:
    with pytest.raises(ModelError):
        check_release(release(server, make_bundle(), **changes))


def test_activation_and_the_way_back(shelf: Shelf, make_bundle: Callable[..., Path]) -> None:
    one, two = (shelf.keep(make_bundle(version), now=NOW) for version in (1, 2))
    with pytest.raises(ModelError, match="no model to go back to"):
        shelf.roll_back()
    shelf.activate(one)
    shelf.activate(two)
    shelf.activate(two)
    assert (shelf.active(), shelf.previous()) == (two, one)
    assert shelf.roll_back() == one
    assert (shelf.active(), shelf.previous()) == (one, two)
    two.path.write_bytes(two.path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="does not match the announced hash"):
        shelf.roll_back()
    assert shelf.active() == one, "a damaged model is not activated"


def test_each_task_has_its_own_active_model(shelf: Shelf, make_bundle: Callable[..., Path]) -> None:
    """Versions of two tasks are counted apart, activated beside each other and rolled back one at a time."""
    now = {version: shelf.keep(make_bundle(version), now=NOW) for version in (1, 2)}
    ahead = {
        version: shelf.keep(make_bundle(version, task="deterioration"), now=NOW) for version in (1, 2, 3)
    }
    for held in (now[1], ahead[1], ahead[3], now[2]):
        shelf.activate(held)
    assert (shelf.active(), shelf.previous()) == (now[2], now[1])
    assert (shelf.active("deterioration"), shelf.previous("deterioration")) == (ahead[3], ahead[1])
    assert shelf.find(1, task="severity") == now[1]
    assert shelf.find(1, task="deterioration") == ahead[1]
    assert shelf.find(3, task="severity") is None
    assert shelf.with_graph(ahead[3].graph_sha256) is None
    assert shelf.with_graph(ahead[3].graph_sha256, task="deterioration") == ahead[3]
    assert shelf.roll_back("deterioration") == ahead[1]
    assert (shelf.active(), shelf.active("deterioration")) == (now[2], ahead[1])
    assert shelf.roll_back() == now[1]
    assert (shelf.active("deterioration"), shelf.previous("deterioration")) == (ahead[1], ahead[3])


def test_a_device_file_of_a_client_that_knew_one_task(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    """Its rows name no task; they are those of severity, read and written as they always were."""
    db = DeviceDb(tmp_path / "old")
    try:
        shelf = Shelf(db, tmp_path / "old")
        one, two = (shelf.keep(make_bundle(version), now=NOW) for version in (1, 2))
        db.set(active_model=[2, two.sha256], previous_model=[1, one.sha256])
        assert (shelf.active(), shelf.previous()) == (two, one)
        assert shelf.active("deterioration") is None
        shelf.activate(shelf.keep(make_bundle(2, task="deterioration"), now=NOW))
        # what an older client reads after a downgrade is what it wrote
        assert db.get("active_model") == [2, two.sha256]
        assert shelf.roll_back() == one
        assert (db.get("active_model"), db.get("previous_model")) == ([1, one.sha256], [2, two.sha256])
    finally:
        db.close()


def test_a_release_of_one_task_does_not_end_the_fetch_of_another(
    server: FileServer, shelf: Shelf, make_bundle: Callable[..., Path], wait: Callable[..., Any]
) -> None:
    """The first cannot be had now; the second has its turn between two attempts, and both are kept."""
    severity = release(server, make_bundle(1), 1, url=server.url.replace("model", "severity"))
    whole, server.others["/severity.samd"] = server.data, b""  # interrupted at once, again and again
    ahead = release(server, make_bundle(1, task="deterioration"), 1, task="deterioration")
    kept: dict[str, Held] = {}
    both = threading.Event()

    def done(wanted: ModelRelease, held: Held) -> None:
        kept[wanted.task] = held
        server.others["/severity.samd"] = whole  # now it can be had, too
        if len(kept) == 2:
            both.set()

    def failed(wanted: ModelRelease, text: str) -> None:
        raise AssertionError(f"{wanted.task}: {text}")

    pauses = (0.01, 0.02)
    fetcher = Fetcher(shelf, done=done, failed=failed, retry_s=pauses, max_attempts=1000, now=lambda: NOW)
    fetcher.start()
    fetcher.want(severity)
    wait(lambda: len(server.requests) >= 3, "three attempts")
    fetcher.want(ahead)
    assert both.wait(20)
    fetcher.stop()
    assert [(task, held.task) for task, held in kept.items()] == [
        ("deterioration", "deterioration"),
        ("severity", "severity"),
    ]


def test_a_file_of_another_task_than_announced(
    server: FileServer, shelf: Shelf, make_bundle: Callable[..., Path]
) -> None:
    ending = Ending(shelf).of(release(server, make_bundle(1), 1, task="deterioration"))
    assert "was announced for 'deterioration', the file is for 'severity'" in str(ending.error)
    assert shelf.all() == []


def test_an_untrained_model_assesses_nobody(shelf: Shelf, make_bundle: Callable[..., Path]) -> None:
    held = shelf.keep(make_bundle(0, trained=False), now=NOW)
    assert shelf.with_graph(held.graph_sha256) == held
    with pytest.raises(ModelError, match="never trained"):
        shelf.check(held)


def test_versions_are_never_overwritten(shelf: Shelf, make_bundle: Callable[..., Path]) -> None:
    first = shelf.keep(make_bundle(1), now=NOW)
    before = (first.path.stat().st_mtime_ns, first.path.stat().st_ino)
    shelf.keep(make_bundle(1), now=NOW)
    assert (first.path.stat().st_mtime_ns, first.path.stat().st_ino) == before
    assert len(shelf.all()) == 1


def test_a_damaged_file_is_refused(shelf: Shelf, make_bundle: Callable[..., Path]) -> None:
    path = make_bundle(1)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BundleError):
        shelf.keep(path, now=NOW)
    assert leftovers(shelf) == []


def test_an_agent_takes_a_release_and_goes_back(
    server: FileServer,
    own_broker: Any,
    listen: Any,
    run_agent: Any,
    device: str,
    make_bundle: Any,
    wait: Callable[..., Any],
) -> None:
    own_broker.start()
    peer = listen(own_broker)
    untrained = make_bundle(0, trained=False)
    peer.say(topics.MODEL, release(server, untrained, 0, trained=False), retain=True)
    agent = run_agent(own_broker.url).ready()
    peer.wait(device, "state")
    # The newest release wins: the next one would replace this one before it was fetched.
    wait(lambda: "model 0 was never trained" in agent.log, "the untrained model")
    for version in (1, 2):
        peer.say(topics.MODEL, release(server, make_bundle(version), version), retain=True)
        peer.wait(device, "state", lambda data, version=version: data.model_version == version)
    tampered = release(server, make_bundle(3), 3)
    server.data = server.data[:-1] + b"x"
    peer.say(topics.MODEL, tampered)
    rolled = peer.command(device, ModelRollback())
    assert (rolled.status, rolled.detail) == ("done", {"model_version": 1})
    agent.kill()
    peer.forget()
    peer.send(topics.MODEL, b"", retain=True)
    agent = run_agent(own_broker.url).ready()
    assert peer.wait(device, "state", lambda data: data.status == "online").data.model_version == 1
    assert peer.command(device, ModelActivate(version=2)).status == "done"
    refused = peer.command(device, ModelActivate(version=0))
    assert (refused.status, "never trained" in refused.reason) == ("rejected", True)
    assert peer.command(device, ModelActivate(version=3)).status == "rejected"
    agent.stop()


def test_an_agent_holds_a_model_for_each_task_and_answers_after_a_restart(
    server: FileServer,
    own_broker: Any,
    listen: Any,
    run_agent: Any,
    device: str,
    make_bundle: Any,
    wait: Callable[..., Any],
) -> None:
    own_broker.start()
    peer = listen(own_broker)
    agent = run_agent(own_broker.url).ready()
    peer.wait(device, "state")
    peer.say(topics.MODEL, release(server, make_bundle(1), 1), retain=True)
    peer.wait(device, "state", lambda data: data.model_version == 1)
    for version in (4, 5):
        wanted = release(server, make_bundle(version, task="deterioration"), version, task="deterioration")
        peer.say(topics.model("deterioration"), wanted, retain=True)
        wait(lambda version=version: f"model {version} for deterioration is active" in agent.log, "it")
    begin = datetime.now(UTC)
    for minutes in (150, 100, 90, 61, 0):
        agent.feed(
            Reading(
                observed_at=begin - timedelta(minutes=minutes),
                heart_rate=80.0,
                respiratory_rate=16.0,
                spo2=97.0,
                systolic_bp=120.0,
                temperature=37.0,
            )
        )
    peer.wait(device, "assessment", lambda data: data.reading_age_s < 60 and data.model is not None)
    agent.kill()
    peer.forget()
    agent = run_agent(own_broker.url).ready()
    told = peer.wait(device, "assessment", lambda data: data.deterioration is not None).data
    ahead = told.deterioration
    assert (ahead.version, ahead.horizon_h, ahead.calibration, ahead.reason) == (5, 6, "none", None)
    assert ahead.possible == ["stable", "deteriorates"], "without a hold-out nothing can be ruled out"
    assert 0 < ahead.probability < 1
    assert (ahead.asked_at.minute, ahead.asked_at.second, ahead.asked_at.microsecond) == (0, 0, 0)
    assert timedelta(0) <= datetime.now(UTC) - ahead.asked_at < timedelta(hours=1, minutes=1)
    assert told.model.version == 1, "severity is answered beside it"
    shown = ask(agent.data_dir, {"ask": "view", "hours": 1.0})["view"]
    assert (shown["deterioration"]["version"], shown["model_version"]) == (5, 1)
    assert shown["deterioration"]["probability"] == pytest.approx(ahead.probability)
    rolled = peer.command(device, ModelRollback(task="deterioration"))
    assert (rolled.status, rolled.detail) == ("done", {"model_version": 4})
    again = peer.wait(
        device, "assessment", lambda data: data.deterioration is not None and data.deterioration.version == 4
    )
    assert again.data.model.version == 1
    assert peer.command(device, ModelActivate(version=5, task="deterioration")).status == "done"
    refused = peer.command(device, ModelActivate(version=1, task="deterioration"))
    assert refused.reason == "model 1 is not held here for 'deterioration'"
    assert peer.command(device, ModelRollback()).reason == "there is no model to go back to"
    agent.stop()
