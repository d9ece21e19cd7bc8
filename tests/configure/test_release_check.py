"""``release_gradients`` in a Trainer: the same run, or a reason why not."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.plugins import MixedPrecision
from torch.utils.data import DataLoader

from lightning_adabelief import AdaBelief, ConfiguredAdaBelief, configure_adabelief, release_gradients

from .nets import BATCHES, DATA, Net


def fit(module, *callbacks, epochs=2, ckpt_path=None, trainer=None, **options):
    torch.manual_seed(0)
    if trainer is None:
        options = {"max_epochs": epochs, "logger": False, "enable_progress_bar": False} | options
        trainer = pl.Trainer(
            accelerator="cpu",
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=list(callbacks),
            **options,
        )
    trainer.fit(module, DataLoader(DATA, batch_size=len(DATA) // BATCHES), ckpt_path=ckpt_path)
    return trainer


def make(kind=Net, **options):
    torch.manual_seed(1)
    return kind(**({"lr": 1e-2, "weight_decay": 0.1, "warmup": 0.25, "schedule": "cosine"} | options))


def assert_same(one, other):
    states = [module.state_dict() for module in (one, other)]
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_steps_and_schedule_are_those_of_the_usual_run(precision):
    usual, released = make(), make(release_gradients=True)
    trainers = fit(usual, precision=precision), fit(released, precision=precision)
    assert all(param.grad is None for param in released.parameters())
    assert_same(usual, released)
    assert trainers[0].global_step == trainers[1].global_step == 2 * BATCHES
    schedules = [trainer.lr_scheduler_configs[0].scheduler.state_dict() for trainer in trainers]
    assert schedules[0] == schedules[1]
    assert {int(state["step"]) for state in trainers[1].optimizers[0].state.values()} == {2 * BATCHES}


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path):
    whole, first, second = (make(release_gradients=True, total_steps=4 * BATCHES) for _ in range(3))
    fit(whole, epochs=4)
    fit(first, epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    fit(second, epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert_same(whole, second)


def test_a_second_fit_takes_its_steps_with_its_own_optimizer():
    module = make(release_gradients=True, schedule=None, warmup=0)
    trainer = fit(module, epochs=1)
    first = trainer.optimizers[0]
    trainer.fit_loop.max_epochs = 2
    fit(module, trainer=trainer)
    second = trainer.optimizers[0]
    assert second is not first
    for optimizer in (first, second):
        assert {int(state["step"]) for state in optimizer.state.values()} == {BATCHES}


class Plain(Net):
    """Releases the gradients of an AdaBelief that it makes itself."""

    def configure_optimizers(self):
        optimizer = AdaBelief(self.named_parameters())
        release_gradients(self, optimizer)
        return optimizer


class Configured(Net):
    """Has what a config makes of an optimizer."""

    def configure_optimizers(self):
        return ConfiguredAdaBelief(self.parameters(), release_gradients=True)


class ByItself(Plain):
    """Steps its optimizer itself."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


@pytest.mark.parametrize("kind", [Plain, Configured, ByItself])
def test_it_is_taken_where_the_module_makes_the_optimizer_or_steps_it_or_a_config_names_it(kind):
    trainer = fit(make(kind), epochs=1)
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, AdaBelief)
    assert {int(state["step"]) for state in optimizer.state.values()} == {BATCHES} == {trainer.global_step}
    assert all(param.grad is None for group in optimizer.param_groups for param in group["params"])


class Clipping(Plain):
    """Clips gradients in its own way."""

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)


class Two(ByItself):
    """Has two optimizers."""

    def configure_optimizers(self):
        return [super().configure_optimizers(), AdaBelief(self.network[:1].parameters())]


class Scaling(MixedPrecision):
    """Mixed precision in bfloat16, with a gradient scaler as float16 has one: a CPU has none of its own."""

    def __init__(self):
        super().__init__("bf16-mixed", "cpu")
        self.scaler = torch.amp.GradScaler("cpu")


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        (Plain, {"gradient_clip_val": 0.5}, r"Trainer\(gradient_clip_val=0.5\) comes too late"),
        (Clipping, {}, "Clipping.configure_gradient_clipping comes too late"),
        (Plain, {"accumulate_grad_batches": 2}, "they can't be accumulated over batches"),
        (Plain, {"callbacks": [GradientAccumulationScheduler({1: 2})]}, "they can't be accumulated over batches"),
        (Plain, {"plugins": Scaling()}, "still scaled by the gradient scaler"),
        (Plain, {"strategy": "ddp", "devices": 1}, "DDPStrategy adds them up over ranks only later"),
        (Two, {}, "with 2 optimizers a backward pass for one would step the others' parameters"),
    ],
    ids=["clipping", "own clipping", "accumulation", "scheduled accumulation", "scaler", "ddp", "two optimizers"],
)
def test_a_trainer_that_needs_all_gradients_at_once_is_refused_before_the_first_batch(kind, options, reason):
    module = make(kind)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=f"release_gradients drops each gradient in the backward pass.*{reason}"):
        fit(module, *options.pop("callbacks", []), **options)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Looking(Plain):
    """Looks at its gradients before the step."""

    def on_before_optimizer_step(self, optimizer):
        self.seen = [param.grad for param in self.parameters()]


def test_a_module_that_looks_at_gradients_between_backward_pass_and_step_is_warned():
    module = make(Looking)
    with pytest.warns(UserWarning, match="Looking.on_before_optimizer_step finds no gradients: release_gradients has"):
        fit(module, epochs=1)
    assert set(module.seen) == {None}


def test_configure_adabelief_without_a_trainer_releases_too():
    module = make()
    optimizer = configure_adabelief(module.network, release_gradients=True)
    module.training_step(DATA, 0).backward()
    assert {int(state["step"]) for state in optimizer.state.values()} == {1}
