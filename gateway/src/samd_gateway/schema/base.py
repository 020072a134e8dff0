"""The one `MetaData` of all tables, and the column types that differ between databases."""

from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData

metadata = MetaData()


def identity(name: str = "id") -> Column[Any]:
    """A primary key that the database counts up; 64 bits (SQLite counts only in a plain INTEGER)."""
    return Column(name, BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
