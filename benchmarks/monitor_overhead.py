"""BeliefMonitor's cost: ResNet-18 on 3x32x32, batch 128, in Lightning's Trainer, with and without the monitor.

    python benchmarks/monitor_overhead.py
    python benchmarks/monitor_overhead.py --device cuda

Three Trainers train the same network on the same noise, each with a TensorBoardLogger: one without
the monitor, one with it at the Trainer's default interval, one with it at every step. They take turns
of as many batches as that interval, so that other work on the machine slows all of them alike. The time of
each turn is divided by the turn without the monitor in the same round. The table shows the median over
the rounds, after a first one that does not count. First the optimizer's step is fused, and takes the sums
on its way; then it is not (foreach), and the monitor takes them in a pass of its own.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from common import device_slug, make_parser, markdown_table, provenance, publish
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_adabelief import AdaBelief, BeliefMonitor

INTERVAL = 50
"""Lightning's default log_every_n_steps."""

BATCH_SIZE = 128

CONTENDERS: dict[str, dict[str, Any] | None] = {
    "without": None,
    f"every {INTERVAL} steps (default)": {"closing_table": False},
    "every step": {"every_n_steps": 1, "closing_table": False},
}
"""From a Trainer's line in the table to the options of its monitor; None for no monitor."""


IMPLEMENTATIONS = ("fused", "foreach")
"""The implementations of the step that are measured, each against itself without the monitor."""


class Turns(pl.Callback):
    """Let one Trainer at a time train :data:`INTERVAL` batches, and time each turn.

    It comes last among a Trainer's callbacks, so that the monitor's work is part of the turn.

    Args:
        number: The Trainer's place in the order.
        device: The device that is trained on.
    """

    condition = threading.Condition()
    turn = 0

    def __init__(self, number: int, device: torch.device) -> None:
        self.number = number
        self.device = device
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Wait for this Trainer's turn."""
        if trainer.fit_loop.batch_idx % INTERVAL == 0:
            with Turns.condition:
                Turns.condition.wait_for(lambda: Turns.turn % len(CONTENDERS) == self.number)
            self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Pass the turn on to the next Trainer."""
        if (trainer.fit_loop.batch_idx + 1) % INTERVAL == 0:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds.append(time.perf_counter() - self.start)
            with Turns.condition:
                Turns.turn += 1
                Turns.condition.notify_all()


class ResNet18(pl.LightningModule):
    """torchvision's ResNet-18, trained on noise by an AdaBelief of one implementation."""

    def __init__(self, implementation: str) -> None:
        super().__init__()
        self.implementation = implementation
        self.network = torchvision.models.resnet18(num_classes=10)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        loss = torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the AdaBelief."""
        return AdaBelief(self.named_parameters(), lr=1e-3, **{self.implementation: True})


def train(turns: Turns, implementation: str, options: dict[str, Any] | None, batches: int, folder: str) -> None:
    """Train a number of batches, taking turns."""
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
        logger=TensorBoardLogger(folder, name=f"trainer-{turns.number}"),
        callbacks=[*([] if options is None else [BeliefMonitor(**options)]), turns],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ResNet18(implementation), loader)


def time_turns(implementation: str, device: torch.device, rounds: int) -> list[list[float]]:
    """Return the seconds of each turn of each Trainer, without the first."""
    all_turns = [Turns(number, device) for number in range(len(CONTENDERS))]
    with tempfile.TemporaryDirectory() as folder:
        threads = [
            threading.Thread(
                target=train, args=(turns, implementation, options, (rounds + 1) * INTERVAL, folder), daemon=True
            )
            for turns, options in zip(all_turns, CONTENDERS.values(), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [turns.seconds[1:] for turns in all_turns]


def main() -> None:
    """Time the three Trainers of each implementation."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--rounds", type=int, default=8, help="timed turns of each Trainer (default: 8)")
    args = parser.parse_args()
    device = torch.device(args.device)
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*LeafSpec.*")

    header = ["step, BeliefMonitor", "cost", "quartiles", "ms a step"]
    rows = []
    for implementation in IMPLEMENTATIONS:
        seconds = time_turns(implementation, device, args.rounds)
        for name, own in zip(CONTENDERS, seconds, strict=True):
            costs = [100 * (a / b - 1) for a, b in zip(own, seconds[0], strict=True)]
            low, middle, high = statistics.quantiles(costs, n=4, method="inclusive")
            shown = ["-", "-"] if own is seconds[0] else [f"{middle:.1f} %", f"{low:.1f} to {high:.1f} %"]
            rows.append([f"{implementation}, {name}", *shown, f"{1e3 * statistics.median(own) / INTERVAL:.1f}"])
    document = (
        f"# BeliefMonitor's cost: ResNet-18, 3x32x32, batch {BATCH_SIZE}\n\n"
        f"Medians of {args.rounds} turns of {INTERVAL} batches.\n\n"
        f"{markdown_table(header, rows)}\n"
        f"{provenance('torch', 'pytorch-lightning', device=device)}"
    )
    publish(document, f"monitor_overhead-{device_slug(device)}.md", args.write)


if __name__ == "__main__":
    main()
