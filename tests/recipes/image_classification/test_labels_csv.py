"""Images and their classes, as a CSV file lists them."""

import re
from pathlib import Path

import pytest
from PIL import Image

from lightning_adabelief.recipes.image_classification.labels_csv import read_labels


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("1.jpg", "2.jpg", "more/3.png", "more/4.gif"):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


def read(text, root="photos", **options):
    Path("labels.csv").write_text(text, **{"encoding": "utf-8"} | options)
    return read_labels("labels.csv", root)


def test_files_are_below_the_csv_files_folder_or_the_root():
    parts = read("file,label\n1.jpg,cat\nphotos/2.jpg,dog\n")
    assert parts.keys() == {"train"}
    assert parts["train"].files == ["photos/1.jpg", "photos/2.jpg"] and parts["train"].classes == ["cat", "dog"]
    assert parts["train"].names == ["1.jpg", "photos/2.jpg"] and parts["train"].groups == []


def test_splits_and_groups_are_read_and_other_columns_are_not():
    text = "Label,age,split,File,group\ncat,3,train,1.jpg,x\ndog,,Valid,2.jpg,y\ncat,,training,more/3.png,x\n"
    parts = read(text)
    assert {part: found.names for part, found in parts.items()} == {"train": ["1.jpg", "more/3.png"], "val": ["2.jpg"]}
    assert parts["train"].groups == ["x", "x"] and parts["val"].groups == ["y"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("file;label\n1.jpg;cat, grey\n", "utf-8-sig"),
        ("file\tlabel\r\n1.jpg\tcat, grey\r\n", "utf-8"),
        ('file,label\n"1.jpg","cat, grey"\n\n', "utf-8"),
    ],
    ids=["Excel's, with semicolons", "tabs", "quotes"],
)
def test_usual_kinds_of_csv_are_read(text, encoding):
    assert read(text, encoding=encoding)["train"].classes == ["cat, grey"]


def test_columns_of_nothing_are_as_good_as_none():
    assert read("file,label,split,group\n1.jpg,cat,,\n2.jpg,dog,,\n").keys() == {"train"}


def test_files_of_other_kinds_are_left_out():
    assert read("file,label\n1.jpg,cat\nmore/4.gif,cat\n")["train"].left_out == {".gif files": ["photos/more/4.gif"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,class\n1.jpg,cat\n",
            "labels.csv has no column 'label' in its first line. There are 'file' and 'class'.",
        ),
        ("", "labels.csv has no column 'file' in its first line. There are none."),
        ("file,label\n", "labels.csv has no rows"),
        ("file,label\n1.jpg,cat\n2.jpg,\n", "labels.csv has rows without a label: line 3"),
        ("file,label,split\n1.jpg,cat,train\n2.jpg,dog,\n", "has rows without a split: line 3"),
        ("file,label,split\n1.jpg,cat,trian\n", "has an unknown split: 'trian'. Did you mean 'train'?"),
        ("file,label,split\n1.jpg,cat,val\n", "has no image of the split 'train'. It has 'val'"),
        (
            "file,label\n1.jpg,cat\n" + "".join(f"no{i}.jpg,cat\n" for i in range(5)),
            "labels.csv lists files that are not there, 5 of 6: no0.jpg, no1.jpg, no2.jpg and 2 more. "
            "Give paths below '.' or 'photos'",
        ),
        ("file,label\n1.jpg,cat\nmore/../1.jpg,dog\n", "lists files more than once: photos/1.jpg. Leave one"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(text)


def test_a_file_that_is_missing_or_no_text_is_named():
    with pytest.raises(FileNotFoundError, match="There is no none.csv. Give data.csv"):
        read_labels("none.csv", None)
    Path("labels.csv").write_bytes("file,label\n1.jpg,고양이\n".encode("cp949"))
    with pytest.raises(ValueError, match="labels.csv is not text in UTF-8.* Save it as 'CSV UTF-8'"):
        read_labels("labels.csv", None)
