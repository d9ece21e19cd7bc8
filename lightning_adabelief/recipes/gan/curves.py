"""Curves of a GAN's training: its losses, and the distance of its images to real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_adabelief.callbacks.belief_monitor.outputs.heat_map import render
from lightning_adabelief.line_styles import STYLES


@dataclass(frozen=True)
class Validation:
    """The distance that a validation measured.

    Attributes:
        epoch: The number of the epoch that it followed, from 1.
        batches: The number of batches trained so far.
        distances: From the generator's weights, ``"average"`` and ``"plain"``, to the distance of its images; the
            first one is monitored.
    """

    epoch: int
    batches: int
    distances: Mapping[str, float]

    @property
    def monitored(self) -> float:
        """The distance by which checkpoints are compared."""
        return next(iter(self.distances.values()))


def find_best(validations: Sequence[Validation]) -> Validation | None:
    """Return the first validation of the least monitored distance; None if no distance is finite."""
    finite = [validation for validation in validations if math.isfinite(validation.monitored)]
    return min(finite, key=lambda validation: validation.monitored, default=None)


def draw_losses(losses: list[tuple[int, float, float]]) -> Tensor:
    """Draw the losses over the batches.

    Args:
        losses: A row per point: the number of the batch, the critic's loss and the generator's loss.

    Returns:
        A picture (3, height, width), uint8; without curves if there are no losses.
    """
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    if losses:
        batches, critic, generator = zip(*losses, strict=True)
        axes.plot(batches, critic, label="critic", color="tab:blue")
        axes.plot(batches, generator, label="generator", color="tab:orange")
        axes.legend(frameon=False)
    axes.set(xlabel="batches", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    return torch.from_numpy(render(figure)).permute(2, 0, 1)


def draw_distances(
    validations: Sequence[Validation], name: str, references: Mapping[str, float], best_samples: Tensor | None
) -> Tensor:
    """Draw the distance over the batches, with the best validation marked and its samples beside.

    Args:
        validations: All validations so far, one at least.
        name: The distance's name.
        references: Distances to compare with, drawn as horizontal lines, by name.
        best_samples: A grid (3, height, width), uint8, of the best validation's samples; None for none.

    Returns:
        A picture (3, height, width), uint8. Distances are on a logarithmic scale, which leaves out those that are not
        positive or not finite.
    """
    pictures = 0 if best_samples is None else 1
    figure = Figure(figsize=(7 + 4 * pictures, 4), layout="constrained")
    axes, *beside = figure.subplots(1, 1 + pictures, squeeze=False, width_ratios=[7, 4][: 1 + pictures])[0]
    batches = [validation.batches for validation in validations]
    for weights, style in zip(validations[0].distances, STYLES, strict=False):
        distances = [validation.distances[weights] for validation in validations]
        axes.plot(batches, distances, label=weights, color=style.color, linestyle=style.linestyle, marker=".")
    for reference, distance in references.items():
        if not 0 < distance < math.inf:
            continue
        axes.axhline(distance, color="0.6", linewidth=1, zorder=0)
        axes.annotate(reference, (1, distance), (0, 2), ("axes fraction", "data"), "offset points", ha="right")
    best = find_best(validations)
    if best is not None:
        label = f"best: {best.monitored:.3g}, epoch {best.epoch}"
        axes.plot(best.batches, best.monitored, "*", color="black", markersize=12, linestyle="none", label=label)
    axes.set(xlabel="batches", ylabel=name, yscale="log", xlim=(0, None))
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))  # above, where no line is
    axes.spines[["top", "right"]].set_visible(False)
    for picture in beside:
        assert best is not None and best_samples is not None
        picture.imshow(best_samples.permute(1, 2, 0).numpy())
        picture.set_title(f"samples of epoch {best.epoch}", fontsize="medium")
        picture.axis("off")
    return torch.from_numpy(render(figure)).permute(2, 0, 1)
