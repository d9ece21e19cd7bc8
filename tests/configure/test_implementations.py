"""The fused path where it can go; and a warning of clipping by value."""

import warnings

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision

from lightning_adabelief import AdaBelief, build_optimizer, configure_adabelief
from tests.configure.nets import Net, fit


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(precision="bf16-mixed"),
        dict(precision="bf16-true"),
        dict(precision="64-true"),
        dict(gradient_clip_val=0.1),
        dict(accumulate_grad_batches=2),
    ],
    ids=str,
)
def test_the_fused_path_is_taken_under_any_precision_and_clipping_by_norm(options):
    optimizer = fit(Net(weight_decay=0.1), max_epochs=1, **options)
    assert optimizer.implementations == ["fused", "fused"]
    assert all(torch.isfinite(param).all() for group in optimizer.param_groups for param in group["params"])


def test_float16_with_a_gradient_scaler_and_clipping_goes_fused():
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**8))
    optimizer = fit(Net(), max_epochs=1, plugins=[precision], gradient_clip_val=0.1)
    assert optimizer.implementations == ["fused"] and optimizer.param_groups[0]["fused"]
    assert {int(state["step"]) for state in optimizer.state.values()} == {6}


class Complex(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))


def test_where_it_cannot_go_another_path_is_taken_and_asking_for_it_is_an_error():
    assert configure_adabelief(Complex()).param_groups[0]["fused"] is None
    assert configure_adabelief(torch.nn.Linear(2, 2, device="meta")).param_groups[0]["fused"] is None
    with pytest.raises(RuntimeError, match="floating point Tensors.*torch.complex64.*fused=False"):
        configure_adabelief(Complex(), fused=True)
    with pytest.raises(RuntimeError, match="meta"):
        configure_adabelief(torch.nn.Linear(2, 2, device="meta"), fused=True)


def test_without_a_compiler_another_path_is_taken(monkeypatch, tmp_path):
    from lightning_adabelief.optim.fused import build

    build.load_kernel.cache_clear()
    monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    try:
        assert configure_adabelief(torch.nn.Linear(2, 2)).param_groups[0]["fused"] is None
    finally:
        build.load_kernel.cache_clear()


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        (dict(fused=False), ["forloop"]),
        (dict(foreach=True), ["foreach"]),
        (dict(foreach=False), ["forloop"]),
        (dict(layers={"weight": {"foreach": True}}), ["forloop", "foreach"]),
        (dict(layers={"weight": {"differentiable": True}}), ["forloop", "forloop"]),
        (dict(layers={"weight": {"fused": True}}), ["forloop", "fused"]),
        (dict(differentiable=True), ["forloop"]),
        (dict(fused=True), ["fused"]),
    ],
    ids=str,
)
def test_a_path_that_is_asked_for_wins(options, paths):
    assert configure_adabelief(torch.nn.Linear(2, 2), **options).implementations == paths


@pytest.mark.parametrize("configured", ["configure_adabelief", "build_optimizer"])
def test_clipping_by_value_is_warned_of_with_the_remedy(configured):
    class OfCallable(Net):
        def configure_optimizers(self):
            return build_optimizer(AdaBelief, self)

    module = Net() if configured == "configure_adabelief" else OfCallable()
    with pytest.warns(
        UserWarning, match="a gradient held at 0.5 .*Trainer\\(gradient_clip_algorithm='norm'\\)"
    ) as said:
        fit(module, max_epochs=1, gradient_clip_val=0.5, gradient_clip_algorithm="value")
    assert len([warning for warning in said if "s_t" in str(warning.message)]) == 1


def test_clipping_by_norm_and_an_optimizer_without_belief_are_not_warned_of():
    class AdamW(Net):
        def configure_optimizers(self):
            return build_optimizer(torch.optim.AdamW, self)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", message=".*(LeafSpec|does not have many workers|number of training batches).*"
        )
        fit(Net(), max_epochs=1, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
        fit(AdamW(), max_epochs=1, gradient_clip_val=0.5, gradient_clip_algorithm="value")
