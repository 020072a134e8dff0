"""The tables of `docs/models.md` as Markdown, from what was measured.

cd benchmarks && python -m models.tables [--results DIR]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from models.cohort import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args()
    for number, tell in ((1, table1), (2, table2), (3, table3), (4, table4)):
        path = args.results / f"table{number}.json"
        if path.exists():
            print("\n".join(tell(json.loads(path.read_text())["figures"])), end="\n\n")


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals without the leading 0."""
    if value is None:
        return "-"
    text = f"{abs(value):.3f}"
    text = text[1:] if text.startswith("0") else text
    sign = "−" if value < 0 and float(f"{value:.3f}") else "+" if signed else ""
    return sign + text


def within(found: dict[str, Any], signed: bool = False) -> str:
    """Mean and interval."""
    low, high = number(found["low"], signed), number(found["high"], signed)
    return f"{number(found['mean'], signed)} ({low} to {high})"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table of Markdown."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def table1(found: dict[str, Any]) -> list[str]:
    """Severity."""
    head = ["severity", "macro-F1", "recall ≥ 2", "recall 3", "worst decile", "less centralised"]
    more = ["others: macro-F1", "recall 3", "masked: macro-F1", "recall 3", "others, masked: macro-F1"]
    rows = []
    for name, row in found["rows"].items():
        own, others, masked = row["own"], row["others"], row["own_masked"]
        rows.append(
            [
                name,
                within(own["macro_f1"]),
                number(own["recall_urgent"]["mean"]),
                number(own["recall_high"]["mean"]),
                number(row["worst_decile_macro_f1"]["mean"]),
                within(row["less_centralised"], signed=True) if "less_centralised" in row else "",
                number(others["macro_f1"]["mean"]),
                number(others["recall_high"]["mean"]),
                number(masked["macro_f1"]["mean"]),
                number(masked["recall_high"]["mean"]),
                number(row["others_masked"]["macro_f1"]["mean"]),
            ]
        )
    return table(head + more, rows)


def table2(found: dict[str, Any]) -> list[str]:
    """Deterioration, new and known patients."""
    new, known = found["worsening"], found["known"]
    rows = []
    for name, row in new["rows"].items():
        if name == "current NEWS2":
            rows.append([name, number(row["auroc"]), number(row["average_precision"]), "", "", ""])
            continue
        less = row.get("average_precision_less_centralised")
        rows.append(
            [
                name,
                within(row["auroc"]),
                within(row["average_precision"]),
                within(row["auroc_less_centralised"], signed=True) if less else "",
                within(less, signed=True) if less else "",
                within(row["average_precision_above_news2_over_patients"], signed=True),
            ]
        )
    head = [
        "new patients",
        "AUROC",
        "average precision",
        "AUROC less centralised",
        "AP less centralised",
        "AP above NEWS2, over patients",
    ]
    lines = [*table(head, rows), ""]
    calibrated = [(name, row["calibration"]) for name, row in new["rows"].items() if "calibration" in row]
    head = ["calibration", "error before", "after", "Brier before", "after"]
    head += ["set holds stable", "set holds deteriorating", "sets of one class"]
    keys = ("scores_error", "calibrated_error", "scores_brier", "calibrated_brier")
    keys += ("set_holds_stable", "set_holds_deteriorates", "set_of_one")
    lines += [*table(head, [[n, *(number(c[key]["mean"]) for key in keys)] for n, c in calibrated]), ""]
    rows = []
    for name, row in known["rows"].items():
        rows.append(
            [
                name,
                within(row["average_precision"]),
                number(row["auroc"]["mean"]),
                within(row["gain_over_seeds"], signed=True),
                within(row["gain_over_patients"], signed=True),
                number(row["others"]["mean"]) if "others" in row else "",
                number(row["lost_on_others"]["mean"], signed=True) if "others" in row else "",
                ("yes" if row["earns_its_place"] else "no")
                if "earns_its_place" in row and name != "none"
                else "",
            ]
        )
    head = ["known patients", "average precision", "AUROC", "gain, seeds", "gain, patients"]
    head += ["AP on others", "lost on others", "earns its place"]
    return [*lines, *table(head, rows)]


def table3(found: dict[str, Any]) -> list[str]:
    """Under attack: macro-F1 and recall of 3."""
    rows = []
    for name, row in found["rows"].items():
        cells = [
            f"{within(each['macro_f1'])}, {number(each['recall_high']['mean'])}" for each in row.values()
        ]
        rows.append([name, *cells])
    attacks = list(next(iter(found["rows"].values())))
    return table(["macro-F1, recall 3", *attacks], rows)


def table4(found: dict[str, Any]) -> list[str]:
    """Cost."""
    rows = []
    for name, row in found["methods"].items():
        light, heavy = row["litert"], row["tensorflow"]
        rows.append(
            [
                name,
                f"{light['processor_seconds_a_round'] * 1000:.1f}",
                f"{heavy['processor_seconds_a_round'] * 1000:.0f}",
                f"{row['times_faster']:.0f}",
                f"{light['peak_mb']:.0f}",
                f"{heavy['peak_mb']:.0f}",
                f"{light['bytes_sent_a_round']:,}",
            ]
        )
    head = ["method", "ms a round", "in TensorFlow", "times faster", "peak MB", "in TensorFlow", "bytes sent"]
    return table(head, rows)


if __name__ == "__main__":
    main()
