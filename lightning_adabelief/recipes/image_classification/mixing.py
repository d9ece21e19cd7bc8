"""Mixup and cutmix."""

from __future__ import annotations

from torchvision.transforms import v2


def make_mixing(mixup: float, cutmix: float, num_classes: int) -> v2.Transform | None:
    """Make what mixes a batch's images and labels, from (N,) numbers to (N, num_classes) shares; None for nothing.

    Args:
        mixup: Images are mixed with shares from Beta(mixup, mixup); 0 for no mixing.
        cutmix: A part of another image is pasted, of a share from Beta(cutmix, cutmix); 0 for no pasting.
        num_classes: Number of classes.
    """
    choices: list[v2.Transform] = []
    if mixup:
        choices.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix:
        choices.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    return v2.RandomChoice(choices) if choices else None
