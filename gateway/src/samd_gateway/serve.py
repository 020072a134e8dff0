"""`samd-gateway serve`: the gateway and its API in one process."""

import logging
import signal
import socket
import time
from collections.abc import Callable

import msgspec

from samd_gateway import restore
from samd_gateway.access import users
from samd_gateway.folder import prepare_folder
from samd_gateway.gateway import Gateway, Settings
from samd_gateway.listen import bind, check_certificate, check_web
from samd_gateway.schema import open_database
from samd_gateway.web import Web

log = logging.getLogger(__name__)

BROKER_WAIT_S = 3.0
RESTART = -1
"""Instead of an exit code: the program is to begin anew, with the arguments that it has."""


def run(settings: Settings, web: Web, announce: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `announce` gets the one line of readiness.

    Raises UsageError for a way of being reached that is not safe, a port in use, a folder or database that
    cannot be used, and BrokerError for an address or files of the broker that cannot be used.
    """
    import uvicorn

    from samd_gateway import entrance
    from samd_gateway.app import build

    _put_back(settings)
    settings.broker.address  # noqa: B018 - raises for a URL that is none, before anything is opened
    host = check_web(web, lambda: _users_set_up(settings))
    entrance.names(web)  # raises for a file of a provider that cannot be used
    scheme = "http"
    if web.tls_cert is not None and web.tls_key is not None:
        check_certificate(web.tls_cert, web.tls_key)
        scheme = "https"
    sock = bind(host, web.port, "serve")
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"
    try:
        gateway = Gateway(msgspec.structs.replace(settings, address=address))
    except BaseException:
        sock.close()
        raise
    if gateway.access.open_to_all:
        log.warning(
            "no user is set up: only 127.0.0.1 is served, and whoever works on this machine may do "
            "everything; samd-gateway users add NAME --role admin changes that"
        )
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
        build(gateway, web),
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=2,
        proxy_headers=False,  # uvicorn would believe whatever a program of this machine says of its peer
        server_header=False,
        ws="websockets-sansio",  # the default is built on what that library has deprecated
        ws_max_size=2**20,
        ssl_certfile=web.tls_cert,
        ssl_keyfile=web.tls_key,
    )
    server = Server(config)
    again: list[bool] = []

    def restart() -> None:
        again.append(True)
        gateway.events.close()
        server.should_exit = True

    gateway.restart = restart
    try:
        gateway.start()
        if not gateway.link.wait_subscribed(BROKER_WAIT_S):
            log.warning("no broker yet: %s; trying on", gateway.link.problem)
        server.run(sockets=[sock])
    finally:
        gateway.stop()
        sock.close()
    if again and not received:
        return RESTART
    return 130 if received and received[0] == signal.SIGINT else 0


def _put_back(settings: Settings) -> None:
    """A backup that waits to be put in place is, before anything is opened."""
    if restore.pending(settings.data):
        with prepare_folder(settings.data):
            kept = restore.finish(
                settings.data,
                settings.database_url,
                password_file=settings.database_password_file,
                now=time.time(),
            )
        log.warning("a backup was restored; what was here before it is kept in %s", kept)


def _users_set_up(settings: Settings) -> bool:
    """From the database, before anything listens."""
    with prepare_folder(settings.data):
        database = open_database(
            settings.database_url, settings.data, password_file=settings.database_password_file
        )
        try:
            with database.read() as connection:
                return users.any_at_all(connection)
        finally:
            database.close()
