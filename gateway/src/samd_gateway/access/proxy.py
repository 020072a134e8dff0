"""Behind a proxy that speaks TLS: whose word counts about where a request came from."""

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from samd_gateway.access.hosts import is_loopback
from samd_gateway.errors import UsageError
from samd_gateway.problems import problem


def check_proxies(proxies: Sequence[str]) -> None:
    """Raises UsageError for what is neither an address nor a network, and for one that means everybody."""
    for proxy in proxies:
        try:
            network = ipaddress.ip_network(proxy, strict=False)
        except ValueError as error:
            raise UsageError(
                f"--behind-proxy {proxy!r}: write the proxy's address, such as 10.0.0.5"
            ) from error
        if network.prefixlen == 0:
            raise UsageError(f"--behind-proxy {proxy}: that is everybody; write the proxy's own address")


class BehindProxy:
    """ASGI middleware around all others. Requests come by one of the proxies, which says by which address and
    that it was by TLS, or from this machine itself; all others are refused."""

    def __init__(self, app: ASGIApp, proxies: Sequence[str]) -> None:
        self._direct = app
        self._by_proxy = ProxyHeadersMiddleware(app, trusted_hosts=list(proxies))  # type: ignore[arg-type]
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._direct(scope, receive, send)
            return
        peer = (scope.get("client") or ("", 0))[0]
        found = Headers(scope=scope)
        forwarded = "x-forwarded-for" in found or "x-forwarded-proto" in found
        if is_loopback(peer) and not forwarded:
            await self._direct(scope, receive, send)
        elif not self._is_proxy(peer):
            await _refuse(scope, receive, send, "this gateway is reached through its proxy; ask that one")
        elif found.get("x-forwarded-proto", "").lower() not in ("https", "wss"):
            detail = "the proxy did not say that it was asked by TLS: let it send X-Forwarded-Proto: https"
            await _refuse(scope, receive, send, detail)
        elif not found.get("x-forwarded-for"):
            await _refuse(scope, receive, send, "the proxy did not say who asks: let it send X-Forwarded-For")
        else:
            await self._by_proxy(scope, receive, send)  # type: ignore[arg-type]

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


async def _refuse(scope: Scope, receive: Receive, send: Send, detail: str) -> None:
    if scope["type"] == "http":
        await problem(403, detail)(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008})
