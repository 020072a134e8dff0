"""Run files: what they say, and what is said of each thing that is wrong with one."""

from pathlib import Path

import msgspec
import pytest

from samd_protocol.messages import RunSpec
from samd_protocol.runfile import PLACES, RunFileError, parse, read

WHOLE = """
name = "Ditto on the ICU demo"
task = "severity"
rounds = 30
quorum = 8
seed = 4
devices = ["bed-02", "bed-01"]
admission_deadline_s = 5
round_deadline_s = 90.5

[training]
epochs = 3
learning_rate = 0.02
optimizer = "sgd"
proximal_mu = 0.1
mask_rate = 0.2
logit_adjustment = 0.5

[strategy]
name = "FedAdam"
weighting = "severe"
eta = 0.05
beta_1 = 0

[personalisation]
method = "ditto"
epochs = 4
learning_rate = 0.005
mu = 1
alpha = 0.25
alpha_rate = 0.1
rehearsal = 128
"""


def test_a_file_says_every_field_of_a_run() -> None:
    spec, devices = parse(WHOLE)
    assert devices == ["bed-01", "bed-02"]
    assert spec == RunSpec(
        name="Ditto on the ICU demo",
        rounds=30,
        quorum=8,
        seed=4,
        admission_deadline_s=5.0,
        round_deadline_s=90.5,
        epochs=3,
        learning_rate=0.02,
        optimizer="sgd",
        proximal_mu=0.1,
        mask_rate=0.2,
        logit_adjustment=0.5,
        strategy="FedAdam",
        weighting="severe",
        strategy_settings={"eta": 0.05, "beta_1": 0.0},
        method="ditto",
        personal_epochs=4,
        personal_learning_rate=0.005,
        personal_mu=1.0,
        personal_alpha=0.25,
        personal_alpha_rate=0.1,
        rehearsal=128,
    )
    placed = [field for keys in PLACES.values() for field in keys.values()]
    assert sorted([*placed, "strategy_settings"]) == sorted(RunSpec.__struct_fields__)


def test_an_empty_file_is_a_run_of_defaults() -> None:
    assert parse("") == (RunSpec(), None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rounds = ", "no TOML (Invalid value (at end of document)); correct that place"),
        ("round = 3", "round is not known; did you mean 'rounds'? choose one of: name, task, rounds, quorum"),
        ("epochs = 3", "epochs is not known; it belongs to [training]"),
        ("[training]\nrounds = 3", "[training] rounds is not known; it belongs before the first section"),
        ("[training]\nmethod = 'ditto'", "[training] method is not known; it belongs to [personalisation]"),
        ("[strategies]\nname = 'FedAvg'", "strategies is not known; did you mean 'strategy'?"),
        ("strategy = 'FedAvg'", "strategy is no section; write [strategy] on a line of its own"),
        ("rounds = 'three'", "rounds is 'three'; it is a whole number"),
        ("rounds = 3.5", "rounds is 3.5; it is a whole number"),
        ("rounds = true", "rounds is True; it is a whole number"),
        ("rounds = 0", "rounds is 0: it must lie between 1 and 10000"),
        ("[training]\nlearning_rate = nan", "[training] learning_rate is nan: it must lie between"),
        ("[training]\nlearning_rate = '1'", "[training] learning_rate is '1'; it is a number"),
        ("[personalisation]\nalpha = 2", "[personalisation] alpha is 2.0: it must lie between 0.0 and 1.0"),
        ("[strategy]\nname = 'FedMagic'", "[strategy] name 'FedMagic' is not offered; choose one of: FedAvg"),
        (
            "[strategy]\nname = 'FedAdam'\nbeta_3 = 1",
            "[strategy] FedAdam has no 'beta_3'; did you mean 'beta_",
        ),
        ("[strategy]\nname = 'FedAdam'\neta = 'x'", "[strategy] eta is 'x'; it is a number"),
        (
            "quorum = 3\n[strategy]\nname = 'Krum'",
            "quorum is 3: Krum as set needs 5 replies for what it promises; raise the quorum or set it",
        ),
        (
            "[personalisation]\nmethod = 'dito'",
            "[personalisation] method 'dito' is not offered; did you mean 'ditto'?",
        ),
        ("[personalisation]\nmethod = 'ditto'", "[personalisation] mu: ditto needs its lambda above 0"),
        (
            "[training]\noptimizer = 'sdg'",
            "[training] optimizer 'sdg' is not offered; choose one of: adam, sgd",
        ),
        ("devices = []", "devices is a list of names"),
        ("devices = ['a/b']", "devices: 'a/b' is no name"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_remedy(text: str, reason: str) -> None:
    with pytest.raises(RunFileError) as raised:
        parse(text, where="ward.toml")
    assert str(raised.value).startswith(f"ward.toml: {reason}")
    assert "\n" not in str(raised.value)


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(RunFileError) as raised:
        parse("round = 3\nquorum = 'all'\n[training]\nepoch = 3")
    assert str(raised.value).count(";") == 5
    for part in ("round is not known", "quorum is 'all'", "[training] epoch is not known"):
        assert part in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="cannot be read"):
        read(tmp_path / "none.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "Lübeck"'.encode("latin-1"))
    with pytest.raises(RunFileError, match="is not UTF-8"):
        read(latin)
    long = tmp_path / "long.toml"
    long.write_text("#" * 70_000)
    with pytest.raises(RunFileError, match="more than 65536 bytes"):
        read(long)
    whole = tmp_path / "whole.toml"
    whole.write_text(WHOLE)
    assert read(whole) == parse(WHOLE)


def test_an_older_description_of_a_run_is_still_read() -> None:
    old = b'{"task":"severity","rounds":3,"strategy":"FedAvg","quorum":2}'
    assert msgspec.json.decode(old, type=RunSpec) == RunSpec(rounds=3, quorum=2)


def test_the_run_files_of_the_benchmarks_can_be_run() -> None:
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    found = {path.stem: read(path).spec for path in benchmarks.glob("*.toml")}
    assert {name: spec.task for name, spec in found.items()} == {
        "severity": "severity",
        "deterioration": "deterioration",
    }
    assert {(spec.strategy, spec.optimizer) for spec in found.values()} == {("FedAvgM", "sgd")}
