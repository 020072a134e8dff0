"""``python -m samd_edge`` is ``samd-edge``."""

import sys

from samd_edge.cli import main

if __name__ == "__main__":
    sys.exit(main())
