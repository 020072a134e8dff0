"""A decoder that is fuzzed, and where the targets are."""

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
CORPUS: Final = ROOT / "tests" / "fuzz_corpus"
"""Inputs that are kept: invented seeds, and every input that once broke a decoder. One folder a target."""

INSTRUMENTED: Final = ("samd_data", "samd_protocol", "samd_edge")
"""What coverage is counted in: to be imported after the hook is set, never before."""

MOST_SECONDS: Final = 2.0
"""Processor time that one input of a few kilobytes may take; usual is a millisecond."""

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "tables": ("csv", "csv-written"),
    "json_lines": ("jsonl", "jsonl-written"),
    "wire": ("envelope", "envelope-written", "command", "command-written"),
    "training": ("task", "update", "training-written", "frames"),
    "bundles": ("bundle", "bundle-written"),
    "settings": ("config", "config-written", "source-url"),
    "options": ("options", "options-written", "mapping", "mapping-written"),
    "control": ("control", "control-written", "orders-written"),
    "intake": ("intake-written",),
    "monitors": ("mqtt-json", "mqtt-json-written", "mqtt-lines"),
    "fhir": ("fhir", "fhir-written"),
    "hl7v2": ("hl7", "hl7-written"),
    "ble": ("ble", "ble-written"),
}
"""The modules here, and their targets: a process that runs one of them loads no more than it needs."""


class Wrong(AssertionError):  # noqa: N818  (a finding)
    """A decoder broke its promise; the text says which one."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """``check`` takes any bytes and raises when the decoder breaks its promise.

    ``seeds``: valid inputs to begin from. ``words``: what the format is made of, for the mutator.
    ``choices``: the bytes are no input but choices out of which ``check`` makes one.
    """

    name: str
    about: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]] = tuple
    words: tuple[str | bytes, ...] = ()
    max_bytes: int = 4096
    choices: bool = False

    def run(self, data: bytes) -> None:
        """One input; raises ``Wrong``, or whatever else the decoder let through."""
        began = time.process_time()
        self.check(data)
        took = time.process_time() - began
        if took > MOST_SECONDS:
            raise Wrong(
                f"{len(data)} bytes took {took:.1f} s of processor time; {MOST_SECONDS:g} are allowed"
            )

    def corpus(self) -> list[bytes]:
        """The seeds, and the inputs that are kept for this target."""
        folder = CORPUS / self.name
        kept = [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []
        return [*self.seeds(), *kept]


def names(module: Path | None = None) -> list[str]:
    """The names of the targets, in their order."""
    if module is not None:
        return list(load(module))
    return [name for found in MODULES.values() for name in found]


def load(module: Path | None = None, only: str | None = None) -> dict[str, Target]:
    """The targets by name, in their order; with ``module``, those of this file (its ``TARGETS``) alone.

    With ``only`` nothing is imported but the module of that target."""
    if module is not None:
        sys.path.insert(0, str(module.resolve().parent))
        loaded = [importlib.import_module(module.stem)]
    else:
        wanted = [part for part, found in MODULES.items() if only is None or only in found]
        loaded = [importlib.import_module(f"{__package__}.{part}") for part in wanted]
    return {target.name: target for part in loaded for target in part.TARGETS}
