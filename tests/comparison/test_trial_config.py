"""A trial's config: the comparison's, with one optimizer and one seed, and nothing read that it must not read."""

from pathlib import Path

import pytest
import yaml

from lightning_adabelief.comparison.plan import make_plan
from lightning_adabelief.comparison.stages import next_stage
from lightning_adabelief.comparison.trial_config import make_config, write_config
from lightning_adabelief.settings import read_settings

FOLDER = Path("out/trials/one")


def make(name="digits-cnn", optimizers=("adabelief", "sgd"), words=(), trial=-1, **options):
    settings = read_settings(["fit", "--config", name, *words]).tree
    plan = make_plan(name, settings, optimizers, relative_rates=[1.0], seeds=1, **options)
    _, trials = next_stage(plan, {}, {})
    return plan, trials[trial], make_config(plan, trials[trial], FOLDER)


def list_callbacks(config):
    return {node["class_path"].rpartition(".")[2]: node["init_args"] for node in config["trainer"]["callbacks"]}


def test_the_optimizer_and_the_seed_are_the_trials():
    _, trial, config = make()
    optimizer = config["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert (optimizer["init_args"]["lr"], config["seed_everything"]) == (trial.lr, trial.seed)


def test_all_else_of_the_model_and_the_data_is_as_it_was():
    plan, _, config = make(words=["--data.batch_size=16"])
    assert config["data"] == plan.settings["data"]
    before, after = plan.settings["model"]["init_args"], config["model"]["init_args"]
    assert {**before, "optimizer": None} == {**after, "optimizer": None}


def test_the_plans_settings_stay_as_they_are():
    plan, _, _ = make()
    assert plan.settings == read_settings(["fit", "--config", "digits-cnn"]).tree


def test_the_weight_decay_is_converted_for_the_optimizer():
    _, _, config = make(weight_decays=[0.5])
    assert config["model"]["init_args"]["optimizer"]["init_args"]["weight_decay"] == pytest.approx(0.5 * 0.001)


def test_an_optimizer_without_weight_decay_is_given_none():
    _, _, config = make(optimizers=["adamw", "torch.optim.Rprop"])
    assert "weight_decay" not in config["model"]["init_args"]["optimizer"]["init_args"]


def test_each_optimizer_of_a_gan_has_its_own_multiple_of_the_rate():
    critic = "{class_path: lightning_adabelief.AdaBelief, init_args: {lr: 4.0e-3, betas: [0.5, 0.999]}}"
    _, trial, config = make("digits-sngan", words=[f"--model.critic_optimizer={critic}"])
    rates = [config["model"]["init_args"][f"{of}_optimizer"]["init_args"]["lr"] for of in ("generator", "critic")]
    assert rates == [trial.lr, pytest.approx(4 * trial.lr)]


def test_tuning_does_not_look_at_the_test_and_the_report_does():
    plan, trial, config = make()
    assert config["trainer"]["limit_test_batches"] == 0
    report = type(trial)(**{**vars(trial), "stage": "report"})
    assert "limit_test_batches" not in make_config(plan, report, FOLDER)["trainer"]


def test_a_test_that_no_metric_is_compared_by_is_not_made():
    plan, trial, _ = make(metric="accuracy", mode="max")
    report = type(trial)(**{**vars(trial), "stage": "report"})
    assert make_config(plan, report, FOLDER)["trainer"]["limit_test_batches"] == 0


def test_checkpoints_are_kept_where_the_config_keeps_none():
    _, _, config = make(words=["--trainer.enable_checkpointing=false"])
    assert config["trainer"]["enable_checkpointing"] is True


def test_decorations_give_way_to_a_record():
    plan, _, config = make(words=["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"])
    callbacks = list_callbacks(config)
    assert list(callbacks) == ["EarlyStopping", "ModelCheckpoint", "TrialRecord", "Warmup"]
    assert callbacks["ModelCheckpoint"]["monitor"] == plan.metric == callbacks["TrialRecord"]["metric"]


def test_the_warmup_is_a_callback_for_all_and_not_an_option_of_one():
    _, _, config = make(trial=0)
    assert list_callbacks(config)["Warmup"] == {"warmup": 0.05}
    assert config["model"]["init_args"]["optimizer"]["init_args"]["warmup"] == 0


@pytest.mark.parametrize(
    ("logger", "expected"),
    [
        ({"class_path": "TensorBoardLogger", "init_args": {"save_dir": "logs"}}, "TensorBoardLogger"),
        ({"class_path": "pytorch_lightning.loggers.CSVLogger"}, "pytorch_lightning.loggers.CSVLogger"),
        ({"class_path": "WandbLogger", "init_args": {"project": "mine"}}, "CSVLogger"),
        ([{"class_path": "CSVLogger"}, {"class_path": "WandbLogger"}], "CSVLogger"),
        (True, "CSVLogger"),
        (None, "CSVLogger"),
    ],
    ids=["tensorboard", "csv", "wandb", "two", "true", "none"],
)
def test_the_logger_writes_into_the_trials_folder(logger, expected):
    settings = read_settings(["fit", "--config", "digits-cnn"]).tree
    settings["trainer"]["logger"] = logger
    plan = make_plan("mine", settings, ["adamw", "sgd"])
    made = make_config(plan, next_stage(plan, {}, {})[1][0], FOLDER)["trainer"]["logger"]
    assert (made["class_path"], made["init_args"]["save_dir"]) == (expected, str(FOLDER))


def test_a_config_without_a_logger_stays_without():
    settings = read_settings(["fit", "--config", "digits-cnn"]).tree
    settings["trainer"]["logger"] = False
    plan = make_plan("mine", settings, ["adamw", "sgd"])
    assert make_config(plan, next_stage(plan, {}, {})[1][0], FOLDER)["trainer"]["logger"] is False


def test_the_file_is_the_config(tmp_path):
    plan, trial, _ = make()
    path = write_config(plan, trial, tmp_path / trial.name)
    assert yaml.safe_load(path.read_text()) == make_config(plan, trial, tmp_path / trial.name)
