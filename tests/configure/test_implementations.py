"""The fused path where it can go; and a warning of clipping by value."""

import warnings

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision

from lightning_adabelief import AdaBelief, build_optimizer, configure_adabelief
from lightning_adabelief.optim.fused import build
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


@pytest.fixture
def no_kernel(monkeypatch, tmp_path):
    """Let the kernel be loaded anew, and fail at it; return a function that says by which compiler."""
    build.load_kernel.cache_clear()
    monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "QUERY_TIMEOUT", 1)
    yield lambda cxx: monkeypatch.setenv("CXX", cxx)
    build.load_kernel.cache_clear()


NO_COMPILERS = [
    "no-such-compiler",
    "/bin/true",
    "g++ 'x",
    "sh -c 'sleep 600' c++",
    r"sh -c 'printf \\377\\376 >&2; exit 1' c++",
]


@pytest.mark.parametrize("cxx", NO_COMPILERS)
def test_where_the_kernel_cannot_be_had_foreach_is_taken_and_one_line_says_so(no_kernel, cxx):
    no_kernel(cxx)
    with pytest.warns(UserWarning, match="takes its 'foreach' .* CXX.*fused=False$") as said:
        optimizer = configure_adabelief(torch.nn.Linear(2, 2))
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert optimizer.implementations == ["foreach"] and optimizer.param_groups[0]["fused"] is None


def test_where_the_kernel_cannot_be_had_a_tensor_lr_takes_the_for_loop(no_kernel):
    no_kernel("no-such-compiler")
    with pytest.warns(UserWarning, match="takes its 'forloop' .*no C\\+\\+ compiler"):
        assert configure_adabelief(torch.nn.Linear(2, 2), lr=torch.tensor(0.1)).implementations == ["forloop"]


def test_where_the_kernel_cannot_be_had_what_is_asked_for_is_taken_without_a_word(no_kernel):
    no_kernel("no-such-compiler")
    assert configure_adabelief(torch.nn.Linear(2, 2), fused=False).implementations == ["forloop"]
    assert configure_adabelief(torch.nn.Linear(2, 2), foreach=True).implementations == ["foreach"]


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
