"""What people write beside what they do: one line, short, printable."""

from samd_gateway.errors import UsageError

LONGEST = 500


def words(text: str, what: str, *, longest: int = LONGEST) -> str:
    """The text without space around it. Raises UsageError for an empty, long or unprintable one."""
    found = text.strip()
    if not found:
        raise UsageError(f"{what}: write why, in a few words")
    if len(found) > longest:
        raise UsageError(f"{what}: at most {longest} characters")
    if not found.isprintable():
        raise UsageError(f"{what}: one line of text, without control characters")
    return found
