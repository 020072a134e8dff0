"""Times as callers of the API give them: ISO 8601 with a zone. A number is refused, and so is a time without
a zone: what it was meant to be is not known.
"""

from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator


def _text(value: Any) -> Any:
    """Pydantic would read a number as seconds since 1970, also one that stands in a query as text."""
    if isinstance(value, str) and "T" in value.upper():
        return value
    raise ValueError("write a date and a time with its zone, such as 2026-03-01T08:00:00Z")


Moment = Annotated[AwareDatetime, BeforeValidator(_text)]
