"""Folders of classes, in parts or alone."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from lightning_adabelief.recipes.image_classification.class_folders import find_parts_in_folders
from lightning_adabelief.recipes.image_classification.data_table import make_data_table


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def touch(*names):
    for name in names:
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "Valid", "TEST")],
)
def test_parts_are_found_under_their_usual_names(train, val, test):
    touch(f"{train}/a/1.jpg", f"{train}/b/deep/2.jpg", f"{val}/a/3.jpg", f"{test}/b/4.jpg", "labels.csv")
    parts = find_parts_in_folders("photos")
    assert {part: (found.names, found.classes) for part, found in parts.items()} == {
        "train": (["a/1.jpg", "b/deep/2.jpg"], ["a", "b"]),
        "val": (["a/3.jpg"], ["a"]),
        "test": (["b/4.jpg"], ["b"]),
    }
    assert parts["train"].left_out == {"beside the folder of training images": ["photos/labels.csv"]}


def test_class_folders_alone_are_all_to_train_on():
    touch("a/1.jpg", "b/2.jpg", "b/3.gif")
    (found,) = find_parts_in_folders("photos").values()
    assert found.names == ["a/1.jpg", "b/2.jpg"] and found.left_out == {".gif files": ["photos/b/3.gif"]}


def test_a_class_may_have_the_name_of_a_part():
    touch("invalid/1.jpg", "valid/2.jpg")
    assert find_parts_in_folders("photos")["train"].classes == ["invalid", "valid"]


def test_parts_without_one_to_train_on_are_an_error():
    touch("val/a/1.jpg", "val/b/2.jpg")
    with pytest.raises(FileNotFoundError, match="photos has the folder val, and no folder train"):
        find_parts_in_folders("photos")


def test_two_folders_of_one_part_are_an_error():
    touch("train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")
    with pytest.raises(ValueError, match="photos has two folders of val: val and valid"):
        find_parts_in_folders("photos")


def test_a_folder_that_is_missing_or_without_images_says_what_there_is():
    with pytest.raises(FileNotFoundError, match="There is no folder photos. Give data.root"):
        find_parts_in_folders("photos")
    touch("train/a/1.jpg", "val/2.jpg")
    with pytest.raises(
        FileNotFoundError, match=r"photos/val has no images. It has files in no class folder \(1\). Put the"
    ):
        find_parts_in_folders("photos")


def test_links_that_lead_back_give_no_image_twice():
    touch("a/1.jpg", "a/deep/2.jpg", "b/3.jpg")
    for link, target in {"a/up": "..", "a/deep/itself": ".", "a/other": "../b", "b/other": "../a"}.items():
        Path("photos", link).symlink_to(target, target_is_directory=True)
    found = find_parts_in_folders("photos")["train"]
    assert found.names == ["a/1.jpg", "a/deep/2.jpg", "a/other/3.jpg", "b/3.jpg", "b/other/1.jpg", "b/other/deep/2.jpg"]
    assert found.left_out["links that lead back"] == [
        *(f"photos/a/{name}" for name in ("up", "deep/itself", "other/other")),
        *(f"photos/b/other/{name}" for name in ("other", "up", "deep/itself")),
    ]


@pytest.mark.skipif(os.sep != "/", reason="other systems' names have characters, not bytes")
def test_names_that_are_no_utf_8_are_printed_with_signs_in_their_place():
    korean = os.fsdecode("고양이".encode("cp949"))  # as some archives of Windows have it
    touch(f"{korean}/1.jpg", f"{korean}/2.gif")
    found = find_parts_in_folders("photos")
    printed = io.StringIO()
    Console(file=printed).print(make_data_table("photos", found))
    assert "\ufffd" in printed.getvalue() and printed.getvalue().encode("utf-8")
    assert found["train"].files == [f"photos/{korean}/1.jpg"]
    assert found["train"].classes == [r"\xb0\xed\xbe\xe7\xc0\xcc"], "a class's name is printed, drawn and saved"
