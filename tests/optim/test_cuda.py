"""The step in a CUDA graph, and implementations that agree there: only a GPU can show them."""

import pytest
import torch

from lightning_adabelief import AdaBelief, beliefs
from lightning_adabelief.optim.averages import is_coded

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:.*capturable=True"),  # torch's, where such a step runs outside of a graph
]

OPTIONS = [
    dict(),
    dict(amsgrad=True, weight_decay=0.1, warmup=8),
    dict(rectify=False, weight_decay=0.1, weight_decouple=False),
    dict(betas=(0.8, 0.99), residual="previous", degenerated_to_sgd=False),
]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_captured_step_replays_as_plain_steps_with_a_lr_that_moves(foreach, options):
    generator = torch.Generator("cuda").manual_seed(0)
    start = [torch.randn(3, n, generator=generator, device="cuda") for n in (1, 4, 7)]
    captured, plain = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    lr = torch.tensor(1e-2, device="cuda")
    optimizer = AdaBelief(captured, lr=lr, capturable=True, foreach=foreach, **options)
    reference = AdaBelief(plain, foreach=foreach, **options)
    for param in captured:
        param.grad = torch.zeros_like(param)

    def next_gradients():
        for ours, theirs in zip(captured, plain, strict=True):
            ours.grad.normal_(generator=generator)
            theirs.grad = ours.grad.clone()

    graph = torch.cuda.CUDAGraph()
    for t in range(20):
        next_gradients()
        lr.fill_(1e-2 * 0.9**t)
        reference.param_groups[0]["lr"] = lr.item()
        reference.step()
        if t == 0:  # makes the state
            optimizer.step()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):  # records, and runs nothing
                optimizer.step()
        else:
            graph.replay()
    for ours, theirs in zip(captured, plain, strict=True):
        assert optimizer.state[ours]["step"].is_cuda and optimizer.state[ours]["step"] == 20
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state_bits", [16, 8])
def test_averages_of_fewer_bits_are_stepped_fused_as_by_foreach(state_bits, dtype):
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = [(64, 128), (16, 64, 3, 3), (5000,), (3,)]
    start = [torch.randn(shape, generator=generator, device="cuda").to(dtype) for shape in shapes]
    fused, foreach = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    options = dict(lr=1e-3, rectify=False, amsgrad=True, state_bits=state_bits, master_weight_bits=24)
    optimizers = AdaBelief(fused, fused=True, **options), AdaBelief(foreach, foreach=True, **options)
    for _ in range(5):
        for ours, theirs in zip(fused, foreach, strict=True):
            ours.grad = torch.randn(ours.shape, generator=generator, device="cuda").to(dtype)
            theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert [is_coded(optimizers[0].state[param]["exp_avg"]) for param in fused] == [True, True, True, False]
    for ours, theirs in zip(fused, foreach, strict=True):
        # A code that is rounded elsewhere moves the step of its weight.
        assert torch.isclose(ours, theirs, rtol=1e-5, atol=1e-6).float().mean() > 0.95
        torch.testing.assert_close(ours, theirs, rtol=torch.finfo(dtype).eps, atol=1e-3)


def test_statistics_are_the_same_with_the_sums_of_the_fused_step_and_without():
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = [(64, 128), (3000,), (3,)]
    model = torch.nn.ParameterList(torch.randn(shape, generator=generator, device="cuda") for shape in shapes)
    optimizer = AdaBelief(model.parameters(), fused=True, weight_decay=0.1)
    for _ in range(10):
        for param in model:
            param.grad = torch.randn(param.shape, generator=generator, device="cuda")
        optimizer.step_sums = {}
        optimizer.step()
    with_sums = beliefs.measure(optimizer, model)
    assert set(optimizer.step_sums) == set(model)
    optimizer.step_sums = None
    for name, values in beliefs.measure(optimizer, model).layers.items():
        assert with_sums.layers[name] == pytest.approx(values, rel=1e-4, abs=1e-4, nan_ok=True), name
