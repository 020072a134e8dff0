"""``python -m samd_scripts.flash``, which is ``scripts/flash``."""

import sys

from samd_scripts.flash.cli import main

if __name__ == "__main__":
    sys.exit(main())
