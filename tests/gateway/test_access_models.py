"""Model files where users are set up: the server shows a token, a device the key in the address."""

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from access_peers import Guarded, bearer, token_of
from gateway_peers import Gateway, until

from samd_edge.model_fetch import Transient, fetch_once
from samd_protocol.bundle import Bundle, Features, Layer, Manifest, pack
from samd_protocol.errors import BrokerError
from samd_protocol.messages import ModelRelease
from samd_server.errors import ServerError
from samd_server.release import Releaser


def bundle(version: int) -> Bundle:
    manifest = Manifest(
        name="severity",
        version=version,
        parent=version - 1,
        task="severity",
        trained=True,
        features=Features(name="f1", labels="five", size=3),
        classes=["0", "1-4", "5-6", "7+"],
        layers=[Layer(name="w", shape=[1000])],
        metrics={"macro_f1": 0.5},
    )
    weights = np.arange(1000, dtype=np.float32)
    return Bundle(manifest=manifest, graph=b"graph", weights=weights, keras=b"keras")


def released(url: str, made: Bundle, token_file: Path | None) -> ModelRelease | None:
    """What the real server announces, or None where the gateway does not take it."""
    announced: list[ModelRelease] = []
    releaser = Releaser(
        url, announced.append, token_file=None if token_file is None else str(token_file), retry_s=0.02
    )
    releaser.start()
    try:
        releaser.release(made)
        return announced[0] if releaser.wait_announced(made.manifest.version, 5.0) else None
    finally:
        releaser.stop()


def secret(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def test_the_server_shows_its_token_and_the_device_the_key(
    guarded: Guarded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = secret(tmp_path / "token", token_of(guarded.admin, "op", "models"))
    # by a name of the server's own for the gateway: what it announces begins with that
    url = guarded.url.replace("127.0.0.1", "localhost")
    release = released(url, bundle(41), token)
    assert release is not None
    path, _, query = release.url.partition("?")
    assert path == f"{url}/api/models/{release.sha256}.samd"
    assert len(query) == len("key=") + 64
    part = tmp_path / "part"
    fetch_once(release, part)
    assert hashlib.sha256(part.read_bytes()).hexdigest() == release.sha256
    part.unlink()
    for other in ("", "?key=", "?key=" + "0" * 64):
        with pytest.raises(Transient, match="answers 401"):
            fetch_once(ModelRelease(**{**_fields(release), "url": path + other}), part)
    # the key opens this one file, and says nothing of what else is there
    again = released(guarded.url, bundle(42), token)
    assert again is not None
    crossed = httpx.get(f"{path}?{again.url.partition('?')[2]}", trust_env=False)
    assert crossed.status_code == 401
    missing = httpx.get(f"{guarded.url}/api/models/{'0' * 64}.samd", trust_env=False)
    assert missing.status_code == 401
    assert guarded.admin.http.get(f"/api/models/{release.sha256}.samd").status_code == 200
    assert guarded.admin.http.head(f"/api/models/{release.sha256}.samd").status_code == 200
    uploads = guarded.admin.http.get("/api/audit", params={"action": "model.upload"}).json()["entries"]
    assert {each["target"] for each in uploads} >= {f"model/{release.sha256}", f"model/{again.sha256}"}
    assert {each["actor"] for each in uploads} == {"op"}
    assert token.read_text().strip() not in caplog.text


def _fields(release: ModelRelease) -> dict[str, object]:
    return {name: getattr(release, name) for name in release.__struct_fields__}


def test_a_server_without_a_token_is_told_what_to_do(
    guarded: Guarded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weak = secret(tmp_path / "token", token_of(guarded.admin, "op", "read"))
    for token in (None, weak):
        caplog.clear()
        announced: list[ModelRelease] = []
        file = None if token is None else str(token)
        releaser = Releaser(guarded.url, announced.append, token_file=file, retry_s=0.02)
        releaser.start()
        releaser.release(bundle(43))
        until(lambda: "--gateway-token-file FILE" in caplog.text, what="the warning")
        releaser.stop()
        assert announced == []
    data = pack(bundle(44))
    path = f"/api/models/{hashlib.sha256(data).hexdigest()}.samd"
    for headers, status in (({}, 401), (bearer(weak.read_text().strip()), 403)):
        answer = httpx.put(guarded.url + path, content=data, headers=headers, trust_env=False)
        assert answer.status_code == status


def test_token_files_that_are_not_safe(tmp_path: Path) -> None:
    token = secret(tmp_path / "token", "samd_x")
    with pytest.raises(ServerError, match="in clear; write https"):
        Releaser("http://gateway.example", lambda _: None, token_file=str(token))
    token.chmod(0o640)
    assert stat.S_IMODE(token.stat().st_mode) == 0o640
    with pytest.raises(BrokerError, match="chmod 600"):
        Releaser("http://127.0.0.1:1", lambda _: None, token_file=str(token))
    with pytest.raises(BrokerError, match="cannot be read"):
        Releaser("http://127.0.0.1:1", lambda _: None, token_file=str(tmp_path / "nothing"))


def test_what_was_announced_before_there_were_users_is_fetched_after(
    broker_url: str, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = make_gateway(broker_url, "--no-pages")
    release = released(gateway.url, bundle(1), None)
    assert release is not None
    first = {"name": "root", "role": "admin", "password": "some words in a row"}
    assert gateway.http.post("/api/users", json=first).status_code == 201
    assert gateway.http.get("/api/models").status_code == 401
    fetch_once(release, tmp_path / "part")
    assert (tmp_path / "part").stat().st_size == release.size
