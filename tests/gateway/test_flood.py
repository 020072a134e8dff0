"""A flood from one device is thinned and told, and costs the others nothing."""

import pytest
from gateway_peers import Device, Gateway, assessment, stored, until

from samd_gateway.backlog import Backlog, Received
from samd_gateway.flood import Allowance, Flood
from samd_protocol import envelope, topics


def received(device: str, kind: str, at: float, *, size: int = 100, qos: int = 1) -> Received:
    return Received(f"samd/v1/d/{device}/up/{kind}", b"x" * size, qos, False, 1, 1, at)


def test_within_its_allowance_nothing_is_thinned_and_beyond_the_newest_stays() -> None:
    flood = Flood(Allowance(rate=10.0, burst=5.0))
    batch = [received("a", "assessment", 0.0) for _ in range(8)]
    kept, thinned = flood.sift(batch)
    assert kept == [*batch[:5], batch[7]]
    assert thinned == {"a": 2}
    assert kept[-1] is batch[7]
    later = [received("a", "assessment", 0.3) for _ in range(5)]
    kept, thinned = flood.sift(later)  # three tokens have come back
    assert (len(kept), thinned) == (4, {"a": 1})


def test_of_each_kind_the_newest_stays_and_what_matters_is_never_thinned() -> None:
    flood = Flood(Allowance(rate=1.0, burst=1.0))
    kinds = ["assessment", "heartbeat", "alert", "result", "state", "config", "training"] * 4
    batch = [received("a", kind, 0.0) for kind in kinds]
    kept, thinned = flood.sift(batch)
    count = {kind: sum(each.topic.endswith(kind) for each in kept) for kind in set(kinds)}
    assert count == {
        "alert": 4,
        "result": 4,
        "state": 4,
        "config": 4,
        "assessment": 2,  # the one that was allowed, and the newest
        "heartbeat": 1,
        "training": 1,
    }
    assert thinned == {"a": 8}
    places = [[each is one for one in batch].index(True) for each in kept]
    assert places == sorted(places)


def test_another_device_keeps_its_own_allowance_and_size_counts() -> None:
    flood = Flood(Allowance(rate=1.0, burst=20.0))
    flood.sift([received("a", "assessment", 0.0) for _ in range(100)])
    quiet = [received("b", "assessment", 0.0) for _ in range(20)]
    assert flood.sift(quiet) == (quiet, {})
    large = [received("c", "assessment", 0.0, size=8 * 4096) for _ in range(10)]
    assert flood.sift(large)[1] == {"c": 7}  # nine tokens each: two were allowed, and the newest stays


def test_a_clock_that_is_set_back_gives_and_takes_nothing() -> None:
    flood = Flood(Allowance(rate=10.0, burst=2.0))
    flood.sift([received("a", "assessment", 1000.0) for _ in range(2)])
    assert flood.sift([received("a", "assessment", 10.0) for _ in range(3)])[1] == {"a": 2}


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 10.0), (float("nan"), 10.0), (1.0, 0.5), (1.0, 1e12)])
def test_an_allowance_that_makes_no_sense_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="messages a second"):
        Allowance(rate=rate, burst=burst)


def test_the_queue_is_bounded_by_messages_and_by_bytes() -> None:
    backlog = Backlog(messages=3, bytes_=1000)
    assert [backlog.put(received("a", "heartbeat", 0.0), wait=False) for _ in range(4)] == [
        True,
        True,
        True,
        False,
    ]
    assert len(backlog.take(10, 0.0)) == 3
    assert backlog.put(received("a", "assessment", 0.0, size=5000), wait=False)  # one always has room
    assert not backlog.put(received("a", "heartbeat", 0.0), wait=False)
    assert backlog.filled == 5.0
    backlog.close()
    assert not backlog.put(received("a", "alert", 0.0), wait=True)


def test_one_device_floods_and_the_others_are_unharmed(
    own_broker: str, make_gateway: object, peers: object, name: str
) -> None:
    gateway: Gateway = make_gateway(own_broker, "--device-rate", "20", "--device-burst", "50")  # type: ignore[operator]
    vandal = peers(Device(own_broker, "vandal"))  # type: ignore[operator]
    quiet = peers(Device(own_broker, name))  # type: ignore[operator]
    until(lambda: gateway.device("vandal") and gateway.device(name))
    sent = []
    for _ in range(20):
        for _ in range(200):
            vandal.publish(
                topics.up("vandal", "assessment"), envelope.encode(vandal.sealer.seal(assessment()))
            )
        sent.append(quiet.assess().seq)
    last = vandal.assess(6)
    until(lambda: (name, sent[-1]) in stored(gateway.data), seconds=30.0)
    assert sorted(seq for device, seq in stored(gateway.data) if device == name) == sent
    until(lambda: ("vandal", last.seq) in stored(gateway.data), seconds=30.0)
    kept = sum(device == "vandal" for device, _ in stored(gateway.data))
    thinned = gateway.metric('samd_gateway_dropped_total{reason="flood"}')
    assert thinned > 2000
    assert kept + thinned == 4001
    shown = until(lambda: (found := gateway.device("vandal")) and found["flagged"] and found)
    assert shown["flagged"].startswith("flood: ")
    assert shown["flagged_at"] is not None
    # what is shown of it is still its newest word
    assert shown["assessment"]["news2"]["low"] == 6
    assert gateway.device(name)["flagged"] is None
    assert gateway.get("/healthz")["status"] == "ok"
    until(lambda: gateway.metric("samd_gateway_devices_flagged") == 1, seconds=20.0)
