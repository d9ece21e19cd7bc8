"""The split of images into parts: by class, with groups kept whole.

scikit-learn's splits are drawn anew when an image comes or goes, and those that keep groups whole have folds of equal
size. Here images are taken in the order of a hash of the seed and their names: when one comes or goes, the others stay.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from lightning_adabelief.recipes.image_classification.found_images import FoundImages, name_first

VERBS = {"train": "train", "val": "validate", "test": "test"}
"""From a part's name to what is done with its images."""


def split_images(found: FoundImages, fractions: Mapping[str, float], seed: int) -> dict[str, FoundImages]:
    """Split images into parts with about the same shares of every class.

    The images of a group stay together; an image without one is a group of its own. The classes are gone through,
    that of the fewest groups first, as in Sechidis, Tsoumakas and Vlahavas, "On the stratification of
    multi-label data" (2011): each part takes groups in the order of a hash of the seed and their names for as long as
    they bring it nearer to its fraction. Of a class of at least as many groups as parts, each part has one; of one of
    fewer groups, first the images to train on have one, and then the parts in their order.

    Args:
        found: The images and their classes.
        fractions: From a part's name to the fraction of the images that it is to have.
        seed: Another seed makes another split.

    Returns:
        From a part's name to its images: ``"train"``, which has what is left, and those of ``fractions``.

    Raises:
        ValueError: If a part would have no image.
    """
    part_of = _Assignment(found, fractions, seed).assign_groups()
    groups = found.groups or found.names
    parts = {}
    for part in ("train", *fractions):
        parts[part] = found.select(i for i, group in enumerate(groups) if part_of.get(group, "train") == part)
        if not parts[part].files:
            groups_of = f" in {len(set(groups)):,} groups" if found.groups else ""
            advice = [
                "more images",
                *(["other groups"] if groups_of else []),
                *(["test_fraction 0"] if part == "test" else []),
            ]
            raise ValueError(
                f"{found.source} has {len(groups):,} images{groups_of}, too few to split off some to "
                f"{VERBS[part]} on. Give {' or '.join(advice)}"
            )
    parts["train"].left_out = found.left_out
    return parts


class _Assignment:
    """The groups that have been assigned to parts, and those that are left to train on.

    Args:
        found: The images and their classes.
        fractions: From a part's name to the fraction of the images that it is to have.
        seed: Another seed makes another order.
    """

    def __init__(self, found: FoundImages, fractions: Mapping[str, float], seed: int) -> None:
        self.classes = found.classes
        self.members: dict[str, list[int]] = defaultdict(list)
        for index, group in enumerate(found.groups or found.names):
            self.members[group].append(index)
        self.groups_of: dict[str, list[str]] = defaultdict(list)
        for group in sorted(self.members, key=lambda group: (_hash(seed, group), group)):
            for name in self._count_classes(group):
                self.groups_of[name].append(group)
        counts = Counter(found.classes)
        self.targets = {part: {name: f * count for name, count in counts.items()} for part, f in fractions.items()}
        self.taken: dict[str, Counter[str]] = {part: Counter() for part in fractions}
        self.left = {name: len(groups) for name, groups in self.groups_of.items()}
        self.part_of: dict[str, str] = {}

    def assign_groups(self) -> dict[str, str]:
        """Assign groups to the parts, and return the part of each; those without one are trained on."""
        for name in sorted(self.groups_of, key=lambda name: (len(self.groups_of[name]), name)):
            for part in self.taken:
                self._fill(part, name)
        return self.part_of

    def _fill(self, part: str, name: str) -> None:
        """Give a part groups that have images of a class, up to its fraction of them."""
        taken, target = self.taken[part], self.targets[part][name]
        for group in self.groups_of[name]:
            if taken[name] >= target or not self._has_spare(part, name):
                break
            if self._is_free(group) and self._brings_nearer(part, group):
                self._assign(part, group)
        if not taken[name]:  # each of its groups is far more than the fraction: the smallest is nearest
            free = [group for group in self.groups_of[name] if self._is_free(group)]
            if free:
                self._assign(part, min(free, key=lambda group: len(self.members[group])))

    def _has_spare(self, part: str, name: str) -> bool:
        """Return True if, after the part takes one more group of a class, there is one for each part without."""
        if not self.taken[part][name]:
            return True
        others = [other for other in self.taken if other != part and not self.taken[other][name]]
        return self.left[name] > 1 + len(others)

    def _is_free(self, group: str) -> bool:
        """Return True if a group is not assigned yet, and is the last of none of its classes."""
        return group not in self.part_of and all(self.left[name] > 1 for name in self._count_classes(group))

    def _brings_nearer(self, part: str, group: str) -> bool:
        taken, targets = self.taken[part], self.targets[part]
        change = 0.0
        for name, count in self._count_classes(group).items():
            before, after = taken[name] / targets[name] - 1, (taken[name] + count) / targets[name] - 1
            change += after**2 - before**2
        return change <= 1e-9  # as near as before, but for rounding, is near enough

    def _assign(self, part: str, group: str) -> None:
        self.part_of[group] = part
        for name, count in self._count_classes(group).items():
            self.taken[part][name] += count
            self.left[name] -= 1

    def _count_classes(self, group: str) -> Counter[str]:
        return Counter(self.classes[i] for i in self.members[group])


def name_groups(found: FoundImages, pattern: str) -> list[str]:
    """Return the group of each image: what the first pair of parentheses of a regular expression matches in its name.

    Args:
        found: The images.
        pattern: The regular expression; it may match anywhere in the path below ``found.source``.

    Raises:
        ValueError: If the expression has no parentheses, or does not match every name.
    """
    expression = compile_groups(pattern)
    matches = [expression.search(name) for name in found.names]
    unmatched = [name for name, match in zip(found.names, matches, strict=True) if match is None or match[1] is None]
    if unmatched:
        raise ValueError(
            f"groups {pattern!r} finds no group in {len(unmatched):,} of the {len(matches):,} paths below "
            f"{found.source}: {name_first(unmatched)}. Give an expression that matches each of them"
        )
    return [match[1] for match in matches if match is not None]


def compile_groups(pattern: str) -> re.Pattern[str]:
    """Return the regular expression that names groups, compiled.

    Raises:
        ValueError: If it is none, or has no parentheses.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"Invalid groups: {pattern!r} is no regular expression, {error}") from error
    if not expression.groups:
        raise ValueError(
            f"Invalid groups: {pattern!r} has no parentheses. Put them around what names a group, as in '/([^_]+)_'"
        )
    return expression


def check_groups_are_whole(parts: Mapping[str, FoundImages]) -> None:
    """Check that no group has images in two parts.

    Raises:
        ValueError: If one has; the message names it and the parts.
    """
    part_of: dict[str, str] = {}
    torn: dict[str, str] = {}
    for part, found in parts.items():
        for group in found.groups:
            if part_of.setdefault(group, part) != part:
                torn[group] = f"{group!r} (in {part_of[group]} and {part})"
    if torn:
        raise ValueError(
            f"Groups have images in two parts: {name_first(list(torn.values()))}. Put the images of a group into one "
            "part, or leave groups out"
        )


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8).digest()
