"""The demands of PyTorch's own optimizer tests on a step, made of every implementation."""

import inspect
import weakref
from unittest import mock

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing._internal.common_optimizers import OptimizerErrorEnum
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim import state as state_module
from lightning_adabelief.optim import update as update_module
from lightning_adabelief.optim.low_precision import CORRECTIONS, MISSING_BITS, read_master
from tests.optim.optimizer_info import ADABELIEF, SCHEDULERS, inputs, optim_error_inputs_func_adabelief
from tests.optim.reference import assert_close, gradients, run


@pytest.fixture
def capturable_on_cpu(monkeypatch):
    """Lets ``capturable=True`` run eagerly where it is refused: the arithmetic is the device's."""
    monkeypatch.setattr(state_module, "_get_capturable_supported_devices", lambda: ["cpu"])


def linear_problem(contiguous=True, seed=0):
    """A weight, a bias and a function that gives them gradients and returns the loss."""
    generator = torch.Generator().manual_seed(seed)
    if contiguous:
        weight, bias = (torch.randn(*shape, generator=generator) for shape in ((10, 5), (10,)))
    else:
        weight, bias = (torch.randn(*shape, 2, generator=generator)[..., 0] for shape in ((10, 5), (10,)))
    weight, bias, x = torch.nn.Parameter(weight), torch.nn.Parameter(bias), torch.randn(5, generator=generator)

    def closure():
        weight.grad = bias.grad = None
        loss = (weight.mv(x) + bias).square().sum()
        loss.backward()
        return loss

    return weight, bias, closure


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
def test_the_loss_falls_or_rises_under_maximize_with_every_scheduler(kwargs, contiguous):
    for schedulers in SCHEDULERS:
        weight, bias, closure = linear_problem(contiguous)
        before = closure().item()
        optimizer = AdaBelief([weight, bias], **kwargs)
        schedulers = [make(optimizer) for make in schedulers]
        for _ in range(20):
            loss = optimizer.step(closure)
            for scheduler in schedulers:
                plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler.step(*[loss.detach()] * plateau)
        assert (closure().item() > before) if kwargs.get("maximize") else (closure().item() < before)


def test_a_group_with_its_own_lr_is_scheduled_from_it():
    weight, bias, closure = linear_problem()
    optimizer = AdaBelief([{"params": [weight]}, {"params": [bias], "lr": torch.tensor(0.01)}])
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    before = closure().item()
    for _ in range(3):
        optimizer.step(closure)
        scheduler.step()
    assert closure().item() < before
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([1e-3 / 8, 1e-2 / 8])


def test_a_group_added_later_starts_at_step_1():
    weight, bias, closure = linear_problem()
    optimizer = AdaBelief([weight])
    optimizer.step(closure)
    optimizer.add_param_group({"params": [bias], "weight_decay": 0.1})
    optimizer.step(closure)
    assert [optimizer.state[p]["step"].item() for p in (weight, bias)] == [2, 1]


MODEL_SHAPES = [(3, 2), (3,), (1, 3), (), (0,), (2, 0)]


def read_weight(param, state):
    return read_master(param, *map(state.get, CORRECTIONS)) if param.dtype in MISSING_BITS else param


def assert_implementations_agree(first, second, dtype=torch.float64, rtol=1e-12, steps=12):
    """Over steps in which one parameter has no gradient for a while, and no parameter has any in one."""

    def some_grads(optimizer, t):
        params = optimizer.param_groups[0]["params"]
        for i, param in enumerate(params):
            if t == 2 or (t < 5 and i == 1):
                param.grad = None

    start = [torch.full(shape, 0.5, dtype=dtype) for shape in MODEL_SHAPES]
    grads = gradients(steps, MODEL_SHAPES, dtype=dtype)
    (ours, our_optimizer), (theirs, their_optimizer) = (
        run(lambda p, o=options: AdaBelief(p, **o), grads, start, before_step=some_grads) for options in (first, second)
    )
    for our, their in zip(ours, theirs, strict=True):
        our_state, their_state = our_optimizer.state[our], their_optimizer.state[their]
        assert our_state.keys() == their_state.keys()
        if our.numel():
            keys = [key for key in our_state if key not in CORRECTIONS]  # with which the weight is read
            assert_close([read_weight(our, our_state)], [read_weight(their, their_state)], rtol)
            assert_close([our_state[key] for key in keys], [their_state[key] for key in keys], rtol)


