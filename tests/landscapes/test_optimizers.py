"""The optimizers that take part."""

from functools import partial

import pytest
import torch

import lightning_adabelief
from lightning_adabelief.landscapes.importing import InvalidOptionError
from lightning_adabelief.landscapes.optimizers import NAMED, make_contender, make_contenders


class NormScaled(torch.optim.SGD):
    """Divides by the norm of the whole parameter's gradient, and so is not elementwise."""

    def step(self):
        for param in self.param_groups[0]["params"]:
            param.grad = param.grad / param.grad.norm()
        super().step()


def options(contender):
    param = torch.nn.Parameter(torch.zeros(2))
    return contender.make([param], lr=0.1).param_groups[0]


def test_the_named_ones_are_sgd_with_momentum_adam_and_the_papers_adabelief():
    sgd, adam, adabelief = make_contenders(list(NAMED))
    assert [c.name for c in (sgd, adam, adabelief)] == ["SGD", "Adam", "AdaBelief"]
    assert options(sgd)["momentum"] == 0.9 and options(adam)["betas"] == (0.9, 0.999)
    assert options(adabelief)["rectify"] is False and options(adabelief)["eps"] == 1e-16
    assert all(c.is_elementwise and c.lr is None and c.default_lr == 1e-3 for c in (sgd, adam, adabelief))


def test_betas_go_to_those_that_have_them_and_sgds_momentum_is_the_first():
    makers = [
        "sgd",
        "adam",
        "adabelief",
        "torch.optim.NAdam",
        "torch.optim.Adagrad",
        partial(torch.optim.AdamW, betas=(0.5, 0.6)),
    ]
    sgd, adam, adabelief, nadam, adagrad, adamw = (options(c) for c in make_contenders(makers, betas=(0.3, 0.4)))
    assert sgd["momentum"] == 0.3 and "betas" not in adagrad
    assert adam["betas"] == adabelief["betas"] == nadam["betas"] == (0.3, 0.4)
    assert adamw["betas"] == (0.5, 0.6)


def test_a_learning_rate_among_the_options_goes_before_the_common_one():
    given, common = make_contenders([partial(torch.optim.SGD, lr=0.5), "adam"], lr=0.1)
    assert (given.lr, common.lr) == (0.5, 0.1) and given.name == "SGD"


def test_classes_of_one_name_are_told_apart_by_how_they_were_given():
    contenders = make_contenders(
        ["adabelief", "lightning_adabelief.AdaBelief", partial(lightning_adabelief.AdaBelief, eps=0.1)]
    )
    assert [c.name for c in contenders] == ["adabelief", "lightning_adabelief.AdaBelief", "AdaBelief (eps=0.1)"]


def test_an_optimizer_that_looks_at_the_whole_parameter_is_noticed():
    assert not make_contender(NormScaled).is_elementwise


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        (["adma"], "Unknown optimizer: 'adma'. Did you mean 'adam'"),
        (["torch.nn.Linear"], "torch.nn.Linear is not an optimizer"),
        (["torch.optim.Adamm"], "has no optimizer 'Adamm'. Did you mean"),
        ([3], "3 is not an optimizer"),
        (["torch.optim.LBFGS"], "LBFGS can't take a step .* without a closure"),
        ([partial(torch.optim.SGD, nestrov=True)], "can't be made with these options: .*nestrov"),
        ([partial(torch.optim.SGD, lr=-1)], "The learning rate of SGD is -1. Give a number above 0"),
        (["adam", "adam"], "adam is given 2 times"),
        ([], "There is no optimizer"),
    ],
)  # fmt: skip
def test_what_cannot_take_part_is_refused_with_the_reason(optimizers, message):
    with pytest.raises(InvalidOptionError, match=message):
        make_contenders(optimizers)


def test_betas_that_an_optimizer_refuses_are_told_in_its_words():
    with pytest.raises(InvalidOptionError, match="Adam can't be made with these options: Invalid beta parameter"):
        make_contenders(["adam"], betas=(1.5, 0.9))
