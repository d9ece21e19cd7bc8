"""FID, KID and the Inception score."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adabelief.recipes.gan.scores import Batch, Scores


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
                "FID needs the package torch-fidelity: pip install 'lightning-adabelief[fid]'. Without it, use "
                "ClassifierScores"
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


def find_weights() -> Path | None:
    """Return the file of Inception's weights that torch-fidelity has downloaded.

    Returns:
        The file; None if there is none, or torch-fidelity is not installed.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    except ImportError:
        return None
    path = Path(torch.hub.get_dir(), "checkpoints", URL_INCEPTION_V3.rpartition("/")[2])
    return path if path.is_file() else None
