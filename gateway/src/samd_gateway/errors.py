"""The errors of this package.

GatewayError
├── UsageError       what was asked cannot be done like this: correct it and try again; exit code 2
├── ConflictError    not now: another run is going on, too few devices, no server; HTTP 409
├── SignInError      who asks is not known: no session, no token, a wrong password; HTTP 401
├── ForbiddenError   who asks is known and may not; HTTP 403
├── NotFoundError    no such run, device, command or model; HTTP 404
└── UnavailableError a part that is needed is not there at this moment: broker or database; HTTP 503
"""


class GatewayError(Exception):
    """Base of everything that this package raises on purpose; its text is one plain sentence."""


class UsageError(GatewayError):
    """A setting or an argument that cannot work; the text says what to write instead."""


class ConflictError(GatewayError):
    """The request is sound but the system cannot do it now. `extra` goes into the answer."""

    def __init__(self, text: str, **extra: str | int | None) -> None:
        super().__init__(text)
        self.extra = extra


class SignInError(GatewayError):
    """Nobody is signed in, or what was shown to prove it is not valid (any more)."""


class ForbiddenError(GatewayError):
    """Known, and not allowed."""


class NotFoundError(GatewayError):
    """What was named does not exist here."""


class UnavailableError(GatewayError):
    """The broker or the database cannot be reached now; the same request may succeed later."""
