"""Who may do what, and what they did: users, sessions, tokens, settings, and the audit."""

from sqlalchemy import Column, Float, Index, Integer, String, Table, Text

from samd_gateway.schema.base import identity, metadata

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("display", String(120), nullable=False, default=""),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text),  # argon2; null for one who comes by OpenID Connect alone
    Column("subject", String(255), unique=True),  # issuer and subject of OpenID Connect
    Column("created_at", Float, nullable=False),
    Column("password_changed_at", Float),
    Column("disabled_at", Float),
    Column("locale", String(8)),
    Column("theme", String(8)),
)

# A session is known by the hash of its cookie: whoever reads the table cannot become its user.
sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user", String(64), nullable=False, index=True),
    Column("csrf", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(120), nullable=False),
    Column("user", String(64), nullable=False, index=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", Text, nullable=False),  # JSON list of permissions
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("last_used", Float),
    Column("revoked_at", Float),
)

# Failed logins by what they are counted for: `user:NAME` or `address:IP`.
login_failures = Table(
    "login_failures",
    metadata,
    Column("key", String(160), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("first_at", Float, nullable=False),
    Column("locked_until", Float),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),  # JSON
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(64), nullable=False),
)

audit = Table(
    "audit",
    metadata,
    identity(),
    Column("at", Float, nullable=False, index=True),
    Column("actor", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("via", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(160), nullable=False),
    Column("before", Text),  # JSON; null where nothing was there
    Column("after", Text),
    Index("audit_by_target", "target", "at"),
)
