"""Text of others without what is not text: control characters, which a terminal obeys, and marks that turn
the direction of writing, by which a line reads as another.

A message is not lost for one of them: each becomes U+FFFD, so that what is shown says that something stood
there.
"""

import unicodedata
from typing import Any

REPLACEMENT = "\ufffd"
_NOT_TEXT = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # needed to write some languages, and harmless


def plain(text: str) -> str:
    """The text on one line, each character that is not one replaced; `text` itself where there is none."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character in _JOINERS or unicodedata.category(character) not in _NOT_TEXT
        else " "
        if character in "\t\n\r"
        else REPLACEMENT
        for character in text
    )


def plain_all(value: Any) -> Any:
    """The same for every text, and every key, in a structure of lists and dictionaries."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain_all(key): plain_all(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain_all(each) for each in value]
    return value


def needs_care(body: str) -> bool:
    """Whether JSON may hold such a character: within ASCII it stands escaped, beyond as it is."""
    return "\\" in body or "\x7f" in body or not body.isascii()
