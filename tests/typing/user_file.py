"""A user's module, its training and what is around it, as written by somebody who checks types strictly."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import ReduceLROnPlateau
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

import lightning_adabelief
from lightning_adabelief import (
    AdaBelief,
    BeliefMonitor,
    ConfiguredAdaBelief,
    build_optimizer,
    compare,
    configure_adabelief,
    optimizer_steps,
    release_gradients,
)
from lightning_adabelief.beliefs import Beliefs, measure
from lightning_adabelief.callbacks import ExactResume, ResumeReport
from lightning_adabelief.checkpoint_io import AtomicCheckpointIO
from lightning_adabelief.landscapes import LANDSCAPES, run
from lightning_adabelief.recipes.gan import GAN, DCGANCritic, DCGANGenerator, WassersteinGP
from lightning_adabelief.recipes.image_classification import (
    DigitsDataModule,
    ImageClassifier,
    ImageFolderDataModule,
    PretrainedNetwork,
    SmallCNN,
    WorstMistakes,
)
from lightning_adabelief.recipes.language_modeling import AWDLSTM, LanguageModel, TextDataModule
from lightning_adabelief.recipes.object_detection import ObjectDetector, ScenesDataModule, SmallFasterRCNN


class Regression(pl.LightningModule):
    """A module of the user's own, which leaves all to ``configure_adabelief``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 8)
        self.head = nn.Linear(8, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.head(torch.relu(self.encoder(batch[0]))).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return configure_adabelief(
            self,
            lr=1e-3,
            weight_decay=1e-2,
            layers={"encoder.*": {"lr": 1e-4}},
            warmup=0.05,
            schedule="cosine",
            betas=(0.9, 0.98),
            nonfinite="skip",
        )


class PlainRegression(Regression):
    """The same with the optimizer alone."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        steps = optimizer_steps(self.trainer)
        return AdaBelief(self.named_parameters(), lr=1e-3, weight_decay=1e-2, warmup=0.1, total_steps=steps)


class ConfigurableRegression(Regression):
    """The same with the optimizer of a config."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return build_optimizer(partial(AdaBelief, lr=1e-3, warmup=0.1), self)


class TwoOptimizers(Regression):
    """Two optimizers of different parts, under manual optimization."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        encoder = configure_adabelief(self.encoder, trainer=self.trainer, steps_per_batch=1)
        head = configure_adabelief(self.head, trainer=self.trainer, steps_per_batch=1 / 5)
        return [encoder, head]


class TwoSchedules(Regression):
    """A schedule of torch's, and one of Lightning's that waits for a plateau."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        encoder = configure_adabelief(self.encoder, schedule=partial(CosineAnnealingLR, T_max=10))
        head = configure_adabelief(self.head, schedule=lambda optimizer: ReduceLROnPlateau(optimizer, "train/loss"))
        return [encoder, head]


def make_trainer(folder: Path) -> pl.Trainer:
    monitor = BeliefMonitor(every_n_steps=50, exclude=["*.bias"], statistics=["s_t", "update_to_weight"])
    return pl.Trainer(
        default_root_dir=folder,
        max_epochs=1,
        callbacks=[monitor, ExactResume(), ResumeReport()],
        plugins=[AtomicCheckpointIO()],
    )


def train(folder: Path) -> list[float]:
    data = DataLoader(TensorDataset(torch.randn(64, 4)), batch_size=8)
    losses = []
    for module in (Regression(), PlainRegression(), ConfigurableRegression()):
        trainer = make_trainer(folder)
        trainer.fit(module, data)
        losses.append(float(trainer.callback_metrics["train/loss"]))
    return losses


def train_in_a_plain_loop() -> Beliefs:
    model = nn.Linear(4, 1)
    groups = [
        {"params": [model.weight], "weight_decay": 1e-2},
        {"params": [model.bias], "weight_decay": 0.0},
    ]
    optimizer = AdaBelief(groups, betas=(0.0, 0.999), residual="previous", fused=True)
    scheduler = CosineAnnealingLR(optimizer, T_max=20)
    for _ in range(10):
        optimizer.zero_grad()
        loss: Tensor = model(torch.randn(8, 4)).square().mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if optimizer.skipped_steps:
        optimizer.reset_nonfinite_state()
    print(optimizer.implementations, optimizer.param_groups[0]["lr"])
    beliefs = measure(optimizer, model)
    print(beliefs.layers["weight"]["s_t"], beliefs.model["eps_share"], beliefs.groups)
    return beliefs


def go_on_from_adamw(model: nn.Module, adamw: torch.optim.AdamW) -> float:
    optimizer = AdaBelief.like(adamw, match_noise=True)
    release = release_gradients(model, optimizer)
    loss: Tensor = model(torch.ones(1, 4)).square().mean()
    loss.backward()
    release.remove()
    last: float = optimizer.step(lambda: model(torch.ones(1, 4)).sum().item())
    return last


def make_recipes(folder: Path) -> list[tuple[pl.LightningModule, pl.LightningDataModule]]:
    optimizer = partial(AdaBelief, lr=1e-3)
    digits = DigitsDataModule(batch_size=64)
    return [
        (ImageClassifier(SmallCNN(1, 10), optimizer=optimizer), digits),
        (ImageClassifier(PretrainedNetwork("resnet18")), ImageFolderDataModule(folder, batch_size=32)),
        (GAN(DCGANGenerator(), DCGANCritic(), WassersteinGP(), generator_optimizer=optimizer), digits),
        (LanguageModel(AWDLSTM(), optimizer=optimizer), TextDataModule(path=folder / "text.txt")),
        (ObjectDetector(SmallFasterRCNN(), optimizer=optimizer), ScenesDataModule(batch_size=4)),
    ]


def compare_optimizers(folder: Path) -> float:
    result = compare(
        "digits-cnn",
        ["adabelief", {"class_path": "torch.optim.AdamW", "init_args": {"eps": 1e-8}, "name": "mine"}],
        out=folder / "comparison",
        settings={"trainer.max_epochs": 2},
        seeds=3,
    )
    paths = run(folder / "landscapes", functions=list(LANDSCAPES)[:2], optimizers=["adabelief", "adam"], steps=100)
    print(result.report, paths.files, paths.table)
    return result.values["mine"][0]


optimizer_class: type[torch.optim.Optimizer] = ConfiguredAdaBelief
mistakes: pl.Callback = WorstMistakes()
everything = [getattr(lightning_adabelief, name) for name in lightning_adabelief.__all__]
