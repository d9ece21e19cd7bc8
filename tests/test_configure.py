"""configure_adabelief in a real Trainer."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_adabelief import configure_adabelief


class Net(pl.LightningModule):
    def __init__(self, **options):
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
        )
        self.options = options

    def training_step(self, batch, batch_idx):
        return self.network(batch).square().mean()

    def configure_optimizers(self):
        return configure_adabelief(self, **self.options)


def fit(module, **options):
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, DataLoader(torch.randn(24, 4), batch_size=4))
    return trainer.optimizers[0]


def test_biases_and_norms_are_not_decayed():
    decayed, undecayed = fit(Net(weight_decay=0.1, lr=2e-3), max_epochs=1).param_groups
    assert decayed["param_names"] == ["network.0.weight", "network.3.weight"]
    assert len(undecayed["param_names"]) == 6
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    assert decayed["lr"] == undecayed["lr"] == 2e-3


def test_without_decay_there_is_one_group_of_named_parameters():
    (group,) = fit(Net(), max_epochs=1).param_groups
    assert group["param_names"][0] == "network.0.weight" and len(group["params"]) == 8


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (dict(max_epochs=3), 18),
        (dict(max_epochs=2, accumulate_grad_batches=2), 6),
        (dict(max_steps=7), 7),
        (dict(max_epochs=3, limit_train_batches=2), 6),
    ],
    ids=str,
)
def test_a_share_of_the_run_is_a_share_of_the_trainers_steps(options, steps):
    optimizer = fit(Net(warmup=0.5), **options)
    assert optimizer.param_groups[0]["total_steps"] == steps
    assert {float(state["step"]) for state in optimizer.state.values()} == {float(steps)}


def test_a_run_without_end_has_no_share():
    with pytest.raises(ValueError, match="warmup=0.1 of a run without end"):
        fit(Net(warmup=0.1), max_epochs=-1)


def test_manual_optimization_needs_total_steps():
    module = Net(warmup=0.1)
    module.automatic_optimization = False
    with pytest.raises(ValueError, match="warmup=0.1 under manual optimization"):
        fit(module, max_epochs=1)
