"""The param groups as they are logged before training: in one line, or as a table where there is more to see."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_adabelief.configure.groups import Named
from lightning_adabelief.lightning_tree import rank_zero_info
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.averages import find_state_bits
from lightning_adabelief.optim.low_precision import MISSING_BITS
from lightning_adabelief.optim.options import as_number

WIDTH = 80
"""Characters of a line of the table."""

MANY_ROWS = 20
"""Rows above which neighbouring layers of the same shapes share one."""

MAX_LABEL = 24
"""Characters of a group's name; of a longer one the middle is left out."""

MAX_PLACES = 3
"""Modules that are named in a row; of more, the first and the last."""

MASTER_WEIGHTS = {
    32: "are stepped in 32 bits, of which 2 bytes a weight are kept beside it",
    24: "are stepped in 24 bits, of which 1 byte a weight is kept beside it",
    16: "are rounded stochastically",
}
"""The treatment of parameters of 16 bits, by ``master_weight_bits``."""

HEADINGS = ("group", "tensors", "parameters", "lr", "decay", "of")


@dataclass
class _Row:
    """A row of the table: groups that differ in weight decay alone, or neighbouring layers."""

    labels: list[str]
    names: list[str]
    tensors: int
    parameters: int
    lrs: list[float]
    weight_decays: tuple[float, ...]

    def looks_like(self, other: _Row) -> bool:
        """Return True if both rows are layers of the same size and weight decay."""
        same = (self.tensors, self.parameters, self.weight_decays)
        are_layers = self.labels[0].startswith("depth") and other.labels[0].startswith("depth")
        return are_layers and same == (other.tensors, other.parameters, other.weight_decays)


def log_groups(optimizer: AdaBelief, frozen: Named) -> None:
    """Log an optimizer's param groups, on rank zero.

    The plain split into ``decayed`` and ``undecayed`` is one line, a single group none; groups with options
    of their own are a table of at most :data:`WIDTH` characters a line.

    Args:
        optimizer: The optimizer, its groups named unless there is just one.
        frozen: The module's parameters that it leaves out.
    """
    groups = [group for group in optimizer.param_groups if "name" in group]
    if any(group["name"] not in ("decayed", "undecayed") for group in groups):
        table = _draw_table(_make_rows(groups), frozen)
        rank_zero_info(f"AdaBelief's {len(groups)} param groups, decayed and undecayed of a layer together:\n{table}")
        return
    named = {group["name"]: group["params"] for group in groups}
    if frozen:
        named["frozen, left out"] = [param for _, param in frozen]
    parts = [
        f"{name} {len(params)} tensors ({sum(param.numel() for param in params):,} parameters)"
        for name, params in named.items()
    ]
    if parts:
        rank_zero_info(f"AdaBelief: {'; '.join(parts)}")


def log_master_weights(optimizer: AdaBelief) -> None:
    """Log in one line, on rank zero, how many bits a step works on of parameters of 16 bits; nothing without any.

    Args:
        optimizer: An AdaBelief, its parameters as they will be trained.
    """
    kinds: dict[tuple[str, int], list[int]] = {}
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param.dtype in MISSING_BITS:
                dtype = str(param.dtype).removeprefix("torch.")
                kinds.setdefault((dtype, group["master_weight_bits"]), []).append(param.numel())
    parts = [
        f"{len(sizes)} tensors in {dtype} ({sum(sizes):,} parameters) {MASTER_WEIGHTS[bits]} "
        f"(master_weight_bits={bits})"
        for (dtype, bits), sizes in kinds.items()
    ]
    if parts:
        rank_zero_info(f"AdaBelief: {'; '.join(parts)}")


def log_state_bits(optimizer: AdaBelief) -> None:
    """Log in one line, on rank zero, in how many bits the averages are kept; nothing with 32 bits alone.

    Args:
        optimizer: An AdaBelief, its parameters as they will be trained.
    """
    if all(group["state_bits"] == 32 for group in optimizer.param_groups):
        return
    sizes: dict[int, list[int]] = {}
    for group in optimizer.param_groups:
        for param in group["params"]:
            sizes.setdefault(find_state_bits(param, group["state_bits"]), []).append(param.numel())
    parts = [
        f"in {f'{bits} bits' if bits < 32 else 'floating point'} for {len(found)} "
        f"{'tensors' if len(found) > 1 else 'tensor'} ({sum(found):,} parameters)"
        for bits, found in sorted(sizes.items())
    ]
    rank_zero_info(f"AdaBelief keeps m_t and s_t {', '.join(parts)}")


