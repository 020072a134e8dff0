"""The agent with a personal model: it assesses this patient alone, beside the weights it was judged by."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from samd_data.reading import Reading
from samd_edge import personal
from samd_protocol import bundle as bundles
from samd_protocol.messages import PatientAdmit, PatientDischarge
from samd_protocol.tasks import Vector

WELL = {"heart_rate": 75.0, "respiratory_rate": 16.0, "spo2": 98.0, "systolic_bp": 120.0, "temperature": 37.0}


def now() -> Reading:
    return Reading(observed_at=datetime.now(UTC), **WELL)


def leave(folder: Path, bundle: Path) -> Any:
    """What a trainer leaves behind: a vector whose head says `medium` whatever it is shown."""
    model = bundles.read(bundle)
    weights = model.weights.copy()
    head = model.manifest.layers[-1].size
    weights[-head:] = [-50, -50, 50, -50]
    personal.save_model(
        folder,
        personal.ModelFile(
            method="ditto",
            graph_sha256=model.graph_sha256,
            run="run-1",
            weights=Vector.of(weights),
            judged=[personal.checksum(model.weights)],
        ),
    )
    return weights


def view(peer: Any, agent: Any, device: str) -> Any:
    """What the model says of the next reading."""
    peer.forget()
    agent.feed(now())
    return peer.wait(device, "assessment", lambda data: data.model is not None).data.model


def test_it_assesses_after_a_restart_and_rests_beside_other_weights(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, make_bundle: Any, tmp_path: Path
) -> None:
    first = make_bundle(1)
    agent = run_agent(broker.url, "--model", str(first)).ready()
    said = view(peer, agent, device)
    assert (said.personal, said.version) == (False, 1)
    assert max(said.probabilities) < 0.9
    agent.stop()

    folder = agent.data_dir / "admissions" / "local"
    leave(folder, first)
    agent = run_agent(broker.url).ready()
    said = view(peer, agent, device)
    assert (said.personal, said.version, said.severity) == (True, 1, 2)
    assert said.probabilities[2] == pytest.approx(1.0)
    agent.stop()

    bundle = bundles.read(first)
    manifest = msgspec.structs.replace(bundle.manifest, version=2, hashes={})
    other = tmp_path / "other.samd"
    bundles.write(
        other, msgspec.structs.replace(bundle, manifest=manifest, weights=bundle.weights * np.float32(0.5))
    )
    agent = run_agent(broker.url, "--model", str(other)).ready()
    said = view(peer, agent, device)
    assert (said.personal, said.version) == (False, 2)
    assert "it rests" in agent.log
    agent.stop()


def test_it_never_passes_to_the_next_patient_and_goes_with_an_erased_one(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, make_bundle: Any
) -> None:
    first = make_bundle(1)
    agent = run_agent(broker.url, "--model", str(first)).ready()
    view(peer, agent, device)
    agent.stop()
    folder = agent.data_dir / "admissions" / "local"
    leave(folder, first)
    agent = run_agent(broker.url).ready()
    assert view(peer, agent, device).personal
    assert peer.command(device, PatientDischarge(admission="local", keep=False)).status == "done"
    assert not folder.exists()
    assert peer.command(device, PatientAdmit(admission="bed-7")).status == "done"
    assert not view(peer, agent, device).personal
    agent.stop()


def test_a_damaged_one_leaves_the_global_model_in_use(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, make_bundle: Any
) -> None:
    first = make_bundle(1)
    agent = run_agent(broker.url, "--model", str(first)).ready()
    view(peer, agent, device)
    agent.stop()
    folder = agent.data_dir / "admissions" / "local"
    leave(folder, first)
    file = folder / personal.MODEL_FILE
    file.write_bytes(file.read_bytes()[:-200])
    agent = run_agent(broker.url).ready()
    assert not view(peer, agent, device).personal
    assert "it is left out" in agent.log
    agent.stop()
