"""Helpers of all benchmarks: the command line, Markdown tables, and the record of where figures come from.

A benchmark prints its document. Only with ``--write`` does the document take the place of the committed
one in ``benchmarks/results/``, which the READMEs quote.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lightning_adabelief.files import replace_file

RESULTS = Path(__file__).with_name("results")

ONLY_TRAINING = ("logger=false", "enable_checkpointing=false", "enable_progress_bar=false", "callbacks=null")
ONLY_TRAINING += ("enable_model_summary=false", "limit_val_batches=0", "num_sanity_val_steps=0")
"""Settings of a Trainer that trains and does nothing else."""


def make_parser(description: str) -> argparse.ArgumentParser:
    """Make a command line with the option ``--write``.

    Args:
        description: The benchmark's docstring, shown by ``--help`` line by line.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="also replace the committed file in benchmarks/results/")
    return parser


def load_recipe(recipe: str, *words: str) -> Any:
    """Make the model, the data and a Trainer of a recipe, with :data:`ONLY_TRAINING`.

    Args:
        recipe: Its name.
        *words: Further arguments of its command line.

    Returns:
        A LightningCLI that has run nothing yet.
    """
    # imported here, so that other benchmarks do not have Lightning in the memory that they measure
    from lightning_adabelief.lightning_tree import LightningCLI, LightningDataModule, LightningModule
    from lightning_adabelief.recipes.catalog import find

    return LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=None,
        run=False,
        args=[f"--config={find(recipe).path}", *(f"--trainer.{setting}" for setting in ONLY_TRAINING), *words],
    )


def draw_digit(counts: np.ndarray) -> Image.Image:
    """Draw one of scikit-learn's digits, 8x8 counts from 0 to 16, as a grayscale image."""
    return Image.fromarray((counts / 16 * 255).round().astype(np.uint8))


def publish(document: str, filename: str, write: bool) -> None:
    """Print a document, and replace the committed one if ``--write`` was given.

    Args:
        document: Markdown.
        filename: Its file in ``benchmarks/results/``.
        write: The value of ``--write``.
    """
    print(document, end="")
    if write:
        with replace_file(RESULTS / filename) as part:
            part.write_text(document, encoding="utf-8")
        print(f"\nwritten to benchmarks/results/{filename}")


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a table in Markdown; the first column is left-aligned, the others are right-aligned."""
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def provenance(*packages: str, device: torch.device | None = None) -> str:
    """List where figures come from: the running command, the machine with its load, and the versions.

    Args:
        *packages: Names of the distributions whose versions matter.
        device: The device that was measured; None for the CPU.
    """
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    return (
        f"- command: `{' '.join(words)}`\n"
        f"- machine: {device_name(device)}, load average {os.getloadavg()[1]:.1f}\n"
        f"- versions: {', '.join(versions)}\n"
    )


def device_name(device: torch.device | None = None) -> str:
    """Name the GPU, or the CPU (the default) with the number of threads in use."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_find_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def device_slug(device: torch.device) -> str:
    """Name a device in a file's name: ``cpu``, or ``cuda-`` and the GPU."""
    return "cpu" if device.type == "cpu" else "cuda-" + re.sub(r"\W+", "-", device_name(device)).lower()


def _find_cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a CPU that it does not name
        return platform.processor() or platform.machine()
