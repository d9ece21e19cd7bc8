"""The images to train, to validate and to test on, from folders and CSV files."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lightning_adabelief.recipes.image_classification.image_parts import SplitOptions, check_classes, find_parts


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_images(root="photos", persons="abcdefghij", images=4):
    """Make tiny images of 10 persons, who are in one of two classes each."""
    names = [f"{'cat' if p in 'abcde' else 'dog'}/{p}_{i}.jpg" for p in persons for i in range(images)]
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1)).save(path, format="png")
    return names


def write_csv(names, parts=None):
    with open("photos/labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "split", "group"])
        for name in reversed(names):
            label, base = name.split("/")
            writer.writerow([name, label, (parts or {}).get(name, ""), base[0]])


def find(root="photos", csv=None, **options):
    return find_parts(root, csv, SplitOptions(**options))


def names_of(parts):
    return {part: {name.removeprefix("photos/") for name in found.names} for part, found in parts.images.items()}


@pytest.mark.parametrize("groups", [None, "/([^_]+)_"])
def test_a_plain_folder_a_folder_of_training_images_and_a_csv_file_are_split_alike(groups):
    names = make_images()
    plain = names_of(find(groups=groups))
    assert {part: len(of_part) for part, of_part in plain.items()} == (
        {"train": 24, "val": 8, "test": 8} if groups else {"train": 28, "val": 6, "test": 6}
    )
    if groups:
        write_csv(names)
        assert names_of(find(None, "photos/labels.csv")) == plain
    Path("more").mkdir()
    shutil.move("photos", "more/train")
    assert names_of(find("more", groups=groups)) == plain


def test_parts_of_ones_own_are_the_same_from_folders_and_a_csv_file():
    names = make_images()
    split = names_of(find(groups="/([^_]+)_"))
    write_csv(names, {name: part for part, of_part in split.items() for name in of_part})
    for part, of_part in split.items():
        for name in of_part:
            path = Path("own", part, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (1, 1)).save(path, format="png")
    for parts in (find("own", split_seed=3), find(None, "photos/labels.csv", split_seed=3)):
        assert names_of(parts) == split and parts.notes == [], "the seed is for splits of ours"


def test_with_a_part_to_test_on_only_one_to_validate_on_is_split_off():
    make_images("photos/train")
    make_images("photos/test", images=1)
    parts = find(val_fraction=0.25)
    assert {part: len(found.files) for part, found in parts.images.items()} == {"train": 30, "val": 10, "test": 10}
    assert parts.notes == ["Split off from each class of photos/train: 25 % for val, by split_seed 0."]


def test_without_a_part_to_test_on_a_note_says_so():
    make_images("photos/train")
    make_images("photos/val", images=1)
    tested_on_val = "No images of their own to test on: those of val are"
    for parts in (find(), find("photos/train", test_fraction=0.0)):
        assert parts.images.keys() == {"train", "val"} and parts.notes[-1].startswith(tested_on_val)


def test_groups_and_classes_that_a_part_lacks_are_noted():
    make_images(persons="abcdf")
    parts = find(groups="/([^_]+)_")
    assert "; each of 5 groups is in one part." in parts.notes[0]
    assert parts.notes[1:] == [
        "The part val has no image of 'dog' (4 to train on; groups: 1).",
        "The part test has no image of 'dog' (4 to train on; groups: 1).",
    ]


def test_groups_in_two_parts_of_ones_own_are_an_error():
    make_images("photos/train")
    make_images("photos/val", persons="af")
    with pytest.raises(ValueError, match=r"Groups have images in two parts: 'a' \(in train and val\), 'f'"):
        find(groups="/([^_]+)_")


def test_groups_are_named_by_the_csv_file_or_the_option():
    write_csv(make_images())
    with pytest.raises(ValueError, match="photos/labels.csv has a column 'group', and groups is '/"):
        find(None, "photos/labels.csv", groups="/([^_]+)_")


def test_without_images_an_error_says_what_to_give():
    with pytest.raises(ValueError, match="There are no images. Give data.root, a folder, or data.csv"):
        find(None)


def test_a_class_that_is_not_trained_on_is_an_error():
    make_images("photos/train")
    make_images("photos/val")
    Path("photos/val/cat").rename("photos/val/cats")
    with pytest.raises(ValueError, match="photos/val has images of the class 'cats', and photos/train has none of it"):
        check_classes(find())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.0}, "Invalid val_fraction: 0.0"),
        ({"test_fraction": -0.1}, "Invalid test_fraction: -0.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "Invalid test_fraction: 0.5.* beside val_fraction 0.5"),
        ({"groups": "cat"}, "Invalid groups: 'cat' has no parentheses"),
    ],
)
def test_options_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SplitOptions(**options)
