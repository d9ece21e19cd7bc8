"""AdaBelief in Lightning's Trainer: what other fused optimizers cannot do there."""

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision

from lightning_adabelief import AdaBelief, BeliefMonitor
from lightning_adabelief.optim.low_precision import CORRECTIONS, read_master
from tests.callbacks.belief_monitor.conftest import Net


class Huge(Net):
    """Large gradients, infinite ones in batch 5."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (torch.inf if batch_idx == 5 else 100)


@pytest.mark.parametrize("path", [dict(foreach=False), dict(foreach=True), dict(fused=True)], ids=str)
def test_float16_with_a_gradient_scaler_and_clipping(fit, csv_rows, path):
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    module = Huge(**path)
    trainer = fit(module, BeliefMonitor(), plugins=[precision], gradient_clip_val=0.5, log_every_n_steps=1)
    rows = csv_rows()
    assert list(rows["belief/grad_norm/model"].values()) == pytest.approx([0.5] * 11, rel=1e-3)
    assert rows["belief/skipped_steps/AdaBelief"][11] == 1
    assert {state["step"].item() for state in trainer.optimizers[0].state.values()} == {11.0}
    assert all(param.isfinite().all() for param in module.parameters())


class Bfloat16(Net):
    """All in bfloat16, at a rate whose steps are below the last place of most weights."""

    def __init__(self, optimizer=AdaBelief, **options):
        super().__init__(**{"lr": 1e-5, **options})
        self.optimizer = optimizer
        if optimizer is not AdaBelief:
            del self.options["rectify"]
        self.moved = []

    def training_step(self, batch, batch_idx):
        images = batch[0].to(self.head.weight.dtype)
        return self.head(self.encoder(images).relu()).square().mean()

    def configure_optimizers(self):
        return self.optimizer(self.named_parameters(), **self.options)

    def weights(self):
        """The weights that are moved: the masters, where there are some."""
        state = self.optimizers().optimizer.state
        return [
            read_master(p.detach(), *map(state[p].get, CORRECTIONS)).double() if p in state else p.detach().double()
            for p in self.parameters()
        ]

    def on_before_optimizer_step(self, optimizer):
        self.before = self.weights()

    def on_train_batch_end(self, *_):
        pairs = zip(self.weights(), self.before, strict=True)
        self.moved.append(sum((after - before).square().sum().item() for after, before in pairs) ** 0.5)


@pytest.mark.parametrize(
    "options",
    [
        dict(fused=True),
        dict(master_weight_bits=24, lr=1e-3),  # whose rounding, 2^-16 of a weight, is a small part of such steps
        dict(master_weight_bits=16, fused=True),
        dict(optimizer=torch.optim.AdamW, weight_decay=0.0),
    ],
    ids=str,
)
def test_update_norm_is_what_was_applied_to_weights_in_bfloat16(fit, csv_rows, options):
    module = Bfloat16(**options)
    fit(module, BeliefMonitor(), precision="bf16-true", log_every_n_steps=1)
    measured = list(csv_rows()["belief/update_norm/model"].values())
    assert measured == pytest.approx(module.moved, rel=0.02, abs=1e-9)
    assert max(measured) > 0
    if module.optimizer is torch.optim.AdamW:  # rounded to nearest, most steps move nothing
        assert min(measured) == 0
