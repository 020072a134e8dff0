"""Passwords, users, sessions, tokens and the slowing down, with a clock that the test sets."""

import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from access_peers import PASSWORD, Clock, on
from access_peers import access as make_access
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st
from postgres import PostgreSQL
from sqlalchemy import select

from samd_gateway import schema, settings
from samd_gateway.access import audit, passwords, sessions, throttle, tokens, users
from samd_gateway.access.actor import LOCAL, SYSTEM, Actor
from samd_gateway.access.desk import Access, SignedIn
from samd_gateway.access.keys import Signer, digest
from samd_gateway.errors import ConflictError, ForbiddenError, NotFoundError, SignInError, UsageError
from samd_gateway.schema import open_database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Iterator[Access]:
    made = make_access(tmp_path / "gateway", clock)
    yield made
    made.database.close()


@pytest.fixture
def root(access: Access, clock: Clock) -> Actor:
    """An admin, added as the first user."""
    kept = access.hash_new(PASSWORD, "root")
    with access.changing() as connection:
        users.add(connection, LOCAL, "root", "admin", password_hash=kept, now=clock())
    return Actor(name="root", role="admin", via="page")


def add(access: Access, root: Actor, name: str, role: str, password: str | None = PASSWORD) -> None:
    kept = access.hash_new(password, name) if password else None
    with access.changing() as connection:
        users.add(connection, root, name, role, password_hash=kept, now=access.now())


def enter(access: Access, name: str, password: str = PASSWORD, **more: str) -> SignedIn:
    return access.sign_in(name, password, **{"address": "10.0.0.1", **more})


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "has 5 characters"),
        ("x" * 257, "more than 256"),
        ("n.kim-n.kim1", "user's name"),
        ("Password2024!", "guessed first"),
        ("qwertyqwerty1", "guessed first"),
        ("Hospital-Ward-7", "guessed first"),
        ("aabbaabbaabb", "repeats a few"),
        ("8642097531246", "digits and signs"),
    ],
)
def test_passwords_that_are_refused(password: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        passwords.check(password, "n.kim")


def test_passwords_that_are_taken() -> None:
    for password in (
        PASSWORD,
        "correct horse battery",
        "the ward at 3 in the morning",
        "n.kim likes long walks",
    ):
        passwords.check(password, "n.kim")


def test_a_hash_of_other_cost_is_renewed_at_the_next_login(access: Access, root: Actor) -> None:
    with access.database.read() as connection:
        cheap = users.kept_hash(connection, "root")
    usual = Access(access.database, now=access.now)
    enter(usual, "root")
    with access.database.read() as connection:
        kept = users.kept_hash(connection, "root")
    assert kept is not None
    assert kept != cheap
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert not usual.passwords.outdated(kept)
    enter(usual, "root")


def test_until_the_first_admin_is_there_the_gateway_is_open(access: Access, clock: Clock) -> None:
    assert access.open_to_all
    with pytest.raises(UsageError, match="first user must be an admin"):
        add(access, LOCAL, "n.kim", "nurse")
    with pytest.raises(UsageError, match="first user must be an admin"):
        add(access, LOCAL, "root", "admin", password=None)
    assert access.open_to_all
    # by another program, such as the command line: this one learns of it within a second
    other = Access(access.database, now=clock)
    add(other, LOCAL, "root", "admin")
    clock.at += 1.1
    assert not access.open_to_all


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 65, "é", "local", "System", "a\nb"])
def test_names_that_are_none(access: Access, root: Actor, name: str) -> None:
    with pytest.raises(UsageError, match="user name"):
        add(access, root, name, "viewer")


def test_the_last_admin_stays(access: Access, root: Actor, clock: Clock) -> None:
    def change(name: str, **changes: object) -> None:
        with access.changing() as connection:
            users.change(connection, root, name, now=clock(), **changes)

    add(access, root, "helper", "admin", password=None)  # who cannot sign in is no admin to count on
    for changes in ({"role": "viewer"}, {"disabled": True}):
        with pytest.raises(ConflictError, match="last admin"):
            change("root", **changes)
    add(access, root, "second", "admin")
    change("root", role="viewer")
    with pytest.raises(ConflictError, match="last admin"):
        change("second", disabled=True)
    with pytest.raises(ConflictError, match="already"):
        add(access, root, "Second", "viewer")
    with pytest.raises(NotFoundError):
        change("nobody", role="viewer")


