"""The monitor and ``beliefs.measure`` read averages of few bits as floats: to the code's accuracy, and to the bit."""

import math

import pytest
import torch
from torch import nn

from lightning_adabelief import AdaBelief, BeliefMonitor, beliefs
from lightning_adabelief.optim.averages import unpack_average
from tests.callbacks.belief_monitor.conftest import Net


class Wide(Net):
    """A layer that is packed, in short blocks too, between two that are not."""

    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(**options)
        self.encoder = nn.Sequential(nn.Linear(6, 70), nn.Tanh(), nn.Linear(70, 66), nn.Tanh(), nn.Linear(66, 5))

    @property
    def packed(self):
        return self.encoder[2].weight


def measure_both(**options):
    """Measure a model after some steps, and again with the averages in floating point in the place of the packed."""
    model = Wide()
    optimizer = AdaBelief(model.named_parameters(), lr=1e-2, **options)
    for t in range(8):
        batch = torch.randn(16, 6, generator=torch.Generator().manual_seed(t))
        optimizer.zero_grad()
        model.head(model.encoder(batch).relu()).square().mean().backward()
        optimizer.step()
    packed = beliefs.measure(optimizer, model)
    for param, state in optimizer.state.items():
        for name in [name for name in state if name != "step"]:
            state[name] = unpack_average(state[name], param, name)
    return packed, beliefs.measure(optimizer, model)


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize(
    "options", [dict(), dict(amsgrad=True, weight_decay=0.1), dict(rectify=False, weight_decouple=False)], ids=str
)
def test_the_figures_are_those_of_the_floats_that_the_codes_stand_for(bits, options):
    packed, unpacked = measure_both(state_bits=bits, **options)
    assert packed.layers.keys() == unpacked.layers.keys()
    for name, statistics in unpacked.layers.items():
        assert packed.layers[name] == pytest.approx(statistics, rel=1e-5, nan_ok=True)
    assert packed.model == pytest.approx(unpacked.model, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize(("bits", "switches"), [(16, dict(foreach=True)), (8, dict(fused=True))], ids=str)
def test_a_run_logs_nearly_what_one_in_floats_does(fit, csv_rows, bits, switches):
    logged = []
    for state_bits in (32, bits):
        module = Wide(state_bits=state_bits, **switches)
        trainer = fit(module, BeliefMonitor(include="*"), log_every_n_steps=4)
        logged.append(csv_rows())
    (optimizer,) = trainer.optimizers
    assert optimizer.state[module.packed]["exp_avg"].dtype == (torch.bfloat16 if bits == 16 else torch.uint8)
    floats, packed = logged
    assert floats.keys() == packed.keys()
    for tag, values in floats.items():
        if not tag.startswith("belief/") or "cosine" in tag:
            continue
        for step, value in values.items():
            if not math.isnan(value):
                assert packed[tag][step] == pytest.approx(value, rel=0.05 if bits == 16 else 0.15, abs=1e-6), tag


@pytest.mark.parametrize("bits", [16, 8])
def test_update_norm_is_what_was_applied(fit, csv_rows, bits):
    class Moving(Wide):
        moved = ()

        def on_before_optimizer_step(self, optimizer):
            self.before = [param.detach().clone() for param in self.parameters()]

        def on_train_batch_end(self, *_):
            pairs = zip(self.parameters(), self.before, strict=True)
            square = sum((after.detach() - before).double().square().sum().item() for after, before in pairs)
            self.moved = (*self.moved, square**0.5)

    module = Moving(state_bits=bits)
    fit(module, BeliefMonitor(), log_every_n_steps=1)
    measured = list(csv_rows()["belief/update_norm/model"].values())
    assert measured == pytest.approx(module.moved, rel=0.02 if bits == 8 else 1e-3)
