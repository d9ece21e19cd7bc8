"""The paper's functions of two weights: which optimizer arrives first, its learning rate searched as the others' are?

    python benchmarks/landscapes.py

What ``adabelief landscapes`` does, with several seeds: each draws ten starts around the given one, on which an
optimizer's learning rate is chosen, and ten others, on which it is then judged.
"""

from __future__ import annotations

import math
import statistics

from common import make_parser, markdown_table, provenance, publish

from lightning_adabelief.landscapes.experiment import STEPS, TOLERANCE
from lightning_adabelief.landscapes.functions import LANDSCAPES
from lightning_adabelief.landscapes.optimizers import NAMED, make_contenders
from lightning_adabelief.landscapes.rates import NEARBY_DISTANCE, Outcome, compare_on, describe_criterion

HEADER = ["function, optimizer", "lr", "steps from the given start", "reached from nearby", "median steps from nearby"]


def make_row(outcomes: list[Outcome]) -> list[str]:
    """Summarize an optimizer's outcomes on a function, one for each seed, in a row of the table."""
    first = outcomes[0]
    nearby = [step for outcome in outcomes for step in outcome.reached_nearby]
    medians = [statistics.median_high(outcome.reached_nearby) for outcome in outcomes]
    return [
        f"{first.landscape.name}, {first.optimizer}",
        show_range([outcome.lr for outcome in outcomes]),
        show_range([outcome.reached for outcome in outcomes]),
        f"{sum(map(math.isfinite, nearby))} of {len(nearby)}",
        show_range(medians),
    ]


def show_range(values: list[float]) -> str:
    """Show the least and the greatest of a value for each seed; an infinite one, not reached, as a dash."""
    shown = [f"{value:.3g}" if math.isfinite(value) else "-" for value in (min(values), max(values))]
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"


def main() -> None:
    """Compare the optimizers on each function with each seed."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="run seeds 0 to SEEDS - 1")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()

    contenders = make_contenders(list(NAMED))
    rows = []
    for landscape in LANDSCAPES.values():
        of_seeds = [
            compare_on(landscape, contenders, arguments.steps, TOLERANCE, seed) for seed in range(arguments.seeds)
        ]
        rows += [make_row(list(outcomes)) for outcomes in zip(*of_seeds, strict=True)]
    document = (
        "# Functions of two weights\n\n"
        f"Steps, of {arguments.steps}, after which the loss is within {TOLERANCE:g} of the minimum's and stays there, "
        "- where it isn't: from the start of the paper's figure, and from ten starts a seed at most "
        f"{NEARBY_DISTANCE:g} away from it in x and in y. {describe_criterion(contenders, TOLERANCE)} Ranges are over "
        f"seeds 0 to {arguments.seeds - 1}. SGD has momentum 0.9, Adam and AdaBelief their default betas, and "
        "AdaBelief no rectification.\n\n"
        + markdown_table(HEADER, rows)
        + f"\n{provenance('torch', 'lightning-adabelief')}"
    )
    publish(document, "landscapes.md", arguments.write)


if __name__ == "__main__":
    main()
