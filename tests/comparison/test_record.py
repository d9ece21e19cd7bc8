"""What is recorded of a training."""

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_adabelief import AdaBelief, ConfiguredAdaBelief
from lightning_adabelief.comparison.record import MAX_BELIEFS
from tests.comparison.small_module import DATA, Regression, fit, make_record, make_sgd, make_trainer, read_outcome

ADABELIEF = ["lightning_adabelief.AdaBelief"]


class Recorded(Regression):
    """Keeps the loss of each batch, and of each validation."""

    def __init__(self, *args):
        super().__init__(*args)
        self.losses, self.validated = [], []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss

    def on_validation_end(self):
        with torch.no_grad():
            self.validated.append(self.compute_loss(DATA).item())


def test_a_row_a_validation_has_the_validations_metrics_and_the_mean_loss(tmp_path):
    module = Recorded()
    fit(tmp_path, module)
    outcome = read_outcome(tmp_path)
    assert [(row["epoch"], row["step"]) for row in outcome.history] == [(0, 6), (1, 12), (2, 18)]
    assert outcome.untrained == pytest.approx(module.validated[0])
    assert [row["loss"] for row in outcome.history] == pytest.approx(module.validated[1:])
    means = torch.tensor(module.losses).reshape(3, 6).mean(dim=1)
    assert [row["train/loss"] for row in outcome.history] == pytest.approx(means.tolist())
    assert all(set(row) == {"epoch", "step", "seconds", "train/loss", "loss", "twice"} for row in outcome.history)
    assert 0 < outcome.history[0]["seconds"] < outcome.history[-1]["seconds"] <= outcome.seconds < 60
    assert outcome.status == "finished" and outcome.steps == 18 and 0 < outcome.optimizer_share < 1
    assert outcome.metrics == {"loss": outcome.history[-1]["loss"], "twice": outcome.history[-1]["twice"]}
    assert outcome.beliefs == {} and outcome.machine["versions"]["torch"] in torch.__version__


def test_under_accumulation_the_loss_is_whole_and_steps_are_the_optimizers(tmp_path):
    module = Recorded()
    fit(tmp_path, module, accumulate_grad_batches=4, val_check_interval=3)
    outcome = read_outcome(tmp_path)
    assert outcome.steps == 6 and [row["step"] for row in outcome.history] == [0, 2, 2, 4, 4, 6]
    means = torch.tensor(module.losses).reshape(6, 3).mean(dim=1)
    assert [row["train/loss"] for row in outcome.history] == pytest.approx(means.tolist())


@pytest.mark.parametrize("mode, best", [("min", min), ("max", max)])
def test_the_metrics_are_of_the_best_validation(tmp_path, mode, best):
    fit(tmp_path, Regression(lambda params: torch.optim.SGD(params, lr=0.4)), mode=mode)  # the loss goes up and down
    outcome = read_outcome(tmp_path)
    assert outcome.metrics["loss"] == best(row["loss"] for row in outcome.history)


def test_equal_seeds_have_equal_fingerprints(tmp_path):
    def fingerprints(seed, **options):
        pl.seed_everything(seed)
        fit(tmp_path, **options)
        return read_outcome(tmp_path).fingerprints

    one, same, other = fingerprints(0), fingerprints(0, max_epochs=1), fingerprints(1)
    assert one == same and set(one) == {"weights", "batch"} and all(len(digest) == 16 for digest in one.values())
    assert one["weights"] != other["weights"] and one["batch"] == other["batch"], "the data are not shuffled"


def test_another_first_batch_has_another_fingerprint(tmp_path):
    digests = set()
    for data in (DATA, DATA.flip(0)):
        make_trainer(make_record(tmp_path)).fit(Regression(), DataLoader(data, 4), DataLoader(data, 4))
        digests.add(read_outcome(tmp_path).fingerprints["batch"])
    assert len(digests) == 2


