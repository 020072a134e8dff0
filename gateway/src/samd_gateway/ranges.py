"""Range requests (RFC 9110, section 14) and entity tags, as pure functions."""

import re

_RANGE = re.compile(r"bytes=\s*(\d*)-(\d*)\s*")


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The half-open range (start, end) of a `Range` header with one range.

    None if the header is to be ignored (another unit, several ranges, or malformed). Raises ValueError if
    nothing of the file lies within it (416).
    """
    match = _RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        length = int(last)
        if length == 0 or size == 0:
            raise ValueError(header)
        return max(size - length, 0), size
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise ValueError(header)
    return start, min(int(last) + 1, size) if last else size


def matches(header: str, etag: str) -> bool:
    """Whether an `If-None-Match` or `If-Match` header names this tag; weak tags compare as strong ones."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
