"""An alert reaches a gateway that came after it was raised, once."""

from datetime import UTC, datetime

import pytest

from samd_scripts.stack import Stack, wait_until

pytestmark = pytest.mark.system


def test_an_alert_raised_before_any_gateway_listened_is_told_when_one_comes(tmp_path):
    readings = tmp_path / "ill.csv"
    readings.write_text(
        "observed_at,heart_rate,respiratory_rate,spo2,systolic_bp,temperature\n"
        f"{datetime.now(UTC).isoformat()},135,30,85,85,39.5\n"
    )
    with Stack(tmp_path / "stack") as stack:
        stack.broker()
        stack.wait_ready(stack.agent("bed-01", f"csv:{readings}"))
        log = stack.programs["bed-01"].log
        wait_until(
            lambda: "no more readings come" in log.read_text(), timeout=20, what="the reading was read"
        )
        wait_until(lambda: "connected to" in log.read_text(), timeout=20, what="the agent is connected")
        stack.wait_ready(stack.gateway())

        def told() -> list:
            return stack.api("GET", "/api/alerts")["alerts"]

        (alert,) = wait_until(told, timeout=20, what="the alert at the gateway")
        assert (alert["device"], alert["state"], alert["severity"]) == ("bed-01", "active", 3)
        assert alert["news2_low"] == 14

        stack.programs.pop("gateway").kill()
        stack.wait_ready(stack.gateway())
        wait_until(
            lambda: stack.api("GET", "/api/devices")["devices"][0]["state"] == "online",
            timeout=20,
            what="the device is heard of again",
        )
        found = stack.api("GET", "/api/alerts", params={"state": "all", "kind": "severity"})["alerts"]
        assert [(row["id"], row["source_id"]) for row in found] == [(alert["id"], alert["source_id"])]
        changes = stack.api("GET", f"/api/alerts/{alert['id']}")["changes"]
        assert [change["change"] for change in changes] == ["raised"]
