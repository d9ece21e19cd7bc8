"""Tables of the addresses of a fused CUDA step's tensors, kept while the addresses stay the same.

Gradients may lie elsewhere after each backward pass, so a table is looked up by the addresses in it.
It is sent from pinned memory, in the order of the stream, and nothing waits for it. In a CUDA graph
the sending is a node of the graph, which every replay runs again: the table itself then belongs to
the graph, and the pinned memory is kept for as long as the optimizer's state.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import MutableMapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_adabelief.optim import packing
from lightning_adabelief.optim.fused.cuda_kernels import COLUMNS, SCALES

BLOCK = 1024
"""Elements that a program updates: with 4 warps, two loads of 16 bytes for each thread and float32 tensor."""

PACKED_BLOCKS = BLOCK // packing.BLOCK
"""Blocks of a scale that a program updates where the averages are packed."""

MAX_TABLES = 8
"""Tables kept for a set of parameters: an allocator comes back to the same few addresses."""


class TensorGroup(NamedTuple):
    """The kernels' arguments for tensors of the same dtypes.

    Attributes:
        dtypes: The dtypes of parameters, gradients and averages.
        aligned: True if all addresses are multiples of 16 bytes and all sizes, of rows if packed, of 8 elements.
        table: (tensors, COLUMNS) int64, on the device; see ``cuda_kernels.py``.
        owners: (programs,) int32, the row of the tensor that each program updates a part of.
        scales: (tensors, SCALES) float64, filled by the first kernel with the scalars of the step.
        members: The places of its tensors among all, in the order of the table.
    """

    dtypes: tuple[torch.dtype, ...]
    aligned: bool
    table: Tensor
    owners: Tensor
    scales: Tensor
    members: list[int]


class _TableCache:
    """The tables of one set of parameters, forgotten with the step tensor of the first one."""

    def __init__(self) -> None:
        self.groups: OrderedDict[tuple[Any, ...], list[TensorGroup]] = OrderedDict()
        self.spare: Tensor | None = None
        self.captured: list[Tensor] = []

    def set_aside(self, size: int) -> None:
        """Allocate pinned memory for a later capture: older versions of torch cannot do so during one."""
        if self.spare is None or len(self.spare) != size:
            self.spare = _allocate_pinned(size)

    def use_spare(self, size: int) -> Tensor:
        """Return pinned memory for a captured step, kept because every replay reads it."""
        spare, self.spare = self.spare, None
        self.captured.append(spare if spare is not None and len(spare) == size else _allocate_pinned(size))
        return self.captured[-1]


_caches: MutableMapping[Tensor, _TableCache] = WeakTensorKeyDictionary()


def group_tensors(
    columns: Sequence[list[Tensor]],
    steps: list[Tensor],
    corrections: Sequence[list[Tensor]] = (),
    rounding_seeds: Sequence[int] = (),
) -> list[TensorGroup]:
    """Sort tensors into groups, and put their addresses on the device.

    Args:
        columns: Parameters, gradients, exp_avg, exp_avg_var and, under amsgrad, its maximum; the
            tensors of a parameter laid out alike. Either all averages are packed, or none.
        steps: The step tensor of each parameter.
        corrections: Those of parameters of 16 bits and their last bits, laid out as these; none, one or both.
        rounding_seeds: The seeds of their rounding; empty where there is none.

    Returns:
        The groups. They hold addresses only: the tensors must outlive their use.
    """
    device = columns[0][0].device
    addresses = [list(map(Tensor.data_ptr, column)) for column in (*columns, steps)]
    none = [0] * len(steps)
    parts = [list(map(Tensor.data_ptr, column)) for column in corrections]
    rounding = [*parts, *(2 - len(parts)) * [none], rounding_seeds or none]
    is_packed = packing.is_packed(columns[2][0])
    row_lengths = [packing.count_row(param.shape) for param in columns[0]] if is_packed else none
    sizes = list(map(Tensor.numel, columns[0])), row_lengths
    dtypes = [[tensor.dtype for tensor in column] for column in columns[:3]]
    cache = _caches.get(steps[0])
    if cache is None:
        cache = _caches[steps[0]] = _TableCache()
    size = COLUMNS.value * len(steps)
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return _build_groups(addresses, rounding, sizes, dtypes, device, cache.use_spare(size))
        cache.set_aside(size)
    # The stream is part of the key: on another one nothing would order the sending of a table and its reading.
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    key = (device, stream, len(columns), *chain(*sizes, *addresses, *rounding, *dtypes))
    if key not in cache.groups:
        staging = _allocate_pinned(size) if device.type == "cuda" else torch.empty(size, dtype=torch.int64)
        cache.groups[key] = _build_groups(addresses, rounding, sizes, dtypes, device, staging)
        if len(cache.groups) > MAX_TABLES:
            cache.groups.popitem(last=False)
    cache.groups.move_to_end(key)
    return cache.groups[key]


def _build_groups(
    addresses: list[list[int]],
    rounding: Sequence[Sequence[int]],
    sizes: tuple[list[int], list[int]],
    dtypes: list[list[torch.dtype]],
    device: torch.device,
    staging: Tensor,
) -> list[TensorGroup]:
    """Make the groups, and send their tables by way of ``staging``.

    Args:
        addresses: The addresses of each column, those of the steps last.
        rounding: The addresses of the corrections, and the seeds; 0 for none.
        sizes: The number of elements of each parameter, and of its rows if the state is packed, else 0.
        dtypes: The dtypes of parameters, gradients and averages.
        device: The device that the tables are sent to.
        staging: int64 memory for all tables, pinned where the device is a GPU.
    """
    tables: dict[tuple[tuple[torch.dtype, ...], bool], list[tuple[int, ...]]] = defaultdict(list)
    members: dict[tuple[tuple[torch.dtype, ...], bool], list[int]] = defaultdict(list)
    program_counts: dict[tuple[tuple[torch.dtype, ...], bool], int] = defaultdict(int)
    columns = (zip(*column, strict=True) for column in (sizes, dtypes, addresses, rounding))
    rows = enumerate(zip(*columns, strict=True))
    for i, ((numel, row_length), of_dtypes, (*tensors, step), (*corrections, seed)) in rows:
        aligned = (row_length or numel) % 8 == 0 and not any(address % 16 for address in (*tensors, *corrections))
        kind = of_dtypes, aligned
        without_maximum = 5 - len(tensors)  # every row has the same length, amsgrad or not
        row = (*tensors, *(0,) * without_maximum, step, numel, program_counts[kind], *corrections, seed, row_length)
        tables[kind].append(row)
        members[kind].append(i)
        program_counts[kind] += _count_programs(numel, row_length)

    # All tables go in one transfer, and each group takes its rows of it.
    staging.copy_(torch.tensor(list(chain(*tables.values()))).flatten())
    sent = staging.to(device, non_blocking=True).view(-1, COLUMNS.value)
    rows_of_groups = sent.split([len(rows) for rows in tables.values()])
    groups = []
    for kind, table in zip(tables, rows_of_groups, strict=True):
        # A program belongs to the last tensor whose first program is not after it.
        programs = torch.arange(program_counts[kind], device=device)
        owners = torch.searchsorted(table[:, 7].contiguous(), programs, right=True, out_int32=True) - 1
        scales = torch.empty(len(table), SCALES.value, dtype=torch.float64, device=device)
        groups.append(TensorGroup(*kind, table, owners, scales, members[kind]))
    return groups


def _allocate_pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.int64, pin_memory=True)


def _count_programs(numel: int, row_length: int) -> int:
    """Return the number of programs that update a tensor; a ``row_length`` of 0 is that of one that is not packed."""
    if row_length == 0:
        return -(-numel // BLOCK)
    blocks = numel // row_length * -(-row_length // packing.BLOCK)
    return -(-blocks // PACKED_BLOCKS)
