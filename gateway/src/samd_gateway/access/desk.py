"""Who is asking: the one place that turns a cookie, a token or a name and a password into an actor.

What is found is remembered for a second, so that a page can ask before each action and the database is
spared. A change made here counts at once, one made by another program on the database within that second.
"""

import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from samd_gateway import settings
from samd_gateway.access import audit, sessions, throttle, tokens, users
from samd_gateway.access.actor import LOCAL, STRANGER, Actor, Via
from samd_gateway.access.keys import Signer, digest, new_key
from samd_gateway.access.passwords import Passwords
from samd_gateway.access.passwords import check as check_password
from samd_gateway.access.sessions import Session, SessionLimits
from samd_gateway.errors import NotFoundError, SignInError
from samd_gateway.schema import Database

FRESH_S = 1.0
MAX_REMEMBERED = 4096
COUNT_TRIES = 5
"""An attempt that is not counted is not made; another gateway may begin the same count meanwhile."""
KNOWN_FOR_S = 180 * 86_400.0
WRONG = "name or password is not right, or the user is disabled"


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """A login that succeeded: the cookies to set."""

    cookie: str
    known: str
    session: Session


class Access:
    """Users, sessions and tokens of one database."""

    def __init__(
        self, database: Database, *, now: Callable[[], float], passwords: Passwords | None = None
    ) -> None:
        self.database = database
        self.now = now
        self.passwords = passwords or Passwords()
        self.signer = Signer(database)
        self._lock = threading.Lock()
        self._generation = 0
        self._found: dict[str, tuple[float, Session | tuple[str, Actor]]] = {}
        self._ended: dict[str, list[Callable[[], None]]] = {}
        self._users_at = 0.0
        self._users = False
        with database.read() as connection:
            self._users = users.any_at_all(connection)

    # who asks

    @property
    def open_to_all(self) -> bool:
        """Whether no user is set up, so that whoever is on this machine may do everything."""
        if not self.settled:
            # those who ask meanwhile go by what was true a second ago: a database that is away may let one
            # wait, not all, and what was true stays so until it says otherwise
            self._users_at = self.now()
            with suppress(SQLAlchemyError), self.database.read() as connection:
                self._users = users.any_at_all(connection)
        return not self._users

    @property
    def settled(self) -> bool:
        """Whether `open_to_all` answers without the database. Users are disabled, never removed: once the
        gateway is closed it stays so."""
        return self._users or 0.0 <= self.now() - self._users_at < FRESH_S

    def session(self, cookie: str) -> Session | None:
        """The session of a cookie, if it is valid now."""
        return self.session_of(digest(cookie))

    def session_valid(self, hash_: str) -> Actor | None:
        """Whose session this is, if it is valid still. Cheap: a page asks before each action."""
        found = self.session_of(hash_)
        return None if found is None else found.actor

    def session_of(self, hash_: str) -> Session | None:
        now, generation = self.now(), self._generation
        found = self._remembered(hash_, now)
        if found is None:
            with self.database.read() as connection:
                found = sessions.find(connection, hash_, self.limits(connection), now=now)
            if found is not None:
                self._remember(hash_, found, now, generation)
        return found if isinstance(found, Session) and found.expires_at > now else None

    def touch(self, session: Session) -> None:
        """The user did something: the session is not idle."""
        now = self.now()
        if now - session.last_seen < sessions.SEEN_EVERY_S:
            return
        with suppress(SQLAlchemyError), self.database.write() as connection:
            sessions.seen(connection, session.hash, now=now)
        self._forget([session.hash])

    def token(self, token: str) -> Actor | None:
        """Who asks by this token, if it is valid now."""
        now, generation = self.now(), self._generation
        key = digest(token)
        remembered = self._remembered(key, now)
        if isinstance(remembered, tuple):
            return remembered[1]
        with self.database.read() as connection:
            found = tokens.find(connection, token, now=now)
        if found is None:
            return None
        listed, actor = found
        if listed.last_used is None or now - listed.last_used >= tokens.USED_EVERY_S:
            with suppress(SQLAlchemyError), self.database.write() as connection:
                tokens.used(connection, listed.id, now=now)
        if listed.expires_at is None or listed.expires_at > now + FRESH_S:
            self._remember(key, (listed.id, actor), now, generation)
        return actor

    # signing in and out

    def sign_in(self, name: str, password: str, *, address: str, known: str | None = None) -> SignedIn:
        """Raises SignInError, with one text and after one time for whatever was wrong, and ThrottledError."""
        name = name.strip().lower()[: users.NAME_LENGTH]
        self._check(name, password, address=address, known=known)
        return self.begin_session(name)

    def begin_session(self, name: str, *, how: str = "password") -> SignedIn:
        """For a user who has proved who they are."""
        now = self.now()
        with self.database.write() as connection:
            user = users.one(connection, name)
            if user.disabled_at is not None:
                raise SignInError(WRONG)
            limits = self.limits(connection)
            cookie, hash_ = sessions.begin(connection, name, limits, now=now)
            actor = Actor(name=name, role=user.role, via="page")
            audit.record(connection, actor, "session.begin", f"user/{name}", now=now, after={"by": how})
            found = sessions.find(connection, hash_, limits, now=now)
        if found is None:
            raise SignInError("the session ended as it began: its limits in the settings are too short")
        return SignedIn(
            cookie=cookie, known=self.signer.sign("known", f"{name}\n{new_key()[:16]}"), session=found
        )

    def sign_out(self, session: Session) -> None:
        now = self.now()
        with self.database.write() as connection:
            sessions.end(connection, session.hash)
            audit.record(connection, session.actor, "session.end", f"user/{session.actor.name}", now=now)
        self.changed([session.hash])

    def change_password(self, session_user: Actor, current: str, new: str, *, address: str) -> None:
        """By the user, who proves once more that it is they. Raises SignInError and UsageError."""
        self._check(session_user.name, current, address=address, known=None)
        kept = self.hash_new(new, session_user.name)
        with self.changing() as connection:
            users.set_password(connection, session_user, session_user.name, kept, now=self.now())

    def hash_new(self, password: str, name: str) -> str:
        """The hash of a password for this user. Raises UsageError for one that is guessed too easily."""
        check_password(password, name)
        return self.passwords.hash(password)

    def end_sessions(self, actor: Actor, name: str) -> int:
        """Sign a user out everywhere; how many sessions ended. Raises NotFoundError."""
        now = self.now()
        with self.changing() as connection:
            users.one(connection, name)
            ended = users.end_sessions(connection, name)
            audit.record(connection, actor, "session.end", f"user/{name}", now=now, after={"ended": ended})
        return ended

    def end_session(self, actor: Actor, id_: str) -> int:
        """End the session with this id: one's own, or by the permission `users` anybody's. Raises
        NotFoundError."""
        now = self.now()
        with self.changing() as connection:
            whose = None if actor.may("users") else actor.name
            for each in sessions.of(connection, whose, self.limits(connection), now=now):
                if each.hash.startswith(id_):
                    sessions.end(connection, each.hash)
                    audit.record(connection, actor, "session.end", f"user/{each.user}", now=now)
                    return 1
        raise NotFoundError(f"no session {id_[:16]!r} here; GET /api/sessions lists them")

    def unlock(self, actor: Actor, name: str) -> None:
        """Let a user try to sign in at once. Raises NotFoundError."""
        with self.database.write() as connection:
            users.one(connection, name)
            throttle.forget(connection, name)
            audit.record(connection, actor, "user.unlock", f"user/{name}", now=self.now())

    def _check(self, name: str, password: str, *, address: str, known: str | None) -> None:
        now = self.now()
        by_user = throttle.user_key(name, self._known(name, known))
        by_address = throttle.address_key(address)
        self._count({by_user: throttle.FREE_A_USER, by_address: throttle.FREE_AN_ADDRESS}, now)
        with self.database.read() as connection:
            kept = users.kept_hash(connection, name)
            exists = kept is not None or users.exists(connection, name)
        right = self.passwords.verify(kept, password)
        renewed = self.passwords.hash(password) if right and kept and self.passwords.outdated(kept) else None
        with self.database.write() as connection:
            if not right:
                whom = name if exists else "unknown"  # a password may have been typed there
                audit.record(
                    connection,
                    STRANGER,
                    "session.refuse",
                    f"user/{whom}",
                    now=now,
                    after={"address": address[:64]},
                )
            else:
                throttle.succeeded(connection, by_user, by_address, now=now)
                if renewed and kept:
                    users.rehash(connection, name, kept, renewed)
        if not right:
            raise SignInError(WRONG)

    def _count(self, keys: dict[str, int], now: float) -> None:
        """Raises ThrottledError."""
        for _ in range(COUNT_TRIES):
            with suppress(IntegrityError), self.database.write() as connection:
                throttle.begin(connection, keys, now=now)
                return
        raise throttle.ThrottledError(1.0)

    def _known(self, name: str, cookie: str | None) -> str | None:
        """What a browser is known by from which this user has signed in before."""
        said = self.signer.unsign("known", cookie, max_age_s=KNOWN_FOR_S) if cookie else None
        if said is None:
            return None
        user, _, nonce = said.partition("\n")
        return nonce if user == name else None

    # what changes who may do what

    @contextmanager
    def changing(self) -> Any:
        """A transaction after which nothing that was remembered counts any more."""
        with self.database.write() as connection:
            yield connection
        self.changed()

    def changed(self, hashes: Iterable[str] | None = None) -> None:
        """Forget what was remembered, and tell those who hold a connection open to look again."""
        self._users_at = 0.0
        self._forget(hashes)
        with self._lock:
            told = [
                call
                for key, calls in self._ended.items()
                if hashes is None or key in hashes
                for call in calls
            ]
        for call in told:
            call()

    def watch(self, hash_: str, look: Callable[[], None]) -> Callable[[], None]:
        """Call `look` when this session may have ended; returns what ends the watch."""
        with self._lock:
            self._ended.setdefault(hash_, []).append(look)

        def stop() -> None:
            with self._lock:
                calls = self._ended.get(hash_, [])
                if look in calls:
                    calls.remove(look)
                if not calls:
                    self._ended.pop(hash_, None)

        return stop

    def limits(self, connection: Connection) -> SessionLimits:
        return settings.get(connection, "sessions", SessionLimits())

    def _remembered(self, key: str, now: float) -> Session | tuple[str, Actor] | None:
        with self._lock:
            at, found = self._found.get(key, (0.0, None))
        return found if 0.0 <= now - at < FRESH_S else None

    def _remember(self, key: str, found: Session | tuple[str, Actor], now: float, generation: int) -> None:
        with self._lock:
            if generation != self._generation:
                return  # it was read before a change
            self._found.pop(key, None)
            self._found[key] = (now, found)
            while len(self._found) > MAX_REMEMBERED:
                self._found.pop(next(iter(self._found)))

    def _forget(self, keys: Iterable[str] | None) -> None:
        with self._lock:
            self._generation += 1
            if keys is None:
                self._found.clear()
            for key in keys or ():
                self._found.pop(key, None)


def local(via: Via) -> Actor:
    """Who asks while no user is set up."""
    return msgspec.structs.replace(LOCAL, via=via)
