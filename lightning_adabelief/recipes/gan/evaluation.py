"""Validation and test of a GAN: generated images compared with real ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_adabelief.lightning_tree import LightningDataModule, Trainer
from lightning_adabelief.recipes.gan.scores import Batch, Comparison, Scores

GENERATED_BATCH_SIZE = 500
"""Images generated at a time: a larger network than the recipes' still fits into memory."""

FAST_DEV_RUN_SAMPLES = 8

PLAIN = "_plain"
"""The end of the names of the scores of the weights themselves, where an average of them is kept."""


class Evaluation:
    """The scores of a GAN, with two distances to judge them by: the untrained generator's and that of real images.

    Args:
        scores: The scores to compute.

    Attributes:
        untrained: The Fréchet distance between the untrained generator's images and the validation images.
        floor: The Fréchet distance between training and validation images, as a perfect generator would
            reach it. As many training images are taken as are generated, or all if there are fewer.
    """

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.untrained: float | None = None
        self.floor: float | None = None
        self._comparison: Comparison | None = None

    def begin(self, gan: Any) -> None:
        """Begin a comparison, to be given real images."""
        self._prepare_scores(gan)
        self._comparison = Comparison(self.scores, gan.device)

    def add_real(self, images: Tensor) -> None:
        """Add real images (N, C, H, W) in [-1, 1] to the comparison."""
        assert self._comparison is not None
        self._comparison.update(images, real=True)

    def finish(self, gan: Any) -> dict[str, float]:
        """Add generated images to the comparison and return the scores.

        Returns:
            The scores by name, the Fréchet distance first. If an average of the generator's weights is kept, they are
            the average's, and those of the weights themselves are ``<score>_plain``. During and after training also
            ``<distance>_untrained``, ``<distance>_floor`` and ``<distance>_share``, the distance as a fraction of
            the untrained generator's.
        """
        assert self._comparison is not None
        values = self._score(gan, gan.sampler, self._comparison)
        if gan.sampler is not gan.generator:
            self._comparison.forget_generated()
            plain = self._score(gan, gan.generator, self._comparison)
            values |= {f"{name}{PLAIN}": value for name, value in plain.items()}
        self._comparison = None
        distance = self.scores.names[0]
        if self.untrained is not None and self.floor is not None:
            values |= {
                f"{distance}_share": values[distance] / self.untrained,
                f"{distance}_untrained": self.untrained,
                f"{distance}_floor": self.floor,
            }
        return values

    def measure_references(self, gan: Any) -> None:
        """Measure :attr:`untrained` and :attr:`floor`, once, if the Trainer has a DataModule to take images from."""
        data = gan.trainer.datamodule
        already_measured = self.untrained is not None
        already_trained = gan.global_step > 0  # a checkpoint without the references: it is too late for them
        if data is None or already_measured or already_trained or not gan.trainer.enable_validation:
            return
        self._prepare_scores(gan)
        untrained, perfect = (Comparison(self.scores, gan.device) for _ in range(2))
        for images, _ in _Batches(data, data.val_dataloader(), gan.trainer):
            untrained.update(images, real=True)
            perfect.update(images, real=True)
        for images in self._generate_images(gan, gan.sampler):
            untrained.update(images, real=False)
        for images in self._draw_training_images(gan, data):
            perfect.update(images, real=False)
        distance = self.scores.names[0]
        self.untrained, self.floor = untrained.compute()[distance], perfect.compute()[distance]

    def state_dict(self) -> dict[str, Any]:
        """Return the references, which neither a resumed run nor a test can measure again."""
        return {"untrained": self.untrained, "floor": self.floor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the references."""
        self.untrained, self.floor = state["untrained"], state["floor"]

    def _prepare_scores(self, gan: Any) -> None:
        data = gan.trainer.datamodule
        batches: Iterable[Batch] = [] if data is None else _Batches(data, data.train_dataloader(), gan.trainer)
        self.scores.prepare(batches, gan.device, quickly=bool(gan.trainer.fast_dev_run))

    def _score(self, gan: Any, network: nn.Module, comparison: Comparison) -> dict[str, float]:
        """Add a network's images to a comparison, and return the scores."""
        for images in self._generate_images(gan, network):
            comparison.update(images, real=False)
        return comparison.compute()

    @torch.no_grad()
    def _generate_images(self, gan: Any, network: nn.Module) -> Iterator[Tensor]:
        """Yield batches of images from the same noise each time; of all classes in turn if they can be chosen."""
        size = self._count_samples(gan)
        source = torch.Generator().manual_seed(gan.seed + gan.global_rank)
        labels = gan.labels_in_turn(size)
        was_training = network.training
        network.eval()
        for start in range(0, size, GENERATED_BATCH_SIZE):
            stop = min(start + GENERATED_BATCH_SIZE, size)
            yield network(gan.draw_noise(stop - start, source), None if labels is None else labels[start:stop])
        network.train(was_training)

    def _draw_training_images(self, gan: Any, data: LightningDataModule) -> Iterator[Tensor]:
        """Yield batches of as many training images as are generated, in the same order each time."""
        missing = self._count_samples(gan)
        with torch.random.fork_rng(devices=[]):  # the order of the training's own batches must not change
            torch.manual_seed(0)
            for images, _ in _Batches(data, data.train_dataloader(), gan.trainer):
                yield images[:missing]
                missing -= len(images)
                if missing <= 0:
                    break

    def _count_samples(self, gan: Any) -> int:
        return FAST_DEV_RUN_SAMPLES if gan.trainer.fast_dev_run else self.scores.num_samples


class _Batches:
    """A loader's batches on the Trainer's device, images in [-1, 1]; under ``fast_dev_run``, one batch.

    It can be iterated repeatedly, as the training of a classifier does.
    """

    def __init__(self, data: LightningDataModule, loader: DataLoader, trainer: Trainer) -> None:
        self.data = data
        self.loader = loader
        self.trainer = trainer

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            batch = self.data.transfer_batch_to_device(batch, self.trainer.strategy.root_device, 0)
            images, labels = self.data.on_after_batch_transfer(batch, 0)
            yield images * 2 - 1, labels
            if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
                break
