"""A recipe's test scores with rectification, without it, and without it but with a warmup.

python benchmarks/rectification.py digits-cnn --write
python benchmarks/rectification.py digits-sngan --metrics test/frechet_digits --seeds 3 --settings without with
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import scipy.stats
import yaml
from common import make_parser, markdown_table, provenance, publish
from recipe import run

from lightning_adabelief.recipes.catalog import find

SETTINGS = {
    "with": {"rectify": True, "warmup": 0},
    "without": {"rectify": False, "warmup": 0},
    "warmup": {"rectify": False, "warmup": 0.05},
}


def main() -> None:
    """Run the recipe with each setting and seed."""
    parser = make_parser(__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--metrics", nargs="+", default=["test/accuracy", "test/loss"])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="the first is compared")
    parser.add_argument("--seeds", type=int, default=5, help="run seeds 0 to SEEDS - 1")
    arguments = parser.parse_args()

    runs: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for setting in arguments.settings:
            config = write_config(arguments.recipe, setting, Path(folder))
            runs[setting] = []
            for seed in range(arguments.seeds):
                *scores, _seconds, _memory = run(str(config), seed, arguments.metrics)
                runs[setting].append(scores)
                print(f"{setting}, seed {seed}: {scores}", file=sys.stderr, flush=True)

    header = ["metric", "rectify", "warmup", "mean ± standard deviation", "seeds", "less the first row, 95 % interval"]
    rows: list[list[str]] = []
    for number, metric in enumerate(arguments.metrics):
        scores_of = {setting: [scores[number] for scores in of_seeds] for setting, of_seeds in runs.items()}
        first = scores_of[arguments.settings[0]]
        rows += [describe(metric, setting, values, first) for setting, values in scores_of.items()]
    document = (
        f"# {arguments.recipe} with and without rectification\n\n"
        f"Test scores of the best checkpoint, for seeds 0 to {arguments.seeds - 1}; all else as in the recipe. The "
        "difference is the mean over seeds of the row's score less that of the metric's first row, with a t interval "
        "of the paired differences.\n\n"
        f"{markdown_table(header, rows)}\n"
        f"{provenance('torch', 'pytorch-lightning', 'lightning-adabelief')}"
    )
    publish(document, f"rectification-{arguments.recipe}.md", arguments.write)


def write_config(recipe: str, setting: str, folder: Path) -> Path:
    """Write the recipe's config with a setting's options in all its optimizers."""
    config = yaml.safe_load(find(recipe).path.read_text(encoding="utf-8"))
    for name, value in config["model"]["init_args"].items():
        if name.endswith("optimizer") and value is not None:
            value["init_args"] |= SETTINGS[setting]
    path = folder / f"{recipe}-{setting}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def describe(metric: str, setting: str, values: list[float], first: list[float]) -> list[str]:
    """Describe a setting's scores, and their difference from the first setting's, paired by seed."""
    options = SETTINGS[setting]
    difference = ""
    if values is not first:
        differences = [value - of_first for value, of_first in zip(values, first, strict=True)]
        mean, error = statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5
        half = error * float(scipy.stats.t.ppf(0.975, len(differences) - 1))
        difference = f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"
    return [
        metric,
        str(options["rectify"]).lower(),
        str(options["warmup"]),
        f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}",
        " ".join(f"{value:.4f}" for value in values),
        difference,
    ]


if __name__ == "__main__":
    main()
