"""Which release of the client this process is."""

import os
import re
from importlib import metadata
from typing import Final

VARIABLE: Final = "SAMD_RELEASE"
"""Set by the launcher of a release, to the name of its folder."""


def running_version() -> str:
    """The release that runs, as in ``0.1.0-1a2b3c4d``; the version alone where it was installed otherwise."""
    version = metadata.version("samd-edge")
    release = os.environ.get(VARIABLE, "")
    return release if re.fullmatch(re.escape(version) + r"-[0-9a-f]{8}", release) else version
