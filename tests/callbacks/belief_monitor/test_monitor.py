"""BeliefMonitor in a real Trainer, its logs read back."""

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_adabelief import AdaBelief, BeliefMonitor
from lightning_adabelief.beliefs.measure import measure_columns, to_statistics
from lightning_adabelief.beliefs.statistic import OPTIMIZER_STATISTICS
from lightning_adabelief.callbacks.belief_monitor.outputs.history import NAMES
from lightning_adabelief.optim.scaling import rectification
from tests.callbacks.belief_monitor.conftest import Net

LAYERS = ["encoder.weight", "encoder.bias", "head.weight", "head.bias"]


class Recorder(pl.Callback):
    """Records each step's statistics straight from the optimizer."""

    def on_train_start(self, trainer, pl_module):
        self.steps = []
        (optimizer,) = trainer.optimizers
        optimizer.register_step_post_hook(lambda *_: self.steps.append(self.read(optimizer)))

    @staticmethod
    def read(optimizer):
        (group,) = optimizer.param_groups
        return {
            name: to_statistics(measure_columns([(param, optimizer.state[param], group)]))[0]
            for name, param in zip(LAYERS, group["params"], strict=True)
        }


def key_of_the_monitor(trainer):
    (monitor,) = (callback for callback in trainer.callbacks if isinstance(callback, BeliefMonitor))
    return monitor.state_key


def belief(scalars):
    return {tag: values for tag, values in scalars.items() if tag.startswith("belief/")}


def test_every_logger_gets_every_layers_statistics_at_the_right_step(fit, tensorboard, csv_rows):
    recorder = Recorder()
    fit(Net(), recorder, BeliefMonitor(include="*"))
    scalars, _ = tensorboard()
    assert len(recorder.steps) == 12
    for name in NAMES:
        for layer in LAYERS:
            logged = scalars[f"belief/{name}/{layer}"]
            assert list(logged) == [4, 9]  # as the Trainer's own logging: train/loss
            assert list(logged) == list(scalars["train/loss"])
            for step, value in logged.items():
                assert value == pytest.approx(recorder.steps[step][layer][name], rel=1e-6)
    from_csv = csv_rows()
    assert belief(from_csv).keys() == belief(scalars).keys()
    for tag, values in belief(scalars).items():
        assert from_csv[tag] == pytest.approx(values, rel=1e-5)


def test_the_model_and_the_optimizer_are_summed_up(fit, tensorboard):
    fit(Net(rectify=True, warmup=20), BeliefMonitor(top_k=0))
    scalars, _ = tensorboard()
    optimizer_tags = {f"belief/{row.name}/AdaBelief" for row in OPTIMIZER_STATISTICS}
    assert belief(scalars).keys() == {f"belief/{name}/model" for name in NAMES} | optimizer_tags
    assert scalars["belief/warmup/AdaBelief"] == pytest.approx({4: 0.25, 9: 0.5})
    assert scalars["belief/lr/AdaBelief"][4] == pytest.approx(1e-2 * 0.25)  # a step of SGD, in the warmup
    assert scalars["belief/lr/AdaBelief"][9] == pytest.approx(1e-2 * 0.5 * rectification(10, 0.999))
    assert scalars["belief/rectification/AdaBelief"][4] == 0
    assert scalars["belief/rectification/AdaBelief"][9] == pytest.approx(rectification(10, 0.999))
    assert scalars["belief/skipped_steps/AdaBelief"] == scalars["belief/nonfinite_steps/AdaBelief"] == {4: 0, 9: 0}


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        (dict(include="encoder.*"), {"encoder.weight", "encoder.bias"}),
        (dict(include=["*.bias", "head.*"]), {"encoder.bias", "head.weight", "head.bias"}),
        (dict(include="*", exclude="*.bias"), {"encoder.weight", "head.weight"}),
        (dict(exclude=["encoder.*", "*.bias"]), {"head.weight"}),
    ],
)
def test_globs_choose_the_layers(fit, csv_rows, options, layers):
    fit(Net(), BeliefMonitor(statistics=["s_t"], **options))
    assert csv_rows().keys() - {"train/loss"} == {f"belief/s_t/{layer}" for layer in layers | {"model"}}


def test_by_default_the_layers_furthest_from_the_median_step_size_are_logged(fit, csv_rows):
    class Scaled(Net):
        def on_fit_start(self):
            self.head.bias.register_hook(lambda grad: 1000 * grad)  # and so its steps are smaller

    fit(Scaled(), BeliefMonitor(top_k=1, statistics=["effective_step_size"]))
    rows = csv_rows()
    assert rows.keys() - {"train/loss"} == {f"belief/effective_step_size/{name}" for name in ("head.bias", "model")}
    assert rows["belief/effective_step_size/head.bias"][9] < rows["belief/effective_step_size/model"][9] / 100


