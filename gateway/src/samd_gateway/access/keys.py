"""Secrets that open something: made at random, kept as hashes; and what is signed with the database's own."""

import hashlib
import hmac
import json
import secrets
from contextlib import suppress

from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from samd_gateway.schema import Database, meta

META_KEY = "access_secret"


def new_key() -> str:
    """256 random bits, as text."""
    return secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What is kept of a random key. A plain hash will do: what has 256 random bits cannot be guessed."""
    return hashlib.sha256(key.encode()).hexdigest()


class Signer:
    """Signs by a secret that belongs to the database, so that all gateways on it accept what one signed."""

    def __init__(self, database: Database) -> None:
        self._secret = _secret(database)

    def model_key(self, sha256: str) -> str:
        """The key that a model file is fetched with by who is not signed in, such as a device."""
        return hmac.new(self._secret, f"model:{sha256}".encode(), hashlib.sha256).hexdigest()

    def opens_model(self, sha256: str, key: str | None) -> bool:
        return key is not None and hmac.compare_digest(
            self.model_key(sha256).encode(), key.encode(errors="replace")
        )

    def sign(self, purpose: str, value: str) -> str:
        return str(self._serializer(purpose).dumps(value))

    def unsign(self, purpose: str, signed: str, *, max_age_s: float) -> str | None:
        """The value, or None where it was not signed here for this purpose, or too long ago."""
        try:
            value = self._serializer(purpose).loads(signed, max_age=int(max_age_s))
        except BadSignature:
            return None
        return value if isinstance(value, str) else None

    def _serializer(self, purpose: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(
            self._secret, salt=purpose, signer_kwargs={"digest_method": hashlib.sha256}
        )


def _secret(database: Database) -> bytes:
    """From the table `meta`; several gateways may begin at once, the first one's counts."""
    with database.read() as connection:
        kept = connection.scalar(select(meta.c.value).where(meta.c.key == META_KEY))
    if kept is None:
        # another gateway may be first
        with suppress(IntegrityError), database.write() as connection:
            connection.execute(meta.insert().values(key=META_KEY, value=json.dumps(secrets.token_hex(32))))
        with database.read() as connection:
            kept = connection.scalar(select(meta.c.value).where(meta.c.key == META_KEY))
    return bytes.fromhex(json.loads(str(kept)))