def test_a_session_lives_and_ends(access: Access, root: Actor, clock: Clock) -> None:
    limits = sessions.SessionLimits(idle_s=600.0, absolute_s=3600.0)
    with access.database.write() as connection:
        settings.put(connection, "sessions", limits, sessions.SessionLimits(), actor=root, now=clock())
    cookie = enter(access, "Root ").cookie
    with access.database.read() as connection:
        assert cookie not in str(connection.execute(select(schema.sessions)).all())
    assert access.session_valid(digest(cookie)) == Actor(name="root", role="admin", via="page")
    assert access.session(cookie + "x") is None
    clock.at += 599
    found = access.session(cookie)
    assert found is not None
    access.touch(found)
    clock.at += 599
    assert access.session(cookie) is not None
    clock.at += 2
    assert access.session(cookie) is None  # idle
    cookie = enter(access, "root").cookie
    for _ in range(7):
        clock.at += 500
        found = access.session(cookie)
        assert found is not None
        access.touch(found)
    clock.at += 500
    assert access.session(cookie) is None  # 3,600 s after it began, however busy


@pytest.mark.parametrize("change", ["password", "disabled", "signed out", "ended"])
def test_what_ends_a_session_ends_it_at_once_and_tells(
    access: Access, root: Actor, clock: Clock, change: str
) -> None:
    add(access, root, "n.kim", "nurse")
    session = enter(access, "n.kim").session
    other = enter(access, "root").session
    assert access.session_valid(session.hash) is not None
    told = threading.Event()
    stop = access.watch(session.hash, told.set)
    if change == "password":
        kept = access.hash_new("other words in a row", "n.kim")
        with access.changing() as connection:
            users.set_password(connection, root, "n.kim", kept, now=clock())
    elif change == "disabled":
        with access.changing() as connection:
            users.change(connection, root, "n.kim", disabled=True, now=clock())
    elif change == "signed out":
        access.sign_out(session)
    else:
        assert access.end_sessions(root, "n.kim") == 1
    assert access.session_valid(session.hash) is None
    assert told.is_set()
    assert access.session_valid(other.hash) is not None
    stop()


def test_a_role_counts_at_once(access: Access, root: Actor, clock: Clock) -> None:
    add(access, root, "n.kim", "nurse")
    session = enter(access, "n.kim").session
    assert access.session_valid(session.hash).role == "nurse"
    with access.changing() as connection:
        users.change(connection, root, "n.kim", role="viewer", now=clock())
    assert access.session_valid(session.hash).role == "viewer"


def test_the_oldest_of_too_many_sessions_ends(access: Access, root: Actor, clock: Clock) -> None:
    first = access.begin_session("root").session
    for _ in range(sessions.MAX_A_USER - 1):
        clock.at += 1
        access.begin_session("root")
    assert access.session_valid(first.hash) is not None
    access.begin_session("root")
    clock.at += 1.1
    assert access.session_valid(first.hash) is None
    with access.database.read() as connection:
        held = sessions.of(connection, "root", access.limits(connection), now=clock())
    assert len(held) == sessions.MAX_A_USER


def test_a_token_opens_what_its_scopes_say(access: Access, root: Actor, clock: Clock) -> None:
    add(access, root, "op", "operator", password=None)

    def make(actor: Actor, user: str, *scopes: str, ends: float | None = None) -> tuple[tokens.Token, str]:
        with access.database.write() as connection:
            return tokens.add(connection, actor, user, "test", scopes, expires_at=ends, now=clock())

    listed, token = make(root, "op", "read", "models", ends=clock() + 100)
    actor = access.token(token)
    assert actor is not None
    assert [actor.may(each) for each in ("read", "models", "runs", "users")] == [True, True, False, False]
    with access.database.read() as connection:
        assert token not in str(connection.execute(select(schema.tokens)).all())
        assert tokens.one(connection, listed.id).last_used == clock()
    assert access.token(token[:-1] + ("A" if token[-1] != "A" else "B")) is None
    clock.at += 101
    assert access.token(token) is None  # expired
    with pytest.raises(UsageError, match="has no permission users"):
        make(root, "op", "users")
    with pytest.raises(UsageError, match="take of"):
        make(root, "op", "fly")
    with pytest.raises(UsageError, match="expired already"):
        make(root, "op", "read", ends=clock())
    with pytest.raises(NotFoundError):
        make(root, "nobody", "read")
    narrow = Actor(name="root", role="admin", via="api", permissions=frozenset({"users", "read"}))
    with pytest.raises(ForbiddenError, match="more than they may"):
        make(narrow, "op", "models")
    lasting, token = make(root, "op", "models")
    assert access.token(token) is not None
    with access.changing() as connection:
        tokens.revoke(connection, root, lasting.id, now=clock())
    assert access.token(token) is None
    _, token = make(root, "op", "models")
    assert access.token(token) is not None
    with access.changing() as connection:
        users.change(connection, root, "op", disabled=True, now=clock())
    assert access.token(token) is None
    _, token = make(root, "root", "users")
    assert access.token(token).may("users")
    add(access, root, "second", "admin")
    with access.changing() as connection:  # what a role no longer holds, its tokens do not either
        users.change(connection, root, "root", role="viewer", now=clock())
    assert not access.token(token).may("users")