def test_statistics_chooses_what_is_logged(fit, csv_rows):
    fit(Net(), BeliefMonitor(statistics=["eps_share", "warmup"], include="head.weight"))
    assert csv_rows().keys() - {"train/loss"} == {
        "belief/eps_share/head.weight",
        "belief/eps_share/model",
        "belief/warmup/AdaBelief",
    }


def test_its_own_interval_goes_before_the_trainers(fit, csv_rows):
    fit(Net(), BeliefMonitor(every_n_steps=3, statistics=["s_t"]))
    rows = csv_rows()
    assert list(rows["belief/s_t/model"]) == [2, 5, 8, 11]
    assert list(rows["train/loss"]) == [4, 9]


def test_under_accumulation_it_logs_once_a_step(fit, csv_rows):
    recorder = Recorder()
    fit(Net(), recorder, BeliefMonitor(include="*"), accumulate_grad_batches=4, log_every_n_steps=1)
    logged = csv_rows()["belief/s_t/head.weight"]
    assert logged == pytest.approx({t: recorder.steps[t]["head.weight"]["s_t"] for t in range(3)}, rel=1e-5)


def test_the_gradient_logged_is_the_clipped_one(fit, csv_rows):
    fit(Net(), BeliefMonitor(), gradient_clip_val=1e-3)
    assert csv_rows()["belief/grad_norm/model"] == pytest.approx({4: 1e-3, 9: 1e-3}, rel=1e-3)


def test_layers_have_the_modules_names_where_the_optimizer_has_none(fit, csv_rows):
    class Unnamed(Net):
        def configure_optimizers(self):
            return AdaBelief(self.parameters(), lr=1e-2)

    fit(Unnamed(), BeliefMonitor(include="*", statistics=["s_t"]))
    assert csv_rows().keys() - {"train/loss"} == {f"belief/s_t/{layer}" for layer in [*LAYERS, "model"]}


def test_frozen_layers_are_left_out(fit, csv_rows):
    module = Net()
    module.encoder.requires_grad_(False)
    fit(module, BeliefMonitor(include="*", statistics=["s_t"]))
    assert "belief/s_t/head.weight" in csv_rows()
    assert "belief/s_t/encoder.weight" not in csv_rows()


class TwoOptimizers(Net):
    """Manual optimization, twice the one for each of the other, names that clash."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return (
            AdaBelief(self.encoder.named_parameters(), lr=1e-2, warmup=100),
            torch.optim.SGD(torch.nn.Linear(1, 1).parameters()),
            AdaBelief(self.head.named_parameters(), lr=1e-2, warmup=100),
        )

    def training_step(self, batch, batch_idx):
        encoder, _, head = self.optimizers()
        for optimizer in (encoder, encoder, head):
            loss = self.head(self.encoder(batch[0]).relu()).square().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()


def test_several_optimizers_have_their_own_steps_and_summaries(fit, csv_rows):
    fit(TwoOptimizers(), BeliefMonitor(include="*", statistics=["s_t", "warmup"]))
    rows = csv_rows()
    assert rows.keys() == {f"belief/s_t/{name}" for name in [*LAYERS, "AdaBelief", "AdaBelief-1"]} | {
        "belief/warmup/AdaBelief",
        "belief/warmup/AdaBelief-1",
    }
    assert rows["belief/warmup/AdaBelief"] == pytest.approx({4: 0.10, 9: 0.20})
    assert rows["belief/warmup/AdaBelief-1"] == pytest.approx({4: 0.05, 9: 0.10})


def test_param_groups_have_their_own_rectification_and_warmup(fit, csv_rows):
    class Groups(Net):
        def configure_optimizers(self):
            encoder, head = self.encoder.parameters(), self.head.parameters()
            return AdaBelief([{"params": encoder, "name": "body", "warmup": 50}, {"params": head}], warmup=10)

    fit(Groups(), BeliefMonitor(statistics=["warmup"]))
    rows = csv_rows()
    assert rows["belief/warmup/AdaBelief/body"] == pytest.approx({4: 0.1, 9: 0.2})
    assert rows["belief/warmup/AdaBelief/pg2"] == pytest.approx({4: 0.5, 9: 1.0})


class Seldom(TwoOptimizers):
    """The encoder steps in each batch, the head in batches 0, 5 and 10."""

    def training_step(self, batch, batch_idx):
        encoder, _, head = self.optimizers()
        for optimizer in (encoder, head) if batch_idx % 5 == 0 else (encoder,):
            loss = self.head(self.encoder(batch[0]).relu()).square().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()


def test_an_optimizer_that_steps_seldom_is_logged_at_its_next_step(fit, csv_rows):
    fit(Seldom(), BeliefMonitor(statistics="s_t"))
    rows = csv_rows()
    assert list(rows["belief/s_t/AdaBelief"]) == [4, 9]
    assert list(rows["belief/s_t/AdaBelief-1"]) == [5, 10]


def test_a_second_fit_is_logged_as_the_first(fit, csv_rows):
    monitor = BeliefMonitor(statistics=["s_t", "skipped_steps"])
    fit(Net(), monitor)
    first = csv_rows()
    fit(Net(), monitor)
    assert csv_rows().keys() == first.keys()
    assert list(csv_rows()["belief/s_t/model"]) == [4, 9]


def test_several_monitors_work_side_by_side(fit, csv_rows, tmp_path):
    options = dict(statistics="s_t")
    trainer = fit(Net(), BeliefMonitor(2, "encoder.*", **options), BeliefMonitor(3, "head.*", **options))
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    rows = csv_rows()
    assert list(rows["belief/s_t/encoder.weight"]) == [1, 3, 5, 7, 9, 11]
    assert list(rows["belief/s_t/head.weight"]) == [2, 5, 8, 11]


class Overflowing(Net):
    """The loss is infinite in batches 2 and 6."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * math.inf if batch_idx in (2, 6) else loss


