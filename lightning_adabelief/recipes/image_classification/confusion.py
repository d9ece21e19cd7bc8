"""The confusion matrix as a figure."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.utilities.plot import plot_confusion_matrix

MOST_CLASSES = 100
"""More can't be read off a figure."""


def draw_confusion(matrix: Tensor, names: list[str] | None = None) -> Figure:
    """Draw a confusion matrix; up to 20 classes have their names and shares written in.

    Args:
        matrix: Of shape (num_classes, num_classes): the share of each true class, down, that was
            taken for each class, across.
        names: The classes' names; None for their numbers.
    """
    classes = len(matrix)
    readable = classes <= 20
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    plot_confusion_matrix(matrix, ax=axes, add_text=readable, labels=names if readable else None, cmap="Blues")
    if not readable:
        axes.set_xticks(range(0, classes, 10))
        axes.set_yticks(range(0, classes, 10))
    figure.colorbar(axes.images[0], label="share of the true class", shrink=0.8)
    return figure
