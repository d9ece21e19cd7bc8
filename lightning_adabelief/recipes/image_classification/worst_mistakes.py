"""The images that a classifier is most wrong about, as a picture."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_adabelief.recipes.checks import check_counts
from lightning_adabelief.recipes.image_classification.mistakes_drawing import Mistake, draw_mistakes
from lightning_adabelief.recipes.image_classification.training_images import TrainingImages
from lightning_adabelief.recipes.pictures import RunPictures


@dataclass
class _Mistakes:
    """The mistakes of an epoch: their number, that of all images and the sum of their losses, and the worst."""

    worst: list[Mistake]
    mistakes: int = 0
    images: int = 0
    loss: float = 0.0


class WorstMistakes(RunPictures):
    """Draw the images with the highest loss among those that are classified wrongly.

    Each has the name of its file, its class, and the class that is predicted with the probability of that. The
    images are as the network sees them, resized and cropped. There is a picture after each validation, of which
    TensorBoard, W&B and MLflow have those of a lower loss than all before, as ``val/worst_mistakes``, and after each
    test, as ``test/worst_mistakes``. In the folder ``pictures`` beside the logs, ``mistakes-val.png`` is of the last
    validation, ``mistakes-val-best.png`` of the best, and ``mistakes-test.png`` of the test.

    Of several processes, it is the first one's share of the images that is looked through.

    Args:
        count: Number of images in a picture.

    Raises:
        ValueError: If ``count`` is less than 1.
    """

    def __init__(self, count: int = 16) -> None:
        super().__init__()
        check_counts(count=count)
        self.count = count
        self.lowest_loss = math.inf
        self._found = _Mistakes([])

    def state_dict(self) -> dict[str, Any]:
        """Return the lowest loss of a validation so far."""
        return {"lowest_loss": self.lowest_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the lowest loss of a validation before."""
        self.lowest_loss = state_dict["lowest_loss"]

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin anew."""
        self._found = _Mistakes([])

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the batch's worst mistakes, if they are among the worst so far."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._look_through(outputs, batch)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the batch's worst mistakes, if they are among the worst so far."""
        if trainer.is_global_zero:
            self._look_through(outputs, batch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the picture, and log it if the validation is the best so far."""
        if not self._found.images or trainer.fast_dev_run:
            return
        picture = self._draw(trainer, trainer.val_dataloaders)
        self.save_picture("mistakes-val", picture)
        loss = self._found.loss / self._found.images
        if loss < self.lowest_loss:
            self.lowest_loss = loss
            self.save_picture("mistakes-val-best", picture)
            self.log_picture(trainer, "val/worst_mistakes", picture, trainer.global_step)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw and log the picture."""
        if not self._found.images or trainer.fast_dev_run:
            return
        picture = self._draw(trainer, trainer.test_dataloaders)
        self.save_picture("mistakes-test", picture)
        self.log_picture(trainer, "test/worst_mistakes", picture, trainer.global_step)

    def _look_through(self, logits: Tensor, batch: Any) -> None:
        images, labels = batch
        losses = cross_entropy(logits.float(), labels, reduction="none")
        probabilities, predictions = logits.float().softmax(dim=1).max(dim=1)
        wrong = (predictions != labels).nonzero().flatten()
        worst = wrong[losses[wrong].argsort(descending=True)][: self.count]
        of_batch = [
            Mistake(
                number=self._found.images + place,
                image=images[place].float().cpu(),
                label=int(labels[place]),
                prediction=int(predictions[place]),
                probability=float(probabilities[place]),
                loss=float(losses[place]),
            )
            for place in worst.tolist()
        ]
        self._found.worst = heapq.nlargest(self.count, [*self._found.worst, *of_batch], key=lambda one: one.loss)
        self._found.mistakes += len(wrong)
        self._found.images += len(labels)
        self._found.loss += float(losses.sum())

    def _draw(self, trainer: Any, loader: Any) -> Tensor:
        files = getattr(loader.dataset, "files", None)
        step = max(1, trainer.world_size)  # Lightning deals images to processes one by one
        names = [
            Path(files[one.number * step]).name if files else f"image {one.number * step}" for one in self._found.worst
        ]
        found = self._found
        title = f"Classified wrongly: {found.mistakes:,} of {found.images:,} images"
        if found.mistakes > len(found.worst):
            title += f"; the {len(found.worst)} of the highest loss"
        of_data = TrainingImages.from_data(trainer.datamodule)
        return draw_mistakes(title, found.worst, names, of_data.class_names, of_data.mean, of_data.std)
