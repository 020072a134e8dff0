"""Searches on a FHIR server, page by page, within bounds; failures sorted into passing and lasting ones.

- ``SearchFailed``: the search gave nothing, or not all; ``reason`` and ``remedy`` are a half sentence each
    - ``Passing``: it will likely succeed soon; ``wait_s`` where the server says when
    - ``Lasting``: it will not heal by itself
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import httpx

from samd_edge.sources import fhir_json

MAX_PAGE_BYTES: Final = 4 << 20
ANSWER_S: Final = 60.0  # a whole page; each single wait has its own time-out
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_REMEDIES: Final = {
    400: "check that this is a FHIR R4 server which finds Observations by patient, code and _lastUpdated",
    401: "check the token (token_file)",
    403: "have this device permitted to read the patient's Observations",
    404: "check the address: it is the server's base, without /Observation",
    410: "the patient is no longer there; check the id",
}


class SearchFailed(Exception):  # noqa: N818  (it is an answer, with its reason)
    """See the module."""

    def __init__(self, reason: str, remedy: str, wait_s: float | None = None) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.wait_s = wait_s


class Passing(SearchFailed):
    """It will likely succeed soon."""


class Lasting(SearchFailed):
    """It will not heal by itself."""


class FhirClient:
    """One server. ``tls`` verifies it; ``token`` is sent to nobody else: no redirection is followed, no page
    of another origin is asked for, no proxy of the environment is used."""

    def __init__(
        self,
        base: str,
        *,
        tls: ssl.SSLContext | bool = True,
        token: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log each URL, with the patient in it
        self.base = base.rstrip("/")
        headers = {"accept": "application/fhir+json", "accept-encoding": "identity"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        self._client = httpx.AsyncClient(
            headers=headers,
            verify=tls,
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )
        self._origin = _origin(httpx.URL(self.base))
        self._tag: tuple[httpx.URL, str] | None = None

    async def search(self, kind: str, parameters: Mapping[str, str]) -> AsyncGenerator[dict[str, Any], None]:
        """The searchset Bundles of one search; none when nothing changed since the same search before.

        Raises SearchFailed.
        """
        url = httpx.URL(f"{self.base}/{kind}", params=dict(parameters))
        asked = {url}
        page = await self._get(url, first=True)
        while page is not None:
            yield page
            following = _next(page)
            if following is None:
                return
            url = url.join(following)
            if _origin(url) != self._origin or url.userinfo:
                raise Lasting("the server's next page is on another server", "it is not followed")
            if url in asked:
                raise Lasting("the server's pages go round in a circle", "ask who runs the server")
            asked.add(url)
            page = await self._get(url)

    async def _get(self, url: httpx.URL, *, first: bool = False) -> dict[str, Any] | None:
        headers = {}
        if first and self._tag is not None and self._tag[0] == url:
            headers["if-none-match"] = self._tag[1]
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._client.stream("GET", url, headers=headers) as response,
            ):
                if response.status_code == 304 and headers:
                    return None
                _check(response)
                content = bytearray()
                async for part in response.aiter_raw():
                    content += part
                    if len(content) > MAX_PAGE_BYTES:
                        raise Lasting("a page is over 4 MiB", "have the server give smaller pages")
                tag = response.headers.get("etag")
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Passing("the server did not answer in time", "see whether it is overloaded") from error
        except httpx.TransportError as error:
            if _is_tls(error):
                raise Lasting(
                    "the server's certificate is not trusted", "give its authority (ca_file)"
                ) from error
            raise Passing("the server cannot be reached", "check the network and the address") from error
        bundle = await _bundle(bytes(content))
        if first:
            self._tag = (url, tag) if tag and len(tag) < 1000 else None
        return bundle

    def forget(self) -> None:
        """The last answer was not taken over: ask for it again."""
        self._tag = None

    async def aclose(self) -> None:
        await self._client.aclose()


async def _bundle(content: bytes) -> dict[str, Any]:
    try:
        bundle = await asyncio.to_thread(fhir_json.parse, content)
    except fhir_json.JsonError as error:
        reason, _, _ = str(error).partition("; ")
        raise Lasting(f"of the server's answer, {reason}", "check that it is a FHIR R4 server") from error
    kinds = (bundle.get("resourceType"), bundle.get("type")) if isinstance(bundle, dict) else ()
    if kinds != ("Bundle", "searchset"):
        raise Lasting("the server's answer is no searchset", "check that it is a FHIR R4 server")
    found: dict[str, Any] = bundle
    return found


def _check(response: httpx.Response) -> None:
    """Raises SearchFailed for an answer that is not a page of JSON."""
    status = response.status_code
    if status in _PASSING:
        text = response.headers.get("retry-after", "")
        wait_s = float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None
        raise Passing(f"the server answers {status}", "see whether it is overloaded", wait_s)
    if 300 <= status < 400:
        raise Lasting(f"the server redirects elsewhere ({status})", "give the address that it redirects to")
    if status != 200:
        raise Lasting(f"the server answers {status}", _REMEDIES.get(status, "ask who runs the server"))
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Lasting("the server compresses what was asked for plainly", "switch compression off")


def _next(bundle: dict[str, Any]) -> str | None:
    links = bundle.get("link")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            return str(link["url"])
    return None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
