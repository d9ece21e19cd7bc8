"""Draw ``docs/beliefs/*.png``: each statistic in a run that is well, and in one where it shows what is wrong.

    python docs/pictures.py              all of them, in some minutes on two cores
    python docs/pictures.py eps_share    one

All are short runs of real training on scikit-learn's digits, every step of which BeliefMonitor measures. A run that is
well is the recipe ``digits-cnn``, shortened, or two linear layers with its settings; one that is not differs in the one
thing that its title names. The last validation loss stands in each title. ``heat_map_spike.png`` is BeliefMonitor's
own, of the run with a bad batch.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_adabelief import AdaBelief, BeliefMonitor
from lightning_adabelief.beliefs.statistic import BY_NAME
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN

FOLDER = Path(__file__).with_name("beliefs")
EPOCHS = 8
RECIPE: dict[str, Any] = {"lr": 3e-3, "weight_decay": 1e-2, "rectify": False, "warmup": 0.05}
BAD_STEP = 60
LAYERS = {
    "network.block1.0.weight": "first convolution",
    "network.block2.0.weight": "second convolution",
    "network.block3.0.weight": "third convolution",
    "network.classifier.weight": "classifier",
    "network.1.weight": "first layer",
    "network.3.weight": "second layer",
    "AdaBelief": "AdaBelief",
}
OPTIMIZER = "AdaBelief"

Batch = list[torch.Tensor]
Rows = dict[str, dict[int, float]]


class ChangeBatches(pl.Callback):
    """Changes training batches in place, by a function of the batch and its step, from 1."""

    def __init__(self, change: Callable[[Batch, int], object]) -> None:
        self.change = change

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Change the batch."""
        self.change(batch, trainer.global_step + 1)


@dataclass(frozen=True)
class Run:
    """A short training.

    Attributes:
        title: What is right or wrong with it.
        options: AdaBelief's, where they differ from the recipe's.
        trainer: The Trainer's.
        change: Changes the batches.
        prepare: Changes the network before training.
        plain: Train two linear layers without normalization, in place of the recipe's network.
    """

    title: str
    options: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Batch, int], object] | None = None
    prepare: Callable[[nn.Module], object] | None = None
    plain: bool = False

    def train(self, folder: str) -> Rows:
        """Train, with logs and heat map in a folder, and return the logged rows: from a tag to values by step."""
        pl.seed_everything(0, verbose=False)
        network: nn.Module = SmallCNN(1, 10)
        if self.plain:
            network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        if self.prepare:
            self.prepare(network)
        options = RECIPE | self.options
        epochs = self.trainer.get("max_epochs", EPOCHS)
        module = ImageClassifier(
            network,
            optimizer=lambda params: AdaBelief(params, **options),
            lr_scheduler=lambda optimizer: CosineAnnealingLR(optimizer, epochs),
        )
        monitor = BeliefMonitor(every_n_steps=1, include="*", closing_table=False)
        logger = CSVLogger(folder, name="", version="")
        trainer = pl.Trainer(
            **{"max_epochs": epochs, "log_every_n_steps": 1, "accelerator": "cpu", "logger": logger} | self.trainer,
            callbacks=[monitor, *([ChangeBatches(self.change)] if self.change else [])],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DigitsDataModule())
        rows: Rows = {}
        with open(Path(folder) / "metrics.csv", newline="") as file:
            for row in csv.DictReader(file):
                for tag, value in row.items():
                    if value and tag != "step":
                        rows.setdefault(tag, {})[int(row["step"]) + 1] = float(value)
        return rows


def scale_at(step: int, factor: float) -> Callable[[Batch, int], object]:
    """Return a change that multiplies the images of one step."""
    return lambda batch, now: batch[0].mul_(factor if now == step else 1)


def cut_off_two_blocks(network: nn.Module) -> None:
    """Let the second block give 1 for everything: its normalization multiplies by 0."""
    norm = network.block2[1]
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.bias)
    norm.requires_grad_(False)


RECTIFY = {"rectify": True, "warmup": 0}
HEALTHY = Run("digits-cnn")
RECTIFIED = Run("rectify=True in so short a run", RECTIFY)
ADAMS_EPS = Run("eps=1e-8, carried over from AdamW", {"eps": 1e-8})
CUT_OFF = Run("a normalization times 0 cuts two blocks off", prepare=cut_off_two_blocks)
NOISY_LABELS = Run("labels drawn at random", change=lambda batch, step: batch[1].random_(10))
CLIPPED = Run("gradient_clip_val=1", trainer={"gradient_clip_val": 1.0})
CLIPPED_ALWAYS = Run("gradient_clip_val=0.01", trainer={"gradient_clip_val": 0.01})