def _make_rows(groups: Sequence[dict[str, Any]]) -> list[_Row]:
    """Return a row for each layer or glob, decayed and undecayed together; many that look alike in one."""
    rows = []
    for label, members in itertools.groupby(groups, key=_label_of):
        alike = list(members)
        rows.append(
            _Row(
                labels=[label],
                names=[name for group in alike for name in group["param_names"]],
                tensors=sum(len(group["params"]) for group in alike),
                parameters=sum(param.numel() for group in alike for param in group["params"]),
                lrs=[float(as_number(group["lr"])) for group in alike],
                weight_decays=tuple(sorted({group["weight_decay"] for group in alike}, reverse=True)),
            )
        )
    if len(rows) <= MANY_ROWS:
        return rows
    runs: list[list[_Row]] = []
    for row in rows:
        if runs and runs[-1][0].looks_like(row):
            runs[-1].append(row)
        else:
            runs.append([row])
    return [_merge_rows(run) for run in runs]


def _label_of(group: dict[str, Any]) -> str:
    """Return the name that decayed and undecayed groups of a layer or glob share."""
    label, _, decay = group["name"].rpartition("/")
    return label if decay in ("decayed", "undecayed") and label else group["name"]


def _merge_rows(rows: list[_Row]) -> _Row:
    """Return one row for neighbouring layers."""
    return _Row(
        labels=[label for row in rows for label in row.labels],
        names=[name for row in rows for name in row.names],
        tensors=sum(row.tensors for row in rows),
        parameters=sum(row.parameters for row in rows),
        lrs=[lr for row in rows for lr in row.lrs],
        weight_decays=rows[0].weight_decays,
    )


def _draw_table(rows: list[_Row], frozen: Named) -> str:
    """Return the table as text."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    frozen_names = [name for name, _ in frozen]
    all_names = frozen_names + [name for row in rows for name in row.names]
    lines = [_describe_row(row, all_names) for row in rows]
    if frozen:
        parameters = sum(param.numel() for _, param in frozen)
        place = _describe_place(frozen_names, all_names)
        lines.append(["frozen, left out", str(len(frozen)), f"{parameters:,}", "", "", place])
    *widths, _ = (max(map(len, column)) for column in zip(HEADINGS, *lines, strict=True))
    room = WIDTH - sum(width + 2 for width in widths) - 3  # two spaces between columns; what rich puts at the edges
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("group", "of") else "right", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, line[:-1]), Text(_shorten(line[-1], room)))
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def _describe_row(row: _Row, all_names: list[str]) -> list[str]:
    """Return what the table says in each of its columns."""
    label = row.labels[0]
    if len(row.labels) > 1:
        label += ".." + row.labels[-1].removeprefix("depth")
    lr = f"{min(row.lrs):.2e}"
    if min(row.lrs) != max(row.lrs):
        lr += f"..{max(row.lrs):.2e}"
    decay = " / ".join(f"{value:.3g}" for value in row.weight_decays)
    place = _describe_place(row.names, all_names)
    return [_shorten(label, MAX_LABEL), str(row.tensors), f"{row.parameters:,}", lr, decay, place]


def _describe_place(names: list[str], all_names: list[str]) -> str:
    """Return the modules in which the parameters are, as ``blocks.11.*, norm.*``; one by itself by its name."""
    shared = _common_modules(names)
    in_shared = [name for name in all_names if name.split(".")[: len(shared)] == shared]
    if len(names) == 1 or len(in_shared) == len(names):
        return _describe_module(names)
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.split(".")[len(shared)], []).append(name)
    places = [_describe_module(part) for part in parts.values()]
    if len(places) > MAX_PLACES:
        places = [places[0], "...", places[-1]]
    return ", ".join(places)


def _describe_module(names: list[str]) -> str:
    """Return the innermost module that has all the parameters, as ``blocks.11.*``; one by itself by its name."""
    return names[0] if len(names) == 1 else ".".join([*_common_modules(names), "*"])


def _common_modules(names: list[str]) -> list[str]:
    """Return the modules that all the names begin with, the outermost first."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)  # as many as the shortest name has
    return [level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels)]


def _shorten(text: str, width: int) -> str:
    """Return the text, or as much of its beginning and end as the width has room for."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2 if width >= 20 else 0  # a few characters of both would say nothing
    return f"{text[: width - 3 - end]}...{text[len(text) - end :]}"
