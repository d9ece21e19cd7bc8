"""The confusion matrix as a figure."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import Tensor

MOST_CLASSES = 100
"""More can't be read off a figure."""


def draw_confusion(counts: Tensor, names: list[str] | None = None) -> Figure:
    """Draw the shares of each true class; up to 20 classes are named, and shares from 0.01 on written in.

    Args:
        counts: Of shape (num_classes, num_classes): how many images of each true class, down, were
            taken for each class, across.
        names: The classes' names; None for their numbers.
    """
    shares = (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).cpu().numpy()
    classes = len(shares)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    if classes <= 20:
        named = names or [str(number) for number in range(classes)]
        axes.set_xticks(range(classes), named, rotation=45, ha="right")
        axes.set_yticks(range(classes), named)
        for true, predicted in zip(*(shares >= 0.01).nonzero(), strict=True):
            share = shares[true, predicted]
            colour = "white" if share > 0.5 else "black"
            axes.text(predicted, true, f"{share:.2f}", ha="center", va="center", color=colour)
    return figure
