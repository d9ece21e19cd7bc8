"""The fused CUDA step: interpreted on the CPU, compiled for a GPU that is not there, run on one that is."""

import importlib
import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from lightning_adabelief.optim.averages import make_average

HERE = Path(__file__).parent
FUSED = "lightning_adabelief.optim.fused"
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton: pip install triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
gpu_free_test = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs the same checks for real")


CHECKS = pytest.mark.parametrize(
    "checks", [f"fused_cuda_{name}.py" for name in ("checks", "16_bits", "memory", "packed", "step_sums")]
)


def run_checks(name, tmp_path, **environment):
    """Run a file of checks in a process of its own, for what Triton is told there holds for all of it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / name)]
    finished = subprocess.run(
        command,
        cwd=HERE.parents[1],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@needs_triton
@gpu_free_test
@CHECKS
def test_the_checks_hold_under_the_interpreter(checks, tmp_path):
    run_checks(checks, tmp_path, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@needs_triton
@needs_gpu
@CHECKS
def test_the_checks_hold_on_the_gpu(checks, tmp_path):
    run_checks(checks, tmp_path, TRITON_INTERPRET="0")


@needs_triton
def test_the_kernels_compile_well_for_cuda(tmp_path):
    run_checks("fused_cuda_compilation.py", tmp_path, TRITON_INTERPRET="0", CUDA_VISIBLE_DEVICES="")


def test_the_optimizer_does_not_import_triton():
    code = "import sys; from lightning_adabelief import AdaBelief; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=HERE.parents[1], check=True)


def test_without_triton_the_error_says_what_to_do(monkeypatch):
    for name in ("cuda", "cuda_tables", "cuda_kernels", "cuda_packed", "cuda_step_sums"):
        monkeypatch.delitem(sys.modules, f"{FUSED}.{name}", raising=False)
    for name in ("triton", "triton.language"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install triton, or give fused=False"):
        importlib.import_module(f"{FUSED}.cuda")


@pytest.fixture(params=[32, 16, 8], ids="state_bits={}".format)
def case(request):
    from tests.optim.fused_cuda_checks import Case
    from tests.optim.fused_cuda_packed import PackedCase

    if request.param == 8:
        make, usual_shapes = PackedCase, [(3, 200), (4, 100), (5000,), (16, 256)]
    else:
        make, usual_shapes = partial(Case, state_bits=request.param), [(3, 8), (), (5000,), (4096,)]
    return lambda shapes=usual_shapes, **options: make(shapes, **{"steps_taken": 3, **options})


@needs_gpu
def test_a_step_never_waits_for_the_gpu(case):
    case = case()
    lr, scale, found_inf = (torch.tensor(value, device="cuda") for value in (1e-2, 2.0, 0.0))
    case.fused(lr=lr, grad_scale=scale, found_inf=found_inf)
    case.fused(lr=lr, sums={})
    torch.cuda.set_sync_debug_mode("error")
    try:
        case.new_grads_of_ones()
        case.fused(lr=lr, grad_scale=scale, found_inf=found_inf)
        case.fused(lr=lr, sums={})
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.parametrize("new_gradients", [False, True])
def test_a_captured_step_replays_as_eager_steps_do(case, new_gradients):
    case = case()
    lr = torch.tensor(1e-2, device="cuda")
    case.fused(lr=lr)  # sets aside the memory a capture needs
    expected = case.clone()
    if new_gradients:
        case.new_grads()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        case.fused(lr=lr)
    for value in (1e-2, 3e-3, 1e-3):
        expected.new_grads()
        for grad, new in zip(case.grads, expected.grads, strict=True):
            grad.copy_(new)
        lr.fill_(value)
        graph.replay()
        expected.fused(lr=value)
    for column, eager in zip(case.columns(), expected.columns(), strict=True):
        torch.testing.assert_close(column, eager)


@needs_gpu
def test_two_param_groups_of_one_size_are_captured_in_one_graph(case):
    cases = [case(seed=0), case(seed=1)]
    for each in cases:
        each.fused()
    expected = [each.clone() for each in cases]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for each in cases:
            each.new_grads_of_ones()
            each.fused()
    graph.replay()
    for each, eager in zip(cases, expected, strict=True):
        eager.new_grads_of_ones()
        eager.fused()
        torch.testing.assert_close(each.params, eager.params)


@needs_gpu
def test_a_second_model_compiles_nothing(case, monkeypatch, tmp_path):
    case().fused()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # where a compilation would leave its results
    case([(7, 9), (64,)] * 30, steps_taken=8).fused(lr=1.0, eps=1e-3, weight_decay=0.1)
    assert not list(tmp_path.iterdir())
    case(amsgrad=True).fused()
    assert list(tmp_path.iterdir())


@needs_gpu
def test_a_step_allocates_nothing_as_large_as_a_parameter(case):
    case = case([(1 << 22,), (1 << 10, 1 << 10)])
    case.fused()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    case.fused()
    assert torch.cuda.max_memory_allocated() - before < 1 << 16


@needs_gpu
@pytest.mark.parametrize("state_bits", [32, 8])
def test_a_tensor_of_more_than_2_to_the_31_elements(state_bits):
    size = 2**31 + 2048
    if torch.cuda.mem_get_info()[0] < 5 * size * 4:
        pytest.skip("needs 43 GB of free GPU memory")
    from lightning_adabelief.optim.fused.cuda import fused_adabelief_cuda
    from lightning_adabelief.optim.tensors import StepTensors
    from tests.optim.fused_cuda_checks import OPTIONS

    param, grad = (torch.zeros(size, device="cuda") for _ in range(2))
    grad.fill_(1)
    m, s = (make_average(param, state_bits, torch.float32) for _ in range(2))
    step = torch.zeros((), device="cuda")
    fused_adabelief_cuda(StepTensors([param], [grad], [m], [s], [], [step], [], [], [1]), **OPTIONS)
    if state_bits == 8:  # all are the largest of their block
        assert [m[0, :size].min().item(), m[0, :size].max().item()] == [127, 127]
        m = m[0, size:].view(torch.float32)
    assert [m.min().item(), m.max().item()] == pytest.approx([0.1, 0.1])
