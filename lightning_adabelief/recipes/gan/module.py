"""A LightningModule that trains a generator against a critic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_adabelief.callbacks.generator_states import gather_from_ranks
from lightning_adabelief.lightning_tree import OptimizerCallable
from lightning_adabelief.optim import AdaBelief
from lightning_adabelief.recipes.checks import check_counts
from lightning_adabelief.recipes.gan.completion import (
    check_same_classes,
    check_same_shape,
    complete_networks,
    find_image_size,
    find_num_classes,
)
from lightning_adabelief.recipes.gan.evaluation import Evaluation
from lightning_adabelief.recipes.gan.losses import Loss, WassersteinGP
from lightning_adabelief.recipes.gan.networks import Critic, Generator
from lightning_adabelief.recipes.gan.optimizers import make_optimizer
from lightning_adabelief.recipes.gan.scores import Scores
from lightning_adabelief.recipes.recipe_module import RecipeModule

Batch = tuple[Tensor, Tensor]


class GAN(RecipeModule):
    """Train a generator against a critic: the critic steps with each batch, the generator with every ``n_critic``-th.

    Logs ``train/critic_loss`` and ``train/generator_loss``, and each of ``scores`` as ``val/<score>`` and
    ``test/<score>``. Three figures go with the Fréchet distance: ``<distance>_untrained``, the untrained
    generator's distance to the validation images; ``<distance>_share``, the distance as a fraction of
    that; and ``<distance>_floor``, the distance of as many training images, which a perfect generator
    would reach. The callback metrics ``val/distance``, to be monitored by a checkpoint, and ``test/distance``
    are the Fréchet distance under a name that does not depend on ``scores``; no logger is given them.

    Everything random in training is drawn from one generator of random numbers on the CPU, whose state is
    saved in the checkpoint. With :class:`~lightning_adabelief.callbacks.ExactResume`, which the command
    ``adabelief`` has, so is torch's own, which orders the data: a resumed run continues as if it had not
    been interrupted.

    Images in batches are (N, C, H, W) in [0, 1]; generator, critic and scores see them in [-1, 1].

    Args:
        generator: The network from noise to images.
        critic: The network from images to scores.
        loss: The loss of both (default: :class:`WassersteinGP`).
        scores: The scores to validate and test by; None for none.
        generator_optimizer: A function from the generator's named parameters to an optimizer.
        critic_optimizer: A function from the critic's named parameters to an optimizer; None for
            ``generator_optimizer``, which then makes an optimizer for each.
        n_critic: Steps of the critic per step of the generator.
        ema_decay: Decay per generator step, in [0, 1), of an exponential moving average of the generator's
            weights, by which images are scored, drawn and predicted; None for the weights themselves. With an
            average, the scores of the weights themselves are logged too, as ``<score>_plain``.
        seed: Seed of the noise.
        gradient_clip_val: The largest norm of each network's gradient: a longer one is scaled down to it. None for no
            clipping. It stands in for the Trainer's option, which Lightning refuses under manual optimization.
        conditional: Condition generator and critic on the classes of the data, as ``num_classes`` does that is given to
            both.

    Attributes:
        class_names: Names of the classes of a conditional GAN, from the data that it was trained on; None where they
            have none.

    Raises:
        ValueError: If ``num_classes`` differs between the networks, ``n_critic`` is less than 1,
            ``ema_decay`` is not in [0, 1), or ``gradient_clip_val`` is not positive.

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
        critic_optimizer: OptimizerCallable | None = None,
        n_critic: int = 5,
        ema_decay: float | None = None,
        seed: int = 0,
        gradient_clip_val: float | None = None,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        self.keep_hyperparameters(locals())
        check_same_classes(generator, critic)
        check_counts(n_critic=n_critic)
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise ValueError(f"Invalid ema_decay: {ema_decay}. Give a decay in [0, 1), such as 0.999, or None")
        if gradient_clip_val is not None and not gradient_clip_val > 0:
            raise ValueError(
                f"Invalid gradient_clip_val: {gradient_clip_val}. Give a norm above 0, such as 1.0, or None"
            )
        self.automatic_optimization = False
        self.generator = generator
        self.critic = critic
        self.loss = loss or WassersteinGP()
        self.evaluation = None if scores is None else Evaluation(scores)
        self.generator_optimizer = generator_optimizer
        self.critic_optimizer = critic_optimizer
        self.n_critic = n_critic
        self.gradient_clip_val = gradient_clip_val
        self.conditional = conditional
        self.ema_decay = ema_decay
        self.ema: AveragedModel | None = None
        self.class_names: list[str] | None = None
        self.seed = seed
        self._noise = torch.Generator().manual_seed(seed)
        self._critic_steps = 0
        self._is_complete = False
        lacks_classes = conditional and generator.num_classes is None
        if generator.is_complete and critic.is_complete and not lacks_classes:
            self._complete(None, None)

    def configure_model(self) -> None:
        """Make layers that wait for the size or the classes of the data, and the average of the weights.

        Raises:
            ValueError: If the networks can't be made for the data, or training begins without a DataModule.
        """
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        if not self._is_complete and data is not None:
            self._complete(find_image_size(data), find_num_classes(data) if self.conditional else None)
        elif not self._is_complete and trainer is not None and trainer.state.fn == "fit":
            raise ValueError(
                "The networks wait for the size or the classes of the data. Train with a DataModule, or give generator "
                "and critic image_size and num_classes"
            )

    @property
    def sampler(self) -> nn.Module:
        """The network that images are drawn with: the averaged generator, if an average is kept."""
        return self.generator if self.ema is None else self.ema

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Turn noise (N, noise_size), and labels (N,) if the generator is conditional, into images in [-1, 1]."""
        return self.sampler(noise, labels)

    def draw_noise(self, size: int, source: torch.Generator | None = None) -> Tensor:
        """Draw noise (size, noise_size) from a source on the CPU (default: the source used in training)."""
        noise = torch.randn(size, self.generator.noise_size, generator=source or self._noise)
        return noise.to(next(self.generator.parameters()))

    def labels_in_turn(self, size: int) -> Tensor | None:
        """Return the labels (size,) 0, 1, ... of all classes in turn; None if the generator is unconditional."""
        classes = self.generator.num_classes
        return None if classes is None else torch.arange(size, device=self.device) % classes

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Step the critic and, every ``n_critic``-th time, the generator; return the losses."""
        real, labels = self._prepare_batch(batch)
        generator_optimizer, critic_optimizer = self.optimizers()  # type: ignore[attr-defined]
        losses = {"critic_loss": self._step_critic(critic_optimizer, real, labels)}
        self._critic_steps += 1
        if self._critic_steps % self.n_critic == 0 or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            losses["generator_loss"] = self._step_generator(generator_optimizer, len(real), labels)
        for name, loss in losses.items():
            self.log(f"train/{name}", loss, prog_bar=True)
        return losses

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient of the network that steps, by its norm."""
        if self.gradient_clip_val is not None:
            self.clip_gradients(optimizer, self.gradient_clip_val, gradient_clip_algorithm="norm")

    def on_fit_start(self) -> None:
        """Give each process noise of its own, and note the names of the classes."""
        if self.global_rank > 0 and self._critic_steps == 0:
            self._noise.manual_seed(self.seed + self.global_rank)
        names = getattr(self.trainer.datamodule, "class_names", None)  # type: ignore[attr-defined]
        self.class_names = names if names and len(names) == self.generator.num_classes else None

    def on_train_start(self) -> None:
        """Measure the distances that the scores are compared with."""
        if self.evaluation is not None:
            self.evaluation.measure_references(self)

    def on_validation_epoch_start(self) -> None:
        """Begin a comparison of generated with real images."""
        if self.evaluation is not None:
            self.evaluation.begin(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch's real images to the comparison."""
        if self.evaluation is not None:
            self.evaluation.add_real(batch[0] * 2 - 1)

    def on_validation_epoch_end(self) -> None:
        """Generate as many images as ``scores`` asks for, and log the scores, except in a partial sanity check."""
        trainer: Any = self.trainer
        is_whole = not trainer.sanity_checking or trainer.num_sanity_val_steps == float("inf")
        if self.evaluation is not None and is_whole:
            self._log_scores(self.evaluation, "val")

    def on_test_epoch_start(self) -> None:
        """Begin a comparison of generated with real images."""
        self.on_validation_epoch_start()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch's real images to the comparison."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Generate the number of images that ``scores`` asks for, and log the scores."""
        if self.evaluation is not None:
            self._log_scores(self.evaluation, "test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Generate as many images as the batch has, (N, C, H, W) in [0, 1]."""
        size = len(batch if isinstance(batch, Tensor) else batch[0])
        source = torch.Generator().manual_seed(self.seed + batch_idx)
        return self(self.draw_noise(size, source), self.labels_in_turn(size)) / 2 + 0.5

    def configure_optimizers(self) -> list[Optimizer]:
        """Make the two optimizers, the generator's first; each has named parameters and counts its own steps.

        Raises:
            ValueError: If an optimizer comes with a learning-rate schedule.
        """
        critic_optimizer = self.critic_optimizer or self.generator_optimizer
        return [
            make_optimizer(self, "generator", self.generator_optimizer, 1 / self.n_critic),
            make_optimizer(self, "critic", critic_optimizer, 1),
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of each process's noise, the count of steps, the classes and the reference distances."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["gan"] = {
            "noise": gather_from_ranks(self._noise.get_state(), self.trainer.world_size),
            "critic_steps": self._critic_steps,
            "image_size": self._image_size,
            "num_classes": self.generator.num_classes,
            "class_names": self.class_names,
            "evaluation": None if self.evaluation is None else self.evaluation.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`on_save_checkpoint` added, and make layers that wait for the data."""
        saved = checkpoint.get("gan")
        if saved is None:  # of another module
            return
        self._critic_steps = saved["critic_steps"]
        self.class_names = saved.get("class_names")  # an earlier version did not keep them
        self._restore_noise(saved["noise"])
        if not self._is_complete:
            self._complete(saved["image_size"], saved["num_classes"])
        if self.evaluation is not None and saved["evaluation"] is not None:
            self.evaluation.load_state_dict(saved["evaluation"])

    def _complete(self, image_size: int | None, num_classes: int | None) -> None:
        """Make what is missing of the networks, and the average, on the CPU: a seed gives the same on every device."""
        with torch.device("cpu"):
            complete_networks(self.generator, self.critic, image_size, num_classes)
        check_same_shape("the generator's images", self.generator.image_shape, self.critic)
        if self.ema_decay is not None:
            average = get_ema_multi_avg_fn(self.ema_decay)
            self.ema = AveragedModel(self.generator, multi_avg_fn=average, use_buffers=True).requires_grad_(False)
        self._image_size = image_size
        self._is_complete = True

    def _restore_noise(self, states: list[Tensor] | Tensor) -> None:
        """Restore this process's noise, or begin it anew if the checkpoint is of another number of processes."""
        if isinstance(states, Tensor):  # an earlier version kept that of the first process
            states = [states]
        world_size = 1 if self._trainer is None else self._trainer.world_size
        if self.global_rank == 0 or len(states) == world_size:
            self._noise.set_state(states[self.global_rank].cpu())
        else:
            self._noise.manual_seed(self.seed + self.global_rank + world_size * self._critic_steps)

    def _step_critic(self, optimizer: Any, real: Tensor, labels: Tensor | None) -> Tensor:
        with torch.no_grad():  # the generator is not trained here
            fake = self.generator(self.draw_noise(len(real)), labels)
        loss = self.loss.critic(self.critic(real, labels), self.critic(fake, labels))
        penalty = self.loss.penalty(lambda images: self.critic(images, labels), real, fake, self._noise)
        optimizer.zero_grad()
        self.manual_backward(loss if penalty is None else loss + penalty)
        optimizer.step()
        self.loss.constrain(self.critic)
        return loss.detach()

    def _step_generator(self, optimizer: Any, size: int, labels: Tensor | None) -> Tensor:
        self.toggle_optimizer(optimizer)  # spares the gradients of the critic's weights
        loss = self.loss.generator(self.critic(self.generator(self.draw_noise(size), labels), labels))
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        if self.ema is not None:
            self.ema.update_parameters(self.generator)
        return loss.detach()

    def _prepare_batch(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the batch's images in [-1, 1], and its labels if the networks are conditional."""
        images, labels = batch
        check_same_shape("the data's images", tuple(images.shape[1:]), self.critic)
        return images * 2 - 1, None if self.generator.num_classes is None else labels

    def _log_scores(self, evaluation: Evaluation, stage: str) -> None:
        values = evaluation.finish(self)
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)
        distance = values[evaluation.scores.names[0]]
        self.log(f"{stage}/distance", distance, prog_bar=True, logger=False, sync_dist=True)
