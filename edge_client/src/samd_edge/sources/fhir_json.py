"""JSON of a stranger, within bounds: what FHIR asks of it, and nothing that would trouble us later.

Property names are unique (of two values, which one is meant cannot be told), numbers are finite, text holds
no control characters and no half characters, and nothing is nested deeper than any Observation is.
"""

import json
import math
from typing import Any, Final

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 40


class JsonError(ValueError):
    """The content is no JSON that can be used; the text is one sentence without its values."""


def parse(data: bytes) -> Any:
    """The content of ``data``. Raises JsonError."""
    try:
        content = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_no_number,
        )
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError("the content is not UTF-8; send JSON in UTF-8") from error
    except RecursionError as error:
        raise JsonError(_TOO_DEEP) from error
    except json.JSONDecodeError as error:
        raise JsonError(
            f"the content is no JSON (line {error.lineno}, column {error.colno}); send one FHIR resource"
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise JsonError("a number has too many digits; send what was measured") from error
    _check(content)
    return content


_TOO_DEEP: Final = f"the content is nested deeper than {MAX_DEPTH} levels; send plain Observations"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("a property stands twice in one object; send each once")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError("a number is too large; send what was measured")
    return value


def _no_number(text: str) -> float:
    raise JsonError(f"{text} is no JSON; leave out what was not measured and give a dataAbsentReason")


def _check(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and not item.isprintable():
                _check_text(item)
        if not below:
            return
        level = below
    raise JsonError(_TOO_DEEP)


def _check_text(text: str) -> None:
    """FHIR allows tab, line feed and carriage return, and nothing else below the space."""
    if any(character < " " and character not in "\t\n\r" for character in text):
        raise JsonError("a text holds a control character; send plain text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise JsonError("a text holds half a character; send plain text")
