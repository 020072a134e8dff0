"""What a round of each method costs on the device: seconds, peak memory, bytes sent; beside TensorFlow.

    python benchmarks/table4.py [--out FILE]

Prints JSON.
"""

from models.program import main

if __name__ == "__main__":
    main(__doc__, "cost")
