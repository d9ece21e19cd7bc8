"""Addresses and layouts that the fused CUDA step is given: run by test_fused_cuda.py, interpreted or on a GPU."""

import gc
import itertools

import pytest
import torch

from lightning_adabelief.optim.fused import cuda_tables
from tests.optim.fused_cuda_checks import BLOCK, DEVICE, Case, assert_same


def test_a_gradient_in_new_memory_is_found():
    case = Case([(8,), (3,)], steps_taken=9)
    expected, earlier = case.clone(), []
    for _ in range(2 * cuda_tables.MAX_TABLES):
        earlier.append(case.grads)  # so that the next one cannot lie where this one does
        case.new_grads()
        expected.grads = case.grads
        case.fused()
        expected.reference()
    assert_same(case, expected, ulps=16)
    assert len(cuda_tables._caches[case.steps[0]].groups) == cuda_tables.MAX_TABLES


def test_the_table_is_kept_while_addresses_stay_and_forgotten_with_the_state():
    case = Case([(8,), (3,)])
    columns = case.columns()[:4]
    first = cuda_tables.group_tensors(columns, case.steps)
    assert cuda_tables.group_tensors(columns, case.steps) is first
    old = case.grads
    case.new_grads()
    assert cuda_tables.group_tensors((case.params, case.grads, case.m, case.s), case.steps) is not first
    assert cuda_tables.group_tensors((case.params, old, case.m, case.s), case.steps) is first
    kept = len(cuda_tables._caches)
    del case, columns, old
    gc.collect()
    assert len(cuda_tables._caches) == kept - 1


def test_a_capture_takes_the_memory_that_a_step_set_aside(monkeypatch):
    allocated = []
    monkeypatch.setattr(
        cuda_tables, "_allocate_pinned", lambda size: allocated.append(torch.empty(size)) or allocated[-1]
    )
    memory = cuda_tables._TableCache()
    for captures in (1, 2):
        memory.set_aside(16)
        memory.set_aside(16)
        assert memory.use_spare(16) is allocated[-1] and len(allocated) == captures
    assert [*map(id, memory.captured)] == [*map(id, allocated)]  # every graph has its own
    memory.set_aside(16)
    assert memory.use_spare(24) is allocated[-1] and len(allocated) == 4  # other parameters than before


LAYOUTS = {
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "with gaps": lambda t: torch.stack([t, t], dim=-1)[..., 0],
    "contiguous": lambda t: t,
}


@pytest.mark.parametrize("param_layout, grad_layout", [*itertools.product(LAYOUTS, LAYOUTS)])
def test_any_layout_of_parameter_and_gradient(param_layout, grad_layout):
    case = Case([(3, 4, 2, 5), (6,)], amsgrad=True, steps_taken=9)
    expected, unscaled = case.clone(), case.grads[0].clone()
    for column in (case.params, case.m, case.s, case.max_s):
        column[0] = LAYOUTS[param_layout](column[0])
    case.grads[0] = LAYOUTS[grad_layout](case.grads[0])
    case.fused()
    expected.reference()
    assert_same(case, expected)
    assert torch.equal(case.grads[0], unscaled)
    case.fused(grad_scale=torch.tensor(2.0, device=DEVICE))
    expected.grads = [g / 2 for g in expected.grads]
    expected.reference()
    assert_same(case, expected, ulps=8)
    assert torch.equal(case.grads[0], unscaled / 2)


def test_views_into_a_flat_buffer_leave_their_neighbours_alone():
    sizes = [3, 8, BLOCK + 1, 16]
    case = Case([(size,) for size in sizes], steps_taken=9)
    expected = case.clone()
    buffers = []
    for column in (case.params, case.grads, case.m, case.s):
        buffers.append(torch.full((sum(sizes) + len(sizes) + 1,), 7.0, device=DEVICE))
        at = 1
        for i, tensor in enumerate(column):
            column[i] = buffers[-1][at : at + len(tensor)].copy_(tensor)
            at += len(tensor) + 1
    case.fused()
    expected.reference()
    assert_same(case, expected)
    gaps = torch.cumsum(torch.tensor([0] + [size + 1 for size in sizes]), 0)
    for buffer in buffers:
        assert (buffer[gaps.to(DEVICE)] == 7).all()


def test_only_aligned_tensors_of_a_round_size_are_read_16_bytes_at_a_time():
    # The interpreter takes no notice of a wrong promise; a GPU stops with a misaligned address.
    def aligned(case):
        (group,) = cuda_tables.group_tensors(case.columns()[:4], case.steps)
        return group.aligned

    assert aligned(Case([(BLOCK,)])) and aligned(Case([(3, 8)]))
    assert not aligned(Case([(BLOCK + 4,)])) and not aligned(Case([()]))
    for column in range(4):
        case = Case([(16,)])
        tensor = case.columns()[column][0]
        case.columns()[column][0] = torch.empty(17, device=DEVICE)[1:].copy_(tensor)
        assert not aligned(case)
