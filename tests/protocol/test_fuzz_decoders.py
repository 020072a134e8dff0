"""What crosses the wire under any input: what stands there, or an error, never another."""

from typing import Any

import msgspec
import numpy as np
import pytest

from samd_protocol.messages import Message
from samd_scripts.fuzzing import bundles, training, wire
from samd_scripts.fuzzing.strategies import hold
from samd_scripts.fuzzing.target import Target, Wrong

WIRE = [*wire.TARGETS, *training.TARGETS, *bundles.TARGETS]


@pytest.mark.parametrize("target", WIRE, ids=lambda target: target.name)
def test_no_input_breaks_the_decoder(target: Target) -> None:
    hold(target)


@pytest.mark.parametrize(
    ("target", "place", "fault"),
    [
        (
            "envelope-written",
            "samd_protocol.envelope._message_decoder",
            msgspec.json.Decoder(Message, strict=False),
        ),
        ("command", "samd_edge.device_db.DeviceDb.seen", lambda *_: (False, None)),
        (
            "training-written",
            "samd_protocol.tasks.Vector.array",
            lambda self: np.frombuffer(self.data[: len(self.data) // 4 * 4], "<f4").astype(np.float32),
        ),
        ("bundle-written", "samd_protocol.bundle._check_weights", lambda *_: None),
        ("bundle-written", "samd_protocol.bundle._digest", lambda _data: "0" * 64),
        ("frames", "samd_edge.trainer.frames.length_of", lambda _prefix: 0),
    ],
)
def test_a_fault_that_is_planted_is_found(
    target: str, place: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks themselves are checked: each of these decoders is broken in one place."""
    monkeypatch.setattr(place, fault)
    with pytest.raises(Wrong):
        hold(next(one for one in WIRE if one.name == target), examples=2000, smallest=False)
