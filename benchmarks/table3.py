"""Severity under attack: a fifth of the devices send flipped, scaled or random updates.

    python benchmarks/table3.py [--seeds 5] [--out FILE]

Goes on where it was interrupted (units are kept in `.samd/bench`). Prints JSON.
"""

from models.program import main

if __name__ == "__main__":
    main(__doc__, "attack")
