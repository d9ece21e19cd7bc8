"""The null case: how often is an optimizer called better or worse than itself under another name?

    python benchmarks/compare_null.py

Comparisons are simulated: the values of all contenders come from one distribution, so that every "better" or "worse"
is a false call. They are judged as ``adabelief compare`` judges them, and should be called different in 5 % of the
comparisons: of one contender against another, and, as Holm's adjustment promises, of any of four against a fifth.

The distributions: normal; lognormal with a standard deviation of 1 in the logarithm, which is far more skewed than
metrics mostly are; and, where ``benchmarks/results/`` has the runs of real comparisons, those: of a comparison and one
of its contenders drawn at random, values are drawn with replacement.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import RESULTS, make_parser, markdown_table, provenance, publish
from scipy import stats

from lightning_adabelief.comparison.statistics import LEVEL, compare_with_first

FEW = 200
"""The number of comparisons that is reported beside the many, as somebody would make them by hand."""

CONTENDERS = (2, 5)
SEED = 0

Draw = Callable[[np.random.Generator, int, int], np.ndarray]
"""Draws the values of a number of contenders for a number of seeds, as an array of this shape."""


def draw_normal(generator: np.random.Generator, contenders: int, seeds: int) -> np.ndarray:
    """Draw normal values."""
    return generator.normal(size=(contenders, seeds))


def draw_skewed(generator: np.random.Generator, contenders: int, seeds: int) -> np.ndarray:
    """Draw lognormal values."""
    return generator.lognormal(size=(contenders, seeds))


def make_recorded_draw(pools: list[list[float]]) -> Draw:
    """Return how to draw from one of the pools, each of which has a contender's values of a real comparison."""

    def draw_recorded(generator: np.random.Generator, contenders: int, seeds: int) -> np.ndarray:
        pool = pools[generator.integers(len(pools))]
        return generator.choice(pool, (contenders, seeds))

    return draw_recorded


def read_pools(folder: Path) -> list[list[float]]:
    """Read the metric that the committed comparisons are on: for each of their contenders, its values."""
    pools: dict[tuple[str, str], list[float]] = {}
    for path in sorted(folder.glob("compare/*/results.csv")):
        plan = json.loads(path.with_name("plan.json").read_text(encoding="utf-8"))
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["stage"] == "report" and row["status"] == "finished":
                    value = float(row[plan["test_metric"] or plan["metric"]])
                    pools.setdefault((path.parent.name, row["contender"]), []).append(value)
    return list(pools.values())


def count_calls(draw: Draw, contenders: int, seeds: int, simulations: int) -> list[bool]:
    """Return for each simulated comparison whether any contender was called better or worse than the first."""
    generator = np.random.default_rng(SEED)
    called = []
    for _ in range(simulations):
        drawn = draw(generator, contenders, seeds)
        values = {str(name): dict(enumerate(theirs.tolist())) for name, theirs in enumerate(drawn)}
        called.append(any(each.verdict != "cannot be told apart" for each in compare_with_first(values, "min")))
    return called


def make_row(name: str, contenders: int, called: list[bool]) -> list[str]:
    """Return a row: how often there was a call in the first few comparisons and in all, with its interval."""
    found = stats.binomtest(sum(called), len(called)).proportion_ci(method="wilson")
    against = "one against itself" if contenders == 2 else f"{contenders - 1} against a {contenders}th, any called"
    return [
        f"{name}: {against}",
        f"{100 * sum(called[:FEW]) / FEW:.1f} %",
        f"{100 * sum(called) / len(called):.2f} %",
        f"{100 * found.low:.2f} to {100 * found.high:.2f} %",
    ]


def main() -> None:
    """Simulate the comparisons of each distribution."""
    parser = make_parser(__doc__)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each comparison")
    arguments = parser.parse_args()

    draws: dict[str, Draw] = {"normal": draw_normal, "lognormal": draw_skewed}
    if pools := read_pools(RESULTS):
        draws[f"recorded ({len(pools)} contenders' runs)"] = make_recorded_draw(pools)
    rows = [
        make_row(name, contenders, count_calls(draw, contenders, arguments.seeds, arguments.simulations))
        for name, draw in draws.items()
        for contenders in CONTENDERS
    ]
    header = ["values", f"called in {FEW}", f"called in {arguments.simulations:,}", "95 % interval of the latter"]
    document = (
        "# An optimizer against itself\n\n"
        f"How often `adabelief compare` calls a difference where there is none, in simulated comparisons of "
        f"{arguments.seeds} seeds. It promises at most {100 * LEVEL:.0f} %.\n\n"
        f"{markdown_table(header, rows)}\n{provenance('scipy', 'numpy', 'lightning-adabelief')}"
    )
    publish(document, "compare-null.md", arguments.write)


if __name__ == "__main__":
    main()