@pytest.mark.parametrize(
    "class_path, optimizer, names",
    [
        (ADABELIEF, AdaBelief, {"step_gain_over_adam", "eps_share"}),
        (["lightning_adabelief.ConfiguredAdaBelief"], ConfiguredAdaBelief, {"step_gain_over_adam", "eps_share"}),
        (["torch.optim.AdamW"], torch.optim.AdamW, {"step_gain_over_adam"}),
        (["torch.optim.SGD"], make_sgd, set()),
    ],
)
def test_beliefs_are_recorded_where_the_optimizer_has_them(tmp_path, class_path, optimizer, names):
    fit(tmp_path, Regression(optimizer), class_path)
    beliefs = read_outcome(tmp_path).beliefs
    assert set(beliefs) == names and beliefs.get("step_gain_over_adam", 1) > 0.5


def test_beliefs_are_measured_at_a_few_moments_of_a_long_run(tmp_path, monkeypatch):
    measured = []
    measure = "lightning_adabelief.comparison.record.measure"
    monkeypatch.setattr(measure, lambda optimizer, _: measured.append(optimizer) or beliefs_at(len(measured)))
    fit(tmp_path, Regression(AdaBelief), ADABELIEF, max_epochs=20)
    assert MAX_BELIEFS / 2 < len(measured) <= MAX_BELIEFS
    assert read_outcome(tmp_path).beliefs["eps_share"] == pytest.approx((1 + len(measured)) / 2)


def beliefs_at(moment):
    from lightning_adabelief.beliefs.measure import Beliefs

    return Beliefs({}, {"eps_share": float(moment), "step_gain_over_adam": math.nan}, {})


def test_a_record_changes_nothing_of_the_training(tmp_path):
    def train(*callbacks):
        pl.seed_everything(0)
        module = Regression(AdaBelief)
        loader = DataLoader(DATA, batch_size=4, shuffle=True)
        make_trainer(*callbacks).fit(module, loader, DataLoader(DATA, batch_size=8))
        return module.network.weight, torch.rand(())

    (weight, number), (recorded, recorded_number) = train(), train(make_record(tmp_path, ADABELIEF))
    assert torch.equal(weight, recorded) and number == recorded_number


class OwnOptimizer(Regression):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_a_module_that_makes_its_own_optimizer_is_refused_with_what_to_change(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"OwnOptimizer trains with 'Adam'.*'torch.optim.SGD'.*return"):
        fit(tmp_path, OwnOptimizer())
    assert not (tmp_path / "outcome.json").exists()


def test_a_metric_that_is_not_logged_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(MisconfigurationException, match="logs no 'los'.*Did you mean 'loss'?"):
        fit(tmp_path, metric="los")
    assert read_outcome(tmp_path).status == "crashed"


def test_a_training_without_validation_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="without a validation"):
        fit(tmp_path, check_val_every_n_epoch=5)


class Exploding(Regression):
    """Its loss is NaN from a batch on."""

    def __init__(self, first_nan=30):
        super().__init__()
        self.first_nan = first_nan

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if self.trainer.global_step >= self.first_nan else loss


@pytest.mark.parametrize("options", [{}, {"min_epochs": 50}, {"min_steps": 500}])
def test_a_training_whose_loss_is_not_finite_is_stopped_at_the_next_validation(tmp_path, options):
    fit(tmp_path, Exploding(), max_epochs=100, **options)
    outcome = read_outcome(tmp_path)
    assert outcome.status == "diverged" and outcome.steps == 36
    assert math.isnan(outcome.history[-1]["train/loss"])
    assert outcome.metrics["loss"] == outcome.history[4]["loss"], "the best before"


def test_a_training_whose_loss_is_not_finite_is_stopped_long_before_a_validation(tmp_path):
    fit(tmp_path, Exploding(), max_epochs=100, check_val_every_n_epoch=50, min_epochs=50)
    outcome = read_outcome(tmp_path)
    assert outcome.status == "diverged" and outcome.steps == 40 and outcome.history == []


def test_a_training_whose_metric_is_not_finite_is_stopped(tmp_path):
    class Blind(Regression):
        def validation_step(self, batch, batch_idx):
            self.log("loss", self.compute_loss(batch) * (1 if self.trainer.current_epoch < 2 else math.inf))

    trainer = fit(tmp_path, Blind(), max_epochs=100)
    assert read_outcome(tmp_path).status == "diverged" and trainer.current_epoch == 3


