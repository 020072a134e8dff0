"""Who asks: a name, a role, and what that role may do. Every change takes an actor."""

from typing import Literal, get_args

import msgspec

from samd_gateway.errors import ForbiddenError

Role = Literal["viewer", "nurse", "operator", "admin"]
Permission = Literal["read", "ward", "fleet", "runs", "models", "settings", "audit", "users"]
Via = Literal["page", "api", "cli", "system"]

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    "viewer": frozenset({"read"}),
    "nurse": frozenset({"read", "ward"}),
    "operator": frozenset({"read", "fleet", "runs", "models", "audit"}),
    "admin": frozenset(get_args(Permission)),
}
"""`ward`: acknowledge, pause, escalate, observe, correct, admit, discharge. `fleet`: commands, tags, bulk
actions. `models`: upload, release, roll back. A token's scopes are permissions too, and narrow its user's;
whatever is read needs `read` as well."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Someone who asks for something. `permissions` narrows the role's where a token was used."""

    name: str
    role: Role
    via: Via
    permissions: frozenset[Permission] | None = None

    def may(self, permission: Permission) -> bool:
        return permission in PERMISSIONS[self.role] and (
            self.permissions is None or permission in self.permissions
        )

    def need(self, permission: Permission) -> None:
        """Raises ForbiddenError for an actor who may not."""
        if not self.may(permission):
            raise ForbiddenError(
                f"{self.name} ({self.role}) may not do this: it needs the permission {permission!r}; "
                "ask an admin for another role, or for a token with that scope"
            )


LOCAL = Actor(name="local", role="admin", via="api")
"""Who asks while no user is set up: only programs of this machine reach the gateway then."""
SYSTEM = Actor(name="system", role="admin", via="system")
"""The gateway itself."""
STRANGER = Actor(name="unknown", role="viewer", via="page", permissions=frozenset())
"""Who tried to sign in and did not."""
