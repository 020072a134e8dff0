"""How the gateway is reached over HTTP: by which names, through which proxy, with which certificate."""

import msgspec


class Web(msgspec.Struct, frozen=True, kw_only=True):
    """What `samd-gateway serve` was told of it. `hostnames`: names of this gateway beside loopback;
    `pages`: whether the web pages are served, which only one gateway of a process can."""

    host: str = "127.0.0.1"
    port: int = 8080
    hostnames: tuple[str, ...] = ()
    behind_proxy: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    oidc: str | None = None
    pages: bool = False
