"""The plots beside the tables, drawn from `benchmarks/results/table1.json` and `table2.json`.

    cd benchmarks && python -m models.plots [--results DIR] [--out DIR]

models-learning.png      macro-F1 by round on the patients' own later hours, severity
models-gain.png          by how much each known patient's loss falls with a personal model, deterioration
models-reliability.png   how often a probability comes true, before and after calibration, new patients
"""

import argparse
import json
from pathlib import Path
from typing import Any

from models.cohort import ROOT

CURVES = ("FedAvg, Adam on the devices", "FedAvg", "FedAvgM", "FedAdam", "FedMedian")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    one, two = (json.loads((args.results / f"table{n}.json").read_text())["figures"] for n in (1, 2))
    for name, draw in (
        ("learning", lambda axes: learning(axes, one)),
        ("gain", lambda axes: gain(axes, two["known"])),
        ("reliability", lambda axes: reliability(axes, two["worsening"])),
    ):
        figure, axes = pyplot.subplots(figsize=(6, 4), dpi=90, layout="constrained")
        draw(axes)
        path = args.out / f"models-{name}.png"
        # Without the library's version in the file, the same numbers give the same bytes.
        figure.savefig(path, metadata={"Software": None})
        pyplot.close(figure)
        print(path)


def learning(axes: Any, table: dict[str, Any]) -> None:
    """Mean of the seeds, and the centralised network's as a line."""
    for name in CURVES:
        if name in table["rows"] and "curve" in table["rows"][name]:
            curve = table["rows"][name]["curve"]
            axes.plot([point[0] for point in curve], [point[1] for point in curve], label=name, linewidth=1.4)
    central = table["rows"]["centralised"]["own"]["macro_f1"]["mean"]
    axes.axhline(central, color="0.4", linestyle="--", linewidth=1, label="centralised")
    axes.set(xlabel="round", ylabel="macro-F1, own later hours", ylim=(0.4, 1.0))
    axes.legend(fontsize=8)


def gain(axes: Any, table: dict[str, Any]) -> None:
    """Each patient once per method, sorted."""
    for name in ("finetune", "ditto", "fedper", "fedrep", "apfl"):
        values = sorted(v for v in table["rows"][name]["gain_of_each_patient"] if v is not None)
        axes.plot(range(1, len(values) + 1), values, label=name, linewidth=1.4)
    axes.axhline(0, color="0.4", linewidth=1)
    axes.set_yscale("symlog", linthresh=0.05)
    axes.set(xlabel="patients, sorted", ylabel="fall of the loss by the personal model")
    axes.legend(fontsize=8)


def reliability(axes: Any, table: dict[str, Any]) -> None:
    """The first seed's bins of the federated network."""
    found = table["rows"]["FedAvgM"]["calibration"]
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for key, label in (("scores_bins", "as the network says it"), ("calibrated_bins", "calibrated")):
        bins = found[key]
        axes.plot([one[1] for one in bins], [one[2] for one in bins], marker="o", markersize=4, label=label)
    axes.set(xlabel="probability of deterioration", ylabel="share that reached 7", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=8)


if __name__ == "__main__":
    main()
