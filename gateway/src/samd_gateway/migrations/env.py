"""Alembic's way in: the steps run in the transaction of the caller, who holds the lock."""

from alembic import context

from samd_gateway.schema.base import metadata

connection = context.config.attributes["connection"]
# SQLite's tables are transactional too, once Python's driver is kept from committing before each of them.
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
