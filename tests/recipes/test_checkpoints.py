"""What a run of each shipped config leaves to resume from."""

import pytest
import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.demos.boring_classes import BoringDataModule, BoringModel

from lightning_adabelief.recipes.catalog import recipes

EPOCHS = 5


class Worsening(BoringModel):
    """Each monitored metric is best at the first validation."""

    def __init__(self, modes):
        super().__init__()
        self.modes = modes

    def validation_step(self, batch, batch_idx):
        for monitor, mode in self.modes.items():
            self.log(monitor, float(self.current_epoch if mode == "min" else -self.current_epoch))


@pytest.mark.parametrize("recipe", recipes().values(), ids=recipes().keys())
def test_last_ckpt_is_of_the_last_epoch_though_an_earlier_one_was_best(recipe, tmp_path):
    trainer = yaml.safe_load(recipe.path.read_text())["trainer"]
    options = [item["init_args"] for item in trainer["callbacks"] if item["class_path"] == "ModelCheckpoint"]
    Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        limit_train_batches=1,
        limit_val_batches=1,
        check_val_every_n_epoch=min(trainer.get("check_val_every_n_epoch", 1), EPOCHS - 2),  # not at the last epoch
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(tmp_path, **of) for of in options],
    ).fit(Worsening({of["monitor"]: of["mode"] for of in options if "monitor" in of}), BoringDataModule())
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["epoch"] == EPOCHS - 1
