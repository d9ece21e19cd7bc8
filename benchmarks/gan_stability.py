"""Stability, the paper's third claim: one GAN trained with AdaBelief, Adam and RMSprop.

    python benchmarks/gan_stability.py

The GAN is ``digits-wgan``. It was chosen before anything was run, because of the three GANs the one with
weight clipping is known to fail. Its networks and its clipping had been chosen with AdaBelief. It is run as
shipped, and with a critic without batch normalization, which is harder to train. The second setting was
added after the first had shown no collapse with AdaBelief and Adam, and before it was itself run. The largest
learning rate was added after the one below it, until then the largest, had been the best for both.

All optimizers have the same networks, data, budget and seeds, and one learning rate for both networks: the
best of the same four on a seed that is used for nothing else. AdaBelief's betas and eps are the paper's, Adam has
the same betas, and the rest are torch's defaults. The generator itself is scored, not an average of its weights.

By a criterion fixed beforehand, a run has collapsed if its last distance is above half the untrained
generator's, or is not a number, or if fewer than 5 of the 10 classes are among its last samples. The last
epoch is measured and not the best checkpoint, which would hide a run that fell apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import sys
import time
import warnings
from typing import Any

from common import make_parser, markdown_table, provenance, publish

from lightning_adabelief.lightning_tree import LightningCLI, LightningDataModule, LightningModule
from lightning_adabelief.recipes.catalog import find

LEARNING_RATES = (2e-4, 1e-3, 5e-3, 2.5e-2)
LEARNING_RATE_SEED = 100
"""Seed on which the learning rates are chosen; it is not among the seeds of the report."""

SETTINGS = {"As shipped": [], "Without batch normalization": ["--model.critic.batch_norm=false"]}
ADABELIEF = {"betas": [0.5, 0.999], "eps": 1e-12, "rectify": False, "weight_decouple": False}
OPTIMIZERS = {
    "AdaBelief": ("lightning_adabelief.AdaBelief", ADABELIEF),
    "Adam": ("torch.optim.Adam", {"betas": [0.5, 0.999], "eps": 1e-8}),
    "RMSprop": ("torch.optim.RMSprop", {"alpha": 0.99, "eps": 1e-8}),
}
MIN_CLASSES = 5
MAX_DISTANCE_FRACTION = 0.5
"""Limits beyond which a run has collapsed: classes among its samples, distance over the untrained generator's."""

SHARED_SCORES: dict[str, Any] = {}
"""Scores with their trained classifier, which every run uses."""


def run(arguments: argparse.Namespace, setting: str, optimizer: str, rate: float, seed: int) -> dict[str, float]:
    """Train once; return the scores of the last validation, and the seconds that training took."""
    class_path, options = OPTIMIZERS[optimizer]
    config = json.dumps({"class_path": class_path, "init_args": {"lr": rate, **options}})
    start = time.perf_counter()
    cli = LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=None,
        run=False,
        trainer_defaults={"enable_model_summary": False, "enable_progress_bar": False},
        args=[
            f"--config={find(arguments.recipe).path}",
            *SETTINGS[setting],
            f"--seed_everything={seed}",
            f"--model.seed={seed}",
            f"--model.generator_optimizer={config}",
            f"--model.critic_optimizer={config}",
            "--model.ema_decay=null",  # an average would hide how unstable the weights are
            "--trainer.callbacks=null",
            "--trainer.enable_checkpointing=false",
            "--trainer.logger=false",
            f"--trainer.max_epochs={arguments.epochs}",
        ],
    )
    cli.model.evaluation.scores = SHARED_SCORES.setdefault("classifier", cli.model.evaluation.scores)
    cli.trainer.fit(cli.model, cli.datamodule)
    measured = cli.trainer.callback_metrics
    tags = {"distance": "", "untrained": "_untrained", "floor": "_floor"}
    scores = {name: float(measured[f"val/frechet_digits{suffix}"]) for name, suffix in tags.items()}
    scores["classes"] = float(measured["val/classes_digits"])
    return scores | {"seconds": time.perf_counter() - start}


