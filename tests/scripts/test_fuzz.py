"""scripts/fuzz: clean targets end with 0, a broken one with 1 and its input, a wrong call with 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from samd_scripts.fuzzing.engines import has_atheris
from samd_scripts.fuzzing.target import MODULES, load, names

ROOT = Path(__file__).resolve().parents[2]
ENGINES = [
    pytest.param("atheris", marks=pytest.mark.skipif(not has_atheris(), reason="atheris is not installed")),
    "hypothesis",
]

PLANTED = '''
"""A decoder that cannot stand one thing: a rate of 7 behind its header."""

from samd_scripts.fuzzing.target import Target


def check(data):
    if data[:2] == b"HR" and data[2:3] == b"7":
        raise ZeroDivisionError("planted: the rate is divided by")


TARGETS = (
    Target(name="planted", about="breaks", check=check, seeds=lambda: [b"HR8"], words=("7",)),
    Target(name="sound", about="does not", check=lambda data: None),
)
'''


def fuzz(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "samd_scripts.fuzz", "--folder", str(folder), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    module = tmp_path / "planted_targets.py"
    module.write_text(PLANTED)
    return module


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sound_decoder_is_clean(tmp_path: Path, engine: str) -> None:
    done = fuzz(tmp_path, "jsonl", "--seconds", "2", "--engine", engine, "--seed", "7", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (outcome,) = found["targets"]
    assert (found["seed"], found["engine"], outcome["target"]) == (7, engine, "jsonl")
    assert outcome["runs"] > 50
    assert outcome["crashes"] == []
    if engine == "atheris":
        assert outcome["coverage"] > 100, "the table reader is instrumented"
        assert any((tmp_path / "corpus" / "jsonl").iterdir()), "what was interesting is kept"
    assert f"jsonl: {outcome['runs']} runs" in done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_a_broken_decoder_is_found_and_its_input_replayed(tmp_path: Path, planted: Path, engine: str) -> None:
    module = ("--target-module", str(planted))
    done = fuzz(tmp_path, *module, "--seconds", "4", "--engine", engine, "--seed", "1")
    assert done.returncode == 1, done.stderr
    (crash,) = (tmp_path / "crashes" / "planted").iterdir()
    assert crash.read_bytes().startswith(b"HR7")
    assert "planted: ZeroDivisionError: planted: the rate is divided by" in done.stderr
    assert f"kept: {crash}" in done.stderr
    assert f"replay: scripts/fuzz planted --target-module {planted} --replay {crash}" in done.stderr
    assert "sound" in done.stdout

    again = fuzz(tmp_path, "planted", *module, "--replay", str(crash))
    assert again.returncode == 1
    assert "ZeroDivisionError" in again.stderr
    assert "breaks it" in again.stdout
    sound = fuzz(tmp_path, "sound", *module, "--replay", str(crash))
    assert (sound.returncode, sound.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-target",),
        ("--seconds", "0"),
        ("--target-module", "nowhere.py"),
        ("--replay", "nowhere"),
        ("csv", "--replay", "nowhere"),
        ("--engine", "afl"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = fuzz(tmp_path / "unused", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert not (tmp_path / "unused").exists()


def test_the_list_names_every_target(tmp_path: Path) -> None:
    done = fuzz(tmp_path, "--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(load())


def test_every_target_is_named_where_its_module_is() -> None:
    assert [target.name for target in load().values()] == names()
    for module, found in MODULES.items():
        for name in found:
            assert name in load(only=name), module


def test_every_kept_input_belongs_to_a_target() -> None:
    folders = {path.name for path in (ROOT / "tests" / "fuzz_corpus").iterdir() if path.is_dir()}
    assert folders <= set(load())