@pytest.mark.parametrize("kwargs", inputs("foreach", "differentiable", "fused"))
def test_every_implementation_is_the_forloop(kwargs):
    differentiable = kwargs["differentiable"]
    start = [torch.full(shape, 0.5, dtype=torch.float64) for shape in MODEL_SHAPES]
    if not differentiable:
        assert_implementations_agree(kwargs, kwargs | dict(foreach=False))
        return
    grads = gradients(12, MODEL_SHAPES)
    copies = [value.clone() for value in start]  # no leaves: a leaf can't be changed in place under autograd
    optimizer = AdaBelief(copies, **kwargs)
    for step_grads in grads:
        for param, grad in zip(copies, step_grads, strict=True):
            param.grad = grad
        optimizer.step()
    plain, _ = run(lambda p: AdaBelief(p, **kwargs | dict(differentiable=False)), grads, start)
    assert_close([c for c in copies if c.numel()], [p for p in plain if p.numel()], 1e-12)


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
def test_capturable_is_the_plain_step(kwargs, capturable_on_cpu):
    assert_implementations_agree(kwargs | dict(capturable=True), kwargs)
    assert_implementations_agree(kwargs | dict(capturable=True), kwargs, dtype=torch.float32, rtol=1e-5)
    assert_implementations_agree(kwargs | dict(capturable=True), kwargs, dtype=torch.bfloat16, rtol=1e-2)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("options", [{}, dict(amsgrad=True, rectify=False, weight_decay=0.1, warmup=20)], ids=str)
def test_tensor_lr_and_betas_are_the_numbers_they_hold(foreach, options, capturable_on_cpu):
    numbers = dict(lr=0.01, betas=(0.8, 0.99))
    lr, beta1, beta2 = (torch.tensor(x, dtype=torch.float64) for x in ([0.01], [[0.8]], 0.99))
    tensors = dict(lr=lr, betas=(beta1, beta2))
    assert_implementations_agree(options | tensors | dict(foreach=foreach, capturable=True), options | numbers)
    if not foreach:
        assert_implementations_agree(options | tensors, options | numbers)


