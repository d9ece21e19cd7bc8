"""Scores of generated images against real ones, on the features of a network that knows such images."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from lightning_adabelief.checkpoint_file import CheckpointError, explain_other_network, read_checkpoint

Batch = tuple[Tensor, Tensor]


class Scores(ABC):
    """A network on whose features real and generated images are compared, and the names of the scores.

    Args:
        num_samples: Number of generated images to score. Distances depend on it: compare only distances of
            the same number.

    Attributes:
        names: The names of the Fréchet distance, the kernel distance and the inception score.
        num_features: Number of features.

    Raises:
        ValueError: If ``num_samples`` is less than 2.
    """

    names: tuple[str, str, str]
    num_features: int

    def __init__(self, num_samples: int) -> None:
        if num_samples < 2:
            raise ValueError(f"Invalid num_samples: {num_samples}. Give 2 or more; some thousands where time allows")
        self.num_samples = num_samples

    @abstractmethod
    def prepare(self, batches: Iterable[Batch], device: torch.device, quickly: bool = False) -> None:
        """Make the network, the first time it is called.

        Args:
            batches: Training images (N, C, H, W) in [-1, 1] and their labels (N,); iterable repeatedly.
            device: The device of the images.
            quickly: Skip training and loading, for a run that only checks that all works.
        """

    @abstractmethod
    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn images (N, C, H, W) in [-1, 1] into features (N, num_features) and logits (N, num_classes)."""

    def count_classes(self, logits: Tensor) -> dict[str, float]:
        """Return further scores by name, computed from the logits (N, num_classes) of the generated images alone."""
        return {}


class Comparison:
    """A comparison of real and generated images, batch by batch.

    Args:
        scores: The network to compare them with.
        device: The device of the images.
    """

    KERNEL_SUBSET_SIZE = 100
    """Images per subset of the kernel distance, if there are that many."""

    def __init__(self, scores: Scores, device: torch.device) -> None:
        self.scores = scores
        self.device = device
        features = _ExtractedFeatures(scores.num_features)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Metric .* will save all extracted features")
            self.frechet = FrechetInceptionDistance(feature=features, reset_real_features=False).to(device)
            self.kernel = KernelInceptionDistance(
                feature=features, subset_size=self.KERNEL_SUBSET_SIZE, reset_real_features=False
            ).to(device)
            self.inception = InceptionScore(feature=features).to(device)
        self.counts = {True: 0, False: 0}  # real and generated images

    @torch.no_grad()
    def update(self, images: Tensor, real: bool) -> None:
        """Add a batch.

        Args:
            images: Images (N, C, H, W) in [-1, 1].
            real: True for real images, False for generated ones.
        """
        with torch.autocast(images.device.type, enabled=False):
            features, logits = self.scores.extract(images.float())
        self.frechet.update(features, real=real)
        self.kernel.update(features, real=real)
        if not real:
            self.inception.update(logits)
        self.counts[real] += len(images)

    def forget_generated(self) -> None:
        """Begin anew with the generated images; the real ones stay, so that others can be compared with them."""
        for metric in (self.frechet, self.kernel, self.inception):
            metric.reset()
        self.counts[False] = 0

    def compute(self) -> dict[str, float]:
        """Return the scores by name, the Fréchet distance first.

        The Fréchet distance is NaN if a generated image has values that are not finite.
        """
        self.kernel.subset_size = min(self.KERNEL_SUBSET_SIZE, *self.counts.values())
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*degrees of freedom")  # the deviation over a single subset
            torch.manual_seed(0)  # the kernel distance draws its subsets at random
            values = (self._compute_frechet(), self.kernel.compute()[0], self.inception.compute()[0])
        named = {name: float(value) for name, value in zip(self.scores.names, values, strict=True)}
        return named | self.scores.count_classes(torch.cat(_to_list(self.inception.features)))

    def _compute_frechet(self) -> Tensor:
        sums = self.frechet.fake_features_sum  # not finite as soon as one image is not
        return self.frechet.compute() if sums.isfinite().all() else sums.new_tensor(torch.nan)


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


class InceptionScores(Scores):
    """FID, KID and the Inception score, on the Inception network that they are defined by.

    Args:
        weights: Path of ``weights-inception-2015-12-05-6726825d.pth``; None to download it (91 MB).
        num_samples: Number of generated images to score.

    Raises:
        ValueError: If torch-fidelity is not installed, there is no file ``weights``, or ``num_samples`` is less
            than 2. Later, when the network is needed: if it can't be downloaded.
    """

    names = ("fid", "kid", "inception_score")
    num_features = 2048

    BATCH_SIZE = 64
    """Images at a time: the network enlarges them to 299x299."""

    def __init__(self, weights: str | None = None, num_samples: int = 10_000) -> None:
        super().__init__(num_samples)
        try:
            import torch_fidelity  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "FID needs the package torch-fidelity: pip install torch-fidelity. Without it, use ClassifierScores"
            ) from error
        if weights is not None and not Path(weights).is_file():
            raise ValueError(
                f"There is no file {weights}, given as Inception's weights. Give one, or None to download it"
            )
        self.weights = weights
        self._network: Any = None

    def prepare(self, batches: Iterable[Batch], device: torch.device, quickly: bool = False) -> None:
        """Load the network, the first time it is called."""
        if self._network is None:
            self._network = self._load_network().eval()
        self._network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last pooling layer (N, 2048), and the logits (N, 1008) without their bias."""
        pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().expand(-1, 3, -1, -1)
        parts = [self._network(part) for part in pixels.split(self.BATCH_SIZE)]
        features, logits = (torch.cat(outputs) for outputs in zip(*parts, strict=True))
        return features, logits

    def _load_network(self) -> nn.Module:
        from torch_fidelity import feature_extractor_inceptionv3 as inception

        try:
            return inception.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=self.weights
            )
        except OSError as error:
            if self.weights is not None:
                raise
            raise ValueError(
                f"Inception's weights, which FID needs, could not be downloaded: {error}. Fetch "
                f"{inception.URL_INCEPTION_V3} elsewhere, and give the file as weights of InceptionScores, or put it "
                f"into {torch.hub.get_dir()}/checkpoints"
            ) from error


class _ExtractedFeatures(nn.Module):
    """A stand-in for torchmetrics' network: features are extracted once, for all three scores."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


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


def _to_list(features: Tensor | list[Tensor]) -> list[Tensor]:
    return features if isinstance(features, list) else [features]
