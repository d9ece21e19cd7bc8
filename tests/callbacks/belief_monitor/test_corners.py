"""BeliefMonitor where things are not as usual: each of these was once wrong."""

import copy
import csv
import pickle
import warnings

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_adabelief import AdaBelief, BeliefMonitor, configure_adabelief
from lightning_adabelief.callbacks.belief_monitor.layer_choice import LayerChoice
from lightning_adabelief.callbacks.belief_monitor.tracker import OptimizerTracker
from tests.callbacks.belief_monitor.conftest import Net
from tests.callbacks.belief_monitor.test_monitor import key_of_the_monitor


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_step_without_gradients_is_no_measurement(fit, csv_rows):
    class Pauses(Net):
        def training_step(self, batch, batch_idx):
            return None if batch_idx in (3, 4, 5) else super().training_step(batch, batch_idx)

    fit(Pauses(), BeliefMonitor(1))
    assert list(csv_rows()["belief/s_t/model"]) == [0, 1, 2, 6, 7, 8, 9, 10, 11]


class CountsReads(TorchDispatchMode):
    reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        CountsReads.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("missing", ["frozen", "alternating"])
def test_nothing_waits_for_the_device_where_gradients_are_missing(fit, missing):
    class Partly(Net):
        def __init__(self):
            super().__init__()
            self.other = torch.nn.Linear(5, 1)

        def training_step(self, batch, batch_idx):
            head = self.other if missing == "alternating" and batch_idx % 2 else self.head
            return head(self.encoder(batch[0])).square().mean()

    def reads(*callbacks):
        CountsReads.reads = 0
        with CountsReads():
            fit(Partly(), *callbacks, log_every_n_steps=0)
        return CountsReads.reads

    assert reads(BeliefMonitor(closing_table=False)) == reads()


def test_a_bias_before_a_normalization_raises_no_alarm_and_is_not_notable(fit):
    class Normalized(Net):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(5)

        def training_step(self, batch, batch_idx):
            return self.head(self.norm(self.encoder(batch[0])).relu()).square().mean()

    monitor = BeliefMonitor(1, top_k=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "AdaBelief")
        fit(Normalized(), monitor, batches=40)
    assert "encoder.bias" not in monitor.notable_layers()


def test_networks_configured_by_themselves_have_their_names_in_the_module(fit, csv_rows):
    class Parts(Net):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.encoder = torch.compile(self.encoder, backend="eager")

        def configure_optimizers(self):
            return [configure_adabelief(part, trainer=self.trainer) for part in (self.encoder, self.head)]

        def training_step(self, batch, batch_idx):
            loss = self.head(self.encoder(batch[0])).square().mean()
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()

    fit(Parts(), BeliefMonitor(include="encoder.*", statistics="s_t"))
    layers = {tag.split("/")[2] for tag in csv_rows()}
    assert layers == {"encoder.weight", "encoder.bias", "AdaBelief", "AdaBelief-1"}


class Clashing(Net):
    def __init__(self):
        super().__init__()
        self.model = self.encoder
        del self.encoder

    def training_step(self, batch, batch_idx):
        return self.head(self.model(batch[0])).square().mean()


def test_a_layer_called_model_does_not_hide_the_summary(fit, csv_rows):
    fit(Clashing(), BeliefMonitor(include="*", depth=1, statistics="grad_norm"))
    norms = {tag.split("/")[2]: values[9] for tag, values in csv_rows().items()}
    assert norms.keys() == {"model", "head", "AdaBelief"}
    assert norms["AdaBelief"] == pytest.approx((norms["model"] ** 2 + norms["head"] ** 2) ** 0.5, rel=1e-4)


def test_a_depth_that_mixes_optimizers_is_an_error(fit):
    class Mixed(Net):
        def configure_optimizers(self):
            self.automatic_optimization = False
            return AdaBelief([self.encoder.weight]), torch.optim.Adam([self.encoder.bias])

    with pytest.raises(MisconfigurationException, match=r"depth=1.*'encoder'. Give a larger depth"):
        fit(Mixed(), BeliefMonitor(depth=1))


class Fails(Net):
    def on_train_batch_end(self, *args):
        if args[-1] == 7:
            raise torch.OutOfMemoryError("the user's own")


