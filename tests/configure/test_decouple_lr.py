"""Weight decay that follows the schedule of lr and not its size."""

import pytest
import pytorch_lightning as pl
import torch

from lightning_adabelief import configure_adabelief
from tests.configure.nets import Stacked, fit, make_trainer


class Shrinking(pl.LightningModule):
    """A weight whose gradient is 0, so that weight decay alone moves it."""

    def __init__(self, **options):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4, bias=False).double()
        self.options = options
        self.kept = []  # the fraction of the weight that each step left

    def training_step(self, batch, batch_idx):
        self.before = self.layer.weight.detach().clone()
        return 0.0 * self.layer(batch.double()).sum()

    def on_train_batch_end(self, *_):
        self.kept.append(float((self.layer.weight.detach() / self.before).mean()))

    def configure_optimizers(self):
        return configure_adabelief(self, **self.options)


def measure_shrinkage(**options):
    """The fraction of the weight that each step of a run of 24 took."""
    module = Shrinking(warmup=6, rectify=False, **options)
    fit(module, max_epochs=4)
    return torch.tensor(module.kept, dtype=torch.float64).neg() + 1


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
def test_the_weight_shrinks_alike_at_two_learning_rates_along_warmup_and_schedule(schedule):
    small, large = (
        measure_shrinkage(lr=lr, weight_decay=1e-2, decouple_lr=True, schedule=schedule) for lr in (1e-4, 1e-2)
    )
    torch.testing.assert_close(small, large, rtol=1e-9, atol=1e-15)
    warmup = torch.arange(1, 7, dtype=torch.float64) / 6
    torch.testing.assert_close(small[:6], 1e-2 * warmup, rtol=1e-9, atol=1e-15)
    assert small[-1] < 0.2 * small.max()  # down the schedule


def test_without_it_the_shrinkage_grows_with_lr():
    small, large = (measure_shrinkage(lr=lr, weight_decay=1e-2, schedule="linear") for lr in (1e-4, 1e-2))
    torch.testing.assert_close(100 * small, large, rtol=1e-7, atol=1e-13)


def test_each_group_is_divided_by_its_own_lr():
    layers = {"head.*": {"lr": 1e-2}, "blocks.1.*": {"weight_decay": 2e-5}}
    optimizer = configure_adabelief(
        Stacked(), lr=1e-3, weight_decay=1e-5, layer_decay=0.5, layers=layers, decouple_lr=True
    )
    per_step = {group["name"]: group["lr"] * group["weight_decay"] for group in optimizer.param_groups}
    assert {name: value for name, value in per_step.items() if name.endswith("/undecayed")} == {
        name: 0.0 for name in per_step if name.endswith("/undecayed")
    }
    assert {name: value for name, value in per_step.items() if name.endswith("/decayed")} == pytest.approx(
        {
            "depth0/decayed": 1e-5,
            "depth1/decayed": 1e-5,
            "depth3/decayed": 1e-5,
            "head/decayed": 1e-5,
            "blocks.1/depth2/decayed": 2e-5,
        }
    )


def test_a_tensor_lr_is_divided_by_its_value():
    (group,) = configure_adabelief(
        torch.nn.Linear(4, 4, bias=False), lr=torch.tensor(0.5), weight_decay=1e-2, decouple_lr=True
    ).param_groups
    assert group["weight_decay"] == 2e-2 and isinstance(group["weight_decay"], float)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decouple": False}, "decouple_lr=True with weight_decouple=False: .*part of the gradient"),
        ({"fixed_decay": True}, "decouple_lr=True with fixed_decay=True: .*knows nothing of lr"),
        ({"layers": {"head.weight": {"fixed_decay": True}}}, "decouple_lr=True with fixed_decay=True"),
        ({"lr": 0.0}, r"decouple_lr=True with lr=0: .*must be above 0"),
        ({"lr": torch.tensor(0.0)}, r"decouple_lr=True with lr=0"),
        ({"layers": {"head.*": {"lr": 0.0}}}, r"decouple_lr=True with lr=0"),
    ],
)
def test_a_decay_that_lr_does_not_scale_is_an_error_that_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        configure_adabelief(Stacked(), **{"lr": 1e-3, "weight_decay": 1e-5, "decouple_lr": True, **options})


def test_without_weight_decay_it_does_nothing():
    (group,) = configure_adabelief(Stacked(), lr=0.0, decouple_lr=True).param_groups
    assert group["weight_decay"] == 0


def test_a_resumed_run_decays_as_one_that_was_not_interrupted(tmp_path):
    def run(max_epochs, ckpt_path=None):
        torch.manual_seed(0)
        options = dict(lr=1e-2, weight_decay=1e-2, decouple_lr=True, total_steps=24, schedule="cosine")
        module = Shrinking(warmup=6, rectify=False, **options)
        trainer = make_trainer(max_epochs=max_epochs)
        trainer.fit(module, torch.utils.data.DataLoader(torch.ones(24, 4), batch_size=4), ckpt_path=ckpt_path)
        if max_epochs == 2:
            trainer.save_checkpoint(tmp_path / "two.ckpt")
        return module.layer.weight

    whole = run(4)
    run(2)
    assert torch.equal(run(4, tmp_path / "two.ckpt"), whole)
