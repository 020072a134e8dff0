"""Signing in and out by the login page. Programs do not come this way: they send a token."""

import hmac
import re
from collections.abc import Callable
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from samd_gateway.access import cookies, headers
from samd_gateway.access.http import session_of
from samd_gateway.access.keys import new_key
from samd_gateway.access.login_page import LoginForm, Trouble, render
from samd_gateway.access.throttle import ThrottledError
from samd_gateway.errors import SignInError
from samd_gateway.gateway import Gateway
from samd_gateway.problems import problem

MAX_FORM = 16_384
_LOCAL_PATH = re.compile(r"/(?![/\\])[!-~]{0,1000}")


def local_path(path: str) -> str:
    """The path if it stays within this gateway, else the start page."""
    return path if _LOCAL_PATH.fullmatch(path) and "\\" not in path else "/"


async def read_form(request: Request) -> dict[str, str] | None:
    """The fields of a small form; None for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            return None
    try:
        return dict(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=10, errors="strict")
        )
    except ValueError:
        return None


Show = Callable[[LoginForm, Request], str]
"""Draws the login page for a request, which says in which language."""


def plain(form: LoginForm, _request: Request) -> str:
    """The form of a gateway that serves no other pages."""
    return render(form)


class LoginPages:
    """Shows the form, again and again with what was wrong, each with a token of its own."""

    def __init__(
        self,
        gateway: Gateway,
        show: Show,
        single_sign_on: str | None = None,
    ) -> None:
        self._access = gateway.access
        self._show = show
        self._single_sign_on = single_sign_on

    def page(
        self,
        request: Request,
        next_: str,
        *,
        status: int = 200,
        trouble: Trouble | None = None,
        detail: str = "",
        wait_s: int = 0,
        name: str = "",
    ) -> Response:
        nonce = new_key()
        form = LoginForm(
            csrf=self._access.signer.sign("form", nonce),
            next=next_,
            trouble=trouble,
            detail=detail,
            wait_s=wait_s,
            name=name,
            single_sign_on=self._single_sign_on,
        )
        response = HTMLResponse(self._show(form, request), status)
        response.headers["content-security-policy"] = headers.FORM
        cookies.put(response, request.scope, "form", nonce, max_age=cookies.LOGIN_FORM_S)
        if wait_s:
            response.headers["retry-after"] = str(wait_s)
        return response

    def genuine(self, request: Request, shown: str) -> bool:
        """Whether the form was made here for this very browser."""
        nonce = request.cookies.get(cookies.named(request.scope, "form"), "")
        signed = self._access.signer.unsign("form", shown, max_age_s=cookies.LOGIN_FORM_S)
        return bool(nonce) and signed is not None and hmac.compare_digest(signed.encode(), nonce.encode())


def router(gateway: Gateway, pages: LoginPages) -> APIRouter:
    """/login and /logout."""
    api = APIRouter(include_in_schema=False)

    @api.get("/login")
    def login(request: Request) -> Response:
        next_ = local_path(request.query_params.get("next", "/"))
        if gateway.access.open_to_all or request.state.actor is not None:
            return RedirectResponse(next_, status_code=303)
        told = "signed-out" if "signed-out" in request.query_params else None
        return pages.page(request, next_, trouble=told)  # type: ignore[arg-type]  # of its own words

    @api.post("/login")
    async def sign_in(request: Request) -> Response:
        fields = await read_form(request)
        if fields is None:
            return problem(
                422, f"the login form is sent as application/x-www-form-urlencoded, {MAX_FORM} bytes"
            )
        next_ = local_path(fields.get("next", "/"))
        name = fields.get("name", "").strip()[:64]
        if not pages.genuine(request, fields.get("csrf", "")):
            return pages.page(request, next_, status=403, trouble="form", name=name)

        try:
            signed_in = await run_in_threadpool(
                gateway.access.sign_in,
                name,
                fields.get("password", ""),
                address=request.client.host if request.client else "",
                known=request.cookies.get(cookies.named(request.scope, "known")),
            )
        except ThrottledError as error:
            return pages.page(request, next_, status=429, trouble="throttled", wait_s=error.wait_s, name=name)
        except SignInError:
            return pages.page(request, next_, status=401, trouble="wrong", name=name)
        if (before := session_of(request)) is not None:  # nobody could use it any more
            await run_in_threadpool(gateway.access.sign_out, before)
        response = RedirectResponse(next_, status_code=303)
        cookies.put_session(response, request.scope, signed_in.cookie, signed_in.known)
        cookies.drop(response, request.scope, "form")
        return response

    @api.post("/logout")
    async def sign_out(request: Request) -> Response:
        session = session_of(request)
        response = RedirectResponse("/login?signed-out", status_code=303)
        if session is None:
            return response
        shown = request.headers.get("x-csrf-token") or (await read_form(request) or {}).get("csrf", "")
        if not hmac.compare_digest(shown.encode(), session.csrf.encode()):
            return problem(403, "the form to sign out lacks its token; load the page anew and try again")
        await run_in_threadpool(gateway.access.sign_out, session)
        cookies.drop(response, request.scope, "session")
        # nothing of the ward stays in a browser that others use
        response.headers["clear-site-data"] = '"cache", "storage"'
        return response

    return api
