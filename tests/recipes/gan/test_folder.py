"""A folder of one's own images for GANs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.gan import FolderImages


def write(path, shape=(40, 40, 3), left=0, right=255):
    """Write an image whose left half is of one grey, and whose right half is of another."""
    pixels = np.full(shape, left, dtype=np.uint8)
    pixels[:, shape[1] // 2 :] = right
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_classes(root, counts, **options):
    for name, count in counts.items():
        for number in range(count):
            write(Path(root, name, f"{number}.png"), **options)


def set_up(root, **options):
    data = FolderImages(str(root), **{"batch_size": 2, "num_workers": 0} | options)
    data.setup("fit")
    return data


def first_batch(data):
    return data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)


def test_a_flat_folder_of_any_sizes_and_kinds_gives_squares_in_0_to_1(tmp_path):
    for number, shape in enumerate([(40, 90, 3), (90, 40), (20, 20, 3), (64, 64, 4), (33, 50, 3), (50, 33)] * 2):
        write(tmp_path / f"{number}.png", shape)
    write(tmp_path / "more/deeper/a.jpg")
    data = set_up(tmp_path, size=32)
    images, labels = first_batch(data)
    assert images.shape == (2, 3, 32, 32) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert data.num_classes == 1 and data.class_names is None and not labels.any()
    sizes = [len(part) for part in (data.train_set, data.val_set, data.test_set)]
    assert sum(sizes) == 13 and min(sizes) >= 1
    files = [set(part.files) for part in (data.train_set, data.val_set, data.test_set)]
    assert not files[0] & files[1] and not files[0] & files[2] and not files[1] & files[2]
    assert set_up(tmp_path).train_set.files == data.train_set.files, "the same ones each time"
    assert set_up(tmp_path, split_seed=1).val_set.files != data.val_set.files


def test_wide_images_are_cropped_at_the_centre(tmp_path):
    for number in range(8):
        write(tmp_path / f"{number}.png", (40, 400, 3), left=0, right=255)
    images, _ = first_batch(set_up(tmp_path, size=40))
    assert images[..., :18].max() == 0 and images[..., 22:].min() == 1


def test_class_folders_give_labels_and_names_and_the_first_images_to_validate_on_are_of_all_classes(tmp_path):
    write_classes(tmp_path, {"cat": 40, "dog": 40})
    data = set_up(tmp_path)
    assert data.class_names == ["cat", "dog"] and data.num_classes == 2
    for file, label in zip(data.train_set.files, data.train_set.labels, strict=True):
        assert Path(file).parent.name == data.class_names[label]
    assert set(data.val_set.labels[:6]) == {0, 1}, "not in the order of the folders"


def test_folders_train_and_val_stay_as_they_are(tmp_path):
    write_classes(tmp_path / "train", {"cat": 4, "dog": 4})
    write_classes(tmp_path / "val", {"cat": 2, "dog": 1})
    data = set_up(tmp_path)
    assert (len(data.train_set), len(data.val_set), data.num_classes) == (8, 3, 2)


@pytest.mark.parametrize("flip", [True, False])
def test_half_of_the_training_images_are_flipped_if_asked(flip, tmp_path):
    write_classes(tmp_path, {"a": 30})
    data = set_up(tmp_path, flip=flip, batch_size=20)
    images, _ = first_batch(data)
    flipped = images[:, 0, 20, 0] == 1
    assert 0 < flipped.sum() < 20 if flip else not flipped.any()
    assert not any(image[0, 20, 0] for image, _ in data.val_set)


def test_an_epoch_has_the_batches_that_are_asked_for_and_each_image_once_before_any_twice(tmp_path):
    write_classes(tmp_path, {"a": 20})
    data = set_up(tmp_path, batch_size=5, batches_per_epoch=7)
    loader = data.train_dataloader()
    assert len(loader) == 7 and all(len(images) == 5 for images, _ in loader)
    drawn = list(loader.sampler)
    assert sorted(drawn[: len(data.train_set)]) == list(range(len(data.train_set)))
    assert len(set_up(tmp_path, batch_size=5).train_dataloader()) == len(data.train_set) // 5


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({".": 1}, {}, "1 images, too few to split off"),
        (
            {".": 10},
            {"batch_size": 64},
            "images to train on, fewer than a batch of 64. Give more images, or data.batch_size",
        ),
        ({}, {}, "no images"),
        ({".": 10}, {"size": 0}, "Invalid size: 0"),
        ({".": 10}, {"val_fraction": 1.0}, "Invalid val_fraction: 1.0"),
    ],
)
def test_too_few_images_and_impossible_options_are_errors_that_say_what_to_do(counts, options, message, tmp_path):
    write_classes(tmp_path, counts)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        set_up(tmp_path, **options)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no"):
        set_up(tmp_path / "missing")


def test_the_recipe_takes_any_size_by_one_option_and_a_class_by_another_and_its_run_can_be_sampled(
    tmp_path, monkeypatch, capsys
):
    """From folders of classes to the samples of one class, in the names of the folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    write_classes("photos", {"cat": 14, "dog": 14})
    quick = [
        *("--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.logger.version=run"),
        *("--data.num_workers=0", "--data.batches_per_epoch=2", "--data.batch_size=4", "--model.scores.num_samples=20"),
        *("--model.generator.width=4", "--model.critic.width=4"),
    ]
    assert main(["fit", "--config", "gan-folder", "--data.size=48", "--model.conditional=true", *quick]) == 0
    assert "test/frechet_random" in capsys.readouterr().out
    pictures = {path.name for path in Path("logs/gan-folder/run/pictures").iterdir()}
    assert {"distance.png", "best_samples.png", "beside_real.png"} <= pictures
    checkpoint = "logs/gan-folder/run/checkpoints/best.ckpt"
    assert torch.load(checkpoint, weights_only=True)["gan"]["class_names"] == ["cat", "dog"]
    assert main(["sample", "--ckpt_path", checkpoint, "--n", "4", "--class", "1", "--out", "out"]) == 0
    assert main(["sample", "--ckpt_path", checkpoint, "--n", "4", "--out", "all"]) == 0
    with Image.open("out/sample-00000-class-1.png") as image:
        assert image.size == (48, 48) and image.mode == "RGB"
    with Image.open("out/samples.png") as square, Image.open("all/samples.png") as rows:
        assert square.size[0] == square.size[1] and rows.size[0] > rows.size[1], "cat and dog stand at the left"
