"""PASCAL VOC, and files in its form and in COCO's."""

import re
from urllib.error import URLError

import pytest
import torch
from PIL import Image

from lightning_adabelief.recipes.object_detection import AnnotatedImagesDataModule
from tests.recipes.box_files import VOC_CLASSES, write_coco, write_image, write_pascal_voc, write_voc, write_voc_xml

IMAGES = {
    "a": [("helmet", (2, 3, 20, 30)), ("boot", (25, 5, 50, 35))],
    "b": [("boot", (1, 1, 30, 30))],
    "empty": [],
    "c": [("helmet", (10, 10, 20, 20), True)],
}


def read(root, stage="fit", **options):
    data = AnnotatedImagesDataModule(root=str(root), num_workers=0, **{"horizontal_flip": 0.0} | options)
    data.prepare_data()
    data.setup(stage)
    return data


def test_a_tree_in_vocs_form_is_read_with_its_own_classes_and_lists(tmp_path):
    data = read(write_voc(tmp_path, IMAGES, {"train": ["a", "empty"], "val": ["b"], "test": ["c"]}))
    assert data.class_names == ["boot", "helmet"] and data.num_classes == 2
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [2, 1, 1]
    image, target = data.train_set[0]
    assert image.shape == (3, 40, 60) and image.dtype == torch.uint8
    assert target["boxes"].tolist() == [[2, 3, 20, 30], [25, 5, 50, 35]] and target["labels"].tolist() == [2, 1]
    assert target["file"] == str(tmp_path / "JPEGImages/a.jpg")


def test_an_image_without_objects_has_no_boxes(tmp_path):
    _, target = read(write_voc(tmp_path, IMAGES, {"train": ["a", "empty"], "val": ["b"]})).train_set[1]
    assert target["boxes"].shape == (0, 4) and target["labels"].shape == target["iscrowd"].shape == (0,)


def test_what_is_difficult_is_marked(tmp_path):
    data = read(write_voc(tmp_path, IMAGES, {"train": ["a"], "val": ["c"]}))
    assert data.val_set[0][1]["iscrowd"].tolist() == [1] and data.train_set[0][1]["iscrowd"].tolist() == [0, 0]


def test_without_lists_all_that_have_an_xml_file_are_trained_on_but_a_share(tmp_path):
    root = write_voc(tmp_path, IMAGES)
    data = read(root, val_share=0.25)
    assert len(data.train_set) == 3 and len(data.val_set) == len(data.test_set) == 1
    assert data.val_set[0][1]["file"] == read(root, val_share=0.25).val_set[0][1]["file"], "the same each time"
    with pytest.raises(ValueError, match="no images to validate or test on.* data.val_share 0.1"):
        read(root)


def test_a_list_trainval_is_trained_on(tmp_path):
    data = read(write_voc(tmp_path, IMAGES, {"trainval": ["a", "b"], "val": ["b"], "test": ["c"]}))
    assert len(data.train_set) == 2 and data.val_set is None, "val is a part of trainval"


def test_pascal_voc_itself_is_read_from_both_years(tmp_path):
    write_pascal_voc(tmp_path)
    data = read(tmp_path)
    assert data.class_names == VOC_CLASSES
    assert len(data.train_set) == 8 and len(data.test_set) == 4 and data.val_set is None
    years = {target["file"].split("VOCdevkit/")[1][:7] for _, target in (data.train_set[i] for i in range(8))}
    assert years == {"VOC2007", "VOC2012"}


COCO = {
    "a.png": [("dog", (2, 3, 20, 30)), ("cat", (30, 10, 20.5, 20))],
    "b.png": [("cat", (0, 0, 60, 40), True)],
    "c.png": [],
}
CATEGORIES = {7: "cat", 3: "dog", 90: "horse"}
"""COCO's ids have gaps, and a category may be without an object."""


@pytest.mark.parametrize("folder", ["", "images"])
def test_a_coco_file_is_read_with_its_categories(folder, tmp_path):
    path = write_coco(tmp_path / "mine.json", COCO, CATEGORIES, folder=folder)
    data = read(path, val_share=0.3)
    assert data.class_names == ["dog", "cat", "horse"] and len(data.train_set) == 2 and len(data.val_set) == 1
    items = [part[i] for part in (data.train_set, data.val_set) for i in range(len(part))]
    by_name = {target["file"].rsplit("/", 1)[1]: target for _, target in items}
    assert by_name["a.png"]["boxes"].tolist() == [[2, 3, 22, 33], [30, 10, 50.5, 30]]
    assert by_name["a.png"]["labels"].tolist() == [1, 2]
    assert by_name["b.png"]["iscrowd"].tolist() == [1] and by_name["c.png"]["boxes"].shape == (0, 4)


