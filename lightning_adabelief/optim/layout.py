"""The layout of tensors in memory, for kernels that see addresses alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from torch import Tensor


@lru_cache(maxsize=4096)
def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """True if a tensor's elements fill one stretch of memory, in any order (as with channels last).

    Args:
        shape: The tensor's shape.
        stride: Its strides, in elements.
    """
    filled = 1  # elements without a gap, going from the innermost dimension outwards
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size != 1:
            if step != filled:
                return False
            filled *= size
    return True


def align_layouts(
    columns: list[list[Tensor]],
    in_rows: bool = False,
) -> tuple[list[list[Tensor]], list[tuple[list[Tensor], list[Tensor]]]]:
    """Make the n-th element in memory the same one in all tensors of a parameter.

    Args:
        columns: Lists of tensors; entry i of each belongs to parameter i and has its shape.
        in_rows: Make that order the logical one too: all tensors contiguous.

    Returns:
        The columns, with contiguous copies in place of the tensors of each parameter whose tensors
        differ in layout or have gaps, or are not contiguous and to be so; and for each such parameter
        its tensors and their copies.
    """
    if all(map(Tensor.is_contiguous, chain(*columns))):
        return columns, []
    rows = [list(row) for row in zip(*columns, strict=True)]
    copied = []
    for i, tensors in enumerate(rows):
        if not all(map(Tensor.is_contiguous, tensors)) and (in_rows or not _share_dense_layout(tensors)):
            rows[i] = [tensor.contiguous() for tensor in tensors]
            copied.append((tensors, rows[i].copy()))
    return [list(column) for column in zip(*rows, strict=True)], copied


def _share_dense_layout(tensors: list[Tensor]) -> bool:
    strides = {tensor.stride() for tensor in tensors}
    return len(strides) == 1 and is_dense(tensors[0].shape, strides.pop())
