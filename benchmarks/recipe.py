"""A recipe's test scores, time and memory: it is run as a user runs it, once for each seed.

    python benchmarks/recipe.py digits-cnn --write
    python benchmarks/recipe.py digits-wgan --metrics test/frechet_digits test/frechet_digits_share

The first line of ``benchmarks/results/<recipe>.md``, on the first metric, is what the recipe's config and
``adabelief list`` quote.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import make_parser, markdown_table, provenance, publish
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main() -> None:
    """Run the recipe with each seed."""
    parser = make_parser(__doc__)
    parser.add_argument("recipe")
    parser.add_argument(
        "--metrics", nargs="+", default=["test/accuracy"], help="the table's columns; the first is quoted"
    )
    parser.add_argument("--seeds", type=int, default=5, help="run seeds 0 to SEEDS - 1")
    arguments = parser.parse_args()

    runs: list[list[float]] = []
    texts: set[str] = set()
    for seed in range(arguments.seeds):
        runs.append(run(arguments.recipe, seed, arguments.metrics, texts))
        print(f"seed {seed}: {runs[-1]}", file=sys.stderr, flush=True)

    scores, seconds = [values[0] for values in runs], [values[-2] for values in runs]
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    mean = f"{statistics.mean(scores):.4f} ± {spread:.4f}"
    summary = f"{arguments.metrics[0]} {mean} in {statistics.mean(seconds):.0f} s"
    rows = [
        [str(seed), *(f"{value:.4f}" for value in values), f"{taken:.0f}", f"{memory:.0f}"]
        for seed, (*values, taken, memory) in enumerate(runs)
    ]
    document = (
        f"{summary}\n\n"
        f"Mean and standard deviation, over seeds 0 to {arguments.seeds - 1}, of the best checkpoint's score; mean "
        "seconds of the whole command, imports and test included. Peak memory is the process's own.\n\n"
        f"{markdown_table(['seed', *arguments.metrics, 'seconds', 'peak memory, MiB'], rows)}\n"
        f"{provenance('torch', 'pytorch-lightning', 'lightning-adabelief')}"
        + "".join(f"- {text}\n" for text in sorted(texts))
    )
    publish(document, f"{arguments.recipe}.md", arguments.write)


def run(recipe: str, seed: int, metrics: list[str], texts: set[str] | None = None) -> list[float]:
    """Run ``adabelief fit`` and read its scores from TensorBoard's file.

    Args:
        recipe: A recipe's name or a config.
        seed: The run's seed.
        metrics: The scores to read.
        texts: Where the line is added in which a language model's run names its text.

    Returns:
        The metrics' values, the seconds it took, and its peak memory in MiB.

    Raises:
        RuntimeError: If the run fails; it quotes the run's errors.
    """
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
        errors.seek(0)
        said = errors.read().decode()
        if status:
            raise RuntimeError(f"{recipe} failed:\n{said}")
        if texts is not None:
            texts |= {line for line in said.splitlines() if line.startswith("text: ")}
        (log_dir,) = Path(folder).glob("*/version_*")
        accumulator = EventAccumulator(str(log_dir)).Reload()
        return [*(accumulator.Scalars(metric)[-1].value for metric in metrics), taken, usage.ru_maxrss / 1024]


if __name__ == "__main__":
    main()
