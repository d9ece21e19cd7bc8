"""Contenders: what they take from the config's optimizer, and what stays their own."""

import pytest

from lightning_adabelief.comparison.contenders import KNOWN, make_contenders, read_optimizer
from lightning_adabelief.comparison.errors import PlanError

ADAMW = read_optimizer("torch.optim.AdamW", {"lr": 3e-4, "betas": [0.8, 0.99], "weight_decay": 0.1})


def make(*specs, configured=ADAMW):
    return {contender.name: contender for contender in make_contenders(specs, configured)}


def test_each_known_optimizer_can_be_made_with_its_options_spelled_out():
    made = make(*KNOWN)
    assert list(made) == list(KNOWN)
    for name, contender in made.items():
        _ = read_optimizer(contender.class_path, contender.init_args)  # knows all of them
        assert "lr" not in contender.init_args and "weight_decay" not in contender.init_args, name
    assert made["sgd-nesterov"].init_args["nesterov"] is True


def test_the_momentum_is_the_configs_in_all():
    made = make("adabelief", "radam", "sgd", "adamw")
    assert [made[name].init_args["betas"] for name in ("adabelief", "radam", "adamw")] == [[0.8, 0.99]] * 3
    assert made["sgd"].init_args["momentum"] == 0.8


def test_the_usual_rate_follows_the_configs():
    made = make("adabelief", "adamw", "sgd", "rmsprop")
    assert [made[name].usual_lr for name in made] == [3e-4, 3e-4, 3e-2, 3e-4]


def test_the_usual_rate_of_a_class_that_is_not_known_is_its_default():
    made = make("adamw", "torch.optim.Adamax")
    assert made["Adamax"].usual_lr == pytest.approx(0.3 * 2e-3)  # the config's is 0.3 of Adam's usual rate


def test_a_rate_of_its_own_is_taken_as_given():
    made = make("adamw", {"class_path": "sgd", "init_args": {"lr": 0.5}})
    assert made["sgd"].usual_lr == 0.5


def test_matched_adabelief_moves_as_far_as_adam_on_noise():
    made = make("adabelief", "adabelief-matched", configured=read_optimizer("torch.optim.Adam", {"betas": [0.5, 0.9]}))
    assert made["adabelief-matched"].usual_lr / made["adabelief"].usual_lr == pytest.approx(1 / 1.732, rel=1e-3)


def test_adabelief_differs_from_a_configs_adam_in_belief_alone():
    options = make("adabelief", "adamw")["adabelief"].init_args
    assert (options["rectify"], options["warmup"], options["weight_decouple"], options["eps"]) == (
        False,
        0,
        True,
        1e-16,
    )


def test_a_configs_own_adabelief_keeps_its_options():
    configured = read_optimizer("lightning_adabelief.AdaBelief", {"eps": 1e-12, "rectify": True, "warmup": 0.1})
    made = make("adabelief", "adamw", configured=configured)
    assert (made["adabelief"].init_args["eps"], made["adabelief"].init_args["rectify"]) == (1e-12, True)
    assert made["adamw"].init_args["eps"] == 1e-8


def test_the_kind_of_weight_decay_is_the_configs_where_an_optimizer_has_both():
    coupled = read_optimizer("Adam", {"weight_decay": 1e-4})
    for configured, decoupled in ((ADAMW, True), (coupled, False)):
        made = make("adabelief", "radam", "nadam", "adam", configured=configured)
        assert [made[name].is_decoupled for name in ("adabelief", "radam", "nadam")] == [decoupled] * 3
        assert not made["adam"].is_decoupled  # decoupled, it would be AdamW


def test_a_step_of_sgd_shrinks_weights_as_much_as_one_of_adamw():
    made = make("adamw", "sgd", configured=read_optimizer("AdamW", {}))
    adamw, sgd = made["adamw"], made["sgd"]
    shrinkage = sgd.usual_lr * 0.01 * sgd.weight_decay_factor / (1 - sgd.init_args["momentum"])
    assert shrinkage == pytest.approx(adamw.usual_lr * 0.01)


def test_a_configs_own_sgd_keeps_its_momentum_and_weight_decay():
    plain = make("sgd", "sgd-nesterov", configured=read_optimizer("SGD", {"lr": 0.1}))
    assert plain["sgd"].init_args["momentum"] == 0
    assert plain["sgd-nesterov"].init_args["momentum"] == 0.9  # which torch refuses without one
    with_decay = read_optimizer("SGD", {"lr": 0.1, "momentum": 0.8, "weight_decay": 5e-4})
    made = make("sgd", "adamw", "adabelief", configured=with_decay)
    assert (made["sgd"].init_args["momentum"], made["sgd"].weight_decay_factor) == (0.8, 1)
    assert made["adabelief"].weight_decay_factor == 1  # coupled too: the same loss
    shrinkage = made["adamw"].usual_lr * made["adamw"].weight_decay_factor
    assert shrinkage == pytest.approx(made["sgd"].usual_lr / (1 - 0.8))


def test_coupled_decay_is_the_same_for_all_that_couple_it():
    made = make("adam", "sgd", "rmsprop", configured=read_optimizer("Adam", {"weight_decay": 1e-4}))
    assert [contender.weight_decay_factor for contender in made.values()] == [1, 1, 1]


def test_a_class_by_another_path_is_the_same_class():
    configured = read_optimizer("lightning_adabelief.optim.AdaBelief", {"eps": 1e-12, "warmup": 0.1})
    assert configured.class_path == "lightning_adabelief.AdaBelief"
    options = make("adabelief", "adamw", configured=configured)["adabelief"].init_args
    assert (options["eps"], options["warmup"]) == (1e-12, 0)


def test_an_optimizer_without_weight_decay_has_no_factor():
    assert make("adamw", "torch.optim.Rprop")["Rprop"].weight_decay_factor is None


def test_names_tell_two_of_a_class_apart():
    made = make("adamw", {"name": "adamw b1=0.5", "class_path": "adamw", "init_args": {"betas": [0.5, 0.999]}})
    assert made["adamw b1=0.5"].init_args["betas"] == [0.5, 0.999]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["adabelief"], "at least two"),
        (["adamw", "adamw"], "2 optimizers named 'adamw'"),
        (["adamw", {"name": "a b", "class_path": "sgd"}, {"name": "A_b", "class_path": "sgd"}], "2 .* 'a b', or so"),
        (["adamw", "adamm"], "Did you mean"),
        (["adamw", "torch.optim.Nothing"], "can't be imported"),
        (["adamw", "torch.nn.Linear"], "not a class derived from"),
        (["adamw", {"class_path": "sgd", "init_args": {"momentun": 0.9}}], "no option 'momentun'.*momentum"),
        (["adamw", {"class_path": "sgd", "init_args": {"weight_decay": 0.1}}], "--weight-decay"),
        (["adamw", {"init_args": {}}], "mapping of class_path"),
        (["adamw", 3], "mapping of class_path"),
    ],
)
def test_what_is_not_possible_is_said(specs, message):
    with pytest.raises(PlanError, match=message):
        make(*specs)


def test_optimizers_in_one_string_are_asked_for_as_a_list():
    with pytest.raises(PlanError, match=r"\['adamw', 'sgd'\]"):
        make_contenders("adamw,sgd", ADAMW)
