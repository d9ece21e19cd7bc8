"""What the fused CUDA kernels compile to: run by test_fused_cuda.py, on any machine.

Not collected by itself, for it tells Triton of a GPU that is not there: kernels are compiled for
it, never launched.
"""

import re

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from lightning_adabelief.optim.averages import make_average
from lightning_adabelief.optim.fused import cuda
from lightning_adabelief.optim.low_precision import CORRECTIONS, MISSING_BITS
from lightning_adabelief.optim.tensors import StepTensors
from tests.optim.fused_cuda_checks import OPTIONS


class _AbsentGPU:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class _Compiled:
    """In place of a kernel: keeps what each launch would have run."""

    def __init__(self, kernel):
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid):
        return lambda *args, **options: self.launches.append(self.kernel.warmup(*args, grid=grid, **options))


@pytest.fixture
def kernels(monkeypatch):
    driver.set_active(_AbsentGPU())
    return replace_kernels(monkeypatch, "scale", "rule")


@pytest.fixture
def packed_kernels(monkeypatch):
    driver.set_active(_AbsentGPU())
    return replace_kernels(monkeypatch, "scale", "packed_rule")


def replace_kernels(monkeypatch, *names):
    kernels = [_Compiled(getattr(cuda, name)) for name in names]
    for name, kernel in zip(names, kernels, strict=True):
        monkeypatch.setattr(cuda, name, kernel)
    return kernels


def step(shapes, dtype=torch.float32, amsgrad=False, master_weight_bits=32, state_bits=32, **options):
    state_dtype = torch.promote_types(dtype, torch.float32)
    params, grads = ([torch.zeros(shape, dtype=dtype) for shape in shapes] for _ in range(2))
    *columns, maxima = ([make_average(param, state_bits, state_dtype) for param in params] for _ in range(3))
    steps = [torch.zeros(()) for _ in shapes]
    corrections = [
        [
            torch.zeros(shape, dtype=part) if dtype in MISSING_BITS and master_weight_bits >= bits else None
            for shape in shapes
        ]
        for part, bits in CORRECTIONS.values()
    ]
    tensors = StepTensors(params, grads, *columns, maxima if amsgrad else [], steps, *corrections)
    cuda.fused_adabelief_cuda(tensors, **{**OPTIONS, **options})


def test_one_compilation_serves_any_model_and_any_number(kernels):
    step([(8,)])
    step([(8,), (4096, 16), (0,)] * 50, lr=0.0, eps=0.0, warmup=16, weight_decay=1.0)
    step(
        [(160,)], lr=1.0, betas=(0.0, 0.5), residual="previous", maximize=True, weight_decay=0.1, weight_decouple=False
    )
    step([(1024,)] * 16, lr=torch.tensor(1e-3).item(), fixed_decay=True, weight_decay=0.5, warmup=0.5, total_steps=32)
    for kernel in kernels:
        assert len(kernel.launches) == 4
        assert len({id(compiled) for compiled in kernel.launches}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_every_variant_compiles(kernels, dtype):
    scalars = dict(grad_scale=torch.ones(1), found_inf=torch.zeros(()), lr=torch.tensor(0.1))
    for amsgrad, bits in ((False, 24), (True, 16)):
        for more in ({}, scalars):
            step([(8,), (7,)], dtype, amsgrad, bits, rectify=amsgrad, **more)
    for kernel in kernels:
        assert all("cubin" in compiled.asm for compiled in kernel.launches) and len(kernel.launches) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_variants_for_averages_of_16_bits_compile(kernels, dtype):
    for amsgrad, bits in ((False, 24), (True, 16)):
        step([(8,), (7,)], dtype, amsgrad, bits, state_bits=16)
    for kernel in kernels:
        assert all("cubin" in compiled.asm for compiled in kernel.launches) and len(kernel.launches) == 4


@pytest.mark.parametrize(
    "dtype, state_bits",
    [*((dtype, 32) for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)), (torch.bfloat16, 16)],
    ids=str,
)
def test_memory_is_read_and_written_16_bytes_at_a_time(kernels, dtype, state_bits):
    step([(4096,)], dtype, state_bits=state_bits)
    ptx = kernels[1].launches[0].asm["ptx"]
    size = 2 if state_bits == 16 else torch.promote_types(dtype, torch.float32).itemsize
    # 128 threads update 1024 elements of state: so many 16-byte accesses a thread and tensor.
    a_tensor = 8 * size // 16
    of_param = 8 * dtype.itemsize // 16
    loads, stores = (re.findall(rf"{op}\.global\.(v4\.b32|v2\.b64)", ptx) for op in ("ld", "st"))
    assert len(loads) == len(stores) + of_param == 2 * a_tensor + 2 * of_param
    of_corrections = 2 if dtype in MISSING_BITS else 0  # 8 bytes a thread and part
    assert len(re.findall(r"ld\.global\.v2\.b32", ptx)) == of_corrections
    assert not re.findall(r"st\.global\.b", ptx)


