"""`python -m samd_server`: the same as `samd-server`."""

import sys

from samd_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
