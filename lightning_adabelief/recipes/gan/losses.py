"""The losses of generator and critic, and the constraints that keep the critic smooth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Loss:
    """The loss of a GAN: Wasserstein's, unless a subclass overrides it.

    The critic scores images: the higher the score, the more real an image looks to it.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the critic's loss, a scalar.

        Args:
            real: The critic's scores (N,) of real images.
            fake: Its scores (N,) of generated images.
        """
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return the generator's loss, a scalar.

        Args:
            fake: The critic's scores (N,) of generated images.
        """
        return -fake.mean()

    def penalty(
        self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, noise: torch.Generator
    ) -> Tensor | None:
        """Return a scalar to add to the critic's loss, or None.

        Args:
            critic: A function from images (N, C, H, W) to scores (N,).
            real: Real images (N, C, H, W).
            fake: Generated images (N, C, H, W), as many.
            noise: The generator of random numbers to draw from, on the CPU.
        """
        return None

    def constrain(self, critic: nn.Module) -> None:
        """Change the critic's weights in place; called after each step of the critic."""


class Wasserstein(Loss):
    """WGAN's loss: the critic's mean score of real images against that of generated ones; its weights are clipped.

    Args:
        clip: The bound of the critic's weights: after each step they are clamped to [-clip, clip].

    Raises:
        ValueError: If ``clip`` is not positive.

    References:
        Arjovsky et al., Wasserstein GAN, 2017 (https://arxiv.org/abs/1701.07875), algorithm 1.
    """

    def __init__(self, clip: float = 0.01) -> None:
        if clip <= 0:
            raise ValueError(f"Invalid clip: {clip}. Give a positive bound, such as 0.01")
        self.clip = clip

    @torch.no_grad()
    def constrain(self, critic: nn.Module) -> None:
        """Clamp the weights to [-clip, clip]."""
        for param in critic.parameters():
            param.clamp_(-self.clip, self.clip)


class WassersteinGP(Loss):
    r"""WGAN-GP's loss: WGAN's, with a penalty in place of clipping that keeps the critic's slope near 1.

    .. math::
        \lambda \; \mathrm{E}\left[(\lVert \nabla_x D(x) \rVert_2 - 1)^2\right]

    at points x drawn uniformly between a real and a generated image. The penalty is computed in
    float32 under any precision.

    Args:
        weight: Weight of the penalty, lambda.

    Raises:
        ValueError: If ``weight`` is not positive.

    References:
        Gulrajani et al., Improved Training of Wasserstein GANs, 2017 (https://arxiv.org/abs/1704.00028), eq. 3.
    """

    def __init__(self, weight: float = 10.0) -> None:
        if weight <= 0:
            raise ValueError(f"Invalid weight: {weight}. Give a positive weight, such as 10")
        self.weight = weight

    def penalty(self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, noise: torch.Generator) -> Tensor:
        """Return the gradient penalty, a scalar (see :meth:`Loss.penalty` for the arguments)."""
        position = torch.rand(len(real), 1, 1, 1, generator=noise).to(real)  # 0 at the generated image, 1 at the real
        between = torch.lerp(fake.detach().to(real.dtype), real, position).requires_grad_()
        with torch.autocast(real.device.type, enabled=False):  # a gradient's gradient is too coarse in half precision
            (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            slopes = gradient.flatten(1).float().norm(dim=1)
            return self.weight * (slopes - 1).square().mean()


class Hinge(Loss):
    """The hinge loss of SN-GAN, for a critic whose weights are spectrally normalized.

    References:
        Miyato et al., Spectral Normalization for GANs, 2018 (https://arxiv.org/abs/1802.05957), eq. 16 and 17.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return by how much real images score below 1 and generated ones above -1, on average.

        Args:
            real: The critic's scores (N,) of real images.
            fake: Its scores (N,) of generated images.
        """
        return (1 - real).relu().mean() + (1 + fake).relu().mean()
