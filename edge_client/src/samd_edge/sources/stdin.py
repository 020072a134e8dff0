"""``-``: readings on standard input, JSON lines or CSV, each taken as soon as its line is complete."""

import os

from samd_edge.clock import WallClock
from samd_edge.sources import Source, SourceError, SourceURL
from samd_edge.sources.rows import TableSource
from samd_edge.sources.surroundings import Surroundings


def open_source(url: SourceURL, around: Surroundings) -> Source:
    """Standard input, live: patient time is wall time, so that what arrives late is old, never fresh."""
    url.only()
    try:
        fd = os.dup(0)
    except OSError as error:
        raise SourceError(f"standard input is closed ({error.strerror}); give another --source") from error
    return TableSource(fd, "-", WallClock(around.wall), live=True)
