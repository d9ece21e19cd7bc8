"""The confusion matrix as a figure."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from torch import Tensor

from lightning_adabelief.recipes.fonts import find_font

MAX_CLASSES = 100
"""The most classes of which a figure can still be read."""

MAX_NAMED_CLASSES = 20
"""The most classes whose names and numbers fit into a figure."""


def are_legible(names: list[str]) -> bool:
    """Return True if the figure can have the names of the classes: there are few, and a font has their letters."""
    return len(names) <= MAX_NAMED_CLASSES and find_font("".join(names)) is not None


def log_confusion_matrix(writer: Any, stage: str, counts: Tensor, names: list[str] | None, step: int) -> None:
    """Log the figure to TensorBoard as ``<stage>/confusion_matrix``, and the classes' names where it has numbers.

    Args:
        writer: TensorBoard's SummaryWriter.
        stage: ``"val"`` or ``"test"``.
        counts: See :func:`draw_confusion_matrix`.
        names: Names of the classes; None for their numbers.
        step: The step.
    """
    writer.add_figure(f"{stage}/confusion_matrix", draw_confusion_matrix(counts, names), step)
    if names and not are_legible(names):
        numbered = (f"- {number}: {name}" for number, name in enumerate(names))
        writer.add_text("class_names", "\n".join(numbered), step)


def draw_confusion_matrix(counts: Tensor, names: list[str] | None = None) -> Figure:
    """Draw the confusion matrix, each row divided by the number of images of its class.

    Up to 20 classes are named, by their numbers where no font has the letters of their names, and cells of 0.01
    or more have their value written in.

    Args:
        counts: Numbers of images (num_classes, num_classes): row, the true class; column, the predicted one.
        names: Names of the classes; None for their numbers.

    Returns:
        The figure.
    """
    fractions = (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).cpu().numpy()  # a class may have no images
    num_classes = len(fractions)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the true class", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    if num_classes <= MAX_NAMED_CLASSES:
        labels = names if names and are_legible(names) else [str(number) for number in range(num_classes)]
        font = FontProperties(fname=find_font("".join(labels)))
        axes.set_xticks(range(num_classes), labels, rotation=45, ha="right", fontproperties=font)
        axes.set_yticks(range(num_classes), labels, fontproperties=font)
        for true, predicted in zip(*(fractions >= 0.01).nonzero(), strict=True):
            fraction = fractions[true, predicted]
            colour = "white" if fraction > 0.5 else "black"  # legible on dark and on light blue
            axes.text(predicted, true, f"{fraction:.2f}", ha="center", va="center", color=colour)
    return figure
