"""Severity: local, centralised and federated training, strategies and models of each patient's own.

    python benchmarks/table1.py [--seeds 5] [--out FILE]

Goes on where it was interrupted (units are kept in `.samd/bench`). Prints JSON.
"""

from models.program import main

if __name__ == "__main__":
    main(__doc__, "severity")
