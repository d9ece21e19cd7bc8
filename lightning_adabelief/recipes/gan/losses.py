"""What generator and critic minimize, and how the critic is kept smooth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Loss:
    """What a GAN minimizes; Wasserstein's where a subclass does not say otherwise.

    Scores are (N,): the higher, the more real an image seems to the critic.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """The critic's loss, from its scores of real and of generated images."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """The generator's loss, from the critic's scores of generated images."""
        return -fake.mean()

    def penalty(
        self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, noise: torch.Generator
    ) -> Tensor | None:
        """What is added to the critic's loss, if anything.

        Args:
            critic: From images (N, C, H, W) to scores (N,).
            real: Real images (N, C, H, W).
            fake: As many generated ones.
            noise: What random numbers are drawn from, on the CPU.
        """
        return None

    def constrain(self, critic: nn.Module) -> None:
        """Change the critic's weights after each of its steps, if need be."""


class Wasserstein(Loss):
    """WGAN: the critic's mean score of real images against that of generated ones; its weights are clipped.

    Args:
        clip: After each step, the critic's weights are put back into [-clip, clip].

    References:
        Arjovsky et al., Wasserstein GAN, 2017 (https://arxiv.org/abs/1701.07875), algorithm 1.
    """

    def __init__(self, clip: float = 0.01) -> None:
        if clip <= 0:
            raise ValueError(f"Invalid clip: {clip}. Give a bound over 0, such as 0.01")
        self.clip = clip

    @torch.no_grad()
    def constrain(self, critic: nn.Module) -> None:
        """Clip the weights."""
        for param in critic.parameters():
            param.clamp_(-self.clip, self.clip)


class WassersteinGP(Loss):
    """WGAN-GP: WGAN's loss; in place of clipping, the critic's slope is held near 1 by a penalty.

    The penalty is ``weight`` times the mean of (norm of the critic's gradient - 1)^2, at points drawn
    between a real and a generated image. It is computed without autocasting, under any precision.

    Args:
        weight: Of the penalty.

    References:
        Gulrajani et al., Improved Training of Wasserstein GANs, 2017 (https://arxiv.org/abs/1704.00028).
    """

    def __init__(self, weight: float = 10.0) -> None:
        if weight <= 0:
            raise ValueError(f"Invalid weight: {weight}. Give one over 0, such as 10")
        self.weight = weight

    def penalty(self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, noise: torch.Generator) -> Tensor:
        """The gradient penalty."""
        share = torch.rand(len(real), 1, 1, 1, generator=noise).to(real)
        between = torch.lerp(fake.detach().to(real.dtype), real, share).requires_grad_()
        with torch.autocast(real.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            slopes = gradient.flatten(1).float().norm(dim=1)
            return self.weight * (slopes - 1).square().mean()


class Hinge(Loss):
    """The hinge loss, as SN-GAN has it; the critic's weights are to be spectrally normalized.

    References:
        Miyato et al., Spectral Normalization for GANs, 2018 (https://arxiv.org/abs/1802.05957), eq. 16 and 17.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """How far real images are under 1 and generated ones over -1, on average."""
        return (1 - real).relu().mean() + (1 + fake).relu().mean()
