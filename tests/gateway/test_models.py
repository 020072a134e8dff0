"""Model files: verified before they are stored, fetched whole or in part."""

import hashlib
from http.client import HTTPConnection

import httpx
import numpy as np
import pytest
from gateway_peers import Gateway
from hypothesis import given
from hypothesis import strategies as st

from samd_gateway.ranges import matches, parse_range
from samd_protocol.bundle import Bundle, Features, Layer, Manifest, pack


def make(version: int = 1, weights: int = 50_000) -> tuple[bytes, str]:
    manifest = Manifest(
        name="severity",
        version=version,
        parent=version - 1,
        task="severity",
        trained=True,
        features=Features(name="f1", labels="five", size=3),
        classes=["0", "1-4", "5-6", "7+"],
        layers=[Layer(name="w", shape=[weights])],
        metrics={"macro_f1": 0.5},
    )
    data = pack(
        Bundle(
            manifest=manifest, graph=b"graph", weights=np.arange(weights, dtype=np.float32), keras=b"keras"
        )
    )
    return data, hashlib.sha256(data).hexdigest()


@pytest.fixture
def http(shared_gateway: Gateway) -> httpx.Client:
    return shared_gateway.http


def test_put_list_and_get(http: httpx.Client) -> None:
    data, sha256 = make()
    url = f"/api/models/{sha256}.samd"
    assert http.get(url).status_code == 404
    assert [http.put(url, content=data).status_code for _ in range(2)] == [201, 200]
    newer, newer_sha256 = make(2)
    assert http.put(f"/api/models/{newer_sha256}.samd", content=newer).status_code == 201
    listed = [
        each for each in http.get("/api/models").json()["models"] if each["sha256"] in (sha256, newer_sha256)
    ]
    assert [(each["version"], each["sha256"], each["size"]) for each in listed] == [
        (2, newer_sha256, len(newer)),
        (1, sha256, len(data)),
    ]
    assert listed[1]["metrics"] == {"macro_f1": 0.5}
    answer = httpx.get(listed[1]["url"], trust_env=False)
    assert answer.content == data
    assert answer.headers["etag"] == f'"{sha256}"'
    head = http.head(url)
    assert (head.status_code, head.content, int(head.headers["content-length"])) == (200, b"", len(data))


def test_what_is_no_bundle_is_refused_and_leaves_nothing(http: httpx.Client) -> None:
    before = http.get("/api/models").json()
    data, sha256 = make(version=9)
    broken = data[:-1000]
    tampered = data.replace(b"graph", b"grafh", 1)
    for content, name in (
        (b"", hashlib.sha256(b"").hexdigest()),
        (data, "0" * 64),
        (broken, hashlib.sha256(broken).hexdigest()),
        (tampered, hashlib.sha256(tampered).hexdigest()),
        (data, sha256.upper()),
        (data, "x"),
    ):
        answer = http.put(f"/api/models/{name}.samd", content=content)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
    address = http.base_url
    connection = HTTPConnection(address.host, address.port, timeout=10)
    connection.putrequest("PUT", f"/api/models/{sha256}.samd")
    connection.putheader("content-length", str(65 * 2**20))  # refused by its length, before a byte of it came
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert http.get("/api/models").json() == before


def test_parts_and_conditions(http: httpx.Client) -> None:
    data, sha256 = make()
    url, etag, size = f"/api/models/{sha256}.samd", f'"{sha256}"', len(data)
    http.put(url, content=data)

    def get(**headers: str) -> httpx.Response:
        return http.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})

    part = get(range="bytes=10-19")
    assert (part.status_code, part.content) == (206, data[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert get(range=f"bytes={size - 5}-").content == data[-5:]
    assert get(range="bytes=-7").content == data[-7:]
    whole = get(range="bytes=0-999999999")
    assert (whole.status_code, whole.content) == (206, data)
    beyond = get(range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert beyond.headers["content-type"] == "application/problem+json"
    assert get(range="lines=1-2").status_code == 200
    assert get(if_none_match=etag).status_code == 304
    assert get(if_none_match=f'W/"x", {etag}').status_code == 304
    assert get(if_none_match='"x"').status_code == 200
    assert get(range="bytes=0-1", if_range=etag).status_code == 206
    assert get(range="bytes=0-1", if_range='"old"').content == data
    assert http.get("/api/models/..%2f..%2fgateway.sqlite3.samd").status_code == 404


def test_a_fetch_that_was_cut_goes_on_where_it_was(http: httpx.Client) -> None:
    data, sha256 = make()
    url = f"/api/models/{sha256}.samd"
    http.put(url, content=data)
    got = b""
    while len(got) < len(data):
        answer = http.get(
            url, headers={"range": f"bytes={len(got)}-{len(got) + 65_535}", "if-range": f'"{sha256}"'}
        )
        assert answer.status_code == 206
        got += answer.content
    assert hashlib.sha256(got).hexdigest() == sha256


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-0", 5, (0, 1)),
        ("bytes=4-", 5, (4, 5)),
        ("bytes=-9", 5, (0, 5)),
        ("bytes=3-1", 5, None),
        ("bytes=-", 5, None),
        ("bytes=0-1,3-4", 5, None),
        ("bytes=a-b", 5, None),
        ("", 5, None),
    ],
)
def test_ranges(header: str, size: int, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, size) == expected


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=5-", 5), ("bytes=-0", 5), ("bytes=0-", 0), ("bytes=-1", 0)]
)
def test_ranges_that_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_range(header, size)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 100))
def test_a_range_lies_within_the_file(start: int, end: int, size: int) -> None:
    try:
        found = parse_range(f"bytes={start}-{end}", size)
    except ValueError:
        assert start >= size
    else:
        assert found is None or (0 <= found[0] < found[1] <= size)


def test_tags() -> None:
    assert matches('"a", W/"b"', '"b"')
    assert matches("*", '"b"')
    assert not matches('"bb"', '"b"')
    assert not matches("", '"b"')
