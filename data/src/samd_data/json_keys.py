"""JSON objects that hold a key twice. Decoders give the last of the two values; it may be the wrong one."""

import json
from typing import Any


def repeated_key(text: str | bytes) -> str | None:
    """A key that stands twice in one object of a JSON document, or None.

    Raises ``ValueError`` or ``RecursionError`` for what is no JSON, or nested too deeply.
    """
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found.append(key)
            seen.add(key)

    json.loads(text, object_pairs_hook=look)
    return found[0] if found else None