@pytest.mark.parametrize("foreach", [False, True])
def test_capturable_skips_the_first_steps_when_told_to(foreach, capturable_on_cpu):
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaBelief([param], degenerated_to_sgd=False, capturable=True, foreach=foreach)
    moved = []
    for _ in range(7):
        param.grad = torch.ones(3)
        optimizer.step()
        moved.append(not torch.equal(param, torch.ones(3)))
    assert moved == [False] * 5 + [True] * 2


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("options", [{}, dict(lr=torch.tensor(0.01), warmup=4), dict(rectify=False)], ids=str)
def test_a_capturable_step_never_waits_for_the_device(foreach, options, capturable_on_cpu):
    class NoSync(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
            return func(*args, **kwargs or {})

    params = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    waiting, capturable = (
        AdaBelief(params, foreach=foreach, **options | switch)
        for switch in (dict(lr=0.01), dict(capturable=True, weight_decay=0.1, amsgrad=True))
    )
    for param in params:
        param.grad = torch.ones_like(param)
    with NoSync():
        capturable.step()
        capturable.step()
        with pytest.raises(AssertionError):
            waiting.step()


def test_capturable_on_a_device_without_graphs_is_refused_before_anything_changes():
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    other = torch.nn.Parameter(torch.ones(3))
    other.grad = torch.ones(3)
    optimizer = AdaBelief([{"params": [other]}, {"params": [param], "capturable": True}])
    with pytest.raises(AssertionError, match="params and state_steps must be on supported devices.*on cpu"):
        optimizer.step()
    assert torch.equal(other, torch.ones(3)) and torch.equal(param, torch.ones(3))


def test_capturable_switched_on_with_steps_elsewhere_is_refused(monkeypatch):
    monkeypatch.setattr(state_module, "_get_capturable_supported_devices", lambda: ["meta"])
    param = torch.nn.Parameter(torch.ones(3, device="meta"))
    param.grad = torch.ones_like(param)
    optimizer = AdaBelief([param])
    optimizer.step()
    optimizer.param_groups[0]["capturable"] = True
    with pytest.raises(AssertionError, match="its step on cpu"):
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach"))
def test_a_complex_parameter_is_its_real_view(kwargs):
    shapes = [(4, 3), (5,)]
    grads = gradients(8, [(*shape, 2) for shape in shapes] + [(4, 3)], dtype=torch.float32)
    real_start = [torch.ones(*shape, 2) for shape in shapes] + [torch.ones(4, 3)]  # the last is real in both

    def complex_(tensors):
        return [*map(torch.view_as_complex, tensors[:-1]), tensors[-1]]

    real, _ = run(lambda p: AdaBelief(p, **kwargs), grads, real_start)
    complex_params, _ = run(lambda p: AdaBelief(p, **kwargs), [complex_(g) for g in grads], complex_(real_start))
    viewed = [*map(torch.view_as_real, complex_params[:-1]), complex_params[-1]]
    torch.testing.assert_close([v.detach() for v in viewed], [r.detach() for r in real], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("foreach", [False, True])
def test_channels_last_and_other_strides_keep_their_layout_in_the_state(foreach):
    values = [torch.randn(2, 3, 4, 4), torch.randn(5, 6).t()]
    grads = [[torch.randn_like(v).contiguous() for v in values] for _ in range(8)]
    strided = [values[0].to(memory_format=torch.channels_last), values[1]]
    params, optimizer = run(lambda p: AdaBelief(p, foreach=foreach, amsgrad=True), grads, strided)
    plain, _ = run(lambda p: AdaBelief(p, foreach=foreach, amsgrad=True), grads, [v.contiguous() for v in values])
    for param, expected in zip(params, plain, strict=True):
        torch.testing.assert_close(param, expected)
        assert all(v.stride() == param.stride() for k, v in optimizer.state[param].items() if k != "step")


@pytest.mark.parametrize("foreach", [False, True])
def test_parameters_of_several_devices_and_dtypes_share_a_group(foreach):
    dtypes = torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64
    grads = [[torch.full((3,), 0.1, dtype=dtype) for dtype in dtypes] for _ in range(8)]
    start = [torch.ones(3, dtype=dtype) for dtype in dtypes]
    alone, _ = run(lambda p: AdaBelief(p, foreach=foreach), grads, start)
    elsewhere = [value.to("meta") for value in start]
    grads = [[*step, *(g.to("meta") for g in step)] for step in grads]
    together, optimizer = run(lambda p: AdaBelief(p, foreach=foreach), grads, [*start, *elsewhere])
    assert all(torch.equal(a, t) for a, t in zip(alone, together, strict=False))
    assert all(optimizer.state[p]["exp_avg"].is_meta and optimizer.state[p]["step"] == 8 for p in together[5:])


@pytest.mark.parametrize("kwargs", inputs())
def test_a_step_without_gradients_and_one_with_zeros_change_nothing(kwargs):
    param = torch.randn(5, 1)
    before = param.clone()
    optimizer = AdaBelief([param], **kwargs)
    optimizer.step()
    assert not optimizer.state
    if kwargs.get("weight_decay", 0) == 0:
        param.grad = torch.zeros_like(param)
        optimizer.step(lambda: torch.tensor([1.0]))
        assert torch.equal(param, before)


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
def test_gradients_are_left_as_they_are(kwargs, dtype):
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype)), torch.nn.Parameter(torch.ones((), dtype=dtype))]
    optimizer = AdaBelief(params, **kwargs)
    for param in params:
        param.grad = torch.randn_like(param)
    kept = [(param.grad, param.grad.clone()) for param in params]
    if kwargs["fused"] and dtype.is_complex:
        with pytest.raises(RuntimeError, match="requires all the params to be floating point"):
            optimizer.step()
    else:
        for _ in range(7):
            optimizer.step()
    assert all(param.grad is grad and torch.equal(grad, copy) for param, (grad, copy) in zip(params, kept, strict=True))


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
def test_every_value_of_the_state_is_a_tensor(kwargs):
    weight, bias, closure = linear_problem()
    optimizer = AdaBelief([weight, bias], **kwargs)
    optimizer.step(closure)
    assert len(optimizer.state) == 2
    assert all(isinstance(value, torch.Tensor) for state in optimizer.state.values() for value in state.values())