def test_guessing_is_slowed_down_by_user(access: Access, root: Actor, clock: Clock) -> None:
    for _ in range(throttle.FREE_A_USER):
        with pytest.raises(SignInError, match="name or password"):
            enter(access, "root", "wrong words in a row")
    waits = []
    for number in range(12):
        with pytest.raises(throttle.ThrottledError) as caught:
            enter(access, "root")  # even with the right password, and nothing is counted
        waits.append(caught.value.wait_s)
        clock.at += caught.value.wait_s
        with pytest.raises(SignInError, match="name or password"):
            enter(access, "root", "wrong words in a row", address=f"10.0.2.{number}")
    assert waits[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert waits[9:] == [300, 300, 300]  # nobody is locked out for ever
    clock.at += 300
    enter(access, "root")
    for _ in range(throttle.FREE_A_USER):  # and the count begins anew
        with pytest.raises(SignInError, match="name or password"):
            enter(access, "root", "wrong words in a row", address="10.0.3.1")


def test_guessing_is_slowed_down_by_address(access: Access, root: Actor, clock: Clock) -> None:
    for number in range(throttle.FREE_AN_ADDRESS):
        with pytest.raises(SignInError, match="name or password"):
            enter(access, f"user-{number}", "wrong words in a row", address="2001:db8::1")
    with pytest.raises(throttle.ThrottledError):  # the same host under another of its addresses
        enter(access, "root", address="2001:db8::ffff")
    enter(access, "root", address="2001:db8:0:1::1")
    clock.at += 2
    # a login that succeeds takes back its own count, not those before
    enter(access, "root", address="2001:db8::1")
    with pytest.raises(SignInError, match="name or password"):
        enter(access, "other", "wrong words in a row", address="2001:db8::1")
    with pytest.raises(throttle.ThrottledError):
        enter(access, "root", address="2001:db8::1")


def test_strangers_do_not_lock_out_a_browser_that_is_known(access: Access, root: Actor, clock: Clock) -> None:
    known = enter(access, "root").known
    for _ in range(throttle.FREE_A_USER):
        with pytest.raises(SignInError, match="name or password"):
            enter(access, "root", "wrong words in a row", address="10.9.9.9")
    with pytest.raises(throttle.ThrottledError):
        enter(access, "root", address="10.0.0.2")
    enter(access, "root", address="10.0.0.2", known=known)
    add(access, root, "second", "admin")
    other = enter(access, "second").known
    with pytest.raises(throttle.ThrottledError):  # what is signed for one user is nothing for another
        enter(access, "root", address="10.0.0.2", known=other)
    access.unlock(root, "root")
    enter(access, "root", address="10.0.0.2")


def test_two_gateways_count_together(access: Access, root: Actor, clock: Clock) -> None:
    other = Access(access.database, now=clock)
    for number in range(throttle.FREE_A_USER):
        with pytest.raises(SignInError, match="name or password"):
            enter((access, other)[number % 2], "root", "wrong words in a row", address=f"10.0.0.{number}")
    for each in (access, other):
        with pytest.raises(throttle.ThrottledError):
            enter(each, "root")
    enter_again = other.signer.unsign("known", access.signer.sign("known", "x"), max_age_s=10)
    assert enter_again == "x"


def test_many_attempts_at_once_get_no_more_tries(access: Access, root: Actor) -> None:
    outcomes: list[type[Exception]] = []

    def attempt(number: int) -> None:
        try:
            enter(access, "root", "wrong words in a row", address=f"10.0.1.{number}")
        except SignInError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert outcomes.count(SignInError) == throttle.FREE_A_USER
    assert outcomes.count(throttle.ThrottledError) == 12 - throttle.FREE_A_USER


def test_who_does_not_exist_costs_the_same_and_leaves_no_name(
    access: Access, root: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SignInError) as unknown:
        enter(access, "my secret password", "x" * 20)
    with pytest.raises(SignInError) as wrong:
        enter(access, "root", "x" * 20)
    assert str(unknown.value) == str(wrong.value)
    with access.database.read() as connection:
        for table in (schema.audit, schema.login_failures):
            assert "my secret" not in str(connection.execute(select(table)).all())
        found, _ = audit.page(connection, audit.Asked(action="session.refuse"), 10)
    assert [(each.actor, each.role, each.target) for each in found] == [
        ("unknown", "none", "user/root"),
        ("unknown", "none", "user/unknown"),
    ]
    # both go through one whole argon2 verification: counted, for a time is no condition
    verified: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, kept: str, password: str) -> bool:
        verified.append(kept.split("$")[3])
        return verify(self, kept, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    for name in ("nobody", "root"):
        with pytest.raises(SignInError):
            enter(access, name, "x" * 20)
    assert len(verified) == 2
    assert verified[0] == verified[1]


def test_one_secret_a_database(access: Access, tmp_path: Path) -> None:
    again, elsewhere = Signer(access.database), make_access(tmp_path / "other", Clock())
    assert again.model_key("a" * 64) == access.signer.model_key("a" * 64)
    assert again.opens_model("a" * 64, access.signer.model_key("a" * 64))
    for key in (None, "", "é", access.signer.model_key("b" * 64), elsewhere.signer.model_key("a" * 64)):
        assert not again.opens_model("a" * 64, key)
    signed = access.signer.sign("form", "x")
    assert again.unsign("form", signed, max_age_s=10) == "x"
    assert again.unsign("known", signed, max_age_s=10) is None
    assert again.unsign("form", signed + "x", max_age_s=10) is None
    assert elsewhere.signer.unsign("form", signed, max_age_s=10) is None
    elsewhere.database.close()


def test_the_database_away_is_not_nobody(access: Access, root: Actor) -> None:
    """What cannot be known is not decided: neither open to all, nor a session that is valid."""
    cookie = enter(access, "root").cookie
    access.changed()
    with access.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE sessions RENAME TO gone")
    with pytest.raises(Exception, match="no such table"):
        access.session(cookie)
    assert not access.open_to_all


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_the_wait_grows_and_has_an_end(failures: int, free: int) -> None:
    wait = throttle.wait_s(failures, free)
    assert 0.0 <= wait <= throttle.wait_s(failures + 1, free) <= throttle.MAX_WAIT_S
    assert (wait == 0.0) == (failures < free)


def test_who_may_what() -> None:
    nurse = Actor(name="n", role="nurse", via="page")
    assert [nurse.may(each) for each in ("read", "ward", "fleet", "runs", "audit")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(ForbiddenError, match="needs the permission 'users'"):
        nurse.need("users")
    assert SYSTEM.may("users")


@pytest.mark.parametrize(
    "case",
    [
        test_many_attempts_at_once_get_no_more_tries,
        test_a_session_lives_and_ends,
        test_a_token_opens_what_its_scopes_say,
        test_guessing_is_slowed_down_by_address,
        test_the_last_admin_stays,
        test_two_gateways_count_together,
    ],
)
def test_the_same_on_postgresql(
    postgresql: PostgreSQL, tmp_path: Path, clock: Clock, case: Callable[..., None]
) -> None:
    database = open_database(postgresql.create(), tmp_path, password_file=str(postgresql.password_file))
    made = on(database, clock)
    try:
        kept = made.hash_new(PASSWORD, "root")
        with made.changing() as connection:
            users.add(connection, LOCAL, "root", "admin", password_hash=kept, now=clock())
        root = Actor(name="root", role="admin", via="page")
        given = {"access": made, "root": root, "clock": clock}
        case(**{name: given[name] for name in inspect.signature(case).parameters})
    finally:
        database.close()