def test_steps_that_the_gradient_scaler_skips_are_counted(fit, csv_rows):
    recorder = Recorder()
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0))
    fit(Overflowing(), recorder, BeliefMonitor(include="*"), plugins=[precision], log_every_n_steps=1)
    rows = csv_rows()
    assert list(rows["belief/skipped_steps/AdaBelief"].values()) == [0, 0, 1, 1, 1, 1] + [2] * 6
    assert set(rows["belief/nonfinite_steps/AdaBelief"].values()) == {0}
    assert list(rows["belief/s_t/head.bias"]) == [0, 1, 3, 4, 5, 7, 8, 9, 10, 11]
    assert rows["belief/s_t/head.bias"][11] == pytest.approx(recorder.steps[9]["head.bias"]["s_t"], rel=1e-5)


@pytest.mark.parametrize("implementation", ["fused", "foreach"])
def test_steps_on_a_gradient_that_is_not_finite_are_counted(fit, csv_rows, implementation):
    class Once(Net):
        def training_step(self, batch, batch_idx):
            self.head.bias.register_hook(lambda grad: grad * math.nan if batch_idx == 3 else grad)
            return super().training_step(batch, batch_idx)

    with pytest.warns(UserWarning, match="AdaBelief: the gradient of head.bias was not finite at step 4") as warned:
        fit(Once(**{implementation: True}), BeliefMonitor(), log_every_n_steps=1)
    assert len([w for w in warned if "not finite" in str(w.message)]) == 1
    counted = list(csv_rows()["belief/nonfinite_steps/AdaBelief"].values())
    assert counted[:5] == [0, 0, 0, 1, 2]  # NaN weights make NaN gradients from then on


def test_histograms_are_written_on_demand(fit, tensorboard):
    fit(Net(), BeliefMonitor(histograms=True, include="encoder.weight"))
    _, accumulator = tensorboard()
    assert sorted(accumulator.Tags()["histograms"]) == [
        f"belief_histograms/log10_{name}/encoder.weight"
        for name in ("effective_step_size", "eps_share", "s_t", "step_gain_over_adam")
    ]
    (first, second) = accumulator.Histograms("belief_histograms/log10_s_t/encoder.weight")
    assert (first.step, second.step) == (4, 9)
    assert first.histogram_value.num == 30
    assert -20 < first.histogram_value.min < first.histogram_value.max < 0


def test_the_loggers_own_separator_is_used_and_callback_metrics_are_filled(fit):
    class Dashes(Logger):
        name = version = "dashes"
        group_separator = "-"
        seen: dict = {}

        def log_metrics(self, metrics, step=None):
            self.seen.update(metrics)

        def log_hyperparams(self, *args, **kwargs):
            pass

    trainer = fit(Net(), BeliefMonitor(statistics=["s_t"], include="head.bias"), logger=Dashes())
    assert "belief-s_t-head.bias" in Dashes.seen
    logged = Dashes.seen["belief-s_t-head.bias"]
    assert torch.equal(trainer.callback_metrics["belief/s_t/head.bias"], torch.tensor(logged))


