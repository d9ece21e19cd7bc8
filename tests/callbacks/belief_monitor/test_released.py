"""The monitor of an optimizer whose gradients are released in the backward pass."""

import math

import pytest
import torch

from lightning_adabelief import AdaBelief, BeliefMonitor, release_gradients

from .conftest import Net


class Releasing(Net):
    """Releases its gradients."""

    def configure_optimizers(self):
        optimizer = AdaBelief(self.named_parameters(), **self.options)
        release_gradients(self, optimizer)
        return optimizer


def logged(kind, fit, csv_rows, monitor=None, **options):
    torch.manual_seed(1)
    module = kind(weight_decay=0.1, **options)
    fit(module, monitor or BeliefMonitor(include="*"))
    assert all(param.grad is None for param in module.parameters()) == (kind is not Net)
    return {tag: values for tag, values in csv_rows().items() if tag.startswith("belief")}


def assert_alike(usual, released):
    assert usual.keys() == released.keys() and len(usual) > 20
    for tag, values in usual.items():
        assert values.keys() == released[tag].keys()
        for step, value in values.items():
            assert released[tag][step] == pytest.approx(value, rel=1e-5, nan_ok=True), (tag, step)


@pytest.mark.parametrize(("depth", "fused"), [(None, False), (1, True)])
def test_it_logs_the_figures_of_the_usual_step(depth, fused, fit, csv_rows):
    usual, released = (
        logged(kind, fit, csv_rows, BeliefMonitor(include="*", depth=depth), fused=fused) for kind in (Net, Releasing)
    )
    assert_alike(usual, released)
    assert "belief/grad_norm/model" in usual and "belief/grad_momentum_cosine/model" in usual


def test_excluded_layers_are_left_out_of_the_summary_too(fit, csv_rows):
    usual, released = (
        logged(kind, fit, csv_rows, BeliefMonitor(include="*", exclude="encoder.*", heat_map=False))
        for kind in (Net, Releasing)
    )
    assert_alike(usual, released)
    assert not any("encoder" in tag for tag in released)


class Overflowing(Releasing):
    """Has a gradient that is not finite in its third batch."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (math.inf if batch_idx == 2 else 1.0)


@pytest.mark.filterwarnings("ignore:.*not finite")
def test_steps_on_gradients_that_are_not_finite_are_counted(fit, csv_rows):
    with pytest.warns(UserWarning, match=r"the gradient of \w+\.\w+ was not finite at step 3"):
        rows = logged(Overflowing, fit, csv_rows)
    assert max(rows["belief/nonfinite_steps/AdaBelief"].values()) >= 1


def test_no_step_holds_two_gradients_when_each_is_measured(fit):
    held = []

    class Counting(Releasing):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            optimizer.gradient_release.watch(
                lambda param, group: held.append(sum(other.grad is not None for other in self.parameters()))
            )
            return optimizer

    fit(Counting(), BeliefMonitor(every_n_steps=1), batches=3)
    assert held == [1] * 12
