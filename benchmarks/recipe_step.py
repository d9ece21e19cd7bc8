"""Time and memory of a training step of the image classification recipes, without their data.

    python benchmarks/recipe_step.py cifar10-vgg11 cifar10-resnet34 cifar10-densenet121 imagenet-resnet18

Each recipe runs in a process of its own, from its own config, on random images of the data's shape: batch
size, network and optimizer are the recipe's; no data are read and nothing is logged. The figures tell how
long an epoch would take, not how well the network would learn.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from common import load_recipe, make_parser, markdown_table, provenance, publish
from torch.utils.data import DataLoader, TensorDataset

from lightning_adabelief.lightning_tree import Callback, LightningDataModule, Trainer

TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}
"""From the data's name, with which a recipe's name begins, to the number of its training images."""


class RandomImages(LightningDataModule):
    """Batches of random images.

    Args:
        like: The DataModule whose batch size, image shape and number of classes they have.
        batches: The number of batches.
    """

    def __init__(self, like: LightningDataModule, batches: int) -> None:
        super().__init__()
        self.batch_size, self.in_channels = like.batch_size, like.in_channels
        self.num_classes = getattr(like, "num_classes", 1000)  # ImageNet's are counted when its folders are read
        size = getattr(like, "size", 32)
        number = self.batch_size * batches
        labels = torch.randint(self.num_classes, (number,))
        self.images = TensorDataset(torch.randn(1, self.in_channels, size, size).expand(number, -1, -1, -1), labels)

    def train_dataloader(self) -> DataLoader:
        """Return the batches."""
        return DataLoader(self.images, self.batch_size)


class Stopwatch(Callback):
    """Time the training steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: object) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Stop the clock when the device has finished."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def measure(recipe: str, steps: int) -> dict[str, float]:
    """Train a recipe for some steps.

    Returns:
        Its batch size, the median seconds of a step, and the peak memory in GiB.
    """
    cli = load_recipe(recipe, "--trainer.max_epochs=1")
    stopwatch = Stopwatch()
    cli.trainer.callbacks.append(stopwatch)
    data = RandomImages(cli.datamodule, batches=steps + 1)
    cli.trainer.fit(cli.model, data)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"batch": data.batch_size, "seconds": statistics.median(stopwatch.seconds[1:]), "memory": peak / 2**30}


def main() -> None:
    """Measure each recipe in a process of its own."""
    parser = make_parser(__doc__)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after a first that is not timed")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_this_process:
        print(json.dumps(measure(arguments.recipes[0], arguments.steps)))
        return
    rows = []
    for recipe in arguments.recipes:
        words = [sys.executable, __file__, recipe, f"--steps={arguments.steps}", "--in-this-process"]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        step = json.loads(done.stdout.splitlines()[-1])
        steps_per_epoch = TRAINING_IMAGES[recipe.partition("-")[0]] / step["batch"]
        hours = steps_per_epoch * step["seconds"] / 3600
        rows.append([recipe, str(step["batch"]), f"{step['seconds']:.2f}", f"{hours:.2f}", f"{step['memory']:.1f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    header = ["recipe", "batch size", "seconds a step", "hours an epoch", "peak memory, GiB"]
    packages = ("torch", "torchvision", "pytorch-lightning", "lightning-adabelief")
    document = (
        f"{markdown_table(header, rows)}\nMedian of {arguments.steps} steps on random images, after a first that is "
        "not timed. Hours an epoch are computed from the seconds a step. Memory is the process's on a CPU, and the "
        f"allocator's on a GPU.\n\n{provenance(*packages, device=device)}"
    )
    publish(document, f"recipe_step-{device.type}.md", arguments.write)


if __name__ == "__main__":
    main()