def test_a_folder_of_coco_files_has_their_parts(tmp_path):
    for part in ("train", "val", "test"):
        write_coco(tmp_path / f"{part}.json", {f"{part}.png": [("cat", (1, 1, 9, 9))]}, {1: "cat"})
    data = read(tmp_path)
    parts = (data.train_set, data.val_set, data.test_set)
    assert [part[0][1]["file"] for part in parts] == [str(tmp_path / f"{n}.png") for n in ("train", "val", "test")]


def test_the_images_of_a_coco_file_may_be_elsewhere(tmp_path):
    (tmp_path / "annotations").mkdir()
    path = write_coco(tmp_path / "annotations/mine.json", COCO, CATEGORIES, folder="../pictures")
    data = read(path, val_share=0.3, image_folder=str(tmp_path / "pictures"))
    assert data.train_set[0][0].shape == (3, 40, 60)


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 20), (5, 20, 30, 20), (30, 5, 10, 20), ("nan", 5, 10, 20)], ids=["thin", "flat", "turned", "nan"]
)
def test_a_box_without_an_area_is_left_out_with_a_warning_that_names_the_image(box, tmp_path):
    images = {"a": [("cat", box), ("cat", (1, 1, 20, 20))], "b": [("cat", (1, 1, 9, 9))]}
    root = write_voc(tmp_path, images, {"train": ["a"], "val": ["b"]})
    with pytest.warns(UserWarning, match=r"1 box is less than a pixel wide or high, and left out: in .*a\.jpg"):
        data = read(root)
    assert data.train_set[0][1]["boxes"].tolist() == [[1, 1, 20, 20]]


@pytest.mark.parametrize(
    ("box", "clipped"),
    [((-5, 5, 20, 30), [[0, 5, 20, 30]]), ((40, 20, 90, 70), [[40, 20, 60, 40]]), ((70, 50, 90, 60), [])],
    ids=["left", "right and below", "wholly outside"],
)
def test_a_box_out_of_the_frame_is_clipped_with_a_warning_that_names_the_image(box, clipped, tmp_path):
    root = write_voc(tmp_path, {"a": [("cat", box)], "b": []}, {"train": ["a"], "val": ["b"]})
    with pytest.warns(
        UserWarning, match=r"1 box is partly or wholly outside the image, and clipped to it: in .*a\.jpg"
    ):
        data = read(root)
    assert data.train_set[0][1]["boxes"].tolist() == clipped and len(data.train_set[0][1]["labels"]) == len(clipped)


def test_a_box_out_of_the_frame_is_clipped_where_the_file_does_not_give_the_size(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": []}, {"train": ["a"], "val": ["b"]})
    write_voc_xml(root / "Annotations/a.xml", [("cat", (40, 20, 90, 70))], size=None)
    assert read(root).train_set[0][1]["boxes"].tolist() == [[40, 20, 60, 40]]


def test_a_coco_box_without_an_area_names_the_image_rather_than_the_json(tmp_path):
    path = write_coco(
        tmp_path / "x.json", {"a.png": [("cat", (5, 5, 0, 9)), ("cat", (1, 1, 9, 9))], "b.png": []}, {1: "cat"}
    )
    with pytest.warns(UserWarning, match=r"left out: in .*a\.png"):
        read(path, val_share=0.5)


def test_boxes_are_flipped_with_their_image(tmp_path):
    root = write_voc(tmp_path, IMAGES, {"train": ["a"], "val": ["b"]})
    (straight, boxes), (flipped, mirrored) = (
        (image, target["boxes"]) for image, target in (read(root, horizontal_flip=p).train_set[0] for p in (0.0, 1.0))
    )
    assert torch.equal(straight.flip(-1), flipped)
    assert mirrored.tolist() == [[60 - right, top, 60 - left, bottom] for left, top, right, bottom in boxes.tolist()]


def test_a_class_that_is_not_trained_on_is_an_error_that_names_the_file(tmp_path):
    root = write_voc(
        tmp_path, {"a": [("cat", (1, 1, 9, 9))], "b": [("cats", (1, 1, 9, 9))]}, {"train": ["a"], "val": ["b"]}
    )
    with pytest.raises(ValueError, match=r"b\.xml has an object of class 'cats'.*Did you mean 'cat'"):
        read(root)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("no xml", "syntax error"),
        ("<annotation><object><name>cat</name></object></annotation>", "has no bndbox"),
        ("<annotation><object><name>cat</name><bndbox><xmin>left</xmin></bndbox></object></annotation>", "'left'"),
    ],
)
def test_a_file_that_is_not_in_vocs_form_is_named(content, complaint, tmp_path):
    root = write_voc(tmp_path, IMAGES, {"train": ["a"], "val": ["b"]})
    (root / "Annotations/a.xml").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.xml is not in PASCAL VOC's form: .*{complaint}"):
        read(root)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[]", ""),
        ("{", ""),
        ('{"images": [], "annotations": []}', "it has no 'categories'"),
        (
            '{"images": [], "categories": [], "annotations": [{"id": 4, "image_id": 1}]}',
            "annotation 4 has the image_id 1",
        ),
    ],
)
def test_a_file_that_is_not_in_cocos_form_is_named(content, complaint, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"mine\.json is not in COCO's form: .*{complaint}"):
        read(path)


