"""Test scores of the recipe gan-folder on a folder of small images that needs no download.

    python benchmarks/gan_folder.py --write

The images are scikit-learn's digits, enlarged to 32x32 pixels and written as PNG files into one folder.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import yaml
from common import draw_digit, make_parser, markdown_table, provenance, publish
from PIL import Image
from recipe import run
from sklearn.datasets import load_digits

from lightning_adabelief.recipes.catalog import find

RECIPE = "gan-folder"
METRICS = [
    "test/frechet_random",
    "test/frechet_random_plain",
    "test/frechet_random_untrained",
    "test/frechet_random_floor",
]
SIZE = 32


def main() -> None:
    """Write the images, and run the recipe with each seed."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="run seeds 0 to SEEDS - 1")
    arguments = parser.parse_args()

    runs: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder, "digits"))
        config = write_config(Path(folder, "digits"), Path(folder, "config.yaml"))
        for seed in range(arguments.seeds):
            runs.append(run(str(config), seed, METRICS))
            print(f"seed {seed}: {runs[-1]}", file=sys.stderr, flush=True)

    scores = [of_run[0] for of_run in runs]
    spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    seconds = statistics.mean(of_run[-2] for of_run in runs)
    summary = f"{METRICS[0]} {statistics.mean(scores):.4f}{spread} in {seconds:.0f} s"
    rows = [
        [str(seed), *(f"{value:.4f}" for value in values), f"{taken:.0f}", f"{memory:.0f}"]
        for seed, (*values, taken, memory) in enumerate(runs)
    ]
    document = (
        f"{summary}\n\n"
        f"scikit-learn's 1,797 digits, enlarged to {SIZE}x{SIZE} pixels and written as PNG files into one folder, "
        "without classes. The best checkpoint's distance to the images held out to test on, by features of a network "
        "with random weights (it is no FID); mean seconds of the whole command, imports and test included. Peak memory "
        "is the process's own.\n\n"
        f"{markdown_table(['seed', *METRICS, 'seconds', 'peak memory, MiB'], rows)}\n"
        f"{provenance('torch', 'pytorch-lightning', 'lightning-adabelief')}"
    )
    publish(document, f"{RECIPE}.md", arguments.write)


def write_digits(folder: Path) -> None:
    """Write the digits as PNG files."""
    folder.mkdir()
    for number, counts in enumerate(load_digits().images):
        image = draw_digit(counts).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:04}.png")


def write_config(images: Path, path: Path) -> Path:
    """Write the recipe's config for a folder of images, scored on random features whatever is at hand."""
    config = yaml.safe_load(find(RECIPE).path.read_text(encoding="utf-8"))
    config["data"]["init_args"] |= {"root": str(images), "num_workers": 0}
    scores = "lightning_adabelief.recipes.gan.RandomFeatureScores"
    config["model"]["init_args"]["scores"] = {"class_path": scores, "init_args": {"num_samples": 1000}}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
