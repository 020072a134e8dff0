"""The HTTP application, composed from its parts."""

from fastapi import FastAPI

from samd_gateway import (
    api_access,
    api_alerts,
    api_audit,
    api_backup,
    api_channels,
    api_database,
    api_export,
    api_fleet,
    api_fleet_table,
    api_gateways,
    api_models,
    api_rest,
    api_runs,
    api_schedules,
    api_system,
    api_ward,
    entrance,
    openapi,
    problems,
)
from samd_gateway.access.gate import Gate
from samd_gateway.access.proxy import BehindProxy
from samd_gateway.gateway import Gateway
from samd_gateway.web import Web

DESCRIPTION = """Fleet, runs, alerts and models of one gateway.

Research software, no certified medical device. Errors are problem documents (RFC 9457). Times are UTC; ages
are by the gateway's clock."""


def build(gateway: Gateway, web: Web | None = None) -> FastAPI:
    """The application of a gateway, which the caller starts and stops."""
    app = FastAPI(
        title="samd gateway",
        version=gateway.settings.version,
        description=DESCRIPTION,
        docs_url=None,  # both pages would load scripts from the network
        redoc_url=None,
    )
    problems.install(app)
    web = web or Web()
    app.add_middleware(Gate, access=gateway.access, names=entrance.names(web))
    if web.behind_proxy:
        app.add_middleware(BehindProxy, proxies=web.behind_proxy)  # added last, asked first
    entrance.install(app, gateway, web)
    for part in (
        api_fleet,
        api_fleet_table,
        api_gateways,
        api_runs,
        api_schedules,
        api_models,
        api_access,
        api_audit,
        api_system,
        api_alerts,
        api_ward,
        api_channels,
        api_export,
        api_database,
        api_backup,
    ):
        app.include_router(part.router(gateway))

    api_rest.install(app)
    if web.pages:
        from samd_gateway import pages

        pages.install(app, gateway)

    openapi.install(app, [api_fleet.command_schema, api_fleet_table.bulk_schema])
    return app
