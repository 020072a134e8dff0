"""Slowing down who guesses passwords: failures are counted by user and by address, in the database, so that
several gateways count together. The wait doubles with each failure and has an end: nobody is locked out for
ever, and who has signed in before from the same browser is not slowed down by what strangers try.
"""

import hashlib
import ipaddress

from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.errors import SignInError

FREE_A_USER = 5
FREE_AN_ADDRESS = 20
"""An address counts more before it waits: a whole hospital may come by one."""
MAX_WAIT_S = 300.0
FORGET_S = 3600.0
"""After so long without a failure the count begins anew."""

table = schema.login_failures


class ThrottledError(SignInError):
    """Too many failures; try again after `wait_s`. HTTP 429."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = max(1, round(wait_s))
        super().__init__(f"too many failed attempts; try again in {self.wait_s} seconds")


def wait_s(failures: int, free: int) -> float:
    """How long the next attempt has to wait."""
    return 0.0 if failures < free else min(MAX_WAIT_S, 2.0 ** min(failures - free, 16))


def user_key(name: str, known: str | None = None) -> str:
    """Counted by the hash of what was typed: a password typed into the wrong field is not put on record."""
    kind = "user" if known is None else f"known:{known}"
    return f"{kind}:{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def address_key(address: str) -> str:
    """An IPv6 host has 2^64 addresses of its own: they count as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "address:other"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"address:{parsed.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address:{parsed}"


def begin(connection: Connection, keys: dict[str, int], *, now: float) -> None:
    """Count an attempt as failed before it is tried, so that many at once count, too. `keys`: how many are
    free for each. Raises ThrottledError, and counts nothing, while one of them has to wait; IntegrityError
    where another gateway counts the first failure at the same moment: begin again."""
    # in one order, else two could wait for each other
    chosen = select(table).where(table.c.key.in_(list(keys))).order_by(table.c.key).with_for_update()
    rows = {row.key: row for row in connection.execute(chosen)}
    waits = [row.locked_until - now for row in rows.values() if row.locked_until and row.locked_until > now]
    if waits:
        raise ThrottledError(max(waits))
    connection.execute(
        table.delete().where(table.c.locked_until < now - FORGET_S, table.c.key.not_in(list(keys)))
    )
    for key, free in keys.items():
        row = rows.get(key)
        anew = row is None or (row.locked_until or 0.0) < now - FORGET_S
        failures = 1 if row is None or anew else row.failures + 1
        values = {"failures": failures, "locked_until": now + wait_s(failures, free)}
        if anew:
            values["first_at"] = now
        # a row that is there is changed, not replaced: who waits for it sees what it has become
        if row is None:
            connection.execute(table.insert().values(key=key, **values))
        else:
            connection.execute(table.update().where(table.c.key == key).values(**values))


def succeeded(connection: Connection, user: str, address: str, *, now: float) -> None:
    """Forget the user's failures; of the address only this attempt, else one account would clear the way for
    guessing at all others."""
    connection.execute(table.delete().where(table.c.key == user))
    row = connection.execute(select(table).where(table.c.key == address)).one_or_none()
    if row is not None:
        connection.execute(
            table.update()
            .where(table.c.key == address)
            .values(failures=row.failures - 1, locked_until=min(row.locked_until or now, now))
        )


def forget(connection: Connection, name: str) -> None:
    """Let a user try again at once."""
    connection.execute(table.delete().where(table.c.key == user_key(name)))
