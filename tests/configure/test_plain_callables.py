"""A checkpoint of a module with an optimizer callable among its hyperparameters is plain data."""

import functools

import pytest
import torch
from pytorch_lightning.cli import OptimizerCallable
from torch.utils.data import DataLoader

from lightning_adabelief import AdaBelief
from lightning_adabelief.trainer_callback import make_callbacks_of_pytorch_lightning
from tests.checkpoints import WEIGHTS_ONLY
from tests.configure.nets import DATA, Net, make_trainer


class OfCallable(Net):
    def __init__(self, width: int = 4, optimizer: OptimizerCallable = AdaBelief):
        super().__init__()
        self.save_hyperparameters()
        self.optimizer = optimizer

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


def train(module, ckpt_path=None, **options):
    trainer = make_trainer(callbacks=make_callbacks_of_pytorch_lightning(), **options)
    trainer.fit(module, DataLoader(DATA, batch_size=4), ckpt_path=ckpt_path, **WEIGHTS_ONLY)
    return trainer


CALLABLES = [AdaBelief, functools.partial(AdaBelief, lr=0.25, betas=(0.5, 0.9)), torch.optim.AdamW]


@pytest.mark.parametrize("optimizer", CALLABLES, ids=["class", "partial", "torch's own"])
def test_it_loads_with_weights_only_and_makes_the_same_optimizer(optimizer, tmp_path):
    path = tmp_path / "saved.ckpt"
    first = train(OfCallable(optimizer=optimizer), max_epochs=1)
    first.save_checkpoint(path)
    kept = torch.load(path, weights_only=True)["hyper_parameters"]
    assert kept["width"] == 4 and set(kept["optimizer"]) == {"class_path", "init_args"}

    loaded = OfCallable.load_from_checkpoint(path, **WEIGHTS_ONLY)
    made = loaded.configure_optimizers()
    expected = first.optimizers[0]
    assert type(made) is type(expected) and made.defaults == expected.defaults

    resumed = train(OfCallable(optimizer=optimizer), path, max_epochs=2)
    assert {int(state["step"]) for state in resumed.optimizers[0].state.values()} == {12}
    other = OfCallable.load_from_checkpoint(path, **WEIGHTS_ONLY, optimizer=torch.optim.SGD)
    assert type(other.configure_optimizers()) is torch.optim.SGD
