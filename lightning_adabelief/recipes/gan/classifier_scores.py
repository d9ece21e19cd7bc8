"""Scores on the features of a classifier of the same data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from lightning_adabelief.checkpoint_file import CheckpointError, explain_other_network, read_checkpoint
from lightning_adabelief.recipes.gan.scores import Batch, Scores


class ClassifierScores(Scores):
    """Scores on the features of a classifier of such images: the inputs of its last linear layer.

    They are computed as FID, KID and the Inception score are, but not on Inception's features, and so go by
    names of their own: ``frechet_<name>``, ``kernel_<name>`` and ``class_score_<name>``.
    ``classes_<name>`` is the number of classes that appear: those with at least a fifth of the images they
    would have if all classes were equally frequent.

    Args:
        name: Name of the images, a part of the scores' names.
        checkpoint: Path of a trained ImageClassifier's checkpoint; None to train a classifier on the
            training images.
        network: The checkpoint's network (default: that of ``digits-cnn``).
        training_steps: Steps of that training, on batches of the data's own size.
        num_samples: Number of generated images to score.

    Raises:
        ValueError: If ``num_samples`` is less than 2, or a network is given without a checkpoint.
    """

    CLASSIFIER_SEED = 0
    """Fixed, so that the classifier is the same whatever the seed of the GAN."""

    MIN_CLASS_FREQUENCY = 0.2
    """The frequency from which a class counts as appearing, as a fraction of 1 / num_classes."""

    def __init__(
        self,
        name: str = "digits",
        checkpoint: str | None = None,
        network: nn.Module | None = None,
        training_steps: int = 240,
        num_samples: int = 1000,
    ) -> None:
        super().__init__(num_samples)
        if network is not None and checkpoint is None:
            raise ValueError(f"Scores on {type(network).__name__}'s features need its weights. Give its checkpoint")
        self.names = (f"frechet_{name}", f"kernel_{name}", f"class_score_{name}")
        self.name = name
        self.checkpoint = checkpoint
        self.network = network
        self.training_steps = training_steps
        self._is_prepared = False

    def prepare(self, batches: Iterable[Batch], device: torch.device, quickly: bool = False) -> None:
        """Load or train the classifier, the first time it is called."""
        if not self._is_prepared:
            # A test or a validation is in inference mode, in which nothing can be trained.
            with torch.random.fork_rng(), torch.inference_mode(False):
                torch.manual_seed(self.CLASSIFIER_SEED)
                self._make_classifier(batches, device, quickly)
            self._is_prepared = True
        self.classifier.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs (N, num_features) of the last linear layer, and its outputs (N, num_classes)."""
        logits = self.classifier(images / 2 + 0.5)
        return self._features, logits

    def count_classes(self, logits: Tensor) -> dict[str, float]:
        """Return the number of classes that appear among the generated images, as ``classes_<name>``."""
        num_classes = logits.shape[1]
        frequencies = torch.bincount(logits.argmax(dim=1), minlength=num_classes) / len(logits)
        appears = frequencies >= self.MIN_CLASS_FREQUENCY / num_classes
        return {f"classes_{self.name}": float(appears.sum())}

    def _make_classifier(self, batches: Iterable[Batch], device: torch.device, quickly: bool) -> None:
        from lightning_adabelief.recipes.image_classification.networks import SmallCNN

        if self.network is None:
            images, _ = next(iter(batches))
            classes = 1 + max(int(labels.max()) for _, labels in batches)
            self.network = SmallCNN(in_channels=images.shape[1], num_classes=classes)
        self.classifier = self.network.to(device)
        if self.checkpoint is not None:
            self._load_weights(self.checkpoint)
        elif not quickly:
            _train_classifier(self.classifier, batches, self.training_steps)
        self.classifier.eval().requires_grad_(False)
        last = [layer for layer in self.classifier.modules() if isinstance(layer, nn.Linear)][-1]
        last.register_forward_pre_hook(self._keep_features)
        self.num_features = last.in_features

    def _keep_features(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def _load_weights(self, path: str) -> None:
        state = read_checkpoint(path)["state_dict"]
        weights = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
        try:
            self.classifier.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}, given as the scores' checkpoint, {explain_other_network(str(error))}. Give the scores its "
                "network too"
            ) from error


def _train_classifier(network: nn.Module, batches: Iterable[Batch], steps: int) -> None:
    """Train a classifier in place. Other settings would be another classifier, whose scores can't be compared."""
    from lightning_adabelief.optim import AdaBelief

    optimizer = AdaBelief(network.parameters(), lr=3e-3, weight_decay=1e-2)
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    network.train()
    with torch.enable_grad():
        for _, (images, labels) in zip(range(steps), _repeat_batches(batches), strict=False):
            loss = nn.functional.cross_entropy(network(images / 2 + 0.5), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lr_scheduler.step()


def _repeat_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        yield from batches