def test_nothing_is_spilled_from_registers(kernels):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        step([(4096,)], dtype)
    step([(4096,)], torch.bfloat16, True, 24, state_bits=16)
    for kernel in kernels:
        for compiled in kernel.launches:
            assert ".local" not in compiled.asm["ptx"]


def test_one_compilation_serves_packed_averages_of_any_shape(packed_kernels):
    step([(16, 256)], state_bits=8)
    step([(3, 576), (4096, 16), (0, 64)] * 9, state_bits=8, lr=0.0, eps=0.0, warmup=16, weight_decay=1.0)
    step([(1, 64)], state_bits=8, betas=(0.0, 0.5), residual="previous", maximize=True)
    for kernel in packed_kernels:
        assert len(kernel.launches) == 3
        assert len({id(compiled) for compiled in kernel.launches}) == 1


@pytest.mark.parametrize(
    "dtype, master_weight_bits", [(torch.float32, 32), (torch.bfloat16, 24), (torch.float16, 16)], ids=str
)
def test_variants_for_packed_averages_compile_without_a_spill(packed_kernels, dtype, master_weight_bits):
    scalars = dict(grad_scale=torch.ones(1), found_inf=torch.zeros(()), max_update_to_lr=1.0)
    step([(8, 256)], dtype, True, master_weight_bits, state_bits=8, **scalars)
    step([(8, 100)], dtype, False, master_weight_bits, state_bits=8)
    launches = packed_kernels[1].launches
    assert len(launches) == 2
    assert all("cubin" in compiled.asm and ".local" not in compiled.asm["ptx"] for compiled in launches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_steps_that_take_their_sums_compile_without_a_spill(kernels, dtype):
    step([(4096,), (7,)], dtype, master_weight_bits=24, sums={})
    assert len(kernels[1].launches) == 2
    assert all(".local" not in compiled.asm["ptx"] for compiled in kernels[1].launches)


def test_steps_on_packed_averages_that_take_their_sums_compile_without_a_spill(packed_kernels):
    step([(8, 256), (8, 100)], torch.bfloat16, master_weight_bits=24, state_bits=8, sums={})
    assert len(packed_kernels[1].launches) == 2
    assert all(".local" not in compiled.asm["ptx"] for compiled in packed_kernels[1].launches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_averages_are_read_and_written_4_bytes_at_a_time(packed_kernels, dtype):
    step([(16, 256)], dtype, state_bits=8)
    ptx = packed_kernels[1].launches[0].asm["ptx"]
    of_param = 8 * dtype.itemsize // 16  # 128 threads update 1024 elements of it, 16 bytes at a time
    assert [len(re.findall(rf"{op}\.global\.v4\.b32", ptx)) for op in ("ld", "st")] == [2 * of_param, of_param]
    assert not re.findall(r"(ld|st)\.global\.(b8|b16)", ptx)
    assert "fma" not in ptx  # it would round less often than the code does
