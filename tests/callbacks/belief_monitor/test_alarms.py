"""What BeliefMonitor warns of, in a real Trainer: the layer, what is wrong, the remedy, once."""

import re
import warnings

import pytest
import torch

from lightning_adabelief import AdaBelief, BeliefMonitor, configure_adabelief
from tests.callbacks.belief_monitor.conftest import Net


def warned(fit, module, monitor=None, **options):
    """Train 40 steps, measured each, and return the monitor's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, monitor or BeliefMonitor(), **{"log_every_n_steps": 1, "batches": 40} | options)
    return [str(w.message) for w in caught if str(w.message).startswith(("AdaBelief", "Adam"))]


def test_a_healthy_run_is_silent(fit):
    assert warned(fit, Net()) == []


def test_eps_in_beliefs_place_is_named_with_the_eps_to_lower(fit):
    (text,) = warned(fit, Net(eps=1e-3))
    assert "runs as SGD with momentum" in text and "Lower eps (it is 0.001)" in text
    assert "encoder.weight" in text and "and 1 more layer" in text


def test_weights_without_gradient_are_not_taken_for_a_large_eps(fit):
    class Masked(Net):
        def on_fit_start(self):
            mask = torch.zeros(5, 6)
            mask[:, 0] = 1
            self.encoder.weight.register_hook(lambda grad: grad * mask)

    assert warned(fit, Masked()) == []


class Linear(Net):
    """A loss whose gradient is the same in each step."""

    def training_step(self, batch, batch_idx):
        return 1e3 * self.head(self.encoder(torch.ones(1, 6))).sum()

    def configure_optimizers(self):
        return AdaBelief([("encoder.bias", self.encoder.bias)], lr=1e-5, rectify=False)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (dict(gradient_clip_val=0.1, gradient_clip_algorithm="value"), "gradient_clip_algorithm='norm'"),
        ({}, "amsgrad=True or a larger eps"),
    ],
)
def test_a_step_that_explodes_as_the_gradient_stays_is_named_once(fit, options, remedy):
    texts = warned(fit, Linear(), BeliefMonitor(10), batches=1500, **options)
    (text,) = [text for text in texts if "times Adam's" in text]
    assert "encoder.bias" in text and remedy in text


def test_a_dead_layer_is_named(fit):
    class Dead(Net):
        def training_step(self, batch, batch_idx):
            return self.head(self.encoder(batch[0]).relu() * 0).square().mean()

    texts = [text for text in warned(fit, Dead()) if "gradient is 0" in text]
    assert len(texts) == 1 and "encoder.weight" in texts[0] and "requires_grad_(False)" in texts[0]


def test_a_spike_is_named_with_how_many_times_the_median_it_is(fit):
    class Spike(Net):
        def on_train_batch_start(self, batch, batch_idx):
            self.optimizers().param_groups[0]["lr"] = 1.0 if batch_idx == 20 else 1e-3

    texts = [text for text in warned(fit, Spike()) if "running median" in text]
    assert len(texts) == 1 and "step 20" in texts[0] and "lower lr" in texts[0]
    assert texts[0].endswith("clip gradients by norm: Trainer(gradient_clip_val=...)")
    times = float(texts[0].split(" times ")[0].split()[-1])
    assert 100 < times < 10000


def test_a_gradient_that_is_not_finite_is_named_with_its_step_even_between_measurements(fit):
    class Once(Net):
        def training_step(self, batch, batch_idx):
            self.head.weight.register_hook(lambda grad: grad * torch.nan if batch_idx == 17 else grad)
            return super().training_step(batch, batch_idx)

    texts = [text for text in warned(fit, Once(), BeliefMonitor(10)) if "not finite at" in text]
    assert len(texts) == 1 and "head.weight" in texts[0] and "step 18" in texts[0]


def test_of_adam_only_what_holds_for_adam_is_said(fit):
    class WithAdam(Net):
        def configure_optimizers(self):
            return torch.optim.Adam(self.named_parameters(), lr=1e-3, eps=1.0)

    assert warned(fit, WithAdam()) == []


class Rectified(Net):
    def configure_optimizers(self):
        return AdaBelief(self.named_parameters())


def test_rectification_that_takes_most_of_lr_from_a_short_run_is_warned_of_at_its_start(fit):
    with pytest.warns(
        UserWarning, match=r"rectify=True and warmup=0 let only 0\.\d\d of lr act .* 12 steps of this run"
    ):
        fit(Rectified(), BeliefMonitor())


def test_a_long_warmup_is_warned_of_as_well(fit):
    with pytest.warns(UserWarning, match=r"rectify=False and warmup=40 let only 0\.16 of lr"):
        fit(Net(warmup=40), BeliefMonitor())


@pytest.mark.parametrize("module", [Net(warmup=0.1), Net()], ids=["short warmup", "neither"])
def test_a_run_in_which_most_of_lr_acts_is_not_warned_of(fit, module):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".* of lr act on average")
        fit(module, BeliefMonitor())


def test_what_configure_adabelief_has_warned_of_is_not_said_again(fit):
    class Configured(Net):
        def configure_optimizers(self):
            return configure_adabelief(self, rectify=True)

    with pytest.warns(UserWarning) as warned:
        fit(Configured(), BeliefMonitor())
    assert sum("of lr act on average" in str(warning.message) for warning in warned) == 1


class LargeInputs(Rectified):
    options = {}  # noqa: RUF012
    scale = 255.0

    def training_step(self, batch, batch_idx):
        return super().training_step([self.scale * batch[0]], batch_idx)

    def configure_optimizers(self):
        return AdaBelief(self.named_parameters(), lr=1e-2, **self.options)


def warnings_of_sgd(fit, **options):
    module = LargeInputs()
    module.scale, module.options = options.pop("scale", 255.0), options
    return [text for text in warned(fit, module) if "steps of SGD" in text]


def test_steps_of_sgd_on_inputs_that_are_not_scaled_are_warned_of_once(fit):
    (text,) = warnings_of_sgd(fit)
    assert re.search(r"moved the weights by up to \S+ times their norm.*Scale the inputs", text)


@pytest.mark.parametrize(
    "options",
    [dict(scale=1.0), dict(degenerated_to_sgd=False), dict(rectify=False, warmup=10)],
    ids=["scaled", "no steps of SGD", "no rectification"],
)
def test_each_remedy_for_steps_of_sgd_ends_the_warning(fit, options):
    assert warnings_of_sgd(fit, **options) == []


class Manual(Net):
    """Steps its optimizer itself; the gradient of its last batch is not finite."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx) * (torch.nan if batch_idx == 3 else 1))
        optimizer.step()


class ManualWithOption(Manual):
    gradient_clip_val = None


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        (Manual, "self.clip_gradients(...) in training_step"),
        (ManualWithOption, "ManualWithOption(gradient_clip_val=...)"),
    ],
)
def test_clipping_is_advised_that_manual_optimization_allows(fit, module, advice):
    (text,) = [text for text in warned(fit, module(), batches=4) if "not finite at" in text]
    assert text.endswith(f"a lower lr, warmup or {advice} may prevent it")