def test_missing_files_are_named(tmp_path):
    root = write_voc(tmp_path, IMAGES, {"train": ["a", "b"], "val": ["c"]})
    (root / "JPEGImages/b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image .*b\.jpg, which .*b\.xml describes"):
        read(root)
    (root / "Annotations/a.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*a\.xml, which should describe .*a\.jpg"):
        read(root)


@pytest.mark.parametrize("content", [b"no image", b""])
def test_a_broken_image_is_named(content, tmp_path):
    root = write_voc(tmp_path, IMAGES, {"train": ["a"], "val": ["b"]})
    (root / "JPEGImages/a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpg can't be read as an image"):
        read(root).train_set[0]


@pytest.mark.parametrize(("size", "is_turned"), [((40, 60), True), (None, True), ((60, 40), False)])
def test_a_turned_photo_is_as_the_size_given_with_its_boxes_says(size, is_turned, tmp_path):
    root = write_voc(tmp_path, IMAGES, {"train": ["a"], "val": ["b"]})
    write_voc_xml(root / "Annotations/a.xml", [("boot", (1, 1, 9, 9))], size=size)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (60, 40)).save(root / "JPEGImages/a.jpg", exif=exif)
    assert read(root).train_set[0][0].shape == ((3, 60, 40) if is_turned else (3, 40, 60))


def test_offline_the_error_says_which_files_go_where(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.voc.download_and_extract_archive", fail)
    with pytest.raises(
        FileNotFoundError, match=r"VOC2007, and could not be downloaded .*no network.* VOCtest_06-Nov-2007"
    ):
        read(tmp_path / "voc")
    with pytest.raises(FileNotFoundError, match="download is off"):
        read(tmp_path / "voc", download=False)


def test_a_folder_of_something_else_is_an_error_rather_than_a_download(tmp_path):
    write_image(tmp_path / "holiday.jpg")
    with pytest.raises(ValueError, match="neither JPEGImages and Annotations .* nor train.json"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no .*boxes\.json"):
        read(tmp_path / "boxes.json")


def test_images_of_ones_own_are_predicted_without_the_data_that_were_trained_on(tmp_path, capsys):
    write_image(tmp_path / "x/1.png")
    write_image(tmp_path / "y/1.png")
    write_image(tmp_path / ".thumbnails/1.png")
    (tmp_path / "x/2.heic").touch()
    data = AnnotatedImagesDataModule(root=str(tmp_path / "gone"), predict_images=str(tmp_path), num_workers=0)
    data.setup("predict")
    assert [data.predict_set[i][1]["file"] for i in range(2)] == [str(tmp_path / n) for n in ("x/1.png", "y/1.png")]
    out = capsys.readouterr().out
    assert re.search(r"left out: .heic files +. +1 . x/2.heic", out) and re.search("left out: hidden .*thumbnails", out)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="none has no images. It has nothing"):
        AnnotatedImagesDataModule(predict_images=str(tmp_path / "none")).setup("predict")


def test_values_out_of_range_are_errors(tmp_path):
    with pytest.raises(ValueError, match="Invalid val_share: 1.0"):
        AnnotatedImagesDataModule(val_share=1.0)
    with pytest.raises(ValueError, match="Invalid horizontal_flip: 2"):
        AnnotatedImagesDataModule(horizontal_flip=2)
    with pytest.raises(ValueError, match="has images to validate on, and val_share is 0.1"):
        read(write_voc(tmp_path, IMAGES, {"train": ["a"], "val": ["b"]}), val_share=0.1)
