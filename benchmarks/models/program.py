"""What the programs `table1.py` to `table4.py` have in common: arguments, JSON out, one thread."""

import argparse
import json
import os
from importlib import import_module
from pathlib import Path

import numpy as np


def main(description: str | None, *parts: str) -> None:
    """Run the parts of a table (modules of `models` with a `run`) and print what they found."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same sums in the same order, and a core for others
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="2 to 5 (default: 5)")
    parser.add_argument("--out", type=Path, help="also write the JSON there")
    args = parser.parse_args()
    if not 2 <= args.seeds <= 5:
        parser.error("--seeds is 2 to 5: one seed has no interval, and five have first weights")
    from samd_server import flower

    flower.prepare()
    flower.identify(1)
    found = {part: import_module(f"models.{part}").run(args.seeds) for part in parts}
    text = json.dumps(_short(found[parts[0]] if len(parts) == 1 else found), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def _short(value: object) -> object:
    """Five decimals; what is undefined is null."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 5) if np.isfinite(value) else None
    return value
