"""The model store: versions only grow, nothing is overwritten, nothing tampered with is handed out."""

from pathlib import Path

import msgspec
import pytest

from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle
from samd_server.errors import ServerError, StoreError
from samd_server.registry import Registry
from samd_server.service import import_model


def version(bundle: Bundle, number: int) -> Bundle:
    manifest = msgspec.structs.replace(
        bundle.manifest, version=number, metrics={"complete": {"macro_f1": 0.5}}
    )
    return msgspec.structs.replace(bundle, manifest=manifest)


def test_versions_grow_and_only_a_release_is_put_to_use(tmp_path: Path, small_bundle: Bundle) -> None:
    store = Registry(tmp_path, "severity")
    assert (store.versions(), store.released, store.next_version()) == ([], None, 0)
    for number, decision, in_use in (
        (0, "imported", 0),
        (1, "released", 1),
        (2, "kept", 1),
        (3, "released", 3),
    ):
        assert store.next_version() == number
        store.add(version(small_bundle, number), decision=decision, reason="why", run=f"run-{number}")  # type: ignore[arg-type]
        assert store.released == in_use
    assert store.versions() == [0, 1, 2, 3]
    assert store.read(2).manifest.version == 2
    card = store.card(2)
    assert (card.decision, card.reason, card.metrics) == ("kept", "why", {"complete": {"macro_f1": 0.5}})
    assert store.of_run("run-2") == card
    assert store.of_run("run-9") is None


def test_nothing_is_overwritten(tmp_path: Path, small_bundle: Bundle) -> None:
    store = Registry(tmp_path, "severity")
    store.add(version(small_bundle, 1), decision="kept", reason="a")
    before = (tmp_path / "severity/000001/model.samd").read_bytes()
    with pytest.raises(StoreError, match="version 1 is there already, and is never overwritten"):
        store.add(version(small_bundle, 1), decision="released", reason="b")
    assert (tmp_path / "severity/000001/model.samd").read_bytes() == before
    assert store.released is None


def test_a_crash_before_the_card_leaves_no_version(tmp_path: Path, small_bundle: Bundle) -> None:
    store = Registry(tmp_path, "severity")
    bundles.write(tmp_path / "severity/000000/model.samd", small_bundle)
    assert store.next_version() == 0
    store.add(version(small_bundle, 0), decision="imported", reason="again")
    assert store.read(0).manifest.metrics == {"complete": {"macro_f1": 0.5}}


def test_a_tampered_bundle_is_refused_in_one_sentence(tmp_path: Path, small_bundle: Bundle) -> None:
    store = Registry(tmp_path, "severity")
    store.add(small_bundle, decision="imported", reason="a")
    path = tmp_path / "severity/000000/model.samd"
    good = path.read_bytes()
    other = msgspec.structs.replace(small_bundle, weights=small_bundle.weights + 1)
    for bad in (good[:-1], good[:100] + b"X" + good[101:], b"", bundles.pack(other)):
        path.write_bytes(bad)
        with pytest.raises(StoreError, match="restore the store from a backup") as refusal:
            store.read(0)
        assert "\n" not in str(refusal.value)
    path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        store.read(0)


def test_a_damaged_card_or_pointer_is_told_plainly(tmp_path: Path, small_bundle: Bundle) -> None:
    store = Registry(tmp_path, "severity")
    store.add(small_bundle, decision="imported", reason="a")
    (tmp_path / "severity/released").write_text("one")
    with pytest.raises(StoreError, match="holds 'one', no version"):
        _ = store.released
    (tmp_path / "severity/000000/card.json").write_text("{")
    with pytest.raises(StoreError, match="its card cannot be read"):
        store.card(0)


def test_an_import_that_crashed_halfway_is_finished(tmp_path: Path, small_bundle: Bundle) -> None:
    file = tmp_path / "first.samd"
    bundles.write(file, small_bundle)
    store = Registry(tmp_path / "models", "severity")
    import_model(store, file)
    (tmp_path / "models/severity/released").unlink()
    import_model(store, file)
    assert (store.released, store.versions()) == (0, [0])


def test_a_model_for_another_task_is_refused(tmp_path: Path, small_bundle: Bundle) -> None:
    file = tmp_path / "first.samd"
    bundles.write(file, small_bundle)
    with pytest.raises(ServerError, match="a model for 'severity', this store is for 'deterioration'"):
        import_model(Registry(tmp_path, "deterioration"), file)
