"""Does ``step_gain_over_adam``, measured on an Adam's run, tell beforehand whether AdaBelief will be better?

    python benchmarks/step_gain.py --write

It reads the committed comparisons (``benchmarks/comparisons.py``) and asks twice: at equal learning rate, run by run,
and with each at its best rate, seed by seed. Also drawn: ``docs/step_gain.png``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from common import RESULTS, make_parser, markdown_table, provenance, publish
from matplotlib.figure import Figure
from scipy.stats import permutation_test, rankdata

from lightning_adabelief.comparison.plan import Plan

TASKS = ("digits-cnn", "digits-wgan", "pydocs-lstm", "scenes-fasterrcnn")
ADABELIEF = "adabelief"
ADAMS = ("adam", "adamw")
GAIN = "belief/step_gain_over_adam"
PERMUTATIONS = 9_999
PICTURE = Path(__file__).parents[1] / "docs" / "step_gain.png"


class Pair(NamedTuple):
    """An Adam's run, and AdaBelief's on the same seed.

    Attributes:
        task: The comparison.
        adam: The Adam's name.
        lr: The Adam's learning rate.
        gain: ``step_gain_over_adam`` of the Adam's run.
        improvement: How much better AdaBelief's metric is, as a fraction of the Adam's.
    """

    task: str
    adam: str
    lr: float
    gain: float
    improvement: float


def main() -> None:
    """Read the comparisons, and publish table and picture."""
    arguments = make_parser(__doc__).parse_args()
    pairs = {
        "equal learning rate": [pair for task in TASKS for pair in pair_runs(task, is_tuned=False)],
        "each at its best": [pair for task in TASKS for pair in pair_runs(task, is_tuned=True)],
    }
    rows = [[name, *describe(among)] for name, among in pairs.items()]
    rows += [
        [f"{name}, {task}", *describe([pair for pair in among if pair.task == task])]
        for name, among in pairs.items()
        for task in TASKS
    ]
    header = ["", "pairs of runs", "gain, least to largest", "AdaBelief better in", "rank correlation", "p"]
    document = (
        "# Does step_gain_over_adam tell beforehand?\n\n"
        "Each pair is a run of Adam or AdamW and one of AdaBelief on the same seed. The gain is the mean of "
        "`step_gain_over_adam` over Adam's run, the improvement how much better AdaBelief's validation metric is, as a "
        "fraction of Adam's. Spearman's rank correlation of the two, with p by permutation. The p are not adjusted for "
        "there being ten, and are too small: pairs share AdaBelief's runs. Within a task at equal rates, the gain is "
        "large where the rate is small, and there any longer step helps.\n\n"
        f"{markdown_table(header, rows)}\n![](../../docs/step_gain.png)\n\n"
        f"{provenance('lightning-adabelief')}"
    )
    if arguments.write:
        draw(pairs).savefig(PICTURE, dpi=120)
    publish(document, "step_gain.md", arguments.write)


def pair_runs(task: str, is_tuned: bool) -> Iterator[Pair]:
    """Pair the runs of a comparison: those of the report, or those of tuning with the same learning rate."""
    folder = RESULTS / "compare" / task
    plan = Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
    with (folder / "results.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["stage"] == "report") == is_tuned]
    adabeliefs = {(row["seed"], None if is_tuned else row["lr"]): row for row in rows if row["contender"] == ADABELIEF}
    for row in rows:
        other = adabeliefs.get((row["seed"], None if is_tuned else row["lr"]))
        if row["contender"] not in ADAMS or other is None:
            continue
        adams, beliefs, gain = (_read(cell) for cell in (row[plan.metric], other[plan.metric], row[GAIN]))
        improvement = (adams - beliefs if plan.mode == "min" else beliefs - adams) / abs(adams)
        if math.isfinite(improvement) and math.isfinite(gain):
            yield Pair(task, row["contender"], float(row["lr"]), gain, improvement)


def describe(pairs: list[Pair]) -> list[str]:
    """Return the cells of a row on some pairs."""
    gains, improvements = [pair.gain for pair in pairs], [pair.improvement for pair in pairs]
    better = sum(improvement > 0 for improvement in improvements)
    if len(pairs) < 3:
        return [str(len(pairs)), "-", f"{better}", "-", "-"]
    ranks, others = rankdata(gains), rankdata(improvements)
    test = permutation_test(
        (ranks,),
        lambda permuted: np.corrcoef(permuted, others)[0, 1],
        permutation_type="pairings",
        n_resamples=PERMUTATIONS,
        random_state=np.random.default_rng(0),  # rng since SciPy 1.15, which takes both
    )
    span = f"{min(gains):.3f} to {max(gains):.3f}"
    return [str(len(pairs)), span, str(better), f"{test.statistic:+.2f}", f"{test.pvalue:.2g}"]


def draw(pairs: dict[str, list[Pair]]) -> Figure:
    """Draw improvement over gain, a panel for each question."""
    matplotlib.use("Agg")
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, len(pairs), sharey=True)
    for axes, (name, among) in zip(panels, pairs.items(), strict=True):
        for task, marker in zip(TASKS, "osD^", strict=True):
            of_task = [pair for pair in among if pair.task == task]
            # Less 1, for on noise alone the gain is 1.08, and a logarithmic axis would crowd what matters.
            axes.plot([p.gain - 1 for p in of_task], [p.improvement for p in of_task], marker, label=task, alpha=0.75)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(xscale="log", xlim=(0.04, 80), title=name, xlabel="step_gain_over_adam of Adam's run, less 1")
        axes.set_xticks([0.05, 0.1, 0.3, 1, 3, 10, 30], ["0.05", "0.1", "0.3", "1", "3", "10", "30"])
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_yticks([-1, -0.1, 0, 0.1, 1], ["-100 %", "-10 %", "0", "10 %", "100 %"])
        axes.minorticks_off()
    panels[0].set_ylabel("How much better AdaBelief's metric is")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(TASKS), frameon=False)
    return figure


def _read(cell: str) -> float:
    return float(cell) if cell else math.nan


if __name__ == "__main__":
    main()
