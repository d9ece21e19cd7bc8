"""AdaBelief in Lightning's Trainer: what other fused optimizers cannot do there."""

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision

from lightning_adabelief import BeliefMonitor
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
