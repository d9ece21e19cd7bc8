"""Promises that long and distributed runs rely on: two ranks as one process, a rank that dies, 200,000 steps.

    python benchmarks/reliability.py
    python benchmarks/reliability.py --write     # also replaces benchmarks/results/reliability.md

- Two DDP ranks train a small network on the same global batches as one process does, in float64, where sums in another
  order hardly differ, and the weights are compared.
- One of two ranks is killed (SIGKILL) in the middle of a run, and the other is waited for.
- A small network trains for 200,000 steps with ``BeliefMonitor``, which logs to a CSV file every 50 steps. Memory
  (resident set) and time are taken every twentieth of the run; the first, in which caches fill, is not counted.

Kills of whole runs, single steps against float64 and bad inputs have documents of their own beside the result.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from common import make_parser, markdown_table, provenance, publish
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset

from lightning_adabelief import BeliefMonitor, configure_adabelief

BLOCKS = 20
"""The parts of the long run after each of which memory and time are taken."""

INTERVAL = 50
"""Steps from one row of the monitor to the next, in the long run."""

PATIENCE = 60
"""Seconds in which the rank that is left must end."""


class Noise(Dataset[torch.Tensor]):
    """Random samples, the same each time.

    Args:
        size: The number of samples of all ranks together.
        ranks: The number of ranks; each has every ``ranks``-th sample.
    """

    def __init__(self, size: int, ranks: int) -> None:
        self.size, self.ranks, self.rank = size // ranks, ranks, int(os.environ.get("LOCAL_RANK", "0"))
        self.samples = torch.randn(64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def __len__(self) -> int:
        """Return the number of samples of this rank."""
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return a sample; there are 64 different ones."""
        return self.samples[(index * self.ranks + self.rank) % len(self.samples)]


