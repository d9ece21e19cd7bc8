"""torch.compile(optimizer.step): one graph, compiled once, with the eager step's results."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.averages import is_coded
from lightning_adabelief.optim.packing import MAXIMUM, MOMENTUM, VARIANCE, find_packed_shape, pack

STEPS = 20

OPTIONS = [
    dict(),
    dict(warmup=5, weight_decay=0.1, amsgrad=True),
    dict(rectify=False, weight_decay=0.1, weight_decouple=False, maximize=True),
    dict(degenerated_to_sgd=False, residual="previous"),
]


def compare(make_compiled, options, backend, dtype=torch.float32, shapes=((3, 1), (3, 4), (3, 7))):
    """Train under a scheduler, compiled and eagerly; return the two models' parameters and the graphs."""
    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    compiled, eager = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizers = make_compiled(compiled), AdaBelief(eager, lr=1e-2, **options)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9) for optimizer in optimizers]
    counter = CompileCounterWithBackend(backend)
    compiled_step = torch.compile(optimizers[0].step, backend=counter)
    for _ in range(STEPS):
        for ours, theirs in zip(compiled, eager, strict=True):
            theirs.grad = torch.randn(theirs.shape, generator=generator, dtype=dtype)
            ours.grad = theirs.grad.clone()
        compiled_step()
        optimizers[1].step()
        for scheduler in schedulers:
            scheduler.step()
    assert [optimizers[0].state[p]["step"].item() for p in compiled] == [STEPS] * len(shapes)
    for ours, theirs in zip(compiled, eager, strict=True):
        codes, expected = (
            optimizer.state[p]["exp_avg_var"] for optimizer, p in zip(optimizers, (ours, theirs), strict=True)
        )
        if is_coded(codes):  # by other draws a third would differ
            assert (codes != expected).float().mean() < 0.02
    return compiled, eager, counter


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_graph_serves_a_scheduled_tensor_lr(foreach, options):
    def make(params):  # as with torch's optimizers, a tensor lr and foreach want capturable, which compilation brings
        return AdaBelief(params, lr=torch.tensor(1e-2), foreach=foreach, capturable=foreach, **options)

    compiled, eager, counter = compare(make, options, backend="eager")
    assert counter.frame_count == 1
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


def test_fused_is_one_graph_that_the_compiler_fuses():
    compiled, eager, counter = compare(lambda params: AdaBelief(params, lr=torch.tensor(1e-2), fused=True), {}, "eager")
    assert counter.frame_count == 1
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


def test_several_groups_and_tensor_betas_are_one_graph():
    options = dict(weight_decay=0.1)

    def make(params):
        betas = torch.tensor(0.9), torch.tensor(0.999)
        groups = [{"params": params[:1]}, {"params": params[1:], "amsgrad": False}]
        return AdaBelief(groups, lr=torch.tensor(1e-2), betas=betas, **options)

    compiled, eager, counter = compare(make, options, backend="eager")
    assert counter.frame_count == 1
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


def test_inductor_compiles_the_foreach_step():
    def make(params):
        return AdaBelief(params, lr=torch.tensor(1e-2), foreach=True, capturable=True)

    compiled, eager, counter = compare(make, {}, backend="inductor")
    assert counter.frame_count == 1
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bits", "backend"), [(32, "eager"), (16, "eager"), (24, "inductor")])
def test_weights_of_16_bits_are_one_graph_and_rounded_as_eagerly(bits, backend):
    options = dict(master_weight_bits=bits, weight_decay=0.1)

    def make(params):
        return AdaBelief(params, lr=torch.tensor(1e-2), foreach=True, capturable=True, **options)

    compiled, eager, counter = compare(make, options, backend, dtype=torch.bfloat16)
    assert counter.frame_count == 1
    torch.testing.assert_close(compiled, eager, rtol=0.01, atol=0)  # a unit in the last place
    same = torch.cat([(ours == theirs).flatten() for ours, theirs in zip(compiled, eager, strict=True)])
    assert same.float().mean() > 0.9


@pytest.mark.parametrize(
    ("foreach", "options", "backend"),
    [
        (False, dict(state_bits=8, amsgrad=True), "eager"),
        (True, dict(state_bits=16, amsgrad=True, weight_decay=0.1), "eager"),
        pytest.param(True, dict(state_bits=8), "inductor", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_averages_of_fewer_bits_are_one_graph_and_rounded_as_eagerly(foreach, options, backend):
    def make(params):
        return AdaBelief(params, lr=torch.tensor(1e-2), foreach=foreach, capturable=foreach, **options)

    compiled, eager, counter = compare(make, options, backend, shapes=[(33, 130), (3,)])
    assert counter.frame_count == 1
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [MOMENTUM, VARIANCE, MAXIMUM])
@pytest.mark.parametrize("shape", [(33, 130), (5000,), (3, 192)], ids=str)
def test_inductor_codes_every_element_also_of_a_short_last_block(shape, name):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))

    def code(values, packed):
        pack(values, packed, name, key=torch.tensor(5))
        return packed

    torch._dynamo.reset()
    compiled, eager = (
        function(values, torch.zeros(find_packed_shape(values.shape), dtype=torch.uint8))
        for function in (torch.compile(code, fullgraph=True), code)
    )
    assert torch.equal(compiled, eager)
