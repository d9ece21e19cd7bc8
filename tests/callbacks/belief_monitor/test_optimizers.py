"""BeliefMonitor on other optimizers and other ways to hand them parameters."""

import pytest
import torch
from pytorch_lightning.callbacks import BaseFinetuning
from pytorch_lightning.plugins import MixedPrecision

from lightning_adabelief import AdaBelief, BeliefMonitor
from lightning_adabelief.beliefs.reading import Readable
from lightning_adabelief.beliefs.statistic import STATE_STATISTICS
from lightning_adabelief.optim.migrate import estimate_exp_avg_var
from tests.callbacks.belief_monitor.conftest import Net


class WithAdam(Net):
    kind = torch.optim.AdamW

    def configure_optimizers(self):
        return self.kind(self.named_parameters(), lr=1e-2, betas=(0.8, 0.9), eps=1e-3, **self.options)


def with_adam(kind=torch.optim.AdamW, **options):
    module = WithAdam()
    module.kind, module.options = kind, options
    return module


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("options", [{}, dict(amsgrad=True), dict(fused=True)], ids=str)
def test_adams_own_step_and_adabeliefs_gain_are_read_from_adam(fit, csv_rows, kind, options):
    module = with_adam(kind, **options)
    trainer = fit(module, BeliefMonitor(include="head.weight", every_n_steps=12))
    rows = {tag.split("/")[1]: values[11] for tag, values in csv_rows().items() if tag.endswith("head.weight")}
    state = trainer.optimizers[0].state[module.head.weight]
    m, v = state["exp_avg"] / (1 - 0.8**12), state["exp_avg_sq"] / (1 - 0.9**12)
    s = estimate_exp_avg_var(state["exp_avg"], state["exp_avg_sq"], 12, (0.8, 0.9), "updated") / (1 - 0.9**12)
    largest = state["max_exp_avg_sq"] / (1 - 0.9**12) if options.get("amsgrad") else v
    size = 1e-2 / (largest.sqrt() + 1e-3)
    assert rows.keys() == {row.name for row in STATE_STATISTICS if row.needs <= Readable.SECOND_MOMENT}
    assert "eps_share" not in rows
    assert rows["s_t"] == pytest.approx(s.mean().item(), rel=1e-4)
    assert rows["effective_step_size"] == pytest.approx(size.median().item(), rel=1e-4)
    gain = (0.8 * (1 - (m**2 / v).mean())) ** -0.5
    assert rows["step_gain_over_adam"] == pytest.approx(gain.item(), rel=1e-4)
    decay = 1e-2 * trainer.optimizers[0].param_groups[0]["weight_decay"] if kind is torch.optim.AdamW else 0.0
    weight = module.head.weight.detach()
    update = (weight + size * m) / (1 - decay) - weight
    assert rows["update_norm"] == pytest.approx(update.norm().item(), rel=1e-4)


def test_the_gain_foreseen_from_adam_is_adabeliefs_gain(fit, csv_rows):
    """Both see the same gradients where neither moves, and lr = 0 moves neither."""
    gains = []
    for configure in (torch.optim.Adam, AdaBelief):
        torch.manual_seed(0)

        class Still(Net):
            def configure_optimizers(self, configure=configure):
                return configure(self.named_parameters(), lr=0.0, betas=(0.9, 0.99))

        fit(Still(), BeliefMonitor(1, "*", statistics="step_gain_over_adam"), batches=300)
        gains.append({tag: values[299] for tag, values in csv_rows().items() if "gain" in tag})
    assert gains[0].keys() == gains[1].keys()
    assert gains[0] == pytest.approx(gains[1], rel=0.1)


def test_a_fused_adam_that_the_scaler_tells_to_stand_still_skips_a_step(fit, csv_rows):
    class Overflowing(WithAdam):
        options = {"fused": True}  # noqa: RUF012

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (torch.inf if batch_idx in (0, 5) else 1)

    module = Overflowing()
    module.options = {"fused": True}
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0))
    fit(module, BeliefMonitor(1), plugins=[precision])
    rows = csv_rows()
    assert rows["belief/skipped_steps/AdamW"][11] == 2
    assert set(rows["belief/nonfinite_steps/AdamW"].values()) == {0}
    assert list(rows["belief/s_t/model"]) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_depth_puts_parameters_together(fit, csv_rows):
    fit(Net(), BeliefMonitor(include="*"))
    alone = csv_rows()
    torch.manual_seed(0)
    fit(Net(), BeliefMonitor(include="*", depth=1))
    together = csv_rows()
    layers = {tag.split("/")[2] for tag in together if tag.startswith("belief/s_t/")}
    assert layers == {"encoder", "head", "model"}
    torch.manual_seed(0)
    fit(Net(), BeliefMonitor(include="*"))
    alone = csv_rows()
    weight, bias = (alone[f"belief/s_t/encoder.{name}"][9] for name in ("weight", "bias"))
    assert together["belief/s_t/encoder"][9] == pytest.approx((30 * weight + 5 * bias) / 35, rel=1e-4)
    squares = [alone[f"belief/grad_norm/head.{name}"][9] ** 2 for name in ("weight", "bias")]
    assert together["belief/grad_norm/head"][9] == pytest.approx(sum(squares) ** 0.5, rel=1e-4)
    assert together["belief/s_t/model"][9] == pytest.approx(alone["belief/s_t/model"][9], rel=1e-4)


