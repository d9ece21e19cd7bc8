"""Scenes of digits."""

import pytest
import torch

from lightning_adabelief.recipes.object_detection import ScenesDataModule


def make_data(**options):
    data = ScenesDataModule(**{"train_scenes": 40, "val_scenes": 20, "test_scenes": 20} | options)
    data.setup("fit")
    return data


def scenes_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


def test_the_same_seed_gives_the_same_scenes_in_any_order():
    first, second = make_data().train_set, make_data().train_set
    for index in reversed(range(10)):
        (image, target), (again, target_again) = first[index], second[index]
        assert torch.equal(image, again) and torch.equal(target["boxes"], target_again["boxes"])
        assert target["file"] == target_again["file"]


def test_more_scenes_begin_with_the_same_ones():
    few, many = make_data().train_set, make_data(train_scenes=80).train_set
    assert all(torch.equal(few[index][0], many[index][0]) for index in range(10))


@pytest.mark.parametrize("parts", [("train_set", "val_set"), ("train_set", "test_set"), ("val_set", "test_set")])
def test_parts_have_no_digit_in_common(parts):
    data = make_data()
    first, second = ({image.tobytes() for image in getattr(data, part).images} for part in parts)
    assert first and second and not first & second


def test_another_seed_and_another_part_give_other_scenes():
    data = make_data()
    assert not torch.equal(data.train_set[0][0], make_data(seed=1).train_set[0][0])
    assert not torch.equal(data.train_set[0][0], data.val_set[0][0])


def test_a_scene_has_up_to_five_digits_with_boxes_in_the_frame():
    counts, sides = set(), []
    for image, target in scenes_of(make_data().train_set):
        boxes = target["boxes"]
        counts.add(len(boxes))
        assert image.shape == (3, 96, 96) and image.dtype == torch.uint8
        assert boxes.dtype == torch.float32 and (boxes >= 0).all() and (boxes <= 96).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
        assert target["labels"].min() >= 1 and target["labels"].max() <= 10
        sides += (boxes[:, 3] - boxes[:, 1]).tolist()
    assert counts == {1, 2, 3, 4, 5}
    assert min(sides) < 14 and max(sides) > 30


def test_a_box_ends_where_its_digit_does(monkeypatch):
    from lightning_adabelief.recipes.object_detection import scenes

    monkeypatch.setattr(scenes, "MAX_DIGITS", 1)
    monkeypatch.setattr(scenes.Scenes, "_draw_strokes", lambda *_: None)
    monkeypatch.setattr(scenes, "_draw_colour", lambda canvas, *_: (255, 255, 255))
    monkeypatch.setattr(
        scenes.Scenes, "_draw_background", lambda self, rng: scenes.Image.new("RGB", (self.size, self.size))
    )
    for image, target in scenes_of(make_data().train_set):
        inked = (image.float().mean(dim=0) > 140).nonzero()
        top, left = inked.amin(dim=0).tolist()
        bottom, right = (inked.amax(dim=0) + 1).tolist()
        ((x0, y0, x1, y1),) = target["boxes"].tolist()
        assert max(abs(left - x0), abs(top - y0), abs(right - x1), abs(bottom - y1)) <= 4


@pytest.mark.parametrize("options", [{"train_scenes": 0}, {"test_scenes": -1}, {"size": 50}, {"batch_size": 0}])
def test_a_value_out_of_range_is_an_error_that_names_it(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"Invalid {name}: {value}"):
        ScenesDataModule(**options)
