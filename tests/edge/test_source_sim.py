"""Invented patients: what they send, what assessor and alerts make of it, and the options of the source."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest

from samd_data import news2
from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge import alerts
from samd_edge.alerts import AlertState, Policy, Seen
from samd_edge.artefacts import ArtefactPolicy
from samd_edge.assessment import Assessor
from samd_edge.sources import SourceError, open_source, parse
from samd_edge.sources.scenarios import SCENARIOS, play, timeline
from samd_edge.sources.sim import Sim
from samd_edge.sources.sim import open_source as open_sim
from samd_edge.sources.surroundings import Surroundings

START = datetime(2026, 1, 1, 8, tzinfo=UTC)


class Course(NamedTuple):
    """What the device made of a scenario: alerts with their hour, certain totals, and artefacts by kind."""

    alerts: list[tuple[str, int, float]]
    lows: list[tuple[float, int, int]]
    artefacts: Counter[tuple[str, str]]

    def changes(self) -> list[tuple[str, int]]:
        return [(state, severity) for state, severity, _ in self.alerts]

    def span(self, begin: float, end: float) -> list[tuple[int, int]]:
        return [(low, high) for hour, low, high in self.lows if begin <= hour < end]


def judged(
    name: str,
    *,
    seed: int = 0,
    hours: float = 24,
    every: float = 60,
    spo2_scale: Literal[1, 2] = 1,
    artefacts: ArtefactPolicy | None = None,
) -> Course:
    """The scenario through the assessor and the alerts, in patient time, without waiting."""
    assessor = Assessor(spo2_scale=spo2_scale, artefacts=artefacts)
    state = AlertState()
    course = Course([], [], Counter())
    for at, item in timeline(name, seed=seed, start=START, hours=hours, every=every):
        if isinstance(item, Rejection):
            assessor.flag(item.column, item.kind, item.reason, at)
            course.artefacts[item.column, item.kind] += 1
        else:
            for field, flag in assessor.take(item).items():
                course.artefacts[field, flag.kind] += 1
        score = assessor.assess(at).news2
        seen = Seen(low=score.low, high=score.high, points=score.points, at=at, observed_at=at)
        hour = (at - START).total_seconds() / 3600
        course.lows.append((hour, score.low, score.high))
        state, message = alerts.step(state, seen, lambda: "alert-1", Policy())
        if message is not None:
            course.alerts.append((message.state, message.severity, hour))
    return course


# -- sepsis -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "every"), [(0, 60), (1, 60), (2, 60), (0, 5)])
def test_sepsis_raises_escalates_and_clears_as_the_chart_says(seed: int, every: float) -> None:
    course = judged("sepsis", seed=seed, every=every)
    # the message of a cleared alert carries the class of the total that cleared it: 1-4
    assert course.changes() == [("raised", 2), ("escalated", 3), ("deescalated", 2), ("cleared", 1)]
    raised, escalated, deescalated, cleared = (hour for _, _, hour in course.alerts)
    assert 6 < raised < 7.6
    assert 7.4 < escalated < 9
    assert 16 < deescalated < 17
    assert 17.5 < cleared < 18.5
    # well before and after, and every band between; at the start each sign is known within seconds
    assert {low for low, _ in course.span(0.01, 2)} == {0}
    assert all(low >= 7 for low, _ in course.span(9.1, 15))
    assert max(low for low, _ in course.span(0, 24)) >= 16
    assert {low for low, _ in course.span(20, 24)} == {0}
    assert all(low == high for low, high in course.span(0.01, 24))


def test_the_anchors_of_sepsis_score_as_documented() -> None:
    scenario = SCENARIOS["sepsis"]
    totals = []
    for anchor in scenario.anchors:
        seen = [each for each in scenario.observed if each.hour <= anchor.hour][-1]
        signs = anchor._asdict() | seen._asdict()
        del signs["hour"]
        totals.append((anchor.hour, news2.score(Reading(observed_at=START, **signs)).total))
    _, _, table, _ = (sys.modules[play.__module__].__doc__ or "").split("====  =====  ")
    rows = [line for line in table.splitlines()[1:] if "oxygen off" not in line]
    documented = [(float(row.split()[0]), int(row.split()[-1])) for row in rows if row]
    assert totals == documented
    assert [total for _, total in totals] == [0, 0, 1, 4, 4, 6, 10, 16, 16, 9, 8, 6, 4, 4, 3, 2, 0]


# -- the others -------------------------------------------------------------------------------------------


def test_copd_alerts_all_day_on_scale_1_and_only_for_too_much_oxygen_on_scale_2() -> None:
    on_2 = judged("copd", spo2_scale=2, hours=8)
    assert on_2.changes() == [("raised", 2), ("cleared", 1)]
    assert 4 < on_2.alerts[0][2] < 4.5
    assert 5.25 < on_2.alerts[1][2] < 6
    assert {low for low, _ in on_2.span(0.1, 4)} == {2}  # the oxygen itself
    assert {low for low, _ in on_2.span(4.3, 5.2)} == {5}  # 97 % and more on oxygen: 3, and the oxygen
    on_1 = judged("copd", spo2_scale=1, hours=8)
    # the wrong scale: it calls for help for a saturation that is right, and is calm about one that harms
    assert on_1.changes() == [("raised", 2), ("cleared", 1), ("raised", 2)]
    assert {low for low, _ in on_1.span(0.1, 4)} <= {4, 5}
    assert {low for low, _ in on_1.span(4.3, 5.2)} == {2}


def test_a_probe_that_falls_off_makes_a_range_and_clears_nothing() -> None:
    course = judged("probe-off", hours=8)
    assert course.changes() == [("raised", 2)]
    assert course.artefacts["spo2", "no_signal"] == 20 + 4 * 60 - 4
    assert course.artefacts["spo2", "implausible"] == 4
    # off for longer than a value is valid (3 hours): not known, and neither 0 nor 3
    assert {high - low for low, high in course.span(0.1, 5.9)} == {0}
    assert {high - low for low, high in course.span(6.1, 6.9)} == {3}
    assert {low for low, _ in course.span(6.1, 6.9)} == {3}
    assert {high - low for low, high in course.span(7.1, 8)} == {0}
    items = [item for _, item in timeline("probe-off", seed=0, start=START, hours=2, every=60)]
    told = {item.line() for item in items if isinstance(item, Rejection)}
    assert "sim: spo2: the probe is off; put it on again, and look at the skin" in told
    assert any("127 is outside 30 to 100 %" in line for line in told)


def test_an_artefact_storm_alerts_nobody_unless_it_is_not_screened() -> None:
    screened = judged("artefacts", hours=8, every=5, seed=2)
    assert screened.changes() == []
    assert max(low for low, _ in screened.span(0, 8)) <= 3
    flagged = screened.artefacts
    for kind in (
        ("heart_rate", "jump"),
        ("spo2", "jump"),
        ("respiratory_rate", "jump"),
        ("heart_rate", "flat"),
    ):
        assert flagged[kind] >= 3
    assert flagged["respiratory_rate", "flat"] > 100
    assert flagged["spo2", "no_signal"] > 100
    assert flagged["systolic_bp", "implausible"] >= 2
    naive = judged(
        "artefacts", hours=8, every=5, seed=2, artefacts=ArtefactPolicy(jumps=False, flat_lines=())
    )
    assert ("raised", 2) in naive.changes()


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_person_scores_nothing(seed: int) -> None:
    course = judged("well", seed=seed)
    assert course.changes() == []
    assert {low for low, _ in course.span(0.01, 24)} == {0}
    assert not course.artefacts


# -- what is sent -----------------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_patient_in_every_version() -> None:
    first, again, other = (list(play("sepsis", seed=seed, start=START, hours=2)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    # the values of one seed are part of what a test may build on
    assert [(item.present(), item.heart_rate) for item in first[:1] if isinstance(item, Reading)] == [
        (("heart_rate",), 72)
    ]


def test_signs_come_one_at_a_time_at_their_own_rates() -> None:
    items = list(timeline("well", seed=0, start=START, hours=12, every=10))
    assert all(isinstance(item, Reading) for _, item in items)
    assert [at for at, _ in items] == sorted(at for at, _ in items)
    assert all(item.observed_at == at for at, item in items if isinstance(item, Reading))
    sent = Counter(item.present() for _, item in items if isinstance(item, Reading))
    assert sent == {
        ("heart_rate",): 4320,
        ("respiratory_rate",): 4320,
        ("spo2",): 4320,
        ("systolic_bp", "diastolic_bp"): 48,
        ("temperature",): 12,
        ("supplemental_oxygen", "consciousness"): 3,
    }


def test_an_observation_comes_when_something_changes() -> None:
    seen = [
        ((at - START).total_seconds() / 3600, item.supplemental_oxygen, item.consciousness)
        for at, item in timeline("sepsis", seed=0, start=START, hours=24, every=900)
        if isinstance(item, Reading) and item.consciousness is not None
    ]
    assert seen == [
        (0, False, "A"),
        (4, False, "A"),
        (8, False, "A"),
        (9, True, "A"),
        (11, True, "C"),
        (12, True, "C"),
        (14, True, "A"),
        (16, True, "A"),
        (19.5, False, "A"),
        (20, False, "A"),
    ]


def test_signs_wander_and_do_not_jump() -> None:
    rates = np.array(
        [
            item.heart_rate
            for item in play("well", seed=3, start=START, hours=24)
            if isinstance(item, Reading) and item.heart_rate is not None
        ]
    )
    assert abs(rates.mean() - 68) < 1
    assert 1.5 < rates.std() < 2.6  # 1.6 and 1.2 together are 2.0
    assert 0.8 < np.corrcoef(rates[:-1], rates[1:])[0, 1] < 0.99
    assert np.abs(np.diff(rates)).max() <= 6
    assert (rates == rates.round()).all()


def test_the_interval_changes_how_often_is_asked_and_not_what_the_patient_is() -> None:
    def cuffs(every: float) -> list[Any]:
        items = play("sepsis", seed=1, start=START, hours=12, every=every)
        return [item for item in items if isinstance(item, Reading) and item.systolic_bp is not None]

    assert cuffs(5) == cuffs(60)


# -- the source -------------------------------------------------------------------------------------------


class Time:
    """A wall that only ``sleep`` moves."""

    def __init__(self) -> None:
        self.moment = START
        self.slept = 0.0

    def wall(self) -> datetime:
        return self.moment

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.moment += timedelta(seconds=seconds)


def test_it_begins_now_and_keeps_its_pace() -> None:
    time = Time()
    opened = open_sim(
        parse("sim:?scenario=sepsis&speed=600&hours=1&every=60&seed=4"), Surroundings(wall=time.wall)
    )
    source = Sim(opened._items, opened.clock, sleep=time.sleep)
    lead: list[float] = []

    async def test() -> None:
        async for item in source:
            assert isinstance(item, Reading)
            lead.append((source.clock.now() - item.observed_at).total_seconds())
        await source.aclose()

    asyncio.run(test())
    assert list(source.history()) == []
    assert source.clock.speed == 600
    assert len(lead) == 3 * 60 + 4 + 1 + 1
    assert min(lead) >= 0  # never from the future
    assert max(lead) < 0.01
    assert time.slept == pytest.approx((3600 - 20) / 600, abs=0.01)


def test_sim_alone_is_sepsis_at_the_pace_of_life() -> None:
    source = open_source("sim:")
    assert source.clock.speed == 1

    async def first() -> Any:
        item = await anext(aiter(source))
        await source.aclose()
        return item

    begun = source.clock.now()
    assert abs(asyncio.run(first()).observed_at - begun) < timedelta(seconds=5)


def test_an_unknown_scenario_is_answered_with_all_there_are() -> None:
    with pytest.raises(SourceError) as refused:
        open_source("sim:?scenario=flu")
    lines = str(refused.value).splitlines()
    assert lines[0] == "source 'sim:?scenario=flu': no scenario 'flu'; there are"
    assert [line.split()[0] for line in lines[1:]] == ["sepsis", "copd", "probe-off", "artefacts", "well"]
    assert all(len(line.split()) > 4 for line in lines[1:])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sim:sepsis", "takes no path"),
        ("sim:?speed=0", r"`\$\.speed`"),
        ("sim:?speed=nan", r"`\$\.speed`"),
        ("sim:?speed=fast", "option speed: a number is wanted"),
        ("sim:?seed=-1", r"`\$\.seed`"),
        ("sim:?seed=1.5", "option seed: a whole number is wanted"),
        ("sim:?hours=0", r"`\$\.hours`"),
        ("sim:?hours=inf", r"`\$\.hours`"),
        ("sim:?hours=nan", r"`\$\.hours`"),
        ("sim:?every=0", r"`\$\.every`"),
        ("sim:?every=3600", r"`\$\.every`"),
        ("sim:?pace=2", "no option 'pace'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(url: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        open_source(url)


def test_the_first_command_of_a_newcomer() -> None:
    """Without a model, a file or a broker; here faster, and with fewer readings."""
    command = [sys.executable, "-m", "samd_edge", "infer", "--json", "--source"]
    command.append("sim:?scenario=sepsis&speed=200000&every=300")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lows = [json.loads(line)["news2"]["low"] for line in done.stdout.splitlines()]
    assert (lows[0], max(lows) >= 16, lows[-1]) == (0, True, 0)


def test_it_loads_nothing_that_a_device_may_lack() -> None:
    code = (
        "import sys\nfrom samd_edge.sources import open_source\nopen_source('sim:')\n"
        "print([name for name in ('pandas', 'hl7', 'bleak', 'fhir', 'starlette') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.long
def test_sepsis_rings_on_the_wire_as_the_chart_says(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, tmp_path: Path
) -> None:
    """The whole agent, with the default policy: a day of the patient's in half a minute at the most."""
    config = tmp_path / "agent.toml"
    config.write_text("min_rows = 8\n")
    source = "sim:?scenario=sepsis&speed=5000&every=120"
    agent = run_agent(broker.url, "--config", str(config), source=source).ready()
    peer.wait(device, "alert", lambda data: data.state == "cleared", timeout_s=60)
    told = [(sent.data.state, sent.data.severity) for sent in peer.envelopes(device, "alert")]
    assert told == [("raised", 2), ("escalated", 3), ("deescalated", 2), ("cleared", 1)]
    assert agent.stop() == 0
