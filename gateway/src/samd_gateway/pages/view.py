"""One page in one browser: its language and theme, who looks at it, and whether they still may."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from nicegui import Client, ui
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway.access.actor import Actor, Permission
from samd_gateway.access.desk import local
from samd_gateway.access.http import actor_of, session_of
from samd_gateway.errors import ForbiddenError, GatewayError, SignInError
from samd_gateway.pages.texts import LANGUAGES, Language, Texts, preferred
from samd_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from samd_gateway.pages.site import Site

T = TypeVar("T")


class NotDoneError(Exception):
    """What a person asked for was not done; the text says why."""


Theme = Literal["auto", "light", "dark"]
THEMES: tuple[Theme, ...] = get_args(Theme)
LANGUAGE_COOKIE, THEME_COOKIE = "samd_language", "samd_theme"


def language_of(request: Request) -> Language:
    """As chosen, else as the browser asks for."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    for language in LANGUAGES:
        if chosen == language:
            return language
    return preferred(request.headers.get("accept-language", ""))


def theme_of(request: Request) -> Theme:
    chosen = request.cookies.get(THEME_COOKIE)
    return next((theme for theme in THEMES if chosen == theme), "auto")


@dataclass(frozen=True, kw_only=True)
class View:
    """What a page's builder is given. `at` names the page in the navigation."""

    site: "Site"
    client: Client
    t: Texts
    theme: Theme
    seen_as: Actor
    """Who asked for the page. What they may do now is asked again by `actor`."""
    session: str | None
    csrf: str | None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    at: str | None = None

    @classmethod
    def of(cls, site: "Site", client: Client, request: Request, at: str | None) -> "View":
        """Raises SignInError for nobody."""
        session = session_of(request)
        return cls(
            site=site,
            client=client,
            t=site.catalogue.of(language_of(request)),
            theme=theme_of(request),
            seen_as=actor_of(request),
            session=None if session is None else session.hash,
            csrf=None if session is None else session.csrf,
            path=dict(request.path_params),
            query=dict(request.query_params),
            at=at,
        )

    def actor(self) -> Actor:
        """Who does something on this page now. Raises SignInError once their session has ended."""
        access = self.site.gateway.access
        if self.session is None:
            if access.open_to_all:
                return local("page")
            raise SignInError(self.t("shell.signed_out"))
        found = access.session_of(self.session)
        if found is None:
            raise SignInError(self.t("shell.signed_out"))
        access.touch(found)
        return found.actor

    def may(self, permission: Permission) -> bool:
        """Whether to show a control; whether it may be used is asked when it is."""
        return self.seen_as.may(permission)

    async def ask(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call something that reads, in a thread."""
        return await run_in_threadpool(call, *arguments, **named)

    async def attempt(self, permission: Permission, call: Callable[[Actor], T]) -> T:
        """Do something in this person's name, in a thread. Raises NotDoneError with a text for them."""
        try:
            actor = await run_in_threadpool(self.actor)
            actor.need(permission)
            return await run_in_threadpool(call, actor)
        except SignInError as error:
            self.client.open("/login")
            raise NotDoneError(str(error)) from error
        except ForbiddenError as error:
            text = self.t("shell.forbidden", user=self.seen_as.name, role=self.seen_as.role)
            raise NotDoneError(text) from error
        except (GatewayError, ProtocolError) as error:
            raise NotDoneError(str(error)) from error
        except SQLAlchemyError as error:
            raise NotDoneError(self.t("shell.database", error=type(error).__name__)) from error

    async def act(
        self, permission: Permission, call: Callable[[Actor], T], *, said: str | None = None
    ) -> T | None:
        """The same outside of a dialog: what goes wrong is shown, and None returned; `said` is shown when it
        went well."""
        try:
            outcome = await self.attempt(permission, call)
        except NotDoneError as error:
            self.warn(str(error))
            return None
        if said is not None:
            self.say(said)
        return outcome

    def say(self, text: str) -> None:
        """One line that goes by itself."""
        with self.client:
            ui.notify(text, type="positive", position="bottom", timeout=4000, multi_line=True)

    def warn(self, text: str) -> None:
        """One line that stays until it is closed."""
        with self.client:
            ui.notify(
                text[:500],
                type="negative",
                position="bottom",
                timeout=0,
                multi_line=True,
                close_button=self.t("shell.close"),
            )
