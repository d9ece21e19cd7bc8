"""The table of the images that were found in the data's folders, and of the files that are left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping

from rich.markup import escape
from rich.table import Table

from lightning_adabelief.recipes.image_classification.found_images import FoundImages, name_first

MAX_CLASSES = 20
"""The most classes that have a row each."""


def make_data_table(root: str, parts: Mapping[str, FoundImages], notes: Iterable[str] = ()) -> Table:
    """Make the table of the images of each class, and of what is left out.

    Of more than 20 classes it has the largest and the smallest; of images without classes, their number.

    Args:
        root: The data's folder or CSV file, for the title; paths of what is left out are below it.
        parts: From a part's name (``"train"``, ``"val"``, ...) to what was found for it.
        notes: Sentences below the table.
    """
    counts = {part: Counter(found.classes) for part, found in parts.items()}
    total: Counter[str] = sum(counts.values(), start=Counter())
    sizes = {part: len(found.files) for part, found in parts.items()}
    classes = f" in {len(total):,} classes" if total else ""
    table = Table(
        title=_escape(f"{root}: {sum(sizes.values()):,} images{classes}"),
        title_justify="left",
        caption=_escape("\n".join(notes)) or None,
        caption_justify="left",
        caption_style="",
    )
    columns = list(parts) if len(parts) == 1 else [*parts, "all"]
    table.add_column("class" if total else "", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for name, remark in _choose_classes(total).items():
        row = {part: _style_count(counts[part][name]) for part in parts} | {"all": f"{total[name]:,}"}
        table.add_row(_escape(name), *(row[column] for column in columns), remark)
    table.add_section()
    sizes["all"] = sum(sizes.values())
    table.add_row("all", *(f"{sizes[column]:,}" for column in columns), end_section=True)
    for reason in dict.fromkeys(reason for found in parts.values() for reason in found.left_out):
        paths = [path for found in parts.values() for path in found.left_out.get(reason, [])]
        folder = root if os.path.isdir(root) else os.path.dirname(root)
        names = _escape(name_first([os.path.relpath(path, folder or ".") for path in paths]))
        table.add_row(f"[yellow]left out: {_escape(reason)}[/]", *("" for _ in columns[1:]), f"{len(paths):,}", names)
    return table


def _choose_classes(total: Counter[str]) -> dict[str, str]:
    """Return the classes that have a row, and what is remarked of each."""
    if len(total) <= MAX_CLASSES:
        return dict.fromkeys(sorted(total), "")
    ranked = [name for name, _ in total.most_common()]
    return {ranked[0]: "the largest class", ranked[-1]: "the smallest class"}


def _escape(text: str) -> str:
    """Return a text as it is printed, with signs in the place of bytes that are no UTF-8, which names of files have."""
    return escape(os.fsencode(text).decode(errors="replace"))


def _style_count(count: int) -> str:
    return f"{count:,}" if count else "[yellow]0[/]"
