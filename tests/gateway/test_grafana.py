"""The dashboard for Grafana: every expression asks for metrics, labels and values that the gateway has."""

import json
import re
from pathlib import Path

import pytest
from gateway_peers import Device, Gateway, until
from prometheus_client.parser import text_string_to_metric_families

from samd_gateway.cli import main
from samd_gateway.grafana import dashboard
from samd_gateway.metrics import Metrics

METRIC = re.compile(r"samd_gateway_[a-z_]+")
SELECTOR = re.compile(r"(samd_gateway_[a-z_]+)\{([^}]*)\}")


def expressions() -> list[str]:
    document = json.loads(dashboard())
    found = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    return [*found, *(each["definition"] for each in document["templating"]["list"] if "definition" in each)]


def names(metrics: Metrics) -> set[str]:
    """Every name that the exposition format has, also of what has no value yet."""
    found = set()
    for family in text_string_to_metric_families(metrics.text().decode()):
        if family.name.endswith("_created"):  # when a counter came into being
            continue
        found |= {f"{family.name}_total"} if family.type == "counter" else {family.name}
        if family.type == "histogram":
            found |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return found


def test_every_expression_asks_for_a_metric_that_exists() -> None:
    there = names(Metrics())
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert asked - there == set()
    whole = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in asked}
    shown = {name for name in there if not name.endswith(("_bucket", "_sum", "_count"))}
    assert shown - whole == set(), "and every metric is shown"


def test_its_labels_and_values_are_those_of_a_running_gateway(
    shared_gateway: Gateway, broker_url: str, peers: object, name: str
) -> None:
    device = peers(Device(broker_url, name))
    device.assess(3)
    until(lambda: (shared_gateway.device(name) or {}).get("assessment"))
    until(lambda: "samd_gateway_alerts_active{" in shared_gateway.http.get("/metrics").text, seconds=20.0)
    labels: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(shared_gateway.http.get("/metrics").text):
        for sample in family.samples:
            for key, value in sample.labels.items():
                labels.setdefault(sample.name, {}).setdefault(key, set()).add(value)
    for expression in expressions():
        for metric, inside in SELECTOR.findall(expression):
            for part in filter(None, inside.split(",")):
                key, _, value = re.fullmatch(r'(\w+)(=|!=)"([^"]*)"', part).groups()
                if key != "job":  # that one is Prometheus's
                    assert value in labels[metric][key], (metric, part)


def test_the_dashboard_is_whole() -> None:
    document = json.loads(dashboard())
    assert (document["uid"], document["schemaVersion"]) == ("samd-gateway", 39)
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_it_is_written_by_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grafana", str(tmp_path / "d.json")]) == 0
    assert json.loads((tmp_path / "d.json").read_text())["title"] == "samd gateway"
    capsys.readouterr()
    assert main(["grafana"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "samd gateway"
    assert main(["grafana", "--scrape"]) == 0
    assert "job_name: samd-gateway" in capsys.readouterr().out
    assert main(["grafana", str(tmp_path / "none" / "d.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err
