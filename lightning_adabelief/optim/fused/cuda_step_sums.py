"""The sums of a step that is measured, on the device: :mod:`lightning_adabelief.optim.step_sums`.

Each program of ``rule`` and ``packed_rule`` adds up its own elements; those sums are added up afterwards, always in the
same order.
"""
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_adabelief.optim.step_sums import SUMS


def make_program_sums(programs: int, device: torch.device) -> Tensor:
    """Make the table that the programs of a launch store their sums in.

    Args:
        programs: Their number.
        device: That of the tensors.

    Returns:
        A float64 tensor of shape (sums, programs), not filled.
    """
    return torch.empty(len(SUMS), programs, dtype=torch.float64, device=device)


def add_up(program_sums: Tensor, first_programs: Tensor) -> Tensor:
    """Add up the sums of each tensor's programs, without waiting for the device.

    Args:
        program_sums: Of :func:`make_program_sums`, filled.
        first_programs: The number of each tensor's first program, int64, in order; an empty tensor has the next one's.

    Returns:
        A float64 tensor of shape (tensors, sums).
    """
    count, programs = program_sums.shape
    begins = first_programs + programs * torch.arange(count, device=program_sums.device)[:, None]
    offsets = torch.nn.functional.pad(begins.flatten(), (0, 1), value=count * programs)
    # unsafe: what is not checked is what the device would be waited for.
    sums = torch.segment_reduce(program_sums.flatten(), "sum", offsets=offsets, unsafe=True)
    return sums.view(count, -1).T


@triton.jit
def store_sums(program_sums, grad, used_grad, m_before, s, before, after, mask):
    """Store the sums of a program's elements, in the order of ``SUMS``; ``before`` and ``after`` are weights."""
    _store_sum(program_sums, 0, grad * grad, mask)
    _store_sum(program_sums, 1, used_grad * used_grad, mask)
    _store_sum(program_sums, 2, used_grad * m_before, mask)
    _store_sum(program_sums, 3, m_before * m_before, mask)
    _store_sum(program_sums, 4, s, mask)
    _store_sum(program_sums, 5, (before - after) * (before - after), mask)
    _store_sum(program_sums, 6, after * after, mask)


@triton.jit
def _store_sum(program_sums, number: tl.constexpr, addends, mask):
    total = tl.sum(tl.where(mask, addends, 0.0))
    tl.store(program_sums + number * tl.num_programs(0) + tl.program_id(0), total.to(tl.float64))
