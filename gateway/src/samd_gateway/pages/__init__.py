"""The gateway's web pages, live by push. Imported only where pages are served: NiceGUI lives once a process.

- `texts`: the catalogues of `locale/`, English and Korean.
- `site`: what all pages share: the gateway, the hub, how a page is declared and mounted.
- `view`: one page in one browser: its language, its theme, who looks at it and what they may do.
- `shell`: what stands around every page: navigation, the banner of a lost connection, shortcuts.
- `hub`: from events to the browsers: cards are built once a change and shared among all who look.
- `login`: the look of the form that `access` answers.
- one module a page: `ward`, `patient`, and those beside them; `dialogs` for what people do at the bedside.

Nothing is loaded from another host, and whatever came over the wire is text, never markup.
"""

from fastapi import FastAPI

from samd_gateway.gateway import Gateway


def install(app: FastAPI, gateway: Gateway) -> None:
    """Serve the pages of a gateway on its application; once a process."""
    from samd_gateway.pages import audit, device, fleet, models, patient, runs, settings, site, ward

    pages = site.Site(gateway)
    for part in (ward, patient, fleet, device, runs, models, audit, settings):
        part.add(pages)
    site.mount(app, pages)
