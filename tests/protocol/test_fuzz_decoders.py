"""What crosses the wire under any input: what stands there, or an error, never another."""

import pytest

from samd_scripts.fuzzing import bundles, training, wire
from samd_scripts.fuzzing.strategies import hold
from samd_scripts.fuzzing.target import Target


@pytest.mark.parametrize(
    "target", [*wire.TARGETS, *training.TARGETS, *bundles.TARGETS], ids=lambda target: target.name
)
def test_no_input_breaks_the_decoder(target: Target) -> None:
    hold(target)
