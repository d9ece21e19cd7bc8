"""What BeliefMonitor costs: ResNet-18 on 3x32x32, batch 128, in Lightning's Trainer, with and without it.

    python benchmarks/monitor_overhead.py
    python benchmarks/monitor_overhead.py --device cuda

Three Trainers train the same network on the same noise, each with a TensorBoardLogger: one without
the monitor, one with it at the Trainer's default interval, one with it at every step. They take turns
of as many batches as that interval, so that what else the machine does hits all alike. Each turn is
divided by that of the Trainer without in the same round; shown is the median over the rounds, after
one that does not count. The table is written to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from common import RESULTS, markdown
from machine import command, machine, versions
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset

from lightning_adabelief import AdaBelief, BeliefMonitor

INTERVAL = 50
"""Lightning's default log_every_n_steps."""

BATCH_SIZE = 128

CONTENDERS: dict[str, dict[str, Any] | None] = {
    "without": None,
    f"every {INTERVAL} steps (default)": {},
    "every step": {"every_n_steps": 1},
}
"""Options of the monitor; None is no monitor."""


class Turns(pl.Callback):
    """Lets one Trainer at a time train :data:`INTERVAL` batches, and times each turn; the last of its callbacks."""

    condition = threading.Condition()
    turn = 0

    def __init__(self, place: int, device: torch.device) -> None:
        self.place = place
        self.device = device
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Wait for the turn."""
        if trainer.fit_loop.batch_idx % INTERVAL == 0:
            with Turns.condition:
                Turns.condition.wait_for(lambda: Turns.turn % len(CONTENDERS) == self.place)
            self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Hand on the turn."""
        if (trainer.fit_loop.batch_idx + 1) % INTERVAL == 0:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds.append(time.perf_counter() - self.start)
            with Turns.condition:
                Turns.turn += 1
                Turns.condition.notify_all()


class ResNet18(pl.LightningModule):
    """torchvision's, on noise."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torchvision.models.resnet18(num_classes=10)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        loss = torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdaBelief's fast path, the shortest step to compare with."""
        return AdaBelief(self.named_parameters(), lr=1e-3, fused=True)


def train(turns: Turns, options: dict[str, Any] | None, batches: int, folder: str) -> None:
    """Train as many batches, taking turns."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4 * BATCH_SIZE, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (4 * BATCH_SIZE,), generator=generator)
    dataset = TensorDataset(images, labels)
    loader = DataLoader(
        dataset, batch_size=BATCH_SIZE, sampler=torch.arange(batches * BATCH_SIZE).remainder(len(dataset))
    )
    trainer = pl.Trainer(
        accelerator=turns.device.type,
        devices=1,
        max_epochs=1,
        logger=TensorBoardLogger(folder, name=f"contender-{turns.place}"),
        callbacks=[*([] if options is None else [BeliefMonitor(**options)]), turns],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ResNet18(), loader)


def main() -> None:
    """Time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each Trainer that count (default: 8)")
    args = parser.parse_args()
    device = torch.device(args.device)
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*LeafSpec.*")

    all_turns = [Turns(place, device) for place in range(len(CONTENDERS))]
    with tempfile.TemporaryDirectory() as folder:
        threads = [
            threading.Thread(target=train, args=(turns, options, (args.rounds + 1) * INTERVAL, folder), daemon=True)
            for turns, options in zip(all_turns, CONTENDERS.values(), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    seconds = [turns.seconds[1:] for turns in all_turns]
    header = ["BeliefMonitor", "cost", "quartiles", "ms a step"]
    rows = []
    for name, own in zip(CONTENDERS, seconds, strict=True):
        costs = [100 * (a / b - 1) for a, b in zip(own, seconds[0], strict=True)]
        low, middle, high = statistics.quantiles(costs, n=4, method="inclusive")
        shown = ["-", "-"] if own is seconds[0] else [f"{middle:.1f} %", f"{low:.1f} to {high:.1f} %"]
        rows.append([name, *shown, f"{1e3 * statistics.median(own) / INTERVAL:.1f}"])
    notes = (
        f"{machine(device)}. {versions('torch', 'pytorch-lightning')}.\n\n`{command()}`: medians of {args.rounds} "
        f"turns of {INTERVAL} batches, with a load average of {os.getloadavg()[0]:.1f} at the end.\n"
    )
    table = Table(*header, title=f"ResNet-18, 3x32x32, batch {BATCH_SIZE}, on {machine(device)}")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table, notes, markup=False)
    kind = "cpu" if device.type == "cpu" else "cuda-" + re.sub(r"\W+", "-", machine(device)).lower()
    out = Path(RESULTS / f"monitor_overhead-{kind}.md")
    title = f"# BeliefMonitor's cost: ResNet-18, 3x32x32, batch {BATCH_SIZE}"
    out.write_text(f"{title}\n\n{notes}\n{markdown(header, rows)}", encoding="utf-8")


if __name__ == "__main__":
    main()