def has_collapsed(scores: dict[str, float]) -> bool:
    """True if a run has collapsed, by the criterion above."""
    far = not scores["distance"] <= MAX_DISTANCE_FRACTION * scores["untrained"]  # a NaN is far
    return far or scores["classes"] < MIN_CLASSES


def choose_rate(arguments: argparse.Namespace, setting: str, optimizer: str) -> tuple[float, dict[float, float]]:
    """Return the learning rate with the smallest distance, and the distance of each."""
    distances = {}
    for rate in arguments.rates:
        distances[rate] = run(arguments, setting, optimizer, rate, LEARNING_RATE_SEED)["distance"]
        print(f"{setting}, {optimizer}, lr {rate:g}: {distances[rate]:.2f}", file=sys.stderr, flush=True)
    finite = {rate: math.inf if math.isnan(distance) else distance for rate, distance in distances.items()}
    return min(finite, key=finite.__getitem__), distances


def make_row(optimizer: str, rate: float, scores: list[dict[str, float]]) -> list[str]:
    """Summarize an optimizer's runs in a row of the table."""
    distances = [run_scores["distance"] for run_scores in scores]
    fractions = [run_scores["distance"] / run_scores["untrained"] for run_scores in scores]
    return [
        optimizer,
        f"{rate:g}",
        f"{statistics.mean(distances):.2f} ± {statistics.stdev(distances):.2f}",
        f"{min(distances):.2f} to {max(distances):.2f}",
        f"{100 * statistics.mean(fractions):.1f} %",
        f"{sum(map(has_collapsed, scores))} of {len(scores)}",
    ]


def compare(arguments: argparse.Namespace, setting: str) -> tuple[str, list[dict[str, float]]]:
    """Choose each optimizer's learning rate and run the seeds; return the setting's tables and all scores."""
    header = ["optimizer", "lr", "distance", "range", "of the untrained's", "collapsed"]
    rows, tried, all_scores = [], [], []
    for optimizer in OPTIMIZERS:
        rate, distances = choose_rate(arguments, setting, optimizer)
        tried.append([optimizer, *(f"{distances[rate]:.2f}" for rate in arguments.rates)])
        scores = []
        for seed in range(arguments.seeds):
            scores.append(run(arguments, setting, optimizer, rate, seed))
            print(f"{setting}, {optimizer}, seed {seed}: {scores[-1]}", file=sys.stderr, flush=True)
        rows.append(make_row(optimizer, rate, scores))
        all_scores += scores
    rates = markdown_table(["distance of the seed that chose", *(f"lr {rate:g}" for rate in arguments.rates)], tried)
    return f"## {setting}\n\n{markdown_table(header, rows)}\n{rates}", all_scores


def main() -> None:
    """Compare the optimizers in each setting."""
    parser = make_parser(__doc__)
    parser.add_argument("--recipe", default="digits-wgan")
    parser.add_argument("--seeds", type=int, default=5, help="run seeds 0 to SEEDS - 1")
    parser.add_argument("--rates", type=float, nargs="+", default=list(LEARNING_RATES))
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    tables, all_scores = [], []
    for setting in SETTINGS:
        table, scores = compare(arguments, setting)
        tables.append(table)
        all_scores += scores
    floor = statistics.mean(scores["floor"] for scores in all_scores)
    seconds = statistics.mean(scores["seconds"] for scores in all_scores)
    document = (
        f"# Stability of {arguments.recipe}\n\n"
        "Fréchet distance on a digits classifier's 64 features, of 1,000 generated to 360 validation images, after "
        f"{arguments.epochs} epochs; mean and standard deviation over seeds 0 to {arguments.seeds - 1}. Of as many "
        f"real images it is {floor:.2f}. A run has collapsed if its distance is above {MAX_DISTANCE_FRACTION:g} of the "
        f"untrained generator's, or if fewer than {MIN_CLASSES} of 10 classes are among its samples. The learning "
        f"rates were chosen by the distance of seed {LEARNING_RATE_SEED}. A run took {seconds:.0f} s on average.\n\n"
        + "\n".join(tables)
        + f"\n{provenance('torch', 'pytorch-lightning', 'torchmetrics', 'lightning-adabelief')}"
    )
    publish(document, "gan_stability.md", arguments.write)


if __name__ == "__main__":
    main()
