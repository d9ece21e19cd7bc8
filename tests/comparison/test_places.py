"""The place of a config's optimizer: ours, LightningCLI's own, a module's argument, or none."""

import pytest

from lightning_adabelief.comparison.errors import PlanError
from lightning_adabelief.comparison.places import choose_place, find_places, find_test_metric
from lightning_adabelief.settings import read_settings
from tests.comparison import users_module as users

USERS = "tests.comparison.users_module"


def config(name, **settings):
    assert hasattr(users, name)
    return {"model": {"class_path": f"{USERS}.{name}"}, "data": {"class_path": f"{USERS}.LineData"}, **settings}


def read_recipe(name):
    return read_settings(["fit", "--config", name]).tree


@pytest.mark.parametrize("name", ["digits-cnn", "pydocs-lstm", "scenes-fasterrcnn"])
def test_a_recipes_optimizer_is_found(name):
    assert list(find_places(read_recipe(name))) == [("model", "init_args", "optimizer")]


def test_the_optimizer_of_lightnings_own_cli_is_found():
    settings = config("Regression", optimizer={"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}})
    ((place, node),) = find_places(settings).items()
    assert (place, node.lr) == (("optimizer",), 0.02)


def test_a_module_that_makes_no_optimizer_gets_lightnings_own():
    assert list(find_places(config("Regression"))) == [("optimizer",)]


def test_an_argument_that_the_config_leaves_out_is_found_with_its_default():
    ((place, node),) = find_places(config("RegressionWithOptimizer")).items()
    assert (place, node.class_path) == (("model", "init_args", "optimizer"), "torch.optim.AdamW")


def test_an_optimizer_by_its_name_alone_is_found():
    settings = config("RegressionWithOptimizer")
    settings["model"]["init_args"] = {"optimizer": "Adam"}
    assert [node.class_path for node in find_places(settings).values()] == ["torch.optim.Adam"]


def test_a_module_that_makes_its_own_is_refused_with_what_to_change():
    with pytest.raises(PlanError, match="makes its own optimizer.*OptimizerCallable"):
        find_places(config("StubbornRegression"))


def test_both_optimizers_of_a_gan_vary_through_the_one_that_is_given():
    assert list(find_places(read_recipe("digits-sngan"))) == [("model", "init_args", "generator_optimizer")]


@pytest.mark.parametrize("vary", ["generator_optimizer", "critic_optimizer"])
def test_one_of_a_gans_optimizers_varies_and_the_other_stays(vary):
    chosen, settings = choose_place(vary, read_recipe("digits-sngan"))
    assert list(chosen) == [("model", "init_args", vary)]
    arguments = settings["model"]["init_args"]
    assert arguments["critic_optimizer"] == {**arguments["generator_optimizer"]}


def test_an_optimizer_that_the_config_leaves_out_varies_beside_the_one_that_it_names():
    settings = config("RegressionWithTwoOptimizers")
    settings["model"]["init_args"] = {"second": "Adam"}
    assert [place[-1] for place in find_places(settings)] == ["second", "first"]


def test_one_of_two_varies_where_the_model_is_a_class_path_alone():
    settings = {**config("RegressionWithTwoOptimizers"), "model": f"{USERS}.RegressionWithTwoOptimizers"}
    chosen, _ = choose_place("first", settings)
    assert list(chosen) == [("model", "init_args", "first")]


@pytest.mark.parametrize("name", ["RegressionWithAnyOptimizer", "RegressionWithAFunction"])
def test_an_argument_without_a_class_as_its_default_is_asked_for(name):
    with pytest.raises(PlanError, match="--set model.optimizer=torch.optim.Adam"):
        find_places(config(name))


@pytest.mark.parametrize("model", [{"width": 4}, None])
def test_a_config_that_does_not_name_the_models_class_is_refused_with_what_to_add(model):
    with pytest.raises(PlanError, match="class_path: my_module.MyModel"):
        find_places({**config("Regression"), "model": model})


def test_an_optimizer_that_is_not_there_can_not_be_varied():
    with pytest.raises(PlanError, match="Did you mean.*generator_optimizer"):
        choose_place("generator_optimiser", read_recipe("digits-sngan"))


def test_a_configured_adabelief_is_refused():
    settings = config("Regression", optimizer={"class_path": "lightning_adabelief.ConfiguredAdaBelief"})
    with pytest.raises(PlanError, match="lr_scheduler"):
        find_places(settings)


@pytest.mark.parametrize(
    ("settings", "metric", "expected"),
    [
        (config("Regression"), "val_loss", None),
        (config("TestedRegression"), "val_loss", "test_loss"),
        (config("TestedRegression"), "valid_loss", "test_loss"),
        (config("TestedRegression"), "loss/val", "loss/test"),
        (config("TestedRegression"), "interval", None),
        (config("TestedRegression"), "train_loss", None),
        (read_recipe("digits-cnn"), "val/loss", "test/loss"),
    ],
    ids=["no test", "tested", "valid", "val last", "no word", "of the training", "digits-cnn"],
)
def test_the_tests_metric_is_known_where_there_is_a_test(settings, metric, expected):
    assert find_test_metric(settings, metric) == expected
