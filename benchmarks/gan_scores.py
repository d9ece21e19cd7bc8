"""The order in which the distance on random features puts spoiled images, beside that of a classifier's distance.

    python benchmarks/gan_scores.py --write

Real digits are spoiled in several ways, each more and more, and their distance to other real digits is measured on the
features of a network with random weights and on those of a classifier that was trained on digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from common import make_parser, markdown_table, provenance, publish
from scipy.stats import spearmanr
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from lightning_adabelief.recipes.gan import ClassifierScores, RandomFeatureScores
from lightning_adabelief.recipes.gan.scores import Comparison, Scores
from lightning_adabelief.recipes.image_classification import DigitsDataModule

STRENGTHS = (1, 2, 3)


def add_noise(images: Tensor, labels: Tensor, strength: int) -> Tensor:
    """Add Gaussian noise."""
    return (images + 0.2 * strength * torch.randn(images.shape)).clamp(-1, 1)


def blur(images: Tensor, labels: Tensor, strength: int) -> Tensor:
    """Blur the images."""
    return gaussian_blur(images, 7, 0.5 * strength)


def mix(images: Tensor, labels: Tensor, strength: int) -> Tensor:
    """Blend each image with another."""
    return torch.lerp(images, images.roll(1, 0), strength / 6)


def shift(images: Tensor, labels: Tensor, strength: int) -> Tensor:
    """Shift the images to the right."""
    return images.roll(strength, 3)


def leave_out_classes(images: Tensor, labels: Tensor, strength: int) -> Tensor:
    """Leave out three classes more with each step."""
    return images[labels < 10 - 3 * strength]


def repeat_few(images: Tensor, labels: Tensor, strength: int) -> Tensor:
    """Repeat a few images: 64, 16 and 4 of them."""
    return images[: 4 ** (4 - strength)].repeat(4**strength, 1, 1, 1)


def shuffle_quarters(images: Tensor, labels: Tensor, strength: int) -> Tensor:
    """Exchange the quarters of a third of the images, of two thirds, of all."""
    left, right = images.chunk(2, dim=3)
    turned = torch.cat([right.flip(2), left], dim=3)
    chosen = torch.arange(len(images)) % 3 < strength
    return torch.where(chosen.view(-1, 1, 1, 1), turned, images)


WAYS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "noise": add_noise,
    "blur": blur,
    "blends of two images": mix,
    "shifted by 1, 2, 3 pixels": shift,
    "3, 6, 9 classes left out": leave_out_classes,
    "64, 16, 4 images repeated": repeat_few,
    "quarters exchanged in 1/3, 2/3, all": shuffle_quarters,
}


def main() -> None:
    """Measure the distances, and write the table."""
    arguments = make_parser(__doc__).parse_args()
    data = DigitsDataModule()
    data.setup("fit")
    real, _ = stack(data.val_set)
    others, labels = stack(data.train_set)
    classifier = ClassifierScores()
    classifier.prepare(Batches(data), torch.device("cpu"))
    networks: list[Scores] = [RandomFeatureScores(), classifier]

    values: list[tuple[float, ...]] = []
    rows = [["none", *(f"{compare(of, real, others):.3f}" for of in networks)]]
    for way, spoil in WAYS.items():
        torch.manual_seed(0)
        spoiled = [spoil(others, labels, strength) for strength in STRENGTHS]
        distances = [[compare(of, real, images) for images in spoiled] for of in networks]
        values += zip(*distances, strict=True)
        rows.append([way, *(", ".join(f"{value:.3f}" for value in of) for of in distances)])
    correlation = spearmanr(*zip(*values, strict=True)).statistic
    document = (
        f"Rank correlation {correlation:.2f} between the two distances, over {len(values)} sets of spoiled digits\n\n"
        f"Fréchet distances of {len(others):,} digits, spoiled more and more, to {len(real)} others.\n\n"
        f"{markdown_table(['spoiled by', 'frechet_random', 'frechet_digits'], rows)}\n"
        f"{provenance('torch', 'torchvision', 'torchmetrics', 'lightning-adabelief')}"
    )
    publish(document, "gan-scores.md", arguments.write)


class Batches:
    """A DataModule's training batches, images in [-1, 1]; iterable repeatedly."""

    def __init__(self, data: DigitsDataModule) -> None:
        self.data = data

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches in a new order."""
        return ((images * 2 - 1, labels) for images, labels in self.data.train_dataloader())


def stack(dataset: torch.utils.data.Dataset) -> tuple[Tensor, Tensor]:
    """Return all images, (N, 1, 8, 8) in [-1, 1], and their labels."""
    images, labels = zip(*dataset, strict=True)
    return torch.stack(images) * 2 - 1, torch.stack(labels)


def compare(scores: Scores, real: Tensor, images: Tensor) -> float:
    """Return the Fréchet distance of images to real ones."""
    comparison = Comparison(scores, torch.device("cpu"))
    comparison.update(real, real=True)
    comparison.update(images, real=False)
    return comparison.compute()[scores.names[0]]


if __name__ == "__main__":
    main()
