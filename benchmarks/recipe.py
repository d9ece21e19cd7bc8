"""Measure a recipe: run it as a user does, once a seed, and write down its test score and time.

    python benchmarks/recipe.py digits-cnn

The table goes to ``benchmarks/results/<recipe>.md``; its first line is what the recipe's config and
``adabelief list`` quote.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import command, machine, versions
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the recipe for each seed and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--metric", default="test/accuracy", help="the metric that the table is about")
    parser.add_argument("--seeds", type=int, default=5, help="run seeds 0 to SEEDS - 1")
    arguments = parser.parse_args()

    scores, seconds = [], []
    for seed in range(arguments.seeds):
        score, taken = run(arguments.recipe, seed, arguments.metric)
        scores.append(score)
        seconds.append(taken)
        print(f"seed {seed}: {arguments.metric} {score:.4f}, {taken:.0f} s", flush=True)

    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    summary = f"{arguments.metric} {statistics.mean(scores):.4f} ± {spread:.4f} in {statistics.mean(seconds):.0f} s"
    rows = "\n".join(
        f"| {seed} | {score:.4f} | {taken:.0f} |"
        for seed, (score, taken) in enumerate(zip(scores, seconds, strict=True))
    )
    path = RESULTS / f"{arguments.recipe}.md"
    path.write_text(
        f"{summary}\n\n"
        f"Mean and standard deviation over seeds 0 to {arguments.seeds - 1} of the best checkpoint; "
        f"seconds of the whole command, imports and test included.\n\n"
        f"| seed | {arguments.metric} | seconds |\n|---|---|---|\n{rows}\n\n"
        f"- command: `{command()}`\n"
        f"- machine: {machine()}\n"
        f"- versions: {versions('torch', 'pytorch-lightning', 'lightning-adabelief')}\n",
        encoding="utf-8",
    )
    print(f"{summary}\nwritten to {path}")


def run(recipe: str, seed: int, metric: str) -> tuple[float, float]:
    """Run ``adabelief fit`` and read its test score from TensorBoard's file; return it and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        words = [
            "fit",
            "--config",
            recipe,
            f"--seed_everything={seed}",
            f"--trainer.logger.init_args.save_dir={folder}",
        ]
        subprocess.run(
            [sys.executable, "-m", "lightning_adabelief", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        taken = time.perf_counter() - start
        (log_dir,) = Path(folder).glob("*/version_*")
        accumulator = EventAccumulator(str(log_dir)).Reload()
        return accumulator.Scalars(metric)[-1].value, taken


if __name__ == "__main__":
    main()
