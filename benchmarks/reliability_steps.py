"""Do steps of drawn options, shapes and values lie where float64 says, in every implementation?

    python benchmarks/reliability_steps.py

Each case is a run of one to three steps, drawn by hypothesis: options, dtype, layout in memory, the step it starts
from, and values over 24 orders of magnitude (tests/optim/drawn_steps.py, of which CI draws some hundred). Every
implementation takes it, and each weight and each average must lie in the interval that float64 gives, with an
allowance for the roundings of the state's dtype. The first that does not ends the script with the smallest case
that shows it.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from common import make_parser, markdown_table, provenance, publish
from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests are not installed

from tests.optim.drawn_steps import IMPLEMENTATIONS, Case, can_take, cases, run_case  # noqa: E402


def main() -> None:
    """Draw the cases and let every implementation take them."""
    parser = make_parser(__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="how many are drawn (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (default: 0)")
    args = parser.parse_args()
    runs: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    numbers: Counter[str] = Counter()

    @seed(args.seed)
    @settings(max_examples=args.cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def check(case: Case) -> None:
        for name in IMPLEMENTATIONS:
            if can_take(name, case):
                numbers[name] += run_case(case, name)
                runs[name] += 1
                steps[name] += case.steps

    check()
    rows = [[name, f"{runs[name]:,}", f"{steps[name]:,}", f"{numbers[name]:,}"] for name in IMPLEMENTATIONS]
    table = markdown_table(["implementation", "cases", "steps", "weights and averages checked"], rows)
    document = (
        "# Steps of drawn options, shapes and values against float64\n\n"
        f"{max(runs.values()):,} cases, seed {args.seed}: every result lies where it must. (Fused takes no complex "
        f"numbers.)\n\n{table}\n{provenance('torch', 'hypothesis')}"
    )
    publish(document, "reliability-steps.md", args.write)


if __name__ == "__main__":
    main()
