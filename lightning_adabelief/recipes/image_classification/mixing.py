"""Mixup and cutmix."""

from __future__ import annotations

import torch
from torchvision.transforms import v2


def make_mixing(mixup: float, cutmix: float, num_classes: int) -> v2.Transform | None:
    """Make the transform that mixes the images of a batch, and their labels alike.

    Args:
        mixup: Pairs of images are blended with weights drawn from Beta(mixup, mixup); 0 for none.
        cutmix: A rectangle of another image is pasted, which covers a fraction of the area drawn from
            Beta(cutmix, cutmix); 0 for none.
        num_classes: Number of classes.

    Returns:
        A transform from images (N, C, H, W) and labels (N,) to images and probabilities (N, num_classes),
        which draws one of the two for each batch if both are on; None if neither is.
    """
    choices: list[v2.Transform] = []
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # bfloat16, which the Trainer may have set, has no Beta distribution
    try:
        if mixup:
            choices.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
        if cutmix:
            choices.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    finally:
        torch.set_default_dtype(default)
    return v2.RandomChoice(choices) if choices else None
