"""The warmup of a comparison is AdaBelief's own."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_adabelief import AdaBelief
from lightning_adabelief.comparison.warmup import Warmup
from lightning_adabelief.recipes.image_classification import DigitsDataModule
from tests.comparison.small_module import DATA, Regression, make_trainer
from tests.recipes.gan.small_gan import make_gan


class Scheduled(Regression):
    """Keeps the rate that the schedule has set at the end of each batch."""

    rates = ()

    def on_train_batch_end(self, *_):
        self.rates = (*self.rates, self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def train(*callbacks, warmup, **options):
    pl.seed_everything(0)
    module = Scheduled(partial(AdaBelief, lr=0.1, weight_decay=0.1, rectify=False, warmup=warmup))
    make_trainer(*callbacks, **options).fit(module, DataLoader(DATA, batch_size=2), DataLoader(DATA, batch_size=8))
    return module


@pytest.mark.parametrize("warmup", [0.3, 7])
@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 3}, {"max_steps": 11, "max_epochs": -1}, {"accumulate_grad_batches": 5}]
)
def test_it_takes_the_steps_of_adabeliefs_own(warmup, options):
    own, ours, none = train(warmup=warmup, **options), train(Warmup(warmup), warmup=0, **options), train(warmup=0)
    assert torch.equal(own.network.weight, ours.network.weight) and own.rates == ours.rates
    assert not torch.equal(own.network.weight, none.network.weight)


def test_none_changes_nothing():
    assert torch.equal(train(warmup=0).network.weight, train(Warmup(0), warmup=0).network.weight)


@pytest.mark.parametrize("n_critic, batches", [(2, 6), (3, 5), (1, 4)])
def test_each_of_a_gans_optimizers_has_a_warmup_over_its_own_steps(n_critic, batches):
    def train_gan(*callbacks, warmup):
        pl.seed_everything(0)
        gan = make_gan(generator_optimizer=partial(AdaBelief, lr=0.01, warmup=warmup), n_critic=n_critic)
        options = dict(limit_train_batches=batches, limit_val_batches=0, max_epochs=3)
        make_trainer(*callbacks, **options).fit(gan, DigitsDataModule())
        return torch.nn.utils.parameters_to_vector(gan.parameters())

    own = train_gan(warmup=0.4)
    assert torch.equal(own, train_gan(Warmup(0.4), warmup=0)) and not torch.equal(own, train_gan(warmup=0))


def test_a_rate_that_is_a_tensor_stays_the_schedules():
    optimizer = partial(torch.optim.SGD, lr=torch.tensor(0.5))
    rates = []

    class Tensors(Regression):
        def on_before_optimizer_step(self, optimizer):
            rates.append(optimizer.param_groups[0]["lr"].item())

    module, trainer = Tensors(optimizer), make_trainer(Warmup(4), max_epochs=1)
    trainer.fit(module, DataLoader(DATA, batch_size=4), DataLoader(DATA, batch_size=8))
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("warmup", [1.5, -1, "long"])
def test_a_warmup_that_is_none_is_refused(warmup):
    with pytest.raises(ValueError, match="warmup"):
        Warmup(warmup)


def test_a_fraction_of_a_run_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="warmup=0.3.*max_steps"):
        train(Warmup(0.3), warmup=0, max_epochs=-1, max_time="00:00:01:00")
