"""Test scores of fine-tuning by the recipe folder-classifier, where nothing can be downloaded.

    python benchmarks/folder_classifier.py --write

A ResNet18 learns scikit-learn's digits 0 to 4, and is fine-tuned on 20 images each of 5 to 9, all of them PNG files in
one folder per class. Each row of the table changes one setting of the recipe.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import draw_digit, make_parser, markdown_table, provenance, publish
from recipe import run
from sklearn.datasets import load_digits

from lightning_adabelief.recipes.catalog import find

RECIPE = "folder-classifier"
METRICS = ["test/accuracy", "test/loss", "val/loss"]
PER_CLASS = {"train": 20, "val": 10}
"""Images of each class to train and validate on; the others are tested on."""

SIZE = 32
"""Pixels: the images have 8."""

SETTINGS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "lr 3e-4": {"lr": 3e-4},
    "lr 3e-3": {"lr": 3e-3},
    "weights null": {"weights": None},
    "layer_decay null": {"layer_decay": None},
    "freeze_epochs 0": {"freeze_epochs": 0},
}


def main() -> None:
    """Pretrain a network, and fine-tune it with each setting and seed."""
    parser = make_parser(__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3, help="run seeds 0 to SEEDS - 1")
    arguments = parser.parse_args()

    runs: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "others", range(5), per_class={"train": 40, "val": 10})
        write_digits(folder / "digits", range(5, 10), PER_CLASS)
        weights = folder / "weights.ckpt"
        print("pretraining", file=sys.stderr, flush=True)
        pretrain = {"weights": None, "root": str(folder / "others"), "filename": str(weights.with_suffix(""))}
        run(str(write_config(folder / "pretrain.yaml", pretrain)), 0, METRICS)
        given = {"root": str(folder / "digits"), "weights": str(weights)}
        for setting in arguments.settings:
            config = write_config(folder / "run.yaml", given | SETTINGS[setting])
            runs[setting] = []
            for seed in range(arguments.seeds):
                runs[setting].append(run(str(config), seed, METRICS))
                print(f"{setting}, seed {seed}: {runs[setting][-1]}", file=sys.stderr, flush=True)

    first = runs[arguments.settings[0]]
    summary = f"test/accuracy {describe(first, 0)} in {statistics.mean(of_run[-2] for of_run in first):.0f} s"
    rows = [[setting, *(describe(of, number) for number in range(len(METRICS)))] for setting, of in runs.items()]
    document = (
        f"{summary}\n\n"
        f"Mean and standard deviation, over seeds 0 to {arguments.seeds - 1}, of fine-tuning on "
        f"{PER_CLASS['train']} images each of the digits 5 to 9, at {SIZE}x{SIZE} pixels and without flips, from a "
        "network that has learned the digits 0 to 4. Test scores are the best checkpoint's, val/loss is the last "
        "epoch's; the seconds are of the whole command, imports and test included.\n\n"
        f"{markdown_table(['setting', *METRICS], rows)}\n"
        f"{provenance('torch', 'torchvision', 'pytorch-lightning', 'lightning-adabelief')}"
    )
    publish(document, f"{RECIPE}.md", arguments.write)


def describe(runs: list[list[float]], number: int) -> str:
    """Return the mean and the standard deviation of a score over runs."""
    values = [of_run[number] for of_run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {spread:.4f}"


def write_digits(root: Path, digits: range, per_class: Mapping[str, int]) -> None:
    """Write digits as PNG files into ``train``, ``val`` and ``test``, the rest into the last."""
    data = load_digits()
    for digit in digits:
        numbers = np.flatnonzero(data.target == digit).tolist()
        for part in ("train", "val", "test"):
            folder = root / part / str(digit)
            folder.mkdir(parents=True)
            of_part, numbers = numbers[: per_class.get(part)], numbers[per_class.get(part, 0) :]
            for number in of_part:
                draw_digit(data.images[number]).save(folder / f"{number:04}.png")


def write_config(path: Path, settings: Mapping[str, Any]) -> Path:
    """Write the recipe's config with some settings, each in the place where its name stands."""
    config = yaml.safe_load(find(RECIPE).path.read_text(encoding="utf-8"))
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    best = config["trainer"]["callbacks"][2]["init_args"]
    data |= {"size": SIZE, "num_workers": 0}
    data["augmentation"] |= {"flip": 0.0}  # a digit's mirror image is none
    places = [model["network"]["init_args"], model["optimizer"]["init_args"], model, data, best]
    for name, value in settings.items():
        next(place for place in places if name in place)[name] = value
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
