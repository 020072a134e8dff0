"""Single sign-on by OpenID Connect: the provider's metadata and keys, the way there, and what it says on the
way back. Authorization code with PKCE, `state` and `nonce`; its word counts only by its signature.

The file that `samd-gateway serve --oidc` names:

    issuer = "https://login.example.org/realms/hospital"
    client_id = "samd"
    client_secret_file = "/etc/samd/oidc-secret"   # mode 0600; left out for a public client
    public_url = "https://ward.example.org"        # registered there with /login/oidc/callback behind it
    label = "Hospital account"
    role_claim = "realm_access.roles"              # dots lead into nested claims (default: groups)

    [roles]                                        # the strongest counts; without one nobody gets in
    samd-admins = "admin"
    ward-7 = "nurse"
"""

import logging
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from samd_gateway.access.actor import Role
from samd_gateway.access.hosts import is_loopback
from samd_gateway.errors import SignInError, UsageError
from samd_protocol.broker import read_secret

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures by the provider's own key: neither `none` nor one that the client's secret could make."""
STRONGEST: tuple[Role, ...] = ("admin", "operator", "nurse", "viewer")
TIMEOUT_S = 10.0
MAX_ANSWER = 1_000_000
METADATA_FOR_S = 3600.0
KEYS_AGAIN_S = 60.0
"""A key that is not known is asked for so often at most: somebody could show us any number of them."""
LEEWAY_S = 60


class OidcConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says."""

    issuer: str
    client_id: str
    public_url: str
    roles: dict[str, Role]
    client_secret_file: str | None = None
    label: str = "Single sign-on"
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    role_claim: str = "groups"
    name_claim: str = "preferred_username"
    ca_file: str | None = None

    @property
    def redirect_uri(self) -> str:
        return self.public_url.rstrip("/") + "/login/oidc/callback"


class Metadata(msgspec.Struct, frozen=True):
    """What we need of a provider's metadata."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the provider says it is."""

    subject: str
    name: str
    display: str
    role: Role | None


def read_config(path: str) -> OidcConfig:
    """Raises UsageError, with the place and the remedy."""
    try:
        config = msgspec.convert(tomllib.loads(Path(path).read_text("utf-8")), OidcConfig)
    except OSError as error:
        raise UsageError(f"--oidc {path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"--oidc {path}: {error}") from error
    for name, url in (("issuer", config.issuer), ("public_url", config.public_url)):
        if not _safe(url):
            raise UsageError(f"--oidc {path}: {name} must be an https:// address (http:// on loopback alone)")
    if not config.roles:
        raise UsageError(f"--oidc {path}: [roles] is empty, so nobody could get in; write CLAIM = ROLE")
    if "openid" not in config.scopes:
        raise UsageError(f"--oidc {path}: scopes must hold openid")
    if config.client_secret_file is not None:
        read_secret(config.client_secret_file)
    return config


def _safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    plain = not parts.username and not parts.fragment and bool(host)
    return plain and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host or "")))