def test_globs_take_layers_and_exclude_parameters_too_under_depth(fit, csv_rows):
    fit(Net(), BeliefMonitor(include="enc*", exclude="*.bias", depth=1, statistics="s_t"))
    assert csv_rows().keys() - {"train/loss"} == {"belief/s_t/encoder", "belief/s_t/model"}


def test_the_gradient_is_logged_before_and_after_it_is_clipped(fit, csv_rows):
    fit(Net(), BeliefMonitor(include="*"), gradient_clip_val=1e-3)
    rows = csv_rows()
    torch.manual_seed(0)
    assert rows["belief/grad_norm/model"] == pytest.approx({4: 1e-3, 9: 1e-3}, rel=1e-3)
    for step in (4, 9):
        before, after = (
            {tag.split("/")[2]: values[step] for tag, values in rows.items() if f"/{name}/" in tag}
            for name in ("unclipped_grad_norm", "grad_norm")
        )
        assert before["model"] > 1e-2
        ratio = before["model"] / after["model"]
        assert before == pytest.approx({layer: ratio * norm for layer, norm in after.items()}, rel=1e-3)


def test_without_clipping_there_is_one_gradient_norm(fit, csv_rows):
    fit(Net(), BeliefMonitor(include="*"))
    assert not any("unclipped" in tag for tag in csv_rows())


class UnfreezesLate(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.encoder)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.encoder, optimizer, lr=1e-3)


def test_layers_unfrozen_late_are_logged_from_then_on(fit, csv_rows):
    class HeadFirst(Net):
        def configure_optimizers(self):
            return AdaBelief(filter(lambda param: param.requires_grad, self.parameters()), lr=1e-2)

    fit(HeadFirst(), UnfreezesLate(), BeliefMonitor(include=["encoder.*", "head.*"], statistics="s_t"), max_epochs=2)
    rows = csv_rows()
    assert min(rows["belief/s_t/head.weight"]) == 4
    assert min(rows["belief/s_t/encoder.weight"]) == 14


def test_a_glob_for_layers_still_frozen_is_no_error(fit, csv_rows):
    class HeadFirst(Net):
        def configure_optimizers(self):
            return AdaBelief(self.head.parameters(), lr=1e-2)

    fit(HeadFirst(), UnfreezesLate(), BeliefMonitor(include="encoder.*", statistics="s_t"), max_epochs=2)
    assert set(csv_rows()["belief/s_t/encoder.weight"]) == {14, 19}


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.twin = torch.nn.Linear(6, 5)
        self.twin.weight = self.encoder.weight
        self.unused = torch.nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        return self.head(self.encoder(batch[0]).relu() + self.twin(batch[0])).square().mean()


def layers_logged(rows):
    return {tag.split("/")[2] for tag in rows if tag.startswith("belief/s_t/")} - {"model"}


def test_tied_weights_are_one_layer_and_unused_parameters_none(fit, csv_rows):
    fit(Tied(), BeliefMonitor(include="*", statistics="s_t"))
    assert layers_logged(csv_rows()) == {"encoder.weight", "encoder.bias", "twin.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        (dict(include="twin.weight"), {"encoder.weight"}),
        (dict(include="twin.*"), {"encoder.weight", "twin.bias"}),
        (dict(include="*", exclude="twin.weight"), {"encoder.bias", "twin.bias", "head.weight", "head.bias"}),
        (dict(include="*", exclude="twin.*", depth=1), {"encoder", "head"}),
        (dict(include="twin", depth=1), {"encoder", "twin"}),
    ],
)
def test_a_tied_weight_is_found_by_each_of_its_names(fit, csv_rows, options, layers):
    fit(Tied(), BeliefMonitor(**options, statistics="s_t"))
    assert layers_logged(csv_rows()) == layers


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_a_run_resumed_in_mid_epoch_logs_each_step_once(fit, csv_rows, tmp_path):
    class Saves(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 6 and self.trainer.ckpt_path is None:
                self.trainer.save_checkpoint(tmp_path / "middle.ckpt")

    fit(Saves(), BeliefMonitor(include="*"))
    whole = csv_rows()
    fit(Saves(), BeliefMonitor(include="*"), ckpt_path=tmp_path / "middle.ckpt")
    resumed = csv_rows()
    assert resumed.keys() == whole.keys()
    assert {step for values in whole.values() for step in values} == {4, 9}
    assert {step for values in resumed.values() for step in values} == {9}
