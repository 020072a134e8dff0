"""Which release of the client this process is."""

import os
import re
from importlib import metadata
from typing import Final

VARIABLE: Final = "SAMD_RELEASE"
"""Set by the launcher of a release, to the name of its folder."""
NAME: Final = re.compile(r"[0-9][0-9A-Za-z.+!]{0,62}-[0-9a-f]{8}")
"""A version, and the first digits of the release's hash."""


def running_version() -> str:
    """The release that runs, as in ``0.1.0-1a2b3c4d``; the version alone where it was installed otherwise."""
    release = os.environ.get(VARIABLE, "")
    return release if NAME.fullmatch(release) else metadata.version("samd-edge")
