"""The history of the tables, as Alembic revisions, and how a database is brought to the newest.

A revision is never changed once a version with it was released; what it needs of the tables it says itself,
since `schema` only knows them as they are today. One that rewrites rows does so in the same transaction.
Alembic itself is imported only where there is something to do: a start waits for nothing else.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from samd_gateway.errors import UsageError

FIRST, HEAD = "0001", "0002"
"""The oldest and the newest revision that this program knows."""
WAIT_S = 600
"""How long a second gateway waits while the first one brings a large database up to date."""
_LOCK = 0x73616D64  # of PostgreSQL's advisory locks: "samd"


def knows(revision: str) -> bool:
    """Whether this program can bring a database of that revision up to date; they are counted up."""
    return len(revision) == len(HEAD) and revision.isdigit() and FIRST <= revision <= HEAD


def revision(connection: Connection) -> str | None:
    """The revision of a database; None for one without tables. Raises UsageError for tables of no release."""
    tables = inspect(connection)
    if tables.has_table("alembic_version"):
        found = connection.scalar(text("SELECT version_num FROM alembic_version"))
        if found is not None:
            return str(found)
    if not tables.has_table("meta"):
        return None
    version = connection.scalar(text("SELECT value FROM meta WHERE key = 'schema_version'"))
    if version in (None, "1"):
        return FIRST if version else None
    raise UsageError(
        f"the database has the tables of an unfinished program (schema version {version}); "
        "use another --data folder or database"
    )


def upgrade(connection: Connection, *, before: Callable[[str], None] = lambda revision: None) -> bool:
    """Bring the database of this transaction to the newest revision; whether there was something to do.

    `before` is called with the old revision when there are rows that the steps could harm. Raises UsageError
    for a database of a newer program, which is left as it is.
    """
    if connection.dialect.name == "postgresql":
        # transactional tables, and one gateway at a time: the others find the work done
        connection.execute(text(f"SET LOCAL lock_timeout = '{WAIT_S}s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    found = revision(connection)
    if found == HEAD:
        return False
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each of its own plug-ins
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise UsageError(
            f"the database has the tables of a newer program (revision {found[:32]!r}, this one knows "
            f"{HEAD}); start that program again, or restore a backup of before with this one"
        )
    if found is not None:
        before(found)
        if not inspect(connection).has_table("alembic_version"):
            command.stamp(config, found)
    command.upgrade(config, "head")
    return True
