"""Measure a recipe: run it as a user does, once a seed, and write down its test scores, time and memory.

    python benchmarks/recipe.py digits-cnn
    python benchmarks/recipe.py digits-wgan --metrics test/frechet_digits test/frechet_digits_share

The table goes to ``benchmarks/results/<recipe>.md``; its first line, on the first metric, is what the
recipe's config and ``adabelief list`` quote.
"""

from __future__ import annotations

import argparse
import os
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
    parser.add_argument("--metrics", nargs="+", default=["test/accuracy"], help="what the table is about, chief first")
    parser.add_argument("--seeds", type=int, default=5, help="run seeds 0 to SEEDS - 1")
    arguments = parser.parse_args()

    header = ["seed", *arguments.metrics, "seconds", "peak memory, MiB"]
    rows: list[list[float]] = []
    for seed in range(arguments.seeds):
        rows.append(run(arguments.recipe, seed, arguments.metrics))
        print(f"seed {seed}: {dict(zip(header[1:], rows[-1], strict=True))}", flush=True)

    scores, seconds = [row[0] for row in rows], [row[-2] for row in rows]
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    mean = f"{statistics.mean(scores):.4f} ± {spread:.4f}"
    summary = f"{arguments.metrics[0]} {mean} in {statistics.mean(seconds):.0f} s"
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for seed, (*values, taken, memory) in enumerate(rows):
        lines.append(f"| {' | '.join([str(seed), *(f'{v:.4f}' for v in values), f'{taken:.0f}', f'{memory:.0f}'])} |")
    path = RESULTS / f"{arguments.recipe}.md"
    path.write_text(
        f"{summary}\n\n"
        f"Mean and standard deviation over seeds 0 to {arguments.seeds - 1} of the best checkpoint; "
        f"seconds of the whole command, imports and test included, with a load average of "
        f"{os.getloadavg()[1]:.1f} at the end; the process's own peak memory.\n\n" + "\n".join(lines) + "\n\n"
        f"- command: `{command()}`\n"
        f"- machine: {machine()}\n"
        f"- versions: {versions('torch', 'pytorch-lightning', 'lightning-adabelief')}\n",
        encoding="utf-8",
    )
    print(f"{summary}\nwritten to {path}")


def run(recipe: str, seed: int, metrics: list[str]) -> list[float]:
    """Run ``adabelief fit`` and read its scores from TensorBoard's file; return them, seconds and MiB."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        words = [
            "fit",
            "--config",
            recipe,
            f"--seed_everything={seed}",
            f"--trainer.logger.init_args.save_dir={folder}",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_adabelief", *words], stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - start
        if status:
            errors.seek(0)
            raise RuntimeError(f"{recipe} failed:\n{errors.read().decode()}")
        (log_dir,) = Path(folder).glob("*/version_*")
        accumulator = EventAccumulator(str(log_dir)).Reload()
        return [*(accumulator.Scalars(metric)[-1].value for metric in metrics), taken, usage.ru_maxrss / 1024]


if __name__ == "__main__":
    main()
