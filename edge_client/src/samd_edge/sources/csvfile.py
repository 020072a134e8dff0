"""``csv:FILE``: a file of readings, CSV or JSON lines, as fast as it can be read.

``csv:FILE?follow=1``: one that grows, read as ``tail -F`` does (``follow``).
"""

import os
from pathlib import Path

import msgspec

from samd_edge.clock import DataClock, WallClock
from samd_edge.sources import Source, SourceError, SourceURL, follow
from samd_edge.sources.rows import TableSource
from samd_edge.sources.surroundings import Surroundings


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``follow``: wait for more at the end of the file; then patient time is wall time."""

    follow: bool = False


def open_source(url: SourceURL, around: Surroundings) -> Source:
    """Open the file and read up to its first row. Raises SourceError or DataError when it is no table.

    The clock follows the data: it shows the time of the newest row handed out, and runs on. With ``follow``
    it is the wall's: rows that are old when they are read are stale, never fresh.
    """
    settings = url.settings(Settings)
    if not url.path:
        raise SourceError("source csv: names no file; write csv:FILE")
    if settings.follow:
        follow.check(Path(url.path))
        return follow.FollowSource(Path(url.path), WallClock(around.wall))
    try:
        fd = os.open(url.path, os.O_RDONLY | os.O_CLOEXEC)
        if os.path.isdir(url.path):
            os.close(fd)
            raise SourceError(
                f"{url.path}: is a folder; name a file, or play a folder with replay:{url.path}"
            )
    except OSError as error:
        raise SourceError(f"{url.path}: cannot be read ({error.strerror}); check the path") from error
    source = TableSource(fd, url.path, DataClock(around.wall))
    source.peek()
    return source
