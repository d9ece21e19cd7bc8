"""Validation and test of a generator: real images taken in, as many generated as asked for, both compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_adabelief.lightning_tree import LightningDataModule, Trainer
from lightning_adabelief.recipes.gan.scores import Batch, Comparison, Scores


class Evaluation:
    """Scores a GAN, against the untrained generator's distance and that of real images.

    Args:
        scores: What to measure.

    Attributes:
        untrained: The untrained generator's Fréchet distance to the validation images.
        floor: The Fréchet distance between training and validation images, as many as are generated, or as
            there are: what a perfect generator would reach.
    """

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.untrained: float | None = None
        self.floor: float | None = None
        self._comparison: Comparison | None = None

    def begin(self, gan: Any) -> None:
        """Begin to take in real images."""
        self._prepare(gan)
        self._comparison = Comparison(self.scores, gan.device)

    def add_real(self, images: Tensor) -> None:
        """Take in real images (N, C, H, W) in [-1, 1]."""
        assert self._comparison is not None
        self._comparison.update(images, real=True)

    def finish(self, gan: Any) -> dict[str, float]:
        """Add generated images and compare.

        Returns:
            From the scores' names to their values, the Fréchet distance's first; where they are known, with
            ``<distance>_untrained``, ``<distance>_floor`` and ``<distance>_share``, of the untrained generator's.
        """
        assert self._comparison is not None
        for images in self._generate(gan):
            self._comparison.update(images, real=False)
        values = self._comparison.compute()
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
        """Measure what an untrained generator and a perfect one reach, where a DataModule has the images."""
        data = gan.trainer.datamodule
        known = self.untrained is not None or gan.global_step > 0  # a resumed run has no untrained generator
        if data is None or known or not gan.trainer.enable_validation:
            return
        self._prepare(gan)
        distance = self.scores.names[0]
        untrained, perfect = (Comparison(self.scores, gan.device) for _ in range(2))
        for images, _ in _Batches(data, data.val_dataloader(), gan.trainer):
            untrained.update(images, real=True)
            perfect.update(images, real=True)
        for images in self._generate(gan):
            untrained.update(images, real=False)
        left = self._num_samples(gan)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of the images that are taken
            for images, _ in _Batches(data, data.train_dataloader(), gan.trainer):
                perfect.update(images[:left], real=False)
                left -= len(images)
                if left <= 0:
                    break
        self.untrained, self.floor = untrained.compute()[distance], perfect.compute()[distance]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run and a test can't measure again."""
        return {"untrained": self.untrained, "floor": self.floor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it up."""
        self.untrained, self.floor = state["untrained"], state["floor"]

    def _prepare(self, gan: Any) -> None:
        data = gan.trainer.datamodule
        batches: Iterable[Batch] = [] if data is None else _Batches(data, data.train_dataloader(), gan.trainer)
        self.scores.prepare(batches, gan.device, quickly=bool(gan.trainer.fast_dev_run))

    @torch.no_grad()
    def _generate(self, gan: Any, at_once: int = 500) -> Iterator[Tensor]:
        """Images from the same noise each time, of all classes in turn if they can be chosen."""
        size = self._num_samples(gan)
        source = torch.Generator().manual_seed(gan.seed + gan.global_rank)
        labels = gan.labels_in_turn(size)
        was_training = gan.sampler.training
        gan.sampler.eval()
        for start in range(0, size, at_once):
            stop = min(start + at_once, size)
            yield gan(gan.draw_noise(stop - start, source), None if labels is None else labels[start:stop])
        gan.sampler.train(was_training)

    def _num_samples(self, gan: Any) -> int:
        return 8 if gan.trainer.fast_dev_run else self.scores.num_samples


class _Batches:
    """A loader's batches where the Trainer computes, images in [-1, 1]; under ``fast_dev_run``, one of them."""

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
