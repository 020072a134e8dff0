"""Single sign-on: the way to the provider and back."""

import hmac
import json

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from samd_gateway.access import cookies
from samd_gateway.access.arrivals import arrive
from samd_gateway.access.desk import SignedIn
from samd_gateway.access.keys import new_key
from samd_gateway.access.oidc import Provider
from samd_gateway.api_login import LoginPages, local_path
from samd_gateway.errors import ConflictError, SignInError
from samd_gateway.gateway import Gateway

ON_THE_WAY_S = 600
MAX_TEXT = 4096


def router(gateway: Gateway, provider: Provider, pages: LoginPages) -> APIRouter:
    """/login/oidc and /login/oidc/callback."""
    api = APIRouter(include_in_schema=False)
    access = gateway.access

    def refused(request: Request, next_: str, detail: str) -> Response:
        response = pages.page(request, next_, status=403, trouble="single-sign-on", detail=detail[:300])
        cookies.drop(response, request.scope, "oidc")
        return response

    def enter(code: str, issuer: str | None, nonce: str, verifier: str) -> SignedIn:
        identity = provider.identity(code, issuer=issuer, nonce=nonce, verifier=verifier)
        with access.changing() as connection:
            name = arrive(connection, identity, now=gateway.now())
        if name is None:
            raise SignInError("this account has no role here; ask an admin")
        return access.begin_session(name, how="single sign-on")

    @api.get("/login/oidc")
    async def leave(request: Request) -> Response:
        next_ = local_path(request.query_params.get("next", "/"))
        state, nonce, verifier = new_key(), new_key(), new_key()
        try:
            way = await run_in_threadpool(provider.way, state=state, nonce=nonce, verifier=verifier)
        except SignInError as error:
            return refused(request, next_, str(error))
        response = RedirectResponse(way, status_code=303)
        kept = access.signer.sign("oidc", json.dumps([state, nonce, verifier, next_]))
        cookies.put(response, request.scope, "oidc", kept, max_age=ON_THE_WAY_S)
        return response

    @api.get("/login/oidc/callback")
    async def back(request: Request) -> Response:
        asked = request.query_params
        cookie = request.cookies.get(cookies.named(request.scope, "oidc"), "")
        kept = access.signer.unsign("oidc", cookie, max_age_s=ON_THE_WAY_S)
        if kept is None:
            return refused(request, "/", "it took too long, or began in another browser; try again")
        state, nonce, verifier, next_ = json.loads(kept)
        if not hmac.compare_digest(asked.get("state", "").encode(), state.encode()):
            return refused(request, next_, "the answer does not belong to what was asked; try again")
        code = asked.get("code", "")
        if "error" in asked or not code or len(code) > MAX_TEXT:
            said = "".join(letter for letter in asked.get("error", "no code") if letter.isprintable())
            return refused(request, next_, f"the provider answered {said[:100]!r}")
        try:
            signed_in = await run_in_threadpool(enter, code, asked.get("iss"), nonce, verifier)
        except (SignInError, ConflictError) as error:
            return refused(request, next_, str(error))
        response = RedirectResponse(next_, status_code=303)
        cookies.put_session(response, request.scope, signed_in.cookie, signed_in.known)
        cookies.drop(response, request.scope, "oidc", "form")
        return response

    return api
