"""A LightningModule that trains a generator against a critic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_adabelief.configure import build_optimizer
from lightning_adabelief.lightning_tree import LightningModule, OptimizerCallable
from lightning_adabelief.optim import AdaBelief
from lightning_adabelief.recipes.gan.evaluation import Evaluation
from lightning_adabelief.recipes.gan.losses import Loss, WassersteinGP
from lightning_adabelief.recipes.gan.networks import Critic, Generator
from lightning_adabelief.recipes.gan.scores import Scores

Batch = tuple[Tensor, Tensor]


class GAN(LightningModule):
    """Train a generator against a critic: the critic with each batch, the generator with every ``n_critic``-th.

    Logs ``train/critic_loss``, ``train/generator_loss`` and, by what ``scores`` calls them,
    ``val/<score>`` and ``test/<score>``. ``<distance>_untrained`` is the untrained generator's Fréchet
    distance to the validation images, ``<distance>_share`` how much of it is left, and
    ``<distance>_floor`` that of as many training images: what a perfect generator would reach.
    ``val/distance``, for callbacks only, is the Fréchet distance by whatever name: a checkpoint's
    ``monitor``.

    All that training draws at random it draws from one generator of random numbers on the CPU. Its state
    is in the checkpoint with that of torch's own, which orders the data, so that a run resumed from the
    end of an epoch goes on as if it had not been interrupted.

    Images in batches are in [0, 1], (N, C, H, W); in here they are in [-1, 1].

    Args:
        generator: From noise to images.
        critic: From images to scores.
        loss: What both minimize.
        scores: What validation measures; None for nothing.
        generator_optimizer: From the generator's named parameters to an optimizer.
        critic_optimizer: From the critic's.
        n_critic: Steps of the critic to one of the generator.
        ema_decay: Score, draw and predict with an average of the generator's weights, of which this share is
            kept at each of its steps; None for the weights themselves.
        seed: Of the noise.

    Raises:
        ValueError: If one network looks at classes and the other does not, or an option is not of its kind.

    Example:
        >>> from lightning_adabelief.recipes.gan import DCGANCritic, DCGANGenerator, GAN
        >>> module = GAN(DCGANGenerator(image_size=8, channels=1), DCGANCritic(image_size=8, channels=1))
    """

    def __init__(
        self,
        generator: Generator,
        critic: Critic,
        loss: Loss | None = None,
        scores: Scores | None = None,
        generator_optimizer: OptimizerCallable = AdaBelief,
        critic_optimizer: OptimizerCallable = AdaBelief,
        n_critic: int = 5,
        ema_decay: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if generator.num_classes != critic.num_classes:
            raise ValueError(
                f"The generator's num_classes is {generator.num_classes} and the critic's {critic.num_classes}. Give "
                "both the number of classes, or neither"
            )
        if n_critic < 1:
            raise ValueError(f"Invalid n_critic: {n_critic}. Give 1 or more")
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise ValueError(f"Invalid ema_decay: {ema_decay}. Give a share in [0, 1), such as 0.999, or None")
        self.automatic_optimization = False
        self.generator = generator
        self.critic = critic
        self.loss = loss or WassersteinGP()
        self.evaluation = None if scores is None else Evaluation(scores)
        self.generator_optimizer = generator_optimizer
        self.critic_optimizer = critic_optimizer
        self.n_critic = n_critic
        self.ema: AveragedModel | None = None
        if ema_decay is not None:
            average = get_ema_multi_avg_fn(ema_decay)
            self.ema = AveragedModel(generator, multi_avg_fn=average, use_buffers=True).requires_grad_(False)
        self.seed = seed
        self._noise = torch.Generator().manual_seed(seed)
        self._critic_steps = 0
        self._order: Tensor | None = None

    @property
    def sampler(self) -> nn.Module:
        """The generator to look at: the average of its weights, if there is one."""
        return self.generator if self.ema is None else self.ema

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Turn noise (N, noise_size), and labels (N,) if it looks at classes, into images in [-1, 1]."""
        return self.sampler(noise, labels)

    def draw_noise(self, size: int, source: torch.Generator | None = None) -> Tensor:
        """Draw noise (size, noise_size) from a source on the CPU, by default the training's own."""
        noise = torch.randn(size, self.generator.noise_size, generator=source or self._noise)
        return noise.to(next(self.generator.parameters()))

    def labels_in_turn(self, size: int) -> Tensor | None:
        """Labels 0, 1, ... of all classes in turn, (size,); None where classes are left to chance."""
        classes = self.generator.num_classes
        return None if classes is None else torch.arange(size, device=self.device) % classes

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Step the critic and, every ``n_critic``-th time, the generator; return the losses."""
        real, labels = self._take(batch)
        generator_optimizer, critic_optimizer = self.optimizers()  # type: ignore[attr-defined]
        losses = {"critic_loss": self._step_critic(critic_optimizer, real, labels)}
        self._critic_steps += 1
        if self._critic_steps % self.n_critic == 0 or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            losses["generator_loss"] = self._step_generator(generator_optimizer, len(real), labels)
        for name, loss in losses.items():
            self.log(f"train/{name}", loss, prog_bar=True)
        return losses

    def on_fit_start(self) -> None:
        """Take up the order of the data where the checkpoint left it: before the data are first gone through."""
        if self._order is not None:
            torch.set_rng_state(self._order)
            self._order = None
        if self.global_rank > 0:  # a checkpoint has the noise of the first process
            self._noise.manual_seed(self.seed + self.global_rank + self.trainer.world_size * self._critic_steps)

    def on_train_start(self) -> None:
        """Measure what scores are to be compared with."""
        if self.evaluation is not None:
            self.evaluation.measure_references(self)

    def on_validation_epoch_start(self) -> None:
        """Begin to compare."""
        if self.evaluation is not None:
            self.evaluation.begin(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Take in real images."""
        if self.evaluation is not None:
            self.evaluation.add_real(batch[0] * 2 - 1)

    def on_validation_epoch_end(self) -> None:
        """Generate as many images as ``scores`` asks for, and compare."""
        if self.evaluation is not None and not self.trainer.sanity_checking:
            values = self._log_scores(self.evaluation, "val")
            self.log(
                "val/distance", values[self.evaluation.scores.names[0]], prog_bar=True, logger=False, sync_dist=True
            )

    def on_test_epoch_start(self) -> None:
        """Begin to compare."""
        self.on_validation_epoch_start()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take in real images."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Generate as many images as ``scores`` asks for, and compare."""
        if self.evaluation is not None:
            self._log_scores(self.evaluation, "test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Generate as many images as the batch has, in [0, 1]."""
        size = len(batch if isinstance(batch, Tensor) else batch[0])
        source = torch.Generator().manual_seed(self.seed + batch_idx)
        return self(self.draw_noise(size, source), self.labels_in_turn(size)) / 2 + 0.5

    def configure_optimizers(self) -> list[Optimizer]:
        """Make the two optimizers, the generator's first, each over its named parameters and with its own steps."""
        return [
            self._make_optimizer("generator", self.generator_optimizer, self.generator, 1 / self.n_critic),
            self._make_optimizer("critic", self.critic_optimizer, self.critic, 1),
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the state of modules and optimizers does not tell."""
        checkpoint["gan"] = {
            "noise": self._noise.get_state(),
            "order": torch.get_rng_state(),
            "critic_steps": self._critic_steps,
            "evaluation": None if self.evaluation is None else self.evaluation.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up."""
        saved = checkpoint["gan"]
        self._noise.set_state(saved["noise"].cpu())
        self._order = saved["order"].cpu()
        self._critic_steps = saved["critic_steps"]
        if self.evaluation is not None and saved["evaluation"] is not None:
            self.evaluation.load_state_dict(saved["evaluation"])

    def _step_critic(self, optimizer: Any, real: Tensor, labels: Tensor | None) -> Tensor:
        with torch.no_grad():
            fake = self.generator(self.draw_noise(len(real)), labels)
        loss = self.loss.critic(self.critic(real, labels), self.critic(fake, labels))
        penalty = self.loss.penalty(lambda images: self.critic(images, labels), real, fake, self._noise)
        optimizer.zero_grad()
        self.manual_backward(loss if penalty is None else loss + penalty)
        optimizer.step()
        self.loss.constrain(self.critic)
        return loss.detach()

    def _step_generator(self, optimizer: Any, size: int, labels: Tensor | None) -> Tensor:
        self.toggle_optimizer(optimizer)  # the critic's weights need no gradient
        loss = self.loss.generator(self.critic(self.generator(self.draw_noise(size), labels), labels))
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        if self.ema is not None:
            self.ema.update_parameters(self.generator)
        return loss.detach()

    def _take(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """A batch's images in [-1, 1], and its labels if they are looked at."""
        images, labels = batch
        return images * 2 - 1, None if self.generator.num_classes is None else labels

    def _make_optimizer(
        self, name: str, optimizer: OptimizerCallable, network: nn.Module, steps_per_batch: float
    ) -> Optimizer:
        made = build_optimizer(
            optimizer,
            nn.ModuleDict({name: network}),
            trainer=self.trainer,
            steps_per_batch=steps_per_batch,
            trainer_steps_per_batch=1 + 1 / self.n_critic,
        )
        made.param_groups[0]["name"] = name  # what BeliefMonitor calls it
        return made

    def _log_scores(self, evaluation: Evaluation, stage: str) -> dict[str, float]:
        values = evaluation.finish(self)
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)
        return values