def test_a_training_that_is_never_finite_has_no_metrics_and_can_be_tested(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="loss")
    module = Exploding(first_nan=0)
    trainer = fit(tmp_path, module, callbacks=[checkpoint], enable_checkpointing=True)
    trainer.test(module, DataLoader(DATA, batch_size=8), checkpoint.best_model_path or None, verbose=False)
    outcome = read_outcome(tmp_path)
    assert outcome.status == "diverged" and set(outcome.metrics) == {"test/loss"}


@pytest.mark.parametrize("error", [ValueError("the distance of NaN"), KeyboardInterrupt()])
def test_an_error_after_weights_that_are_not_finite_is_divergence(tmp_path, error):
    class Fragile(Exploding):
        def on_validation_epoch_end(self):
            if not self.network.weight.isfinite().all():
                raise error

    with pytest.raises((ValueError, SystemExit)):
        fit(tmp_path, Fragile(first_nan=7), max_epochs=9)
    if isinstance(error, ValueError):
        assert read_outcome(tmp_path).status == "diverged"
    else:
        assert not (tmp_path / "outcome.json").exists(), "a run that was interrupted has no outcome"


def test_an_error_in_a_healthy_training_is_a_crash_with_the_history_so_far(tmp_path):
    class Broken(Regression):
        def on_train_epoch_start(self):
            assert self.current_epoch < 2

    with pytest.raises(AssertionError):
        fit(tmp_path, Broken())
    outcome = read_outcome(tmp_path)
    assert outcome.status == "crashed" and len(outcome.history) == 2


def test_a_training_that_is_no_better_than_none_is_collapsed(tmp_path):
    fit(tmp_path, Regression(lambda params: torch.optim.SGD(params, lr=0.05, maximize=True)))
    assert read_outcome(tmp_path).status == "collapsed"


def test_a_test_adds_its_metrics(tmp_path):
    trainer = fit(tmp_path)
    validated = read_outcome(tmp_path)
    trainer.test(trainer.model, DataLoader(DATA, batch_size=8), verbose=False)
    tested = read_outcome(tmp_path)
    assert tested.metrics["test/loss"] == pytest.approx(validated.metrics["loss"])
    assert {**tested.metrics, **validated.metrics} == tested.metrics and tested.history == validated.history


def test_a_validation_or_test_without_a_training_writes_nothing(tmp_path):
    trainer = make_trainer(make_record(tmp_path))
    trainer.validate(Regression(), DataLoader(DATA, batch_size=8), verbose=False)
    trainer.test(Regression(), DataLoader(DATA, batch_size=8), verbose=False)
    assert not (tmp_path / "outcome.json").exists()


class TwoNets(pl.LightningModule):
    """Steps the first optimizer with every second batch, and the second with each; its losses have names."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.a, self.b = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        losses = {}
        for name, optimizer, every in zip("ab", self.optimizers(), (2, 1), strict=True):
            if (batch_idx + 1) % every == 0:
                losses[f"{name}_loss"] = self.get_submodule(name)(batch).square().mean()
                optimizer.zero_grad()
                self.manual_backward(losses[f"{name}_loss"])
                optimizer.step()
                optimizer.zero_grad()
        return losses

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.b(batch).square().mean())

    def configure_optimizers(self):
        return AdaBelief(self.a.parameters()), torch.optim.Adam(self.b.parameters())


def test_of_several_optimizers_the_first_ones_steps_are_counted_and_beliefs_averaged(tmp_path):
    fit(tmp_path, TwoNets(), [*ADABELIEF, "torch.optim.Adam"])
    outcome = read_outcome(tmp_path)
    assert outcome.steps == 9 and set(outcome.beliefs) == {"step_gain_over_adam", "eps_share"}
    assert {"train/a_loss", "train/b_loss"} <= set(outcome.history[0]) and outcome.status == "finished"


def test_of_several_optimizers_those_of_the_config_must_be_there(tmp_path):
    fit(tmp_path, TwoNets(), ADABELIEF)
    with pytest.raises(MisconfigurationException, match="'AdaBelief' and 'Adam'"):
        fit(tmp_path, TwoNets(), [*ADABELIEF, "torch.optim.SGD"])
