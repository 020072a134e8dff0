"""What all pages share, how a page is declared, and how they are mounted on the gateway's application."""

import copy
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request
from nicegui import Client, core, ui
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Receive, Scope, Send

from samd_gateway.access.actor import Permission
from samd_gateway.gateway import Gateway
from samd_gateway.pages import shell
from samd_gateway.pages.hub import Hub
from samd_gateway.pages.texts import Catalogue
from samd_gateway.pages.view import View, language_of, theme_of

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
RECONNECT_S = 15.0
"""A page whose connection was lost for less goes on where it was; after longer it is loaded anew."""
QUASAR = {"en": "en-US", "ko": "ko-KR"}
Build = Callable[[View], Awaitable[None]]


class Site:
    """One gateway's pages."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.catalogue = Catalogue()
        self.hub = Hub(gateway)

    def page(
        self, path: str, *, title: str, at: str | None = None, permission: Permission = "read"
    ) -> Callable[[Build], Build]:
        """Declare a page: `title` is the key of a text, `at` its place in the navigation.

        The builder stands inside the shell; `view.path` and `view.query` hold what the address says.
        """

        def declare(build: Build) -> Build:
            @ui.page(path, response_timeout=15.0)
            async def shown(request: Request, client: Client) -> None:
                view = View.of(self, client, request, at)
                # language and theme are this reader's, not the page's
                mine = copy.copy(client.page)
                mine.language = QUASAR[language_of(request)]  # type: ignore[assignment]
                mine.dark = {"auto": None, "light": False, "dark": True}[theme_of(request)]
                mine.title = f"{view.t(title)} · samd"
                client.page = mine
                with shell.around(view, title=title):
                    if view.may(permission):
                        await build(view)
                    else:
                        shell.refused(view, permission)

            return build

        return declare


class PagesRoute(BaseRoute):
    """Gives NiceGUI what is NiceGUI's; everything else stays with the API and its problem documents."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] not in ("http", "websocket"):
            return Match.NONE, {}
        if scope["path"].startswith("/_nicegui"):
            return Match.FULL, {}
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            for route in self.app.routes:
                if not isinstance(route, Mount) and route.matches(scope)[0] is Match.FULL:
                    return Match.FULL, {}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def mount(app: FastAPI, site: Site) -> None:
    """Put the declared pages onto the gateway's application."""
    core.app.add_static_files("/_nicegui/samd", STATIC, max_cache_age=0)
    core.app.config.endpoint_documentation = "none"
    ui.run_with(
        app,
        title="samd",
        favicon=STATIC / "favicon.svg",
        dark=None,
        language="en-US",
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=RECONNECT_S,
        show_welcome_message=False,
    )
    mounted = next(route for route in app.router.routes if isinstance(route, Mount) and route.app is core.app)
    app.router.routes.remove(mounted)
    app.router.routes.append(PagesRoute(core.app))
    core.app.on_startup(site.hub.start)
    core.app.on_shutdown(site.hub.stop)
