"""Patients come and go on a real device, by orders from the gateway, and the ward shows whose score it is."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from samd_scripts.stack import Stack, wait_until

pytestmark = pytest.mark.system


def test_a_patient_is_admitted_observed_and_discharged_from_the_gateway(tmp_path):
    readings = tmp_path / "ill.csv"
    readings.write_text(
        "observed_at,heart_rate,respiratory_rate,spo2,systolic_bp,temperature\n"
        f"{datetime.now(UTC).isoformat()},95,18,97,120,37.0\n"
    )
    with Stack(tmp_path / "stack") as stack:
        stack.broker()
        stack.wait_ready(stack.gateway())
        stack.wait_ready(stack.agent("bed-01", f"csv:{readings}"))

        def cards() -> list:
            return stack.api("GET", "/api/ward")["cards"]

        def order(what: str, body: dict) -> tuple[str, str | None]:
            answer = stack.api("POST", f"/api/ward/bed-01/{what}", json=body)
            return answer["status"], answer["reason"]

        def at_the_device(*arguments: str) -> None:
            command = [
                sys.executable,
                "-m",
                "samd_edge",
                *arguments,
                "--data-dir",
                str(stack.folder / "devices" / "bed-01"),
            ]
            subprocess.run(command, check=True, timeout=60, capture_output=True)

        (card,) = wait_until(lambda: [c for c in cards() if c["news2"]], timeout=20, what="a card")
        assert (card["pseudonym"], card["current"], card["news2"]["low"]) == (None, True, 1)
        assert order("admit", {"bed": "1"}) == ("rejected", "a patient is admitted: discharge first")
        at_the_device("discharge")
        assert order("admit", {"admission": "stay-0042", "bed": "1"}) == ("done", None)
        (card,) = cards()
        # nothing of the patient before is shown as this one's
        assert (card["pseudonym"], card["news2"], card["trend"]) == ("stay-0042", None, [])
        assert order("observe", {"consciousness": "C", "supplemental_oxygen": True}) == ("done", None)
        (card,) = wait_until(lambda: [c for c in cards() if c["news2"]], timeout=20, what="the observation")
        assert (card["news2"]["low"], card["news2"]["points"]["consciousness"]) == (5, 3)
        assert order("correct", {"field": "consciousness", "value": "A", "reason": "awake"}) == ("done", None)
        wait_until(lambda: cards()[0]["news2"]["low"] == 2, timeout=20, what="the correction")
        assert order("discharge", {}) == ("done", None)
        wait_until(lambda: cards() == [], timeout=20, what="an empty bed")
        line = stack.api("GET", "/api/ward/bed-01/timeline", params={"admission": "stay-0042"})
        assert [point["low"] for point in line["points"]][-2:] == [5, 2]
        assert [row["action"] for row in stack.api("GET", "/api/audit")["entries"]][:5] == [
            "patient.discharge",
            "observation.correct",
            "observation.add",
            "patient.admit",
            "patient.admit",
        ]
