"""Stability, the paper's third claim: one GAN with AdaBelief, Adam and RMSprop, the same in all but the optimizer.

    python benchmarks/gan_stability.py

The GAN is ``digits-wgan``, chosen before any of this was run: of the three, weight clipping is the one
known to fail. Its networks and its clipping were chosen with AdaBelief. It is run as it is shipped, and
with a critic without batch normalization, which is harder: added once the first had shown no collapse
with AdaBelief and Adam, and before it was run. The largest learning rate was added when the one below
it, then the largest, had been the best for both. Each optimizer has the same
networks, data, budget and seeds, and one learning rate for both networks, the best of the same
four on a seed of its own; AdaBelief's betas and eps are the paper's, Adam has the same betas, and the rest is
torch's default. What is scored is the generator itself, and no average of its weights.

A run has collapsed, decided beforehand, if its last distance is above half the untrained generator's, is
not a number, or fewer than 5 of the 10 classes are among its last samples. Measured is the last epoch,
not the best checkpoint, for that would hide a run that fell apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import time
import warnings
from typing import Any

from common import RESULTS, markdown
from machine import command, machine, versions

from lightning_adabelief.lightning_tree import LightningCLI, LightningDataModule, LightningModule
from lightning_adabelief.recipes.catalog import find

SCORES: dict[str, Any] = {}
RATES = (2e-4, 1e-3, 5e-3, 2.5e-2)
SEED_OF_RATES = 100
SETTINGS = {"As shipped": [], "Without batch normalization": ["--model.critic.batch_norm=false"]}
ADABELIEF = {"betas": [0.5, 0.999], "eps": 1e-12, "rectify": False, "weight_decouple": False}
OPTIMIZERS = {
    "AdaBelief": ("lightning_adabelief.AdaBelief", ADABELIEF),
    "Adam": ("torch.optim.Adam", {"betas": [0.5, 0.999], "eps": 1e-8}),
    "RMSprop": ("torch.optim.RMSprop", {"alpha": 0.99, "eps": 1e-8}),
}
LEAST_CLASSES = 5
MOST_SHARE = 0.5


def run(arguments: argparse.Namespace, setting: str, optimizer: str, rate: float, seed: int) -> dict[str, float]:
    """Train; return the last validation's scores, and the seconds it took."""
    class_path, options = OPTIMIZERS[optimizer]
    described = json.dumps({"class_path": class_path, "init_args": {"lr": rate, **options}})
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
            f"--model.generator_optimizer={described}",
            f"--model.critic_optimizer={described}",
            "--model.ema_decay=null",  # an average would hide how the weights go
            "--trainer.callbacks=null",
            "--trainer.enable_checkpointing=false",
            "--trainer.logger=false",
            f"--trainer.max_epochs={arguments.epochs}",
        ],
    )
    cli.model.evaluation.scores = SCORES.setdefault("classifier", cli.model.evaluation.scores)  # trained once for all
    cli.trainer.fit(cli.model, cli.datamodule)
    measured = cli.trainer.callback_metrics
    tags = {"distance": "", "untrained": "_untrained", "floor": "_floor"}
    scores = {name: float(measured[f"val/frechet_digits{suffix}"]) for name, suffix in tags.items()}
    scores["classes"] = float(measured["val/classes_digits"])
    return scores | {"seconds": time.perf_counter() - start}


def has_collapsed(scores: dict[str, float]) -> bool:
    """Whether a run has collapsed, by the criterion above."""
    far = not scores["distance"] <= MOST_SHARE * scores["untrained"]  # a NaN is far
    return far or scores["classes"] < LEAST_CLASSES


def best_rate(arguments: argparse.Namespace, setting: str, optimizer: str) -> tuple[float, dict[float, float]]:
    """The learning rate of the least distance, and the distance of each."""
    distances = {}
    for rate in arguments.rates:
        distances[rate] = run(arguments, setting, optimizer, rate, SEED_OF_RATES)["distance"]
        print(f"{setting}, {optimizer}, lr {rate:g}: {distances[rate]:.2f}", flush=True)
    return min(distances, key=lambda rate: math.inf if math.isnan(distances[rate]) else distances[rate]), distances


def row(optimizer: str, rate: float, scores: list[dict[str, float]]) -> list[str]:
    """An optimizer's line of the table."""
    distances = [run_scores["distance"] for run_scores in scores]
    shares = [run_scores["distance"] / run_scores["untrained"] for run_scores in scores]
    return [
        optimizer,
        f"{rate:g}",
        f"{statistics.mean(distances):.2f} ± {statistics.stdev(distances):.2f}",
        f"{min(distances):.2f} to {max(distances):.2f}",
        f"{100 * statistics.mean(shares):.1f} %",
        f"{sum(map(has_collapsed, scores))} of {len(scores)}",
    ]


def compare(arguments: argparse.Namespace, setting: str) -> tuple[str, list[dict[str, float]]]:
    """Choose the rates and run the seeds; return the setting's tables, and all scores."""
    header = ["optimizer", "lr", "distance", "range", "of the untrained's", "collapsed"]
    rows, tried, everything = [], [], []
    for optimizer in OPTIMIZERS:
        rate, distances = best_rate(arguments, setting, optimizer)
        tried.append([optimizer, *(f"{distances[rate]:.2f}" for rate in arguments.rates)])
        scores = []
        for seed in range(arguments.seeds):
            scores.append(run(arguments, setting, optimizer, rate, seed))
            print(f"{setting}, {optimizer}, seed {seed}: {scores[-1]}", flush=True)
        rows.append(row(optimizer, rate, scores))
        everything += scores
    rates = markdown(["distance of the seed that chose", *(f"lr {rate:g}" for rate in arguments.rates)], tried)
    return f"## {setting}\n\n{markdown(header, rows)}\n{rates}", everything


def main() -> None:
    """Compare in each setting, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="digits-wgan")
    parser.add_argument("--seeds", type=int, default=5, help="run seeds 0 to SEEDS - 1")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    tables, everything = [], []
    for setting in SETTINGS:
        table, scores = compare(arguments, setting)
        tables.append(table)
        everything += scores
    floor = statistics.mean(scores["floor"] for scores in everything)
    seconds = statistics.mean(scores["seconds"] for scores in everything)
    path = RESULTS / "gan_stability.md"
    path.write_text(
        f"# Stability of {arguments.recipe}\n\n"
        "Fréchet distance on a digits classifier's 64 features, of 1,000 generated to 360 validation images, after "
        f"{arguments.epochs} epochs; mean and standard deviation over seeds 0 to {arguments.seeds - 1}. Of as many "
        f"real images it is {floor:.2f}. A run has collapsed if its distance is above {MOST_SHARE:g} of the untrained "
        f"generator's, or fewer than {LEAST_CLASSES} of 10 classes are among its samples. The learning rates were "
        f"chosen by the distance of seed {SEED_OF_RATES}. A run took {seconds:.0f} s on the average.\n\n"
        + "\n".join(tables)
        + f"\n- command: `{command()}`\n"
        f"- machine: {machine()}, load average {os.getloadavg()[1]:.1f}\n"
        f"- versions: {versions('torch', 'pytorch-lightning', 'torchmetrics', 'lightning-adabelief')}\n",
        encoding="utf-8",
    )
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
