"""Units of work that are kept: an interrupted table goes on where it stopped."""

import ast
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from models.cohort import ROOT

SOURCES = (
    "benchmarks/models/cohort.py",
    "benchmarks/models/learning.py",
    "data/src/samd_data/features.py",
    "data/src/samd_data/history.py",
    "data/src/samd_data/deterioration.py",
    "data/src/samd_data/severity.py",
    "data/src/samd_data/hourly.py",
)
"""What a kept unit depends on beside its own name and settings: another program, another folder. Of the
trainer, the methods and the strategies it depends, too: delete `.samd/bench` when they compute otherwise."""


class Store:
    """The units of one table below `.samd/bench`. Each is one JSON file, written whole or not at all."""

    def __init__(self, table: str, settings: Any) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for source in SOURCES:
            path = ROOT / source
            for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
                digest.update(ast.dump(ast.parse(file.read_text())).encode())  # not how it is laid out
        self.folder = ROOT / ".samd" / "bench" / f"{table}-{digest.hexdigest()[:12]}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def unit(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work` gives, from the last time if it is there; a line on stderr tells which."""
        path = self.folder / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text())
        began = time.perf_counter()
        found = work()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found))
        os.replace(part, path)
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        return json.loads(path.read_text())