def test_step_counts_in_float64_where_that_is_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        weight, bias, closure = linear_problem()
        optimizer = AdaBelief([weight, bias])
        optimizer.step(closure)
        assert optimizer.state[weight]["step"].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes alive among the tensors that ops return, at their most."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in known | {0}:
                self.alive += tensor.untyped_storage().nbytes()
                weakref.finalize(tensor, self._free, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.alive)
        return result

    def _free(self, size):
        self.alive -= size


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("kwargs", inputs("foreach"))
def test_foreach_holds_one_list_as_large_as_the_parameters_also_if_capturable(kwargs, capturable, capturable_on_cpu):
    params = [torch.nn.Parameter(torch.ones(100, 100)) for _ in range(10)]
    optimizer = AdaBelief(params, **kwargs, capturable=capturable)
    for param in params:
        param.grad = torch.ones_like(param)
    for _ in range(7):  # the last is rectified
        with PeakMemory() as memory:
            optimizer.step()
        if optimizer.state[params[0]]["step"] > 1:  # the first makes the state
            assert memory.peak / sum(param.nbytes for param in params) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("betas", [(0.9, 0.99), (torch.tensor(0.9), torch.tensor(0.99))], ids=str)
def test_foreach_with_tensor_betas_holds_two_lists(betas, capturable_on_cpu):
    params = [torch.nn.Parameter(torch.ones(100, 100)) for _ in range(10)]
    optimizer = AdaBelief(params, betas=betas, foreach=True, capturable=True)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    with PeakMemory() as memory:
        optimizer.step()
    expected = 2 if isinstance(betas[0], torch.Tensor) else 1
    assert memory.peak / sum(param.nbytes for param in params) == pytest.approx(expected, abs=0.01)


def test_errors_are_those_of_torchs_optimizers():
    for error in optim_error_inputs_func_adabelief("cpu", torch.float32):
        assert error.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR
        refused = error.optimizer_error_input
        context = pytest.warns if issubclass(error.error_type, Warning) else pytest.raises
        with context(error.error_type, match=error.error_regex):
            AdaBelief(refused.params, **refused.kwargs)


def test_foreach_is_chosen_where_the_parameters_devices_have_it(monkeypatch):
    weight, bias, closure = linear_problem()
    optimizer = AdaBelief([weight, bias])
    with mock.patch.object(update_module, "_multi_tensor_adabelief") as foreach:
        optimizer.step(closure)
        assert not foreach.called  # nothing is gained by it on the CPU
        monkeypatch.setattr(
            inspect.getmodule(torch.optim.Optimizer), "_get_foreach_kernels_supported_devices", lambda: ["cpu"]
        )
        optimizer.step(closure)
        assert foreach.called


def test_step_hooks_run_around_the_step_global_ones_outermost():
    weight, bias, closure = linear_problem()
    optimizer, seen = AdaBelief([weight, bias]), []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: seen.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: seen.append("global post")),
        optimizer.register_step_pre_hook(lambda opt, *_: seen.append(f"pre {len(opt.state)}")),
        optimizer.register_step_post_hook(lambda opt, *_: seen.append(f"post {len(opt.state)}")),
    ]
    optimizer.step(closure)
    for handle in handles:
        handle.remove()
    optimizer.step(closure)
    assert seen == ["global pre", "pre 0", "post 2", "global post"]


def test_the_scaler_is_left_to_unscale_and_to_clip():
    weight, bias, closure = linear_problem()
    optimizer = AdaBelief([weight, bias])
    optimizer.step(closure)
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
def test_step_returns_what_the_closure_does(kwargs):
    weight, bias, closure = linear_problem()
    optimizer = AdaBelief([weight, bias], **kwargs)
    assert optimizer.step(closure) == linear_problem()[2]()
    assert optimizer.step() is None


def test_the_info_leaves_the_choice_of_implementation_to_the_tests():
    assert not any({"foreach", "fused", "differentiable"} & i.kwargs.keys() for i in ADABELIEF.optim_inputs_func("cpu"))