class Provider:
    """One OpenID provider, asked when it is needed; what it said of itself is remembered for an hour."""

    def __init__(self, config: OidcConfig, *, now: Callable[[], float]) -> None:
        self.config = config
        self._now = now
        self._lock = threading.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def way(self, *, state: str, nonce: str, verifier: str) -> str:
        """Where the browser is sent. Raises SignInError while the provider cannot be asked."""
        return str(
            prepare_grant_uri(
                self.metadata().authorization_endpoint,
                self.config.client_id,
                "code",
                redirect_uri=self.config.redirect_uri,
                scope=" ".join(self.config.scopes),
                state=state,
                nonce=nonce,
                code_challenge=create_s256_code_challenge(verifier),
                code_challenge_method="S256",
            )
        )

    def identity(self, code: str, *, issuer: str | None, nonce: str, verifier: str) -> Identity:
        """Whom the code stands for. Raises SignInError for anything that is not as it must be."""
        metadata = self.metadata()
        wanted = metadata.authorization_response_iss_parameter_supported
        if issuer != metadata.issuer and (issuer is not None or wanted):
            raise SignInError("the answer came from another provider")
        answer = self._redeem(metadata, code, verifier)
        raw = answer.get("id_token")
        if not isinstance(raw, str):
            raise SignInError("the provider did not say who it is (no id_token)")
        claims = self._verified(metadata, raw, nonce, answer.get("access_token"))
        return self._identity(claims)

    def metadata(self) -> Metadata:
        now = self._now()
        with self._lock:
            if self._metadata is not None and 0 <= now - self._metadata[0] < METADATA_FOR_S:
                return self._metadata[1]
        url = self.config.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            found = msgspec.convert(self._get(url), Metadata)
        except msgspec.ValidationError as error:
            raise SignInError(f"the provider's metadata cannot be used: {error}") from error
        if found.issuer.rstrip("/") != self.config.issuer.rstrip("/"):
            raise SignInError("the provider's metadata are of another issuer")
        for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            if not _safe(address):
                raise SignInError("the provider's metadata name an address that is not https")
        with self._lock:
            self._metadata = (now, found)
        return found

    def _verified(self, metadata: Metadata, raw: str, nonce: str, access_token: object) -> dict[str, Any]:
        try:
            token = self._decode(metadata, raw)
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": metadata.issuer},
                    "aud": {"essential": True, "value": self.config.client_id},
                },
                {"nonce": nonce, "client_id": self.config.client_id, "access_token": access_token},
            )
            claims.validate(now=int(self._now()), leeway=LEEWAY_S)
        except (JoseError, ValueError) as error:
            log.warning("an id_token was refused: %s", error)
            raise SignInError(f"the provider's word does not hold ({type(error).__name__})") from error
        return cast("dict[str, Any]", dict(claims))

    def _decode(self, metadata: Metadata, raw: str) -> jwt.Token:
        try:
            return jwt.decode(raw, self._key_set(metadata), algorithms=list(ALGORITHMS))
        except (JoseError, ValueError):
            # providers change their keys: ask anew, though not at everybody's bidding
            with self._lock:
                if self._keys is not None and self._now() - self._keys[0] < KEYS_AGAIN_S:
                    raise
                self._keys = None
        return jwt.decode(raw, self._key_set(metadata), algorithms=list(ALGORITHMS))

    def _key_set(self, metadata: Metadata) -> KeySet:
        with self._lock:
            if self._keys is not None:
                return self._keys[1]
        found = self._get(metadata.jwks_uri)
        keys = KeySet.import_key_set(cast("Any", found))
        with self._lock:
            self._keys = (self._now(), keys)
        return keys

    def _redeem(self, metadata: Metadata, code: str, verifier: str) -> dict[str, Any]:
        config = self.config
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": config.redirect_uri,
            "code_verifier": verifier,
        }
        basic = None
        if config.client_secret_file is None:
            form["client_id"] = config.client_id
        else:
            secret = read_secret(config.client_secret_file)
            if "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
                # RFC 6749, 2.3.1: both are form-encoded before they are joined
                basic = httpx.BasicAuth(quote(config.client_id, safe=""), quote(secret, safe=""))
            else:
                form |= {"client_id": config.client_id, "client_secret": secret}
        return self._ask("POST", metadata.token_endpoint, data=form, auth=basic)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        config = self.config
        display = claims.get("name")
        name = claims.get(config.name_claim) or claims.get("email") or claims["sub"]
        return Identity(
            subject=f"{config.issuer.rstrip('/')} {claims['sub']}",
            name=str(name),
            display=display if isinstance(display, str) else "",
            role=role_of(claims, config),
        )

    def _get(self, url: str) -> dict[str, Any]:
        return self._ask("GET", url)

    def _ask(self, method: str, url: str, **arguments: Any) -> dict[str, Any]:
        """A JSON object, at most 1 MB of it, without following anybody elsewhere. Raises SignInError."""
        local = is_loopback(urlsplit(url).hostname or "")
        try:
            with (
                httpx.Client(
                    timeout=TIMEOUT_S, verify=self._context(), trust_env=not local, follow_redirects=False
                ) as client,
                client.stream(method, url, headers={"accept": "application/json"}, **arguments) as response,
            ):
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise SignInError("the provider's answer is too long")
        except httpx.HTTPError as error:
            log.warning("the OpenID provider cannot be asked: %s", error)
            raise SignInError("the provider does not answer; sign in by password, or try again") from error
        if response.status_code != 200:
            log.warning("the OpenID provider answered %d at %s", response.status_code, urlsplit(url).path)
            raise SignInError(f"the provider answered {response.status_code}")
        try:
            return msgspec.json.decode(bytes(body), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise SignInError("the provider's answer is no JSON object") from error

    def _context(self) -> Any:
        import ssl

        return True if self.config.ca_file is None else ssl.create_default_context(cafile=self.config.ca_file)


def role_of(claims: dict[str, Any], config: OidcConfig) -> Role | None:
    """The strongest role that the claim's values stand for."""
    found: Any = claims
    for part in config.role_claim.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    values = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    held = {config.roles[value] for value in values if isinstance(value, str) and value in config.roles}
    return next((role for role in STRONGEST if role in held), None)
