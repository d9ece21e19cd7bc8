"""The table of the images that were found in the data's folders, and of the files that are left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from lightning_adabelief.recipes.image_classification.class_folders import FoundImages

MAX_CLASSES = 20
"""The most classes that have a row each."""

MAX_NAMES = 3
"""Files and folders that are named for each reason to leave some out."""


def make_data_table(root: str, parts: Mapping[str, FoundImages]) -> Table:
    """Make the table of the images of each class, and of what is left out.

    Of more than 20 classes it has the largest and the smallest.

    Args:
        root: The data's folder, for the title.
        parts: From a part's name (``"train"``, ``"val"``, ...) to what was found for it.
    """
    counts = {part: Counter(found.classes) for part, found in parts.items()}
    total: Counter[str] = sum(counts.values(), start=Counter())
    table = Table(title=escape(f"{root}: {total.total():,} images in {len(total):,} classes"), title_justify="left")
    table.add_column("class", overflow="fold")
    for part in parts:
        table.add_column(part, justify="right")
    table.add_column("", overflow="fold")
    if len(total) <= MAX_CLASSES:
        remarks = dict.fromkeys(sorted(total), "")
    else:
        ranked = [name for name, _ in total.most_common()]
        remarks = {ranked[0]: "the largest class", ranked[-1]: "the smallest class"}
    for name, remark in remarks.items():
        table.add_row(escape(name), *(_style_count(counts[part][name]) for part in parts), remark)
    table.add_section()
    table.add_row("all", *(f"{counts[part].total():,}" for part in parts), end_section=True)
    for reason in dict.fromkeys(reason for found in parts.values() for reason in found.left_out):
        paths = {part: found.left_out.get(reason, []) for part, found in parts.items()}
        numbers = (f"{len(of_part):,}" if of_part else "" for of_part in paths.values())
        names = escape(_name_first(root, [path for of_part in paths.values() for path in of_part]))
        table.add_row(f"[yellow]left out: {escape(reason)}[/]", *numbers, names)
    return table


def _style_count(count: int) -> str:
    return f"{count:,}" if count else "[yellow]0[/]"


def _name_first(root: str, paths: list[str]) -> str:
    names = [os.path.relpath(path, root) for path in paths[:MAX_NAMES]]
    more = len(paths) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")
