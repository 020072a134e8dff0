"""`samd-gateway serve`: the gateway and its API in one process."""

import logging
import signal
import socket
from collections.abc import Callable

import msgspec

from samd_gateway.gateway import Gateway, Settings
from samd_gateway.listen import bind, check_loopback

log = logging.getLogger(__name__)

REMEDY = "for other machines put a proxy with TLS and authentication in front of it"
BROKER_WAIT_S = 3.0


def run(settings: Settings, host: str, port: int, announce: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `announce` gets the one line of readiness.

    Raises UsageError for a host beyond loopback, a port in use, a folder or database that cannot be used, and
    BrokerError for an address or files of the broker that cannot be used.
    """
    import uvicorn

    from samd_gateway.app import build

    host = check_loopback(host, REMEDY)
    settings.broker.address  # noqa: B018 - raises for a URL that is none, before anything is opened
    sock = bind(host, port, "serve")
    address = f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"
    try:
        gateway = Gateway(msgspec.structs.replace(settings, address=address))
    except BaseException:
        sock.close()
        raise
    received: list[int] = []

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                announce(f"ready {address}")

        def handle_exit(self, sig: int, frame: object) -> None:
            # not kept for uvicorn, which would raise it again at its end: the exit code is given below
            received.append(sig)
            # streams of events never end by themselves; without this the server would wait for them
            gateway.events.close()
            self.should_exit = True

    config = uvicorn.Config(
        build(gateway),
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=2,
        proxy_headers=False,  # uvicorn would believe whatever a program of this machine says of its peer
    )
    server = Server(config)
    try:
        gateway.start()
        if not gateway.link.wait_subscribed(BROKER_WAIT_S):
            log.warning("no broker yet: %s; trying on", gateway.link.problem)
        server.run(sockets=[sock])
    finally:
        gateway.stop()
        sock.close()
    return 130 if received and received[0] == signal.SIGINT else 0