PLAIN = Run("two linear layers", plain=True)
BAD_BATCH = Run(f"a batch times 100 at step {BAD_STEP}", plain=True, change=scale_at(BAD_STEP, 100.0))
HIGH_LR = Run("lr=3, 1,000 times as large", {"lr": 3.0}, plain=True)
SAME_BATCH = Run(
    "the same batch in every step",
    trainer={"overfit_batches": 1, "max_epochs": 128, "check_val_every_n_epoch": 128},
    plain=True,
)
SCALED = Run("pixels from 0 to 1", RECTIFY, plain=True)
UNSCALED = Run("pixels from 0 to 255", RECTIFY, plain=True, change=lambda batch, step: batch[0].mul_(255))
SKIPPED = Run(
    f'a NaN at step {BAD_STEP}, nonfinite="skip"',
    {"nonfinite": "skip"},
    plain=True,
    change=scale_at(BAD_STEP, float("nan")),
)
PROPAGATED = Run(f"a NaN at step {BAD_STEP}", plain=True, change=scale_at(BAD_STEP, float("nan")))


@dataclass(frozen=True)
class Picture:
    """Two runs side by side.

    Attributes:
        statistics: The statistics to draw, the first of which gives the picture its name.
        runs: The run that is well, and the one that is not.
        scale: The axis's scale, as matplotlib calls it.
        last_step: The last step to draw.
    """

    statistics: tuple[str, ...]
    runs: tuple[Run, Run]
    scale: str = "log"
    last_step: int | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.statistics[0]


PICTURES = (
    Picture(("s_t",), (PLAIN, BAD_BATCH)),
    Picture(("effective_step_size",), (HEALTHY, RECTIFIED)),
    Picture(("step_gain_over_adam",), (PLAIN, SAME_BATCH)),
    Picture(("eps_share",), (HEALTHY, ADAMS_EPS), scale="linear"),
    Picture(("update_to_weight",), (PLAIN, HIGH_LR)),
    Picture(("grad_norm",), (HEALTHY, CUT_OFF), scale="linear"),
    Picture(("update_norm",), (SCALED, UNSCALED), last_step=30),
    Picture(("grad_momentum_cosine",), (HEALTHY, NOISY_LABELS), scale="linear"),
    Picture(("unclipped_grad_norm", "grad_norm"), (CLIPPED, CLIPPED_ALWAYS)),
    Picture(("lr",), (HEALTHY, RECTIFIED)),
    Picture(("rectification", "warmup"), (HEALTHY, RECTIFIED), scale="linear"),
    Picture(("skipped_steps", "nonfinite_steps"), (SKIPPED, PROPAGATED), scale="linear"),
)


def draw(picture: Picture, train: Callable[[Run], Rows], path: Path) -> None:
    """Draw a picture's two runs, one line a layer, or a line a statistic where there are several."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.5), sharex=True, sharey=True, layout="constrained")
    for ax, run in zip(axes, picture.runs, strict=True):
        rows = train(run)
        for style, (label, series) in enumerate(_select_series(picture, rows)):
            steps = [step for step in series if step <= (picture.last_step or step)]
            color = plt.get_cmap("viridis")((0.0, 0.35, 0.65, 0.9)[style])
            ax.plot(steps, [series[step] for step in steps], color=color, label=label, linewidth=1.3)
        ax.set_title(f"{run.title}\nval/loss {list(rows['val/loss'].values())[-1]:.2g}", loc="left", fontsize=9)
        ax.grid(alpha=0.25, linewidth=0.5)
        ax.set_xlabel("step")
        ax.set_yscale(picture.scale)
    unit = BY_NAME[picture.name].unit
    axes[0].set_ylabel(f"{picture.name}\n({unit})" if unit else picture.name)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False, columnspacing=1)
    path.parent.mkdir(exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)


def _select_series(picture: Picture, rows: Rows) -> list[tuple[str, dict[int, float]]]:
    """Select the lines to draw of a run's rows."""
    if len(picture.statistics) == 1:
        tags = [(label, f"belief/{picture.name}/{layer}") for layer, label in LAYERS.items()]
    else:
        owner = "model" if BY_NAME[picture.name].scope == "layer" else OPTIMIZER
        tags = [(statistic, f"belief/{statistic}/{owner}") for statistic in picture.statistics]
    return [(label, rows[tag]) for label, tag in tags if tag in rows]


def main(names: list[str]) -> None:
    """Draw the pictures of these names, or all."""
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def folder_of(title: str) -> Path:
            return Path(tempfile.mkdtemp(dir=folder))

        trained: dict[str, Rows] = {}

        def train(run: Run) -> Rows:
            if run.title not in trained:
                trained[run.title] = run.train(str(folder_of(run.title)))
            return trained[run.title]

        for picture in PICTURES:
            if picture.name in names or not names:
                draw(picture, train, FOLDER / f"{picture.name}.png")
        if "s_t" in names or not names:
            shutil.copy(folder_of(BAD_BATCH.title) / "belief.png", FOLDER / "heat_map_spike.png")


if __name__ == "__main__":
    main(sys.argv[1:])
