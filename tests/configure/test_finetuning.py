"""Parameters that are unfrozen late, by Lightning's BaseFinetuning."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BackboneFinetuning, BaseFinetuning, LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger

from lightning_adabelief import AdaBelief, build_optimizer, configure_adabelief
from tests.configure.nets import Net, fit, make_trainer


class Pretrained(pl.LightningModule):
    """A backbone, to be frozen, and a head."""

    def __init__(self, **options):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
        self.head = torch.nn.Linear(3, 1)
        self.options = options

    training_step = Net.training_step

    def network(self, batch):
        return self.head(self.backbone(batch))

    def configure_optimizers(self):
        return configure_adabelief(self, **self.options)


def finetuning(unfreeze_at=1, **options):
    return BackboneFinetuning(unfreeze_backbone_at_epoch=unfreeze_at, backbone_initial_ratio_lr=0.1, **options)


def steps(optimizer, group):
    return {int(optimizer.state[param]["step"]) for param in optimizer.param_groups[group]["params"]}


def test_the_backbone_joins_late_named_and_is_its_own_step_1():
    module = Pretrained(lr=1e-2, weight_decay=0.1, warmup=0.25)
    before = {name: param.detach().clone() for name, param in module.named_parameters()}
    optimizer = fit(module, max_epochs=3, callbacks=[finetuning()])
    decayed, undecayed, late = optimizer.param_groups
    assert decayed["param_names"] == ["head.weight"] and undecayed["param_names"] == ["head.bias"]
    assert late["param_names"] == [f"backbone.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    assert steps(optimizer, 0) == steps(optimizer, 1) == {18} and steps(optimizer, 2) == {12}
    assert (late["warmup"], late["total_steps"], late["weight_decay"]) == (0.25, 18, 0.1)
    assert late["lr"] == 1e-2 * 0.1 * 2  # BackboneFinetuning doubles it each epoch
    assert not any(torch.equal(before[name], param) for name, param in module.named_parameters())


def test_a_late_group_warms_up_from_its_own_first_step():
    def first_step(warmup):
        torch.manual_seed(0)
        module = Pretrained(lr=0.0, warmup=warmup)  # the head stays, so that the gradients are the same
        before = module.backbone[2].weight.detach().clone()
        fit(module, max_steps=7, callbacks=[finetuning(backbone_initial_lr=0.1)])
        return module.backbone[2].weight.detach() - before

    assert first_step(0).abs().max() > 1e-3
    torch.testing.assert_close(first_step(4), 0.25 * first_step(0))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
@pytest.mark.parametrize("unfreeze_at", [0, 1])
def test_a_schedule_carries_the_late_group_even_one_that_comes_during_the_warmup(schedule, unfreeze_at):
    class Unfreeze(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.backbone)

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == unfreeze_at:
                self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=0.5)

    options = dict(lr=1.0, schedule=schedule, warmup=8)
    head, backbone = fit(Pretrained(**options), max_epochs=4, callbacks=[Unfreeze()]).param_groups
    (alone,) = fit(Pretrained(**options), max_epochs=4).param_groups
    assert head["lr"] == alone["lr"] < 1.0 and backbone["lr"] == pytest.approx(0.5 * head["lr"])


def test_learning_rate_monitor_logs_every_group_by_its_name(tmp_path):
    trainer = make_trainer(
        max_epochs=3,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
        callbacks=[finetuning(), LearningRateMonitor("step")],
    )
    module = Pretrained(weight_decay=0.1, layers={"head.b*": {"lr": 1e-4}})
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(24, 4), batch_size=4))
    metrics = trainer.callback_metrics
    assert {"lr-AdaBelief/decayed", "lr-AdaBelief/head.b/undecayed", "lr-AdaBelief/pg3"} <= set(metrics)


class OfCallable(Pretrained):
    def configure_optimizers(self):
        return build_optimizer(self.options["optimizer"], self)


@pytest.mark.parametrize("optimizer", [AdaBelief, torch.optim.AdamW])
def test_an_optimizer_of_a_callable_takes_the_late_group_too(optimizer):
    built = fit(OfCallable(optimizer=optimizer), max_epochs=2, callbacks=[finetuning()])
    assert [len(group["params"]) for group in built.param_groups] == [2, 4]


def test_parameters_that_nobody_named_are_named_by_their_group():
    head, backbone = torch.nn.Linear(3, 1), torch.nn.Linear(4, 3)
    optimizer = AdaBelief(head.named_parameters())
    optimizer.add_param_group({"params": backbone.parameters(), "lr": 0.1})
    optimizer.add_param_group({"params": torch.nn.Parameter(torch.ones(2))})
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["weight", "bias"],
        ["group2.0", "group2.1"],
        ["group3.0"],
    ]
    unnamed = AdaBelief(head.parameters())
    unnamed.add_param_group({"params": backbone.parameters()})
    assert "param_names" not in unnamed.param_groups[1]
    with pytest.raises(ValueError, match="without names"):
        unnamed.add_param_group({"params": [("late", torch.nn.Parameter(torch.ones(2)))]})
    with pytest.raises(TypeError, match="ordered collections"):
        optimizer.add_param_group({"params": set(torch.nn.Linear(2, 2).parameters())})


@pytest.mark.parametrize("saved_after", [1, 2, 3])
def test_a_run_that_unfreezes_resumes_exactly(saved_after, tmp_path):
    def run(max_epochs, ckpt_path=None):
        torch.manual_seed(0)
        module = Pretrained(lr=1e-2, weight_decay=0.1, warmup=0.25, schedule="cosine", total_steps=24)
        trainer = make_trainer(max_epochs=max_epochs, callbacks=[finetuning(unfreeze_at=2)])
        trainer.fit(module, torch.utils.data.DataLoader(torch.ones(24, 4).cumsum(1), batch_size=4), ckpt_path=ckpt_path)
        if ckpt_path is None and max_epochs < 4:
            trainer.save_checkpoint(tmp_path / "saved.ckpt")
        return module, trainer.optimizers[0]

    whole, optimizer = run(4)
    run(saved_after)
    resumed, resumed_optimizer = run(4, tmp_path / "saved.ckpt")
    for (name, expected), got in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, got), name
    assert [g["param_names"] for g in resumed_optimizer.param_groups] == [
        g["param_names"] for g in optimizer.param_groups
    ]
    assert [g["lr"] for g in resumed_optimizer.param_groups] == [g["lr"] for g in optimizer.param_groups]
