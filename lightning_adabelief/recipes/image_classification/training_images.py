"""The images that a classifier was trained on, as its checkpoint remembers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lightning_adabelief.lightning_tree import rank_zero_warn
from lightning_adabelief.recipes.image_classification.image_parts import SplitOptions
from lightning_adabelief.recipes.image_classification.preprocessing import Preprocessing


@dataclass
class TrainingImages:
    """The images that a classifier was trained on, as far as prediction and export need to know them.

    Attributes:
        class_names: Names of the classes, in the order of the labels; None if they have none.
        preprocessing: Preparation of an image file for the network; None where the images were not files.
        shape: Shape of an image, (C, H, W); None before the first batch.
        mean: Mean of each channel, of images in [0, 1], by which they were normalized; None if it is not known.
        std: Standard deviation of each channel, by which they were normalized; None if it is not known.
        split: The options by which they were split off from others; None if they were not.
    """

    class_names: list[str] | None = None
    preprocessing: Preprocessing | None = None
    shape: tuple[int, ...] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    split: SplitOptions | None = None

    @classmethod
    def from_data(cls, data: Any) -> TrainingImages:
        """Describe the images of a DataModule that is set up; what it does not tell by attributes is None."""
        preprocessing = getattr(data, "preprocessing", None)
        preprocessing = preprocessing if isinstance(preprocessing, Preprocessing) else None
        split = getattr(data, "split", None)
        normalized_by = preprocessing or data
        return cls(
            class_names=_read_list(data, "class_names", str),
            preprocessing=preprocessing,
            mean=_read_list(normalized_by, "mean", float),
            std=_read_list(normalized_by, "std", float),
            split=split if isinstance(split, SplitOptions) else None,
        )

    @classmethod
    def from_plain(cls, entry: dict[str, Any]) -> TrainingImages:
        """Make it from a checkpoint's entry; what an older one lacks is None.

        Args:
            entry: What :meth:`to_plain` returned, and perhaps other keys.
        """
        values = {name: entry.get(name) for name in cls.__dataclass_fields__}
        if values["preprocessing"] is not None:
            values["preprocessing"] = Preprocessing(**values["preprocessing"])
        if values["split"] is not None:
            values["split"] = SplitOptions(**values["split"])
        return cls(**values)

    def to_plain(self) -> dict[str, Any]:
        """Return a dict of plain data, for a checkpoint."""
        return asdict(self)

    def warn_of_other_split(self, data: Any) -> None:
        """Warn if a DataModule that is set up has split its images by other options than these were.

        Args:
            data: The DataModule; None, or one that has split nothing, for no warning.
        """
        other = self.from_data(data).split
        if self.split is None or other is None or self.split == other:
            return
        before, now = asdict(self.split), asdict(other)
        changed = [f"{name} is {now[name]!r} and was {before[name]!r}" for name in now if now[name] != before[name]]
        rank_zero_warn(
            f"The images are not split as they were for the checkpoint's training: {', '.join(changed)}. Some that it "
            "was trained on are now validated or tested on, so the scores flatter. Give the options of the training"
        )

    def check_class_names(self, others: list[str] | None) -> None:
        """Raise if data have other classes than these; names that are not known agree with all.

        Args:
            others: Names of the data's classes.

        Raises:
            ValueError: If a label means another class.
        """
        if self.class_names is None or others is None:
            return
        for label, (name, other) in enumerate(zip(self.class_names, others, strict=False)):
            if name != other:
                raise ValueError(
                    f"The checkpoint's class {label} is {name!r}, and the data's is {other!r}. Give the data that "
                    "it was trained on, or train anew"
                )


def _read_list(owner: Any, name: str, kind: Callable[[Any], Any]) -> list[Any] | None:
    """Return an attribute, a list or tuple, as a list of items of a kind; None if it is anything else."""
    value = getattr(owner, name, None)
    return [kind(item) for item in value] if isinstance(value, list | tuple) else None
