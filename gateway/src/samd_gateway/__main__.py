"""`python -m samd_gateway` is `samd-gateway`."""

import sys

from samd_gateway.cli import main

sys.exit(main())
