"""The published comparisons of optimizers: run them, or go on with them, and write their reports.

    python benchmarks/comparisons.py --write
    python benchmarks/comparisons.py digits-cnn eps

Each is what ``adabelief compare`` makes; the command stands in its report. Runs are shorter than the recipes', so that
all can be repeated in some hours on two cores. The trials lie in ``--out``, and those that are there are not run again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from common import RESULTS, make_parser, markdown_table, provenance, publish

import lightning_adabelief
from lightning_adabelief.comparison.compare import Result
from lightning_adabelief.comparison.report.numbers import show_difference, show_mean, show_seeds_needed

ADABELIEF = "lightning_adabelief.AdaBelief"
ADAM = "benchmarks.accumulated_eps.AdamWithAccumulatedEps"
SHORT_DIGITS = {"trainer.max_epochs": 15, "model.lr_scheduler.T_max": 15}


def name_eps(name: str, class_path: str, eps: float) -> dict[str, Any]:
    """Name an optimizer by its eps."""
    return {"name": f"{name}, eps {eps:g}", "class_path": class_path, "init_args": {"eps": eps}}


def name_start(name: str, rectify: bool, warmup: float) -> dict[str, Any]:
    """Name an AdaBelief by what it begins with."""
    return {"name": name, "class_path": ADABELIEF, "init_args": {"rectify": rectify, "warmup": warmup}}


COMPARISONS: dict[str, dict[str, Any]] = {
    "digits-cnn": {
        "config": "digits-cnn",
        "optimizers": ["adabelief", "adabelief-matched", "adamw", "adam", "radam", "sgd"],
        "settings": SHORT_DIGITS,
    },
    "digits-wgan": {
        "config": "digits-wgan",
        "optimizers": ["adabelief", "adabelief-matched", "adam", "radam", "rmsprop", "sgd"],
        # The weights of the last epoch, and no average of them: the best checkpoint would hide a run that fell apart.
        "settings": {
            "model.ema_decay": "null",
            "trainer.max_epochs": 40,
            "trainer.check_val_every_n_epoch": 40,
        },
    },
    "pydocs-lstm": {
        "config": "pydocs-lstm",
        "optimizers": ["adabelief", "adamw", "radam", "nadam", "sgd"],
        "settings": {"trainer.max_epochs": 3, "model.lr_scheduler.T_max": 3},
    },
    "scenes-fasterrcnn": {
        "config": "scenes-fasterrcnn",
        "optimizers": ["adabelief", "adamw", "adam", "radam", "sgd"],
        "settings": {
            "trainer.max_epochs": 1,
            "data.train_scenes": 1600,
            "data.val_scenes": 100,
            "data.test_scenes": 200,
            "model.lr_scheduler.T_max": 200,
        },
    },
    "eps": {
        "config": "digits-cnn",
        "optimizers": [
            *(name_eps("AdaBelief", ADABELIEF, eps) for eps in (1e-16, 1e-12, 1e-8)),
            *(name_eps("Adam", ADAM, eps) for eps in (1e-16, 1e-12, 1e-8)),
        ],
        "settings": SHORT_DIGITS,
    },
    "rectify": {
        "config": "digits-cnn",
        "optimizers": [
            name_start("neither", rectify=False, warmup=0),
            name_start("warmup", rectify=False, warmup=0.05),
            name_start("rectify", rectify=True, warmup=0),
            name_start("both", rectify=True, warmup=0.05),
        ],
        "settings": {**SHORT_DIGITS, "model.optimizer.warmup": 0},
    },
}
"""The comparisons by name, as arguments of :func:`lightning_adabelief.compare`."""

REPORT_FILES = ("plan.json", "report.md", "results.csv", "history.csv", "*.svg")
"""Patterns of the files of a comparison's folder that are committed."""


def main() -> None:
    """Run comparisons, and print what they say."""
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the comparisons; none is all")
    parser.add_argument("--out", type=Path, default=Path("comparisons"), help="folder for the trials")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in COMPARISONS]:
        parser.error(f"there is no comparison {unknown[0]!r}; there are {', '.join(COMPARISONS)}")
    summary, rows = [], []
    for name in arguments.names or COMPARISONS:
        out = arguments.out / name
        result = lightning_adabelief.compare(out=out, jobs=arguments.jobs, **COMPARISONS[name])
        summary.append(summarize(name, result))
        rows += make_rows(name, result)
        if arguments.write:
            copy_report(out, RESULTS / "compare" / name)
    links = [f"[{name}](compare/{name}/report.md)" for name in arguments.names or COMPARISONS]
    header = ["comparison", "optimizer", "metric", "value", "difference to the first", "verdict", "seeds to tell"]
    document = (
        "# Comparisons of optimizers\n\n"
        "Each optimizer at the learning rate that tuning chose for it; mean and standard deviation over the report's "
        "seeds, differences to the first optimizer paired by seed with Student's 95 % interval, verdict after Holm's "
        "adjustment. Seeds to tell: those that would tell a true difference of the observed size in 80 % of cases. "
        f"Everything else is in each one's report: {', '.join(links)}.\n\n"
        f"{markdown_table(['comparison', 'first', 'better', 'cannot be told apart', 'worse'], summary)}\n"
        f"{markdown_table(header, rows)}\n"
        f"{provenance('torch', 'pytorch-lightning', 'lightning-adabelief')}"
    )
    publish(document, "comparisons.md", arguments.write)


def summarize(name: str, result: Result) -> list[str]:
    """Return the row of a comparison: the first optimizer, and which others are better, as good, and worse."""
    optimizer, values = next(iter(result.values.items()))
    first = f"{optimizer}, {result.metric} {show_mean(list(values.values()))}"
    verdicts = ("better", "cannot be told apart", "worse")
    found = [[key for key, against in result.comparisons.items() if against.verdict == verdict] for verdict in verdicts]
    return [name, first, *("; ".join(names) or "-" for names in found)]


def make_rows(name: str, result: Result) -> list[list[str]]:
    """Return a row of the table for each optimizer of a comparison."""
    rows = []
    for optimizer, values in result.values.items():
        against = result.comparisons.get(optimizer)
        cells = [show_difference(against), against.verdict, show_seeds_needed(against)] if against else ["-", "-", "-"]
        rows.append([name, optimizer, result.metric, show_mean(list(values.values())), *cells])
    return rows


def copy_report(out: Path, folder: Path) -> None:
    """Put a comparison's report among the committed results."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in REPORT_FILES:
        for path in out.glob(pattern):
            shutil.copyfile(path, folder / path.name)


if __name__ == "__main__":
    main()
