"""Where the tensors of a fused CUDA step lie: tables of addresses, kept while these stay the same.

Gradients may lie elsewhere after each backward pass, so a table is found by the addresses it holds.
It is sent from pinned memory, in the order of the stream, and nothing waits for it. In a CUDA graph
the sending is a node of the graph, which every replay runs again: the table itself is then the
graph's, and the pinned memory is kept for as long as the optimizer's state.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_adabelief.optim.fused.cuda_kernels import COLUMNS

BLOCK = 1024
"""Elements a program updates: with 4 warps, two loads of 16 bytes a thread and float32 tensor."""

KEPT = 8
"""Plans kept for a set of parameters: an allocator comes back to the same few addresses."""


class Group(NamedTuple):
    """What the kernels need to know of tensors that are alike in their dtypes.

    Attributes:
        dtypes: Those of parameters, gradients and state.
        wide: Whether all addresses are multiples of 16 bytes and all sizes of 8 elements.
        table: (tensors, COLUMNS) int64, on the device; see ``cuda_kernels.py``.
        owners: (blocks,) int32, the row of the tensor that each block belongs to.
        scales: (tensors, 3) float64, where the scalars of the step are put.
    """

    dtypes: tuple[torch.dtype, ...]
    wide: bool
    table: Tensor
    owners: Tensor
    scales: Tensor


class _Memory:
    """What is kept for one set of parameters, and forgotten with the first one's step."""

    def __init__(self) -> None:
        self.plans: OrderedDict[tuple[Any, ...], list[Group]] = OrderedDict()
        self.spare: Tensor | None = None
        self.captured: list[Tensor] = []

    def set_aside(self, size: int) -> None:
        """Allocate what a capture will need: older versions of torch cannot do so during one."""
        if self.spare is None or len(self.spare) != size:
            self.spare = _pinned(size)

    def take(self, size: int) -> Tensor:
        """Pinned memory for a captured step, kept because every replay reads it."""
        spare, self.spare = self.spare, None
        self.captured.append(spare if spare is not None and len(spare) == size else _pinned(size))
        return self.captured[-1]


_memories: MutableMapping[Tensor, _Memory] = WeakTensorKeyDictionary()


def groups_of(columns: Sequence[list[Tensor]], steps: list[Tensor]) -> list[Group]:
    """Sort tensors into groups, and put their addresses on the device.

    Args:
        columns: Parameters, gradients, exp_avg, exp_avg_var and, under amsgrad, its maximum; the
            tensors of a parameter laid out alike.
        steps: The step tensor of each parameter.

    Returns:
        The groups. They hold addresses only: the tensors must outlive their use.
    """
    device = columns[0][0].device
    addresses = [list(map(Tensor.data_ptr, column)) for column in (*columns, steps)]
    numels = list(map(Tensor.numel, columns[0]))
    dtypes = [[tensor.dtype for tensor in column] for column in columns[:3]]
    memory = _memories.get(steps[0])
    if memory is None:
        memory = _memories[steps[0]] = _Memory()
    size = COLUMNS.value * len(steps)
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return _make_groups(addresses, numels, dtypes, device, memory.take(size))
        memory.set_aside(size)
    # On another stream nothing would order the sending of a table and its reading.
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    key = (device, stream, len(columns), *numels, *chain(*addresses), *chain(*dtypes))
    if key not in memory.plans:
        staging = _pinned(size) if device.type == "cuda" else torch.empty(size, dtype=torch.int64)
        memory.plans[key] = _make_groups(addresses, numels, dtypes, device, staging)
        if len(memory.plans) > KEPT:
            memory.plans.popitem(last=False)
    memory.plans.move_to_end(key)
    return memory.plans[key]


def _make_groups(
    addresses: list[list[int]],
    numels: list[int],
    dtypes: list[list[torch.dtype]],
    device: torch.device,
    staging: Tensor,
) -> list[Group]:
    """Work out the groups, and send their tables by way of ``staging``."""
    tables: dict[tuple[tuple[torch.dtype, ...], bool], list[tuple[int, ...]]] = defaultdict(list)
    for numel, alike, (*tensors, step) in zip(
        numels, zip(*dtypes, strict=True), zip(*addresses, strict=True), strict=True
    ):
        wide = numel % 8 == 0 and not any(address % 16 for address in tensors)
        rows = tables[alike, wide]
        first_block = rows[-1][-1] + _blocks(rows[-1][-2]) if rows else 0
        rows.append((*tensors, *(0,) * (5 - len(tensors)), step, numel, first_block))

    staging.copy_(torch.tensor(list(chain(*tables.values()))).flatten())
    sent = staging.to(device, non_blocking=True).view(-1, COLUMNS.value)
    groups = []
    for ((alike, wide), rows), table in zip(
        tables.items(), sent.split([len(rows) for rows in tables.values()]), strict=True
    ):
        owners = torch.arange(len(rows), dtype=torch.int32, device=device).repeat_interleave(
            (table[:, -2] + (BLOCK - 1)) // BLOCK, output_size=rows[-1][-1] + _blocks(rows[-1][-2])
        )
        scales = torch.empty(len(rows), 3, dtype=torch.float64, device=device)
        groups.append(Group(alike, wide, table, owners, scales))
    return groups


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.int64, pin_memory=True)


def _blocks(numel: int) -> int:
    return -(-numel // BLOCK)


def laid_out_alike(
    columns: list[list[Tensor]],
) -> tuple[list[list[Tensor]], list[tuple[list[Tensor], list[Tensor]]]]:
    """Make the n-th element in memory the same one in all tensors of a parameter.

    Args:
        columns: As those of :func:`groups_of`, laid out in any way.

    Returns:
        The columns, with contiguous copies in place of the tensors of a parameter that are laid out
        differently or have gaps; and for each such parameter, its tensors and their copies.
    """
    if all(map(Tensor.is_contiguous, chain(*columns))):
        return columns, []
    rows = [list(row) for row in zip(*columns, strict=True)]
    copied = []
    for i, tensors in enumerate(rows):
        strides = {tensor.stride() for tensor in tensors}
        if len(strides) > 1 or not _is_dense(tensors[0].shape, strides.pop()):
            rows[i] = [tensor.contiguous() for tensor in tensors]
            copied.append((tensors, rows[i].copy()))
    return [list(column) for column in zip(*rows, strict=True)], copied


@lru_cache(maxsize=4096)
def _is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether the elements fill one stretch of memory, in whatever order."""
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size != 1:
            if step != expected:
                return False
            expected *= size
    return True
