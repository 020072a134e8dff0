"""A small OpenID provider: discovery, authorization with PKCE, tokens, keys. Over real HTTP, on loopback."""

import base64
import secrets
import threading
import time
from typing import Any
from urllib.parse import unquote, urlencode

import uvicorn
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from gateway_peers import free_port, until
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "samd", "a secret/with:signs"


class Provider:
    """Whoever comes is `person`, and has consented. `spoil` changes what it says, as an attacker would."""

    def __init__(self) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}/realm"
        self.key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
        self.person: dict[str, Any] = {"sub": "17", "preferred_username": "n.kim", "groups": ["ward-7"]}
        self.spoil: dict[str, Any] = {}
        self.redirect_uris: set[str] = set()
        self.asked: list[dict[str, str]] = []
        self.keys_asked = 0
        self._codes: dict[str, dict[str, str]] = {}
        routes = [
            Route("/realm/.well-known/openid-configuration", self.discovery),
            Route("/realm/authorize", self.authorize),
            Route("/realm/token", self.token, methods=["POST"]),
            Route("/realm/jwks", self.jwks),
        ]
        self._server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=routes), port=self.port, log_config=None, lifespan="off", ws="none"
            )
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until(lambda: self._server.started, what="provider")

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10.0)

    async def discovery(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "authorization_response_iss_parameter_supported": True,
                **self.spoil.get("metadata", {}),
            }
        )

    async def jwks(self, _request: Request) -> Response:
        self.keys_asked += 1
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        self.asked.append(asked)
        wrong = (
            asked.get("client_id") != CLIENT
            or asked.get("response_type") != "code"
            or asked.get("redirect_uri") not in self.redirect_uris
            or asked.get("code_challenge_method") != "S256"
            or "openid" not in asked.get("scope", "").split()
        )
        if wrong:
            return Response("not like this", 400)
        if "error" in self.spoil:
            answer = {"error": self.spoil["error"], "state": asked["state"], "iss": self.issuer}
        else:
            code = secrets.token_urlsafe(16)
            self._codes[code] = asked
            answer = {"code": code, "state": asked["state"], "iss": self.spoil.get("iss", self.issuer)}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", status_code=303)

    async def token(self, request: Request) -> Response:
        form = await request.form()
        kind, _, said = request.headers.get("authorization", "").partition(" ")
        name, _, secret = base64.b64decode(said).decode().partition(":")
        if kind != "Basic" or (unquote(name), unquote(secret)) != (CLIENT, SECRET):
            return JSONResponse({"error": "invalid_client"}, 401)
        asked = self._codes.pop(str(form.get("code")), None)
        if (
            asked is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != asked["redirect_uri"]
            or create_s256_code_challenge(str(form.get("code_verifier"))) != asked["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **self.person,
            **self.spoil.get("claims", {}),
        }
        header, key = {"alg": "RS256", "kid": self.key.kid}, self.spoil.get("key", self.key)
        if self.spoil.get("alg") == "HS256":  # signed by what the client knows, too
            header, key = {"alg": "HS256"}, OctKey.import_key(SECRET)
        token = jwt.encode(header, claims, key, algorithms=[header["alg"]])
        if self.spoil.get("alg") == "none":
            plain = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
            token = f"{plain}.{token.split('.')[1]}."
        return JSONResponse(
            {"access_token": "opaque", "token_type": "Bearer", "id_token": token},
            headers={"cache-control": "no-store"},
        )
