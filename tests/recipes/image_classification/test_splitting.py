"""The split of images into parts."""

from collections import Counter, defaultdict
from random import Random

import pytest

from lightning_adabelief.recipes.image_classification.found_images import FoundImages
from lightning_adabelief.recipes.image_classification.splitting import (
    check_groups_are_whole,
    name_groups,
    split_images,
)

FRACTIONS = {"val": 0.15, "test": 0.2}


def make_found(classes, groups=()):
    """Make images without files; their names are numbers."""
    names = [f"{number}.png" for number in range(len(classes))]
    return FoundImages("photos", [f"photos/{name}" for name in names], names, list(classes), list(groups))


def count(parts):
    return {part: dict(sorted(Counter(found.classes).items())) for part, found in parts.items()}


def test_each_part_has_its_fraction_of_every_class():
    parts = split_images(make_found("a" * 200 + "b" * 40 + "c" * 7), FRACTIONS, seed=0)
    assert count(parts) == {
        "train": {"a": 130, "b": 26, "c": 5},
        "val": {"a": 30, "b": 6, "c": 1},
        "test": {"a": 40, "b": 8, "c": 1},
    }
    assert sorted(name for found in parts.values() for name in found.names) == sorted(make_found("a" * 247).names)


def test_a_split_depends_on_the_seed_and_the_names_and_not_on_their_order():
    found = make_found("ab" * 50)
    order = list(range(100))
    Random(0).shuffle(order)
    parts, again, other = (
        {part: set(of_part.names) for part, of_part in split_images(images, FRACTIONS, seed).items()}
        for images, seed in ((found, 0), (found.select(order), 0), (found, 1))
    )
    assert parts == again
    assert parts["val"] != other["val"]


def test_an_image_more_or_less_moves_at_most_one_other_into_each_part():
    whole = make_found("ab" * 100)
    parts = split_images(whole, FRACTIONS, seed=0)
    for lost in range(0, 200, 9):
        fewer = split_images(whole.select(i for i in range(200) if i != lost), FRACTIONS, seed=0)
        for part in parts:
            assert len(set(fewer[part].names) - set(parts[part].names)) <= 1


def test_of_a_small_class_the_parts_to_train_and_to_validate_on_have_the_first_images():
    parts = split_images(make_found("a" * 20 + "3" * 3 + "2" * 2 + "1"), FRACTIONS, seed=0)
    assert [[count(parts)[part].get(name, 0) for part in ("train", "val", "test")] for name in "321"] == [
        [1, 1, 1],
        [1, 1, 0],
        [1, 0, 0],
    ]
    parts = split_images(make_found("a" * 20 + "333"), {"val": 0.5, "test": 0.2}, seed=0)
    assert all("3" in found.classes for found in parts.values()), "half of three is two, which leaves none to test on"


@pytest.mark.parametrize("mixed", [False, True])
def test_groups_stay_whole_and_every_class_has_about_its_fraction(mixed):
    random = Random(0)
    classes, groups = [], []
    for group in range(80):
        of_group = random.choice("abc")
        for _ in range(random.randint(1, 9)):
            classes.append(random.choice("abc") if mixed else of_group)
            groups.append(f"patient {group}")
    parts = split_images(make_found(classes, groups), FRACTIONS, seed=0)
    parts_of = defaultdict(set)
    for part, found in parts.items():
        for group in found.groups:
            parts_of[group].add(part)
    assert len(parts_of) == 80 and all(len(of_group) == 1 for of_group in parts_of.values())
    counts = Counter(classes)
    for part, fraction in FRACTIONS.items():
        for name, number in count(parts)[part].items():
            assert number / counts[name] == pytest.approx(fraction, abs=0.06)


def test_a_group_larger_than_a_part_is_trained_on_if_there_is_a_smaller_one():
    groups = ["large"] * 60 + [f"small {i // 4}" for i in range(40)]
    for seed in range(5):
        parts = split_images(make_found("a" * 100, groups), {"val": 0.2}, seed)
        assert len(parts["val"].files) == 20 and "large" in parts["train"].groups


def test_no_class_is_taken_from_training_by_a_group_of_several_classes():
    classes, groups = "ab" * 3 + "a" * 20, ["first"] * 2 + ["second"] * 2 + ["third"] * 2 + [str(i) for i in range(20)]
    for seed in range(10):
        parts = split_images(make_found(classes, groups), FRACTIONS, seed)
        assert all("b" in found.classes for found in parts.values())


def test_too_few_images_or_groups_for_a_part_are_errors():
    with pytest.raises(
        ValueError,
        match="photos has 4 images, too few to split off some to test on. Give more images or test_fraction 0",
    ):
        split_images(make_found("aabb"), FRACTIONS, seed=0)
    with pytest.raises(
        ValueError, match="40 images in 1 groups, too few .* to validate on. Give more images or other groups"
    ):
        split_images(make_found("ab" * 20, ["all"] * 40), FRACTIONS, seed=0)


def test_a_regular_expression_names_the_groups():
    found = make_found("abc")
    found.names = ["cats/anna_1.jpg", "cats/bert_1.jpg", "dogs/anna_2.jpg"]
    assert name_groups(found, "/([^_]+)_") == ["anna", "bert", "anna"]
    found.names[1:] = ["cats/1.jpg", "cats/2.jpg"]
    with pytest.raises(ValueError, match="finds no group in 2 of the 3 paths below photos: cats/1.jpg, cats/2.jpg"):
        name_groups(found, "/([^_]+)_")
    with pytest.raises(ValueError, match="Invalid groups: '/.*_' has no parentheses"):
        name_groups(found, "/.*_")
    with pytest.raises(ValueError, match=r"Invalid groups: '\(' is no regular expression, missing \)"):
        name_groups(found, "(")


def test_a_group_in_two_parts_is_an_error_that_names_it():
    parts = {"train": make_found("aab", ["x", "y", "z"]), "val": make_found("aa", ["v", "y"])}
    with pytest.raises(ValueError, match=r"Groups have images in two parts: 'y' \(in train and val\). Put the images"):
        check_groups_are_whole(parts)
