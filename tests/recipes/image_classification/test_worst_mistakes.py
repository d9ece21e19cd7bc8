"""The picture of the images that a classifier is most wrong about."""

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import TensorDataset

from lightning_adabelief.recipes.image_classification import ImageClassifier, WorstMistakes
from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class Corner(torch.nn.Module):
    """Logits that are in the images' corners."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images[:, 0, 0, :3]


class Files(TensorDataset):
    files = [f"photos/{number}.jpg" for number in range(10)]


class Images(ImageDataModule):
    """10 images of the class 0, of which each even one is taken for the class 1, the later the more certainly."""

    in_channels = 1
    num_classes = 3
    class_names = ["cat", "dog", "bird"]

    def __init__(self):
        super().__init__(batch_size=4, num_workers=0)

    def setup(self, stage):
        images = torch.zeros(10, 1, 8, 8)
        images[::2, 0, 0, 1] = torch.arange(1.0, 6)
        images[1::2, 0, 0, 0] = 9
        self.train_set = self.val_set = self.test_set = Files(images, torch.zeros(10).long())


def make_trainer(tmp_path, callback, **options):
    return pl.Trainer(
        accelerator="cpu",
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=pl.loggers.TensorBoardLogger(tmp_path, name=""),
        **options,
    )


def drawn(monkeypatch):
    """What is drawn, as it is: the titles and the files with the probabilities."""
    pictures = []

    def draw(title, mistakes, names, class_names, mean, std):
        pictures.append((title, [(name, round(one.probability, 3)) for name, one in zip(names, mistakes, strict=True)]))
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    monkeypatch.setattr("lightning_adabelief.recipes.image_classification.worst_mistakes.draw_mistakes", draw)
    return pictures


def test_the_highest_losses_among_the_mistakes_are_drawn_with_their_files(tmp_path, monkeypatch):
    pictures = drawn(monkeypatch)
    trainer = make_trainer(tmp_path, WorstMistakes(count=3))
    trainer.test(ImageClassifier(Corner(), num_classes=3), Images(), verbose=False)
    ((title, images),) = pictures
    assert title == "Classified wrongly: 5 of 10 images; the 3 of the highest loss"
    assert images == [
        (f"{number}.jpg", pytest.approx(float(torch.tensor([0, value, 0.0]).softmax(0)[1]), abs=1e-3))
        for number, value in ((8, 5), (6, 4), (4, 3))
    ]


def test_a_validation_has_a_picture_and_the_best_one_is_kept_and_logged(tmp_path):
    class Scale(pl.Callback):
        def on_validation_start(self, trainer, pl_module):
            scale = [3.0, 1.0, 2.0][trainer.current_epoch]  # a larger one makes the mistakes more certain
            pl_module.network.scale.data.fill_(scale)

    callback = WorstMistakes()
    trainer = make_trainer(tmp_path, callback, max_epochs=3, num_sanity_val_steps=1, limit_train_batches=1)
    trainer.callbacks.insert(0, Scale())
    module = ImageClassifier(Corner(), num_classes=3)
    trainer.fit(module, Images())
    events = EventAccumulator(trainer.log_dir).Reload()
    assert [event.step for event in events.Images("val/worst_mistakes")] == [1, 2]
    assert {path.name for path in callback.folder.iterdir()} == {"mistakes-val.png", "mistakes-val-best.png"}
    assert callback.state_dict()["lowest_loss"] == pytest.approx(events.Scalars("val/loss")[1].value, rel=1e-5)
    trainer.test(module, Images(), verbose=False)
    with Image.open(callback.folder / "mistakes-test.png") as picture:
        assert picture.width > 900, "four columns"
    assert len(EventAccumulator(trainer.log_dir).Reload().Images("test/worst_mistakes")) == 1


def test_without_a_mistake_the_picture_says_so(tmp_path, monkeypatch):
    pictures = drawn(monkeypatch)

    class Right(Images):
        def setup(self, stage):
            super().setup(stage)
            self.test_set.tensors[0][:, 0, 0, 0] = 9

    make_trainer(tmp_path, WorstMistakes()).test(ImageClassifier(Corner(), num_classes=3), Right(), verbose=False)
    assert pictures == [("Classified wrongly: 0 of 10 images", [])]


def test_a_count_below_1_is_an_error():
    with pytest.raises(ValueError, match="Invalid count: 0"):
        WorstMistakes(count=0)