class Small(pl.LightningModule):
    """A network of two layers on noise."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.network = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        for param in self.parameters():
            torch.nn.init.normal_(param, std=0.2, generator=generator)
        self.double()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        return (self.network(batch) - batch.sum(1, keepdim=True).sin()).square().mean()

    def configure_optimizers(self) -> Any:
        """Make an AdaBelief that decays, warms up and follows a schedule."""
        return configure_adabelief(self, lr=1e-3, weight_decay=1e-2, warmup=0.1, schedule="cosine")


class Progress(pl.Callback):
    """Records memory and time at the end of each part of a run.

    Args:
        steps: The length of a part.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.resident: list[int] = []
        self.seconds: list[float] = []

    def on_train_start(self, *_: Any) -> None:
        """Begin the first part."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """End a part."""
        if trainer.global_step % self.steps == 0:
            now = time.perf_counter()
            self.seconds.append(now - self.start)
            self.resident.append(_resident_bytes())
            self.start = now


class PidFile(pl.Callback):
    """Writes the process's number to a file once it trains.

    Args:
        folder: The folder of the files, one a rank.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write the number after some batches, when all ranks have exchanged gradients."""
        if trainer.global_step == 10:
            (self.folder / f"rank-{trainer.global_rank}").write_text(str(os.getpid()), encoding="utf-8")


def train(devices: int, batches: int, callbacks: list[pl.Callback], logger: Any = False) -> pl.Trainer:
    """Train on one process or on two DDP ranks, over the same global batches of 8 samples."""
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=1,
        use_distributed_sampler=False,  # it would shuffle
        logger=logger,
        callbacks=callbacks,
        log_every_n_steps=INTERVAL,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Small(), DataLoader(Noise(8 * batches, devices), batch_size=8 // devices))
    return trainer


def compare_ranks_with_one_process(folder: Path) -> list[list[str]]:
    """Train 200 batches on one process and on two ranks, and compare the weights."""
    weights = []
    for devices in (1, 2):
        path = folder / f"weights-{devices}.pt"
        _start_worker("weights", folder, devices, folder / f"weights-{devices}.err").wait(timeout=600)
        weights.append(torch.load(path))
    differences = [(one - two).abs().max().item() for one, two in zip(*weights, strict=True)]
    largest = max(weight.abs().max().item() for weight in weights[0])
    return [["largest difference of a weight after 200 steps on two DDP ranks", f"{max(differences):.1e}"]] + [
        ["largest weight there", f"{largest:.2f}"]
    ]


def kill_each_rank(folder: Path) -> list[list[str]]:
    """Kill one of two ranks in the middle of a run, and time the end of the other."""
    rows = []
    for victim in (0, 1):
        place = folder / f"victim-{victim}"
        place.mkdir()
        process = _start_worker("endless", place, 2, place / "stderr")
        files = [place / f"rank-{rank}" for rank in (0, 1)]
        pids = [int(_wait_for_text(file, 300)) for file in files]
        os.kill(pids[victim], signal.SIGKILL)
        seconds = _wait_for_end(pids[1 - victim], process)
        status = f"exit status {process.wait()}" if victim == 1 else "an error on stderr"
        said = [line for line in (place / "stderr").read_text(encoding="utf-8").splitlines() if "Error" in line]
        assert said, "the rank that was left ended without an error"
        rows.append([f"rank {victim} killed: rank {1 - victim} ends with {status} after", f"{seconds:.1f} s"])
    return rows


def train_long(folder: Path, steps: int) -> list[list[str]]:
    """Train for many steps, and compare memory, time and the size of the log with what is to be expected."""
    progress = Progress(steps // BLOCKS)
    torch.set_num_threads(1)
    train(1, steps, [BeliefMonitor(closing_table=False), progress], CSVLogger(folder, "long"))
    with open(folder / "long" / "version_0" / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = sum(1 for _ in csv.DictReader(file))
    resident, seconds = progress.resident[1:], progress.seconds[1:]
    half = len(seconds) // 2
    growth = max(resident) / resident[0] - 1
    ratio = statistics.median(seconds[half:]) / statistics.median(seconds[:half])
    return [
        [f"{steps:,} steps: growth of memory after the first {100 // BLOCKS} %", f"{growth:.2%}"],
        ["time of a step, second half over first half (medians)", f"{ratio:.3f}"],
        [f"rows in the log; one each {INTERVAL} steps would be {steps // INTERVAL:,}", f"{rows:,}"],
    ]


def work(kind: str, folder: Path, devices: int) -> None:
    """Be one of the processes that are watched."""
    if kind == "endless":
        train(devices, 1_000_000, [PidFile(folder)])
        return
    trainer = train(devices, 200, [])
    if trainer.is_global_zero:
        weights = [param.detach().clone() for param in trainer.lightning_module.parameters()]
        torch.save(weights, folder / f"weights-{devices}.pt")


def _start_worker(kind: str, folder: Path, devices: int, stderr: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--worker", kind, str(folder), str(devices)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(stderr, "wb") as file:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=file)


def _wait_for_text(file: Path, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while not (file.exists() and file.read_text(encoding="utf-8")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{file} was not there after {seconds} s")
        time.sleep(0.05)
    return file.read_text(encoding="utf-8")


def _wait_for_end(pid: int, process: subprocess.Popen[bytes]) -> float:
    """Wait until a process has ended, and return the seconds that it took."""
    begin = time.monotonic()
    while _is_alive(pid, process):
        if time.monotonic() > begin + PATIENCE:
            raise TimeoutError(f"the rank that is left still runs after {PATIENCE} s")
        time.sleep(0.05)
    return time.monotonic() - begin


def _is_alive(pid: int, process: subprocess.Popen[bytes]) -> bool:
    """True if a process runs; one that has ended and waits to be collected does not."""
    if pid == process.pid:
        return process.poll() is None
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run all three, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="length of the long run (default: 200,000)")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*LeafSpec.*")
    if arguments.worker:
        kind, folder, devices = arguments.worker
        work(kind, Path(folder), int(devices))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = compare_ranks_with_one_process(folder) + kill_each_rank(folder) + train_long(folder, arguments.steps)
    document = (
        "# Reliability of long and distributed runs\n\n"
        + provenance("torch", "pytorch-lightning")
        + "\n"
        + markdown_table(["promise", "measured"], rows)
        + "\n`benchmarks/reliability.py` says how each was measured. Beside it:\n\n"
        + "".join(f"- [{title}]({name})\n" for title, name in BESIDE.items())
    )
    publish(document, "reliability.md", arguments.write)


BESIDE = {
    "Runs that are killed and resumed": "reliability-resume.md",
    "One step of every implementation against float64": "reliability-steps.md",
    "Bad inputs, each with its message and exit status": "bad-inputs.md",
}

if __name__ == "__main__":
    main()