def test_a_failure_to_draw_hides_no_other_and_ends_no_training(fit, monkeypatch):
    def fails(*_):
        raise MemoryError("drawing")

    monkeypatch.setattr("lightning_adabelief.callbacks.belief_monitor.outputs.record.draw", fails)
    with pytest.raises(torch.OutOfMemoryError, match="the user's own"):
        fit(Fails(), BeliefMonitor())
    with pytest.warns(UserWarning, match="could not write its heat map: drawing"):
        fit(Net(), BeliefMonitor())


def test_resumed_from_a_checkpoint_of_a_measured_step_no_step_is_measured_early(fit, csv_rows, tmp_path):
    def checkpoints():
        return ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=6, save_top_k=-1)

    fit(Net(), BeliefMonitor(2), checkpoints())
    whole = csv_rows()["belief/s_t/model"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
        fit(Net(), BeliefMonitor(2), checkpoints(), ckpt_path=tmp_path / "step=6.ckpt")
    assert list(whole) == [1, 3, 5, 7, 9, 11]
    assert list(csv_rows()["belief/s_t/model"]) == [7, 9, 11]


def test_a_trainer_that_fits_again_goes_on_with_its_record(fit, tmp_path):
    trainer = fit(Net(), BeliefMonitor(), logger=CSVLogger(tmp_path, "again"))
    trainer.fit_loop.max_epochs = 2
    trainer.fit(trainer.lightning_module, trainer.train_dataloader)
    with open(tmp_path / "again" / "version_0" / "belief.csv", newline="") as file:
        assert sorted({int(row["step"]) for row in csv.DictReader(file)}) == [4, 9, 14, 19]


def test_monitors_of_all_kinds_go_together_and_log_nothing_twice(fit, tmp_path):
    monitors = BeliefMonitor(include="encoder.*"), BeliefMonitor(include="head", depth=1), BeliefMonitor(top_k=1)
    trainer = fit(Net(), *monitors, logger=CSVLogger(tmp_path, "several"))
    trainer.save_checkpoint(tmp_path / "several.ckpt")
    with open(tmp_path / "several" / "version_0" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["belief/s_t/model"]]
    assert [row["step"] for row in rows] == ["4", "9"]


def test_the_warning_of_eps_tells_the_layers_own(fit):
    class Groups(Net):
        def configure_optimizers(self):
            encoder, head = self.encoder.parameters(), self.head.parameters()
            return AdaBelief([{"params": encoder, "eps": 1e-3}, {"params": head, "eps": 1.0}], lr=1e-4, rectify=False)

    with pytest.warns(UserWarning, match="Lower eps \\(it is 0.001\\)"):
        fit(Groups(), BeliefMonitor(1, exclude="head.*"))


def test_monitors_that_differ_in_histograms_alone_go_together(fit, tmp_path):
    trainer = fit(Net(), BeliefMonitor(), BeliefMonitor(histograms=True))
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    assert len({callback.state_key for callback in trainer.callbacks if isinstance(callback, BeliefMonitor)}) == 2


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create")
@pytest.mark.parametrize("before", ["{'include': (), 'exclude': (), 'top_k': 5, 'depth': None}", "{'top_k': 1}"])
def test_a_monitor_with_other_options_goes_on_with_the_record_of_the_checkpoint(fit, tmp_path, before):
    trainer = fit(Net(), BeliefMonitor())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    checkpoint = torch.load(tmp_path / "half.ckpt", weights_only=True)
    states = checkpoint["callbacks"]
    states[f"BeliefMonitor{before}"] = states.pop(key_of_the_monitor(trainer))
    torch.save(checkpoint, tmp_path / "older.ckpt")
    monitor = BeliefMonitor()
    fit(Net(), monitor, max_epochs=2, ckpt_path=tmp_path / "older.ckpt")
    assert monitor.state_dict()["record"]["AdaBelief"]["steps"] == [4, 9, 14, 19]


def test_a_wish_to_stop_before_min_epochs_measures_no_more_than_usual(fit, csv_rows):
    class WantsToStop(Net):
        def on_train_start(self):
            self.trainer.should_stop = True

    fit(WantsToStop(), BeliefMonitor(), max_epochs=3, min_epochs=2)
    assert list(csv_rows()["belief/s_t/model"]) == [4, 9, 14, 19]


@pytest.mark.parametrize("options", [dict(max_epochs=1), dict(max_epochs=-1, max_steps=3)], ids=str)
def test_a_run_shorter_than_the_interval_logs_its_last_step(fit, csv_rows, options):
    fit(Net(), BeliefMonitor(), batches=3, log_every_n_steps=50, **options)
    assert list(csv_rows()["belief/s_t/model"]) == [2]


def test_another_module_in_the_same_trainer_begins_its_own_record(fit, tmp_path):
    monitor = BeliefMonitor()
    trainer = fit(Net(), monitor, logger=CSVLogger(tmp_path, "other"))
    trainer.fit_loop.max_epochs = 2
    trainer.fit(Net(), trainer.train_dataloader)
    assert min(monitor.state_dict()["record"]["AdaBelief"]["steps"]) > 9


def test_it_can_be_pickled_and_copied_after_a_fit(fit):
    monitor = BeliefMonitor(top_k=1)
    fit(Net(), monitor)
    for copied in (pickle.loads(pickle.dumps(monitor)), copy.deepcopy(monitor)):
        assert copied.state_dict()["AdaBelief"] == monitor.state_dict()["AdaBelief"]
        fit(Net(), copied)
        assert copied.notable_layers()


def test_a_logger_that_fails_is_named_once_and_training_goes_on(fit, csv_rows, tmp_path):
    class Full(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if any("belief" in name for name in metrics):
                raise OSError("No space left on device")

    with pytest.warns(UserWarning, match="could not log to Full, and goes on: No space left") as warned:
        fit(Net(), BeliefMonitor(1), logger=[Full(tmp_path, "full"), CSVLogger(tmp_path, "csv")])
    assert sum("could not log" in str(warning.message) for warning in warned) == 1
    assert len(csv_rows()["belief/s_t/model"]) == 12


def test_optimizers_that_it_cannot_read_do_not_end_a_training(fit):
    class Nothing(Net):
        def configure_optimizers(self):
            return None

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`LightningModule.configure_optimizers` returned `None`")
        with pytest.warns(UserWarning, match="BeliefMonitor logs nothing"):
            fit(Nothing(), BeliefMonitor())


def test_two_optimizers_of_the_same_parameters_are_no_error(fit, csv_rows):
    class Shared(Net):
        def configure_optimizers(self):
            self.automatic_optimization = False
            return AdaBelief(self.parameters()), torch.optim.Adam(self.parameters())

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()[batch_idx % 2]
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    fit(Shared(), BeliefMonitor(1))
    assert {"belief/s_t/AdaBelief", "belief/s_t/Adam"} <= csv_rows().keys()


def test_layers_once_notable_stay_while_they_are_nearly_so():
    choice, tracker = LayerChoice(None, None, 2, None), OptimizerTracker("AdaBelief", AdaBelief([torch.ones(1)]))
    tracker.layers = {name: {} for name in "abcdef"}
    tracker.notability.update(a=6, b=5, c=4, d=3, e=2, f=1)
    assert choice.select(tracker) == ["a", "b"]
    tracker.notability.update(c=7)  # b is third, no longer second
    assert choice.select(tracker) == ["a", "b"]
    tracker.notability.update(d=8, e=9)  # b is fifth
    assert choice.select(tracker) == ["e", "a"]


class Overflowing(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (float("inf") if batch_idx in (2, 4) else 1)


def test_steps_that_the_optimizer_skips_are_counted_named_and_not_measured(fit, csv_rows):
    with pytest.warns(UserWarning, match="AdaBelief, step 3: 1 step was skipped so far") as warned:
        fit(Overflowing(nonfinite="skip"), BeliefMonitor(1))
    rows = csv_rows()
    assert rows["belief/skipped_steps/AdaBelief"][11] == 2
    assert set(rows["belief/nonfinite_steps/AdaBelief"].values()) == {0}
    assert list(rows["belief/s_t/model"]) == [0, 1, 3, 5, 6, 7, 8, 9, 10, 11]
    assert sum("skipped so far" in str(warning.message) for warning in warned) == 1


def test_skipped_steps_go_on_where_a_run_is_resumed(fit, csv_rows, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    with pytest.warns(UserWarning, match="skipped so far"):
        fit(Overflowing(nonfinite="skip"), BeliefMonitor(1), checkpoint)
        last = checkpoint.last_model_path
        again = ModelCheckpoint(tmp_path)
        fit(Overflowing(nonfinite="skip"), BeliefMonitor(1), again, ckpt_path=last, max_epochs=2)
    assert csv_rows()["belief/skipped_steps/AdaBelief"][23] == 4


def test_a_run_in_which_every_step_is_skipped_says_so_at_its_end(fit):
    class Infinite(Net):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * float("inf")

    with pytest.warns(UserWarning, match="AdaBelief, step 12: 12 steps were skipped"):
        fit(Infinite(nonfinite="skip"), BeliefMonitor(1))
