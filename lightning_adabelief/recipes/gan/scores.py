"""How far generated images are from real ones, measured on the features of a network that knows such images."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

Batch = tuple[Tensor, Tensor]


class Scores(ABC):
    """A network whose features real and generated images are compared on, and the names of the scores.

    Args:
        num_samples: Generated images to score. Distances depend on it: compare only those of one number.

    Attributes:
        names: What the Fréchet distance, the kernel distance and the inception score are called.
        num_features: Number of features.
    """

    names: tuple[str, str, str]
    num_features: int

    def __init__(self, num_samples: int) -> None:
        if num_samples < 2:
            raise ValueError(f"Invalid num_samples: {num_samples}. Give 2 or more; some thousands where time allows")
        self.num_samples = num_samples

    @abstractmethod
    def prepare(self, batches: Iterable[Batch], device: torch.device, quickly: bool = False) -> None:
        """Make the network, once.

        Args:
            batches: Training images (N, C, H, W) in [-1, 1] and their labels; may be gone through repeatedly.
            device: Where the images are.
            quickly: Make one that runs, and tells nothing.
        """

    @abstractmethod
    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn images in [-1, 1] into features (N, num_features) and logits (N, classes)."""

    def count_classes(self, logits: Tensor) -> dict[str, float]:
        """Scores of the generated images that their logits alone tell."""
        return {}


class Comparison:
    """Takes in real and generated images, and tells their scores.

    Args:
        scores: What they are compared on.
        device: Where the images are.
    """

    KERNEL_SUBSET = 100
    """Images a subset of the kernel distance, where there are as many."""

    def __init__(self, scores: Scores, device: torch.device) -> None:
        self.scores = scores
        self.device = device
        given = _Given(scores.num_features)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Metric .* will save all extracted features")
            self.frechet = FrechetInceptionDistance(feature=given).to(device)
            self.kernel = KernelInceptionDistance(feature=given, subset_size=self.KERNEL_SUBSET).to(device)
            self.inception = InceptionScore(feature=given).to(device)
        self.counts = {True: 0, False: 0}

    @torch.no_grad()
    def update(self, images: Tensor, real: bool) -> None:
        """Take in images (N, C, H, W) in [-1, 1]."""
        with torch.autocast(images.device.type, enabled=False):
            features, logits = self.scores.extract(images.float())
        self.frechet.update(features, real=real)
        self.kernel.update(features, real=real)
        if not real:
            self.inception.update(logits)
        self.counts[real] += len(images)

    def compute(self) -> dict[str, float]:
        """From each score's name to its value, NaN where an image is not finite; the Fréchet distance comes first."""
        self.kernel.subset_size = min(self.KERNEL_SUBSET, *self.counts.values())
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*degrees of freedom")  # of too few images
            torch.manual_seed(0)  # of the subsets
            values = (self._frechet(), self.kernel.compute()[0], self.inception.compute()[0])
        named = {name: float(value) for name, value in zip(self.scores.names, values, strict=True)}
        return named | self.scores.count_classes(torch.cat(_as_list(self.inception.features)))

    def _frechet(self) -> Tensor:
        sums = self.frechet.fake_features_sum
        return self.frechet.compute() if sums.isfinite().all() else sums.new_tensor(torch.nan)


class ClassifierScores(Scores):
    """Scores on the features of a classifier of such images: the inputs of its last linear layer.

    They are no FID, KID or Inception score, and are not called so, but ``frechet_<name>``,
    ``kernel_<name>`` and ``class_score_<name>``; ``classes_<name>`` is the number of classes that at
    least a fifth of a fair share of the generated images look like.

    Args:
        name: Of the images, for the names of the scores.
        checkpoint: Of a trained ImageClassifier; None to train one as ``digits-cnn`` does, on the
            training images.
        network: The checkpoint's network (default: ``digits-cnn``'s).
        training_steps: How long to train, on batches of the data's own size.
        num_samples: Generated images to score.

    Raises:
        ValueError: If there is a network and no checkpoint.
    """

    SEED = 0
    """The classifier's own, so that it is one and the same for every seed of the GAN."""

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
        """Load or train the classifier, once."""
        if not self._is_prepared:
            with torch.random.fork_rng():
                torch.manual_seed(self.SEED)
                self._make(batches, device, quickly)
            self._is_prepared = True
        self.classifier.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of the last linear layer, and its outputs."""
        logits = self.classifier(images / 2 + 0.5)
        return self._features, logits

    def count_classes(self, logits: Tensor) -> dict[str, float]:
        """How many classes are generated."""
        shares = torch.bincount(logits.argmax(dim=1), minlength=logits.shape[1]) / len(logits)
        return {f"classes_{self.name}": float((shares >= 0.2 / logits.shape[1]).sum())}

    def _make(self, batches: Iterable[Batch], device: torch.device, quickly: bool) -> None:
        from lightning_adabelief.recipes.image_classification.networks import SmallCNN

        if self.network is None:
            images, _ = next(iter(batches))
            classes = 1 + max(int(labels.max()) for _, labels in batches)
            self.network = SmallCNN(in_channels=images.shape[1], num_classes=classes)
        self.classifier = self.network.to(device)
        if self.checkpoint is not None:
            self._load(self.checkpoint)
        elif not quickly:
            _train(self.classifier, batches, self.training_steps)
        self.classifier.eval().requires_grad_(False)
        last = [layer for layer in self.classifier.modules() if isinstance(layer, nn.Linear)][-1]
        last.register_forward_pre_hook(self._keep)
        self.num_features = last.in_features

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def _load(self, path: str) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        weights = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
        self.classifier.load_state_dict(weights)


class InceptionScores(Scores):
    """FID, KID and the Inception score, on the network that is usual for them.

    Args:
        weights: Path of ``pt_inception-2015-12-05-6726825d.pth``; None to download it (91 MB).
        num_samples: Generated images to score.

    Raises:
        ValueError: If torch-fidelity is not installed.
    """

    names = ("fid", "kid", "inception_score")
    num_features = 2048

    AT_ONCE = 64
    """Images, which the network enlarges to 299x299."""

    def __init__(self, weights: str | None = None, num_samples: int = 10_000) -> None:
        super().__init__(num_samples)
        try:
            import torch_fidelity  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "FID needs the package torch-fidelity: pip install torch-fidelity. Without it, take ClassifierScores"
            ) from error
        self.weights = weights
        self._network: Any = None

    def prepare(self, batches: Iterable[Batch], device: torch.device, quickly: bool = False) -> None:
        """Load the network, once."""
        if self._network is None:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

            self._network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=self.weights
            ).eval()
        self._network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last pooling layer, and the logits without their bias."""
        pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().expand(-1, 3, -1, -1)
        parts = [self._network(part) for part in pixels.split(self.AT_ONCE)]
        features, logits = (torch.cat(of_part) for of_part in zip(*parts, strict=True))
        return features, logits


class _Given(nn.Module):
    """Stands for a network where features are given: extracted once for all three scores."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _train(network: nn.Module, batches: Iterable[Batch], steps: int) -> None:
    """Train a classifier with the settings of ``digits-cnn``."""
    from lightning_adabelief.optim import AdaBelief

    optimizer = AdaBelief(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    network.train()
    with torch.enable_grad():
        for _, (images, labels) in zip(range(steps), _repeated(batches), strict=False):
            loss = nn.functional.cross_entropy(network(images / 2 + 0.5), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _repeated(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        yield from batches


def _as_list(features: Tensor | list[Tensor]) -> list[Tensor]:
    return features if isinstance(features, list) else [features]
