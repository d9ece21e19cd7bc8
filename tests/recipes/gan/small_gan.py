"""A GAN small enough to train in a second, a Trainer for it, and a logger."""

import pytorch_lightning as pl

from lightning_adabelief import AdaBelief
from lightning_adabelief.recipes.gan import GAN, DCGANCritic, DCGANGenerator


def make_gan(loss=None, num_classes=None, **options):
    adabelief = {"lr": 1e-3, "betas": (0.5, 0.999), "eps": 1e-12, "rectify": False}
    options = {
        "generator_optimizer": lambda params: AdaBelief(params, **adabelief),
        "n_critic": 2,
    } | options
    return GAN(
        DCGANGenerator(image_size=8, base_size=2, channels=1, noise_size=16, width=8, num_classes=num_classes),
        DCGANCritic(image_size=8, base_size=2, channels=1, width=8, num_classes=num_classes),
        loss,
        **options,
    )


def make_trainer(tmp_path, **options):
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0} | options,
    )


class LastMetrics(pl.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.metrics = {}

    def log_metrics(self, metrics, step=None):
        self.metrics |= metrics
