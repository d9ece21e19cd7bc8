"""A warmup as a share of the run: the run's length, in each optimizer's own steps."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader, IterableDataset

from lightning_adabelief import AdaBelief, build_optimizer, configure_adabelief, optimizer_steps
from tests.configure.nets import Net, fit, make_trainer


def taken(optimizer):
    """The steps that an optimizer took, by its own count."""
    (steps,) = {int(state["step"]) for state in optimizer.state.values()}
    return steps


def growing_accumulation():
    return GradientAccumulationScheduler(scheduling={0: 1, 1: 2, 2: 4})


RUNS = [
    (dict(max_epochs=3), 18),
    (dict(max_epochs=2, accumulate_grad_batches=2), 6),
    (dict(max_epochs=2, accumulate_grad_batches=4), 4),
    (dict(max_steps=7), 7),
    (dict(max_steps=7, max_epochs=-1), 7),
    (dict(max_steps=3, accumulate_grad_batches=4), 3),
    (dict(max_steps=50, max_epochs=2), 12),
    (dict(max_epochs=3, limit_train_batches=2), 6),
    (dict(max_epochs=2, max_time="00:01:00:00"), 12),
    (dict(fast_dev_run=True), 1),
    (dict(max_epochs=3, callbacks=[growing_accumulation]), 6 + 3 + 2),
]


@pytest.mark.parametrize(("options", "steps"), RUNS, ids=[str(options).partition(" at 0x")[0] for options, _ in RUNS])
def test_a_share_of_the_run_is_a_share_of_the_trainers_steps(options, steps):
    options = options | {"callbacks": [make() for make in options.get("callbacks", [])]}
    optimizer = fit(Net(warmup=0.5), **options)
    assert optimizer.param_groups[0]["total_steps"] == taken(optimizer) == steps


@pytest.mark.parametrize("longer", [dict(max_epochs=5), dict(max_epochs=9, max_steps=25)], ids=str)
def test_a_second_fit_counts_its_own_steps(longer):
    trainer, data = make_trainer(max_epochs=3), DataLoader(torch.ones(24, 4).cumsum(0), batch_size=4)
    trainer.fit(Net(warmup=0.5), data)
    for option, value in longer.items():
        setattr(trainer.fit_loop if option == "max_epochs" else trainer.fit_loop.epoch_loop, option, value)
    trainer.fit(Net(warmup=0.5), data)
    (optimizer,) = trainer.optimizers
    assert optimizer.param_groups[0]["total_steps"] == taken(optimizer) == (12 if len(longer) == 1 else 7)


def test_a_warmup_in_steps_needs_no_length():
    optimizer = fit(Net(warmup=5), max_epochs=-1, max_time={"seconds": 1})
    assert optimizer.param_groups[0]["total_steps"] is None and taken(optimizer) > 5


@pytest.mark.filterwarnings("ignore:`Trainer.fit` stopped|.*No training batches")
@pytest.mark.parametrize("options", [dict(limit_train_batches=0, max_epochs=2), dict(max_steps=0)], ids=str)
def test_a_run_without_steps_has_a_warmup_and_a_schedule_all_the_same(options):
    optimizer = fit(Net(warmup=0.5, schedule="cosine"), **options)
    assert optimizer.param_groups[0]["total_steps"] == 1 and not optimizer.state


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.ones(4)


WITHOUT_END = [
    (dict(max_epochs=-1), {}, "warmup=0.1: .*neither max_steps nor max_epochs"),
    (dict(max_time="00:00:00:05"), {}, "warmup=0.1: .*max_time alone says nothing of steps"),
    (dict(max_epochs=2), {"data": Endless()}, "warmup=0.1: .*don't know their length"),
]


@pytest.mark.parametrize(("options", "more", "message"), WITHOUT_END, ids=[m for _, _, m in WITHOUT_END])
def test_where_the_length_cannot_be_known_an_error_says_what_to_do(options, more, message):
    data = DataLoader(more.get("data", torch.ones(8, 4)), batch_size=4)
    with pytest.raises(ValueError, match=f"(?s){message}.*Set max_steps, or give total_steps"):
        make_trainer(**options).fit(Net(warmup=0.1), data)


def test_an_endless_data_set_with_max_steps_has_a_length():
    trainer = make_trainer(max_steps=5)
    trainer.fit(Net(warmup=0.5), DataLoader(Endless(), batch_size=4))
    assert trainer.optimizers[0].param_groups[0]["total_steps"] == taken(trainer.optimizers[0]) == 5


def test_outside_of_a_trainer_a_share_needs_total_steps():
    with pytest.raises(ValueError, match="warmup=0.1 needs the length of the run.*trainer=self.trainer"):
        configure_adabelief(torch.nn.Linear(4, 4), warmup=0.1)
    with pytest.raises(ValueError, match="schedule='cosine' needs the length of the run"):
        configure_adabelief(torch.nn.Linear(4, 4), schedule="cosine")
    optimizer = configure_adabelief(torch.nn.Linear(4, 4), warmup=0.1, total_steps=30)
    assert optimizer.param_groups[0]["total_steps"] == 30


class Gan(pl.LightningModule):
    """A critic that steps with each batch, and a generator that steps with every third."""

    def __init__(self, configure, n_critic=3):
        super().__init__()
        self.automatic_optimization = False
        self.critic, self.generator = torch.nn.Linear(4, 1), torch.nn.Linear(4, 4)
        self.configure, self.n_critic = configure, n_critic

    def training_step(self, batch, batch_idx):
        critic, generator = self.optimizers()
        turns = [(critic, 1.0)] + [(generator, -1.0)] * (batch_idx % self.n_critic == 0)
        for optimizer, sign in turns:
            optimizer.zero_grad()
            self.manual_backward(sign * self.critic(self.generator(batch)).mean())
            optimizer.step()

    def configure_optimizers(self):
        all_steps = 1 + 1 / self.n_critic
        return [
            self.configure(network, trainer=self.trainer, steps_per_batch=often, trainer_steps_per_batch=all_steps)
            for network, often in ((self.critic, 1), (self.generator, 1 / self.n_critic))
        ]


def by_configure_adabelief(network, **how):
    return configure_adabelief(network, warmup=0.5, **how)


def by_callable(network, **how):
    return build_optimizer(lambda params: AdaBelief(params, warmup=0.5), network, **how)


@pytest.mark.parametrize("configure", [by_configure_adabelief, by_callable])
@pytest.mark.parametrize("options", [dict(max_epochs=4), dict(max_steps=16), dict(max_steps=16, max_epochs=9)], ids=str)
def test_under_manual_optimization_each_optimizer_warms_up_in_its_own_steps(configure, options):
    critic, generator = fit(Gan(configure), **options)
    counted = [optimizer.param_groups[0]["total_steps"] for optimizer in (critic, generator)]
    assert counted == [taken(critic), taken(generator)]
    assert counted == ([24, 8] if "max_steps" not in options else [12, 4])


def test_a_fast_dev_run_needs_nothing_more_under_manual_optimization():
    def configure(network, trainer, steps_per_batch, **_):
        return configure_adabelief(network, warmup=0.5, trainer=trainer, steps_per_batch=steps_per_batch)

    critic, generator = fit(Gan(configure), fast_dev_run=True)
    assert [optimizer.param_groups[0]["total_steps"] for optimizer in (critic, generator)] == [1, 1]


def test_under_manual_optimization_what_the_trainer_cannot_know_is_asked_for():
    with pytest.raises(ValueError, match="warmup=0.5: .*manual optimization.*Give steps_per_batch"):
        fit(Gan(lambda network, trainer, **_: configure_adabelief(network, warmup=0.5, trainer=trainer)), max_epochs=1)
    with pytest.raises(ValueError, match="max_steps=9 counts the steps of all optimizers.*trainer_steps_per_batch"):
        fit(Gan(lambda network, trainer, **_: optimizer_steps(trainer, steps_per_batch=1)), max_steps=9)
    with pytest.raises(ValueError, match="steps_per_batch=2 under automatic optimization.*Leave it out"):
        fit(Net(warmup=0.5, steps_per_batch=2), max_epochs=1)


class OfCallable(Net):
    def configure_optimizers(self):
        return build_optimizer(self.options["optimizer"], self)


def test_a_callable_is_built_as_it_says_with_the_runs_length_where_it_needs_it():
    optimizer = fit(OfCallable(optimizer=lambda params: AdaBelief(params, warmup=0.5, eps=1e-8)), max_epochs=2)
    (group,) = optimizer.param_groups
    assert (group["total_steps"], group["eps"], len(group["param_names"])) == (12, 1e-8, 8)
    adamw = fit(OfCallable(optimizer=lambda params: torch.optim.AdamW(params, lr=0.5)), max_epochs=1)
    assert type(adamw) is torch.optim.AdamW and adamw.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("warmup", "total_steps"), [(0.5, 40), (5, None)])
def test_a_callable_that_knows_its_length_or_needs_none_is_left_alone(warmup, total_steps):
    def make(params):
        return AdaBelief(params, warmup=warmup, total_steps=total_steps)

    assert fit(OfCallable(optimizer=make), max_epochs=1).param_groups[0]["total_steps"] == total_steps


def test_without_a_trainer_a_fraction_is_refused_by_build_optimizer_and_by_a_plain_adabeliefs_first_step():
    with pytest.raises(ValueError, match="warmup=0.5 needs the length of the run, and there is no Trainer"):
        build_optimizer(lambda params: AdaBelief(params, warmup=0.5), torch.nn.Linear(4, 4))
    assert build_optimizer(AdaBelief, torch.nn.Linear(4, 4)).param_groups[0]["total_steps"] is None
    plain = AdaBelief(torch.nn.Linear(4, 4).parameters(), warmup=0.5)
    with pytest.raises(ValueError, match="without total_steps"):
        plain.step()


def test_a_group_added_to_a_built_optimizer_has_the_runs_length_too():
    optimizer = fit(OfCallable(optimizer=lambda params: AdaBelief(params, warmup=0.5)), max_epochs=2)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))]})
    assert [group["total_steps"] for group in optimizer.param_groups] == [12, 12]


@pytest.mark.parametrize("given", [Net(), pl.Trainer(logger=False), None], ids=lambda given: type(given).__name__)
def test_of_what_is_no_trainer_that_fits_an_error_says_what_to_give(given):
    with pytest.raises(ValueError, match=f"was given a {type(given).__name__}, .* give it self.trainer"):
        optimizer_steps(given)
