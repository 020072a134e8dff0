"""The ways in: the login page with its look, and single sign-on where it is configured."""

from urllib.parse import urlsplit

from fastapi import FastAPI

from samd_gateway import api_login
from samd_gateway.gateway import Gateway
from samd_gateway.web import Web


def names(web: Web) -> tuple[str, ...]:
    """By which names the gateway is asked: those that were given, and that of its public address."""
    if web.oidc is None:
        return web.hostnames
    from samd_gateway.access import oidc

    return (*web.hostnames, urlsplit(oidc.read_config(web.oidc).public_url).hostname or "")


def look(web: Web) -> api_login.Show:
    """How the login page looks: like the other pages, where they are served."""
    if not web.pages:
        return api_login.plain
    from samd_gateway.pages.login import LoginLook
    from samd_gateway.pages.texts import Catalogue

    return LoginLook(Catalogue())


def install(app: FastAPI, gateway: Gateway, web: Web) -> None:
    """Add the routes below /login, and /logout."""
    show = look(web)
    if web.oidc is None:
        app.include_router(api_login.router(gateway, api_login.LoginPages(gateway, show)))
        return
    from samd_gateway import api_oidc
    from samd_gateway.access import oidc

    config = oidc.read_config(web.oidc)
    pages = api_login.LoginPages(gateway, show, config.label)
    app.include_router(api_login.router(gateway, pages))
    app.include_router(api_oidc.router(gateway, oidc.Provider(config, now=gateway.now), pages))
