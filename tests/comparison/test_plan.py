"""Plans: what is compared, fixed before it runs."""

import pytest

from lightning_adabelief.comparison.compare import read_plan
from lightning_adabelief.comparison.errors import PlanError
from lightning_adabelief.comparison.plan import Plan, find_differences, find_unfinished_schedule, make_plan
from lightning_adabelief.settings import read_settings


def make(name="digits-cnn", optimizers=("adabelief", "adamw", "sgd"), words=(), **options):
    return make_plan(name, read_settings(["fit", "--config", name, *words]).tree, optimizers, **options)


def test_a_plan_is_the_same_after_writing_and_reading():
    plan = make()
    read = Plan.from_json(plan.to_json())
    assert read == plan and read.identifier == plan.identifier


def test_the_metric_is_the_one_that_the_config_chooses_its_checkpoint_by():
    plan = make()
    assert (plan.metric, plan.mode, plan.test_metric) == ("val/loss", "min", "test/loss")
    plan = make("scenes-fasterrcnn")
    assert (plan.metric, plan.mode, plan.test_metric) == ("val/map_50", "max", "test/map_50")


def test_another_metric_needs_a_mode():
    assert make(metric="val/accuracy", mode="max").test_metric == "test/accuracy"
    with pytest.raises(PlanError, match="--mode max"):
        make(metric="val/accuracy")


def test_a_config_that_does_not_say_what_is_best_needs_a_metric():
    settings = read_settings(["fit", "--config", "digits-cnn"]).tree
    settings["trainer"]["callbacks"] = []
    with pytest.raises(PlanError, match="--metric"):
        make_plan("mine.yaml", settings, ["adamw", "sgd"])


def test_seeds_of_the_report_are_not_tuned_on():
    plan = make(seeds=4, tuning_seeds=3)
    assert (len(plan.report_seeds), len(plan.tuning_seeds)) == (4, 3)
    assert not set(plan.report_seeds) & set(plan.tuning_seeds)


def test_the_warmup_of_the_configs_adabelief_is_everybodys():
    assert make().warmup == 0.05
    assert make("digits-sngan").warmup == 0


def test_a_second_optimizers_rate_keeps_its_ratio():
    critic = "{class_path: lightning_adabelief.AdaBelief, init_args: {lr: 4.0e-3, betas: [0.5, 0.999]}}"
    plan = make("digits-sngan", words=[f"--model.critic_optimizer={critic}"])
    assert [place[-1] for place in plan.places] == ["generator_optimizer", "critic_optimizer"]
    assert plan.lr_ratios == (1.0, 4.0)


def test_what_is_not_equal_is_said():
    unequal = " ".join(make(optimizers=("adabelief", "adam", "radam", "sgd")).unequal)
    assert "that of adam, sgd is coupled" in unequal
    assert "sgd by 0.001" in unequal
    assert "radam are rectified" in unequal


def test_nothing_is_said_where_all_is_equal():
    assert make(optimizers=("adabelief", "adamw")).unequal == ()


def test_a_difference_of_two_plans_is_named():
    differences = find_differences(make(seeds=2), make(seeds=3, words=["--trainer.max_epochs=7"]))
    assert differences == ["settings.trainer.max_epochs: 30, now 7", "report_seeds: [0, 1], now [0, 1, 2]"]


def test_a_contender_that_is_added_is_named():
    (difference, *_) = find_differences(make(optimizers=("adabelief", "adamw")), make())
    assert difference == 'optimizers: ["adabelief", "adamw"], now ["adabelief", "adamw", "sgd"]'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "number of seeds is 0"),
        ({"tuning_seeds": 2000}, "number of tuning seeds is 2000"),
        ({"relative_rates": [0.1, 0]}, "learning rate of the grid is 0"),
        ({"relative_rates": ["a"]}, "learning rate of the grid is 'a'"),
        ({"relative_rates": [1e-4, 1e-3]}, r"0.0001, 0.001, are multiples .* \(0.003 for adabelief\)"),
        ({"relative_rates": [100]}, "none is near 1"),
        ({"weight_decays": [-1.0]}, "weight decay of the grid is -1.0"),
        ({"weight_decays": [float("nan")]}, "weight decay of the grid is nan"),
        ({"mode": "best"}, "The mode is 'best'"),
        ({"vary": "critic"}, "no optimizer 'critic'"),
    ],
)
def test_an_option_that_is_not_possible_is_refused(options, message):
    with pytest.raises(PlanError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("name", "words", "is_unfinished"),
    [
        ("digits-cnn", [], False),
        ("digits-cnn", ["--trainer.max_epochs=2"], True),
        ("digits-cnn", ["--trainer.max_epochs=2", "--model.lr_scheduler.T_max=2"], False),
        ("scenes-fasterrcnn", ["--trainer.max_epochs=1"], False),  # its T_max is in steps
        ("digits-sngan", ["--trainer.max_epochs=1"], False),  # it has no schedule
    ],
)
def test_a_cosine_that_is_longer_than_the_run_is_noticed(name, words, is_unfinished):
    settings = read_settings(["fit", "--config", name, *words]).tree
    assert (find_unfinished_schedule(settings) is not None) == is_unfinished


def test_a_model_without_arguments_has_no_cosine():
    assert find_unfinished_schedule({"model": "my_module.MyModel", "trainer": {"max_epochs": 2}}) is None


@pytest.mark.parametrize("grid", [[1.0, 1.00001], 1.0])
def test_a_grid_is_a_list_of_rates_that_differ(grid):
    with pytest.raises(PlanError, match="the grid"):
        make(relative_rates=grid)


def test_a_schedule_that_sets_the_rates_itself_is_refused():
    settings = read_settings(["fit", "--config", "digits-cnn"]).tree
    settings["model"]["init_args"]["lr_scheduler"] = {
        "class_path": "torch.optim.lr_scheduler.OneCycleLR",
        "init_args": {"max_lr": 0.01, "total_steps": 660},
    }
    with pytest.raises(PlanError, match="OneCycleLR sets learning rates of its own"):
        make_plan("mine.yaml", settings, ["adamw", "sgd"])


def test_a_setting_may_be_none():
    plan = read_plan("digits-cnn", ["adamw", "sgd"], ["--trainer.max_time=null"])
    assert plan.settings["trainer"]["max_time"] is None
