"""``csv:FILE``: a file of readings, CSV or JSON lines, as fast as it can be read."""

import os

from samd_edge.clock import DataClock
from samd_edge.sources import Source, SourceError, SourceURL
from samd_edge.sources.rows import TableSource
from samd_edge.sources.surroundings import Surroundings


def open_source(url: SourceURL, around: Surroundings) -> Source:
    """Open the file and read up to its first row. Raises SourceError or DataError when it is no table.

    The clock follows the data: it shows the time of the newest row handed out, and runs on.
    """
    url.only()
    if not url.path:
        raise SourceError("source csv: names no file; write csv:FILE")
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
