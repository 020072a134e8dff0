"""Does what `samd-edge update` does, and is killed in the middle of it: `update_cut.py MARK ARGUMENTS...`.

MARK is a step of the update, or `unpacking`; the kill is a real one, at exactly that step.
"""

import os
import signal
import sys
from typing import Any

from samd_edge import cli
from samd_edge.update import device


def main(mark: str, arguments: list[str]) -> int:
    """Run it until the mark."""

    def cut(text: str) -> None:
        if text == mark:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(share: float) -> None:
        if share > 0.5:
            cut("unpacking")

    class Cut(device.Device):
        def __init__(self, **values: Any) -> None:
            super().__init__(**{**values, "step": cut, "told": told})

    device.Device = Cut  # type: ignore[misc]
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