READS = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__")


def test_nothing_waits_for_the_device_on_steps_that_do_not_log(fit, monkeypatch):
    """Every way to read a tensor's numbers is counted, with the monitor and without."""
    count = []
    for name in READS:
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, _read=read: (count.append(1), _read(self, *a))[1])

    def reads(*callbacks):
        count.clear()
        fit(Net(), *callbacks, log_every_n_steps=0)
        return len(count)

    assert reads(BeliefMonitor()) == reads() > 0
    assert reads(BeliefMonitor(every_n_steps=6)) > reads()


def test_a_resumed_run_goes_on_counting_and_choosing(fit, tmp_path, csv_rows):
    precision = lambda: MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0))  # noqa: E731
    trainer = fit(Overflowing(), BeliefMonitor(top_k=1), plugins=[precision()], log_every_n_steps=1)
    path = tmp_path / "half.ckpt"
    trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["callbacks"][key_of_the_monitor(trainer)]["AdaBelief"]
    assert saved["skipped_steps"] == 2

    monitor = BeliefMonitor(top_k=1)
    fit(Overflowing(), monitor, plugins=[precision()], log_every_n_steps=1, max_epochs=2, ckpt_path=path)
    assert csv_rows()["belief/skipped_steps/AdaBelief"][23] == 4
    assert list(csv_rows()["belief/skipped_steps/AdaBelief"]) == list(range(12, 24))
    resumed = monitor.state_dict()["AdaBelief"]["notability"]
    assert all(resumed[layer] >= saved["notability"][layer] > 0 for layer in LAYERS if saved["notability"][layer])
    assert sum(resumed.values()) > sum(saved["notability"].values())
    (notable,) = monitor.notable_layers()
    assert notable in sorted(resumed, key=resumed.get)[-2:]  # one that was chosen stays while it is second


def test_it_leaves_the_optimizer_when_training_ends_or_fails(fit):
    class Fails(Net):
        def on_train_batch_end(self, *args):
            if args[-1] == 7:
                raise RuntimeError("failed")

    trainer = fit(Net(), BeliefMonitor())
    assert not trainer.optimizers[0]._optimizer_step_post_hooks
    monitor = BeliefMonitor()
    with pytest.raises(RuntimeError, match="failed"):
        fit(Fails(), monitor)
    assert not monitor._trackers[0].optimizer._optimizer_step_post_hooks


def test_a_fast_dev_run_works(fit):
    monitor = BeliefMonitor(histograms=True)
    fit(Net(), monitor, fast_dev_run=True)
    assert set(monitor.notable_layers()) == set(LAYERS)


def test_without_a_logger_it_says_so(fit):
    with pytest.raises(MisconfigurationException, match="no logger.*Trainer\\(logger=True\\)"):
        fit(Net(), BeliefMonitor(), logger=False)


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_glob_that_matches_nothing_is_an_error_that_lists_near_names(fit, option):
    with pytest.raises(MisconfigurationException, match=rf"{option}='encodr.weight'.*encoder.weight"):
        fit(Net(), BeliefMonitor(**{option: "encodr.weight"}))


def test_globs_that_leave_nothing_are_an_error(fit):
    with pytest.raises(MisconfigurationException, match=r"include=\('head.\*',\).*leaves no layer"):
        fit(Net(), BeliefMonitor(include="head.*", exclude="*"))


def test_histograms_without_tensorboard_are_an_error(fit, tmp_path):
    with pytest.raises(MisconfigurationException, match="TensorBoardLogger.*CSVLogger"):
        fit(Net(), BeliefMonitor(histograms=True), logger=CSVLogger(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every_n_steps=0), "every_n_steps: 0"),
        (dict(every_n_steps=2.5), "every_n_steps: 2.5. Give a whole number"),
        (dict(every_n_steps=True), "every_n_steps: True"),
        (dict(top_k=1.5), "top_k: 1.5"),
        (dict(depth=True), "depth: True"),
        (dict(prog_bar=True), "prog_bar: True. Give a name"),
        (dict(include=[]), r"include: \[\]"),
        (dict(exclude=3), "exclude: 3"),
        (dict(statistics="eps"), "'eps'. Did you mean 'eps_share'"),
        (dict(top_k=-1), "top_k: -1"),
        (dict(statistics=["s_tt"]), "'s_tt'. Did you mean 's_t'"),
    ],
)
def test_a_bad_argument_is_a_value_error_that_names_it(options, message):
    with pytest.raises(ValueError, match=message):
        BeliefMonitor(**options)
