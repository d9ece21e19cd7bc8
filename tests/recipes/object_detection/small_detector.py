"""A detector small enough to train in a second, scenes for it, and a Trainer."""

import pytorch_lightning as pl

from lightning_adabelief import AdaBelief
from lightning_adabelief.recipes.object_detection import ObjectDetector, ScenesDataModule, SmallFasterRCNN


def make_detector(network=None, **options):
    network = network or SmallFasterRCNN(width=8, image_size=96)
    return ObjectDetector(network, **{"optimizer": lambda params: AdaBelief(params, lr=1e-3, rectify=False)} | options)


def make_scenes(**options):
    return ScenesDataModule(**{"batch_size": 2, "train_scenes": 4, "val_scenes": 3, "test_scenes": 3} | options)


def make_trainer(tmp_path, **options):
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 1, "logger": False, "enable_checkpointing": False} | options,
    )
