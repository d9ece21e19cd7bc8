"""Command lines that are refused in a moment, and those that pass."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_adabelief.cli.check import check
from lightning_adabelief.cli.value_ranges import LEAST
from lightning_adabelief.config_file import UsageError, read_config
from lightning_adabelief.optim.options import check_values
from lightning_adabelief.recipes.catalog import UnknownRecipeError, find, list_names
from lightning_adabelief.settings import read_settings


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def find_problem(*words, command="fit"):
    try:
        check(read_settings([command, *words]))
    except (UsageError, UnknownRecipeError) as error:
        return str(error)
    return None


MISTYPED = {
    # keys, each with the guess that is right
    "--optimizer X": "There is no option 'optimizer'. Did you mean '--model.optimizer'?",
    "--scheduler=X": "There is no option 'scheduler'. Did you mean '--model.lr_scheduler'?",
    "--lr=1e-3": "There is no option 'lr'. Did you mean '--model.optimizer.lr'?",
    "--model.learning_rate=1e-3": (
        "ImageClassifier has no option 'learning_rate'. Did you mean '--model.optimizer.lr'?"
    ),
    "--model.optimizer.learning_rate=1": (
        "AdaBelief has no option 'learning_rate'. Did you mean '--model.optimizer.lr'?"
    ),
    "--model.width=8": "ImageClassifier has no option 'width'. Did you mean '--model.network.width'?",
    "--epochs=3": "There is no option 'epochs'. Did you mean '--trainer.max_epochs'?",
    "--trainer.batch_size=3": "Trainer has no option 'batch_size'. Did you mean '--data.batch_size'?",
    "--trainr.max_epochs=3": "There is no option 'trainr'. Did you mean '--trainer'?",
    "--trainer.max_epoch=3": (
        "Trainer has no option 'max_epoch'. Did you mean '--trainer.max_epochs' or '--trainer.min_epochs'?"
    ),
    "--model.network.widht=3": "SmallCNN has no option 'widht'. Did you mean '--model.network.width'?",
    "--model.network.init_args.widht=3": "SmallCNN has no option 'widht'. Did you mean '--model.network.width'?",
    "--conf digits-cnn": "There is no option 'conf'. Did you mean '--config'?",
    "--ckpt=x.ckpt": "There is no option 'ckpt'. Did you mean '--ckpt_path'?",
    "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitr=x": (
        "EarlyStopping has no option 'monitr'. Did you mean '--trainer.callbacks.monitor'?"
    ),
    # an option of another optimizer
    "--model.optimizer=torch.optim.SGD --model.optimizer.rectify=true": (
        "SGD has no option 'rectify'. There are 9, such as 'lr', 'momentum' and 'dampening'."
    ),
    "--model.optimizer=torch.optim.AdamW --model.optimizer.wd=1": (
        "AdamW has no option 'wd'. Did you mean '--model.optimizer.weight_decay'?"
    ),
    # classes
    "--model.optimizer=torch.optim.Sgd": (
        "--model.optimizer: torch.optim has no class 'Sgd'. Did you mean 'SGD' or 'ASGD'?"
    ),
    "--model.optimizer=lightning_adabelief.AdaBelif": (
        "--model.optimizer: lightning_adabelief has no class 'AdaBelif'. Did you mean 'AdaBelief'?"
    ),
    "--trainer.callbacks+=LearningRateFindr": (
        "--trainer.callbacks: There is no class 'LearningRateFindr'. "
        "Did you mean 'LearningRateFinder' or 'LearningRateMonitor'?"
    ),
    "--trainer.logger=CVSLogger": (
        "--trainer.logger: There is no class 'CVSLogger'. Did you mean 'CSVLogger', 'Logger' or 'CometLogger'?"
    ),
    "--model=nope.Nope": ("--model: There is no module 'nope'. Install it, or start from the folder that it is in."),
    "--model.optimizer=torhc.optim.SGD": "--model.optimizer: There is no module 'torhc'. Did you mean 'torch'?",
    "--data=lightning_adabelief.recipes.image_clasification.DigitsDataModule": (
        "--data: There is no module 'lightning_adabelief.recipes.image_clasification'. "
        "Did you mean 'image_classification'?"
    ),
    # values
    "--model.optimizer.lr=abc": "--model.optimizer.lr must be a number. Got 'abc'",
    "--model.optimizer.lr=-1": "--model.optimizer.lr must be a finite number >= 0. Got -1",
    "--model.optimizer.eps=.nan": "--model.optimizer.eps must be a finite number >= 0. Got nan",
    "--model.optimizer.betas=nine": "--model.optimizer.betas must be a list of 2, each a number. Got 'nine'",
    "--model.optimizer.betas=[0.9]": "--model.optimizer.betas must be a list of 2, each a number. Got [0.9]",
    "--model.optimizer.betas=[0.9,1]": (
        "--model.optimizer.betas must be two numbers in [0, 1), such as [0.9, 0.999]. Got [0.9, 1]"
    ),
    "--model.optimizer.amsgrad=maybe": "--model.optimizer.amsgrad must be true or false. Got 'maybe'",
    "--model.optimizer.residual=udated": "--model.optimizer.residual must be 'updated' or 'previous'. Got 'udated'",
    "--trainer.max_epochs=abc": "--trainer.max_epochs must be a whole number. Got 'abc'",
    "--trainer.max_steps=1.5": "--trainer.max_steps must be a whole number. Got 1.5",
    "--trainer.benchmark=flase": "--trainer.benchmark must be true or false. Got 'flase'",
    "--data.batch_size=many": "--data.batch_size must be a whole number. Got 'many'",
    # the command line itself
    "digits-wgan": "'digits-wgan' is not an option. Did you mean '--config digits-wgan'?",
    "fast": "'fast' is not an option. Options begin with --, for example --trainer.max_epochs=3",
    "--data.batch_size": "--data.batch_size needs a value: --data.batch_size VALUE",
    "--config": "--config needs a value: --config VALUE",
    "-c digit-cnn": (
        "Unknown config: 'digit-cnn' is neither a file nor a recipe. Did you mean 'digits-cnn', 'digits-sngan' or "
        "'digits-wgan'? 'adabelief list' lists all recipes"
    ),
}


@pytest.mark.parametrize("words", MISTYPED)
def test_a_mistake_in_the_command_line_is_answered_by_what_was_meant(words):
    assert find_problem("--config=digits-cnn", *words.split()) == MISTYPED[words]


def test_in_a_gan_the_generators_optimizer_is_suggested_which_the_critic_takes_too():
    assert find_problem("--config=digits-wgan", "--model.lr=1") == (
        "GAN has no option 'lr'. Did you mean '--model.generator_optimizer.lr'?"
    )


OWN_NET = """
model: own_net.Net
data: own_net.Data
optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.1}}
lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 3}}
"""

MISTAKES_IN_OPTIMIZERS = {
    "--optimizer.wd=1": "AdamW has no option 'wd'. Did you mean '--optimizer.weight_decay'?",
    "--optimizer.lr=fast": "--optimizer.lr must be a number. Got 'fast'",
    "--optimizer=torch.optim.Adamm": "--optimizer: torch.optim has no class 'Adamm'. Did you mean 'Adam'",
    "--optimzer=SGD": "There is no option 'optimzer'. Did you mean '--optimizer'?",
    "--lr_scheduler.step_sise=3": "StepLR has no option 'step_sise'. Did you mean '--lr_scheduler.step_size'?",
    "--scheduler=StepLR": "There is no option 'scheduler'. Did you mean '--lr_scheduler'?",
    "--optimizer=null": "In own.yaml, lr_scheduler has no effect without an optimizer beside it. Give --optimizer too",
}


def write_own_net():
    Path("own.yaml").write_text(OWN_NET)
    Path("own_net.py").write_text("class Net: ...\nclass Data: ...\nclass Mine: ...")


@pytest.mark.parametrize("words", MISTAKES_IN_OPTIMIZERS)
def test_a_mistake_in_lightnings_own_optimizer_is_answered_too(words):
    write_own_net()
    assert find_problem("--config=own.yaml", words).startswith(MISTAKES_IN_OPTIMIZERS[words])


@pytest.mark.parametrize("words", ["", "--optimizer=SGD", "--optimizer.weight_decay=1", "--optimizer=own_net.Mine"])
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_module_of_ones_own_may_have_lightnings_own_optimizer(command, words):
    write_own_net()
    assert find_problem("--config=own.yaml", *words.split(), command=command) is None


IN_FILES = {
    "trainer:/trainr:": "In mine.yaml, trainr: There is no option 'trainr'. Did you mean 'trainer'?",
    "max_epochs: 30/max_epoch: 30": (
        "In mine.yaml, trainer.max_epoch: Trainer has no option 'max_epoch'. "
        "Did you mean 'trainer.max_epochs' or 'trainer.min_epochs'?"
    ),
    "weight_decouple:/weight_decoupl:": (
        "In mine.yaml, model.optimizer.weight_decoupl: AdaBelief has no option 'weight_decoupl'. "
        "Did you mean 'model.optimizer.weight_decouple' or 'model.optimizer.weight_decay'?"
    ),
    "every_n_steps: null/every_n_step: 1": (
        "In mine.yaml, trainer.callbacks.every_n_step: BeliefMonitor has no option 'every_n_step'. "
        "Did you mean 'trainer.callbacks.every_n_steps'?"
    ),
    "width: 32/width: wide": "In mine.yaml, model.network.width must be a whole number. Got 'wide'",
    "lr: 3.0e-3/lr: fast": "In mine.yaml, model.optimizer.lr must be a number. Got 'fast'",
    "ion.SmallCNN/ion.SmalCNN": (
        "In mine.yaml, model.network: lightning_adabelief.recipes.image_classification has no class 'SmalCNN'. "
        "Did you mean 'SmallCNN'?"
    ),
    "      init_args: # save_last/      arguments: # save_last": (
        "In mine.yaml, trainer.callbacks.arguments stands beside class_path. "
        "Arguments of ModelCheckpoint stand under init_args"
    ),
}


@pytest.mark.parametrize("change", IN_FILES)
def test_a_mistake_in_a_config_is_named_by_its_file_and_key(change):
    right, _, wrong = change.partition("/")
    text = find("digits-cnn").path.read_text()
    assert text.count(right) >= 1
    Path("mine.yaml").write_text(text.replace(right, wrong))
    assert find_problem("--config=mine.yaml") == IN_FILES[change]


def test_all_problems_are_told_at_once():
    problem = find_problem("--config=digits-cnn", "--model.optimizer.lr=abc", "--trainer.max_epochs=abc", "--lr=1")
    assert [line.split()[0] for line in problem.splitlines()] == [
        "--model.optimizer.lr",
        "--trainer.max_epochs",
        "There",
    ]


GOOD = [
    "",
    "-c digits-wgan",
    "--model.optimizer.lr=1e-3",
    "--model.optimizer.lr 1",
    "--model.optimizer.betas=[0.5,0.99]",
    "--model.optimizer=torch.optim.SGD --model.optimizer.momentum=0.9",
    "--model.optimizer=SGD --model.optimizer.lr=0.1",
    '--model.optimizer={"class_path":"torch.optim.AdamW","init_args":{"lr":1}}',
    "--model.lr_scheduler=null",
    "--model.lr_scheduler=torch.optim.lr_scheduler.StepLR --model.lr_scheduler.step_size=3",
    "--model.network=torchvision.models.resnet18 --model.network.num_classes=10",
    "--model.network.init_args.width=8",
    "--trainer.logger=false",
    "--trainer.logger=CSVLogger --trainer.logger.save_dir=csv",
    "--trainer.callbacks=null",
    "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/loss",
    "--trainer.callbacks+=lightning_adabelief.callbacks.ResumeReport",
    "--trainer.callbacks+=BeliefMonitor --trainer.callbacks.every_n_steps=3",
    "--trainer.precision=bf16-mixed",
    "--trainer.precision=32",
    "--trainer.devices=[0,1]",
    "--trainer.devices=auto",
    "--trainer.limit_train_batches=0.5",
    "--trainer.max_time=00:01:00:00",
    "--trainer.deterministic=warn",
    "--trainer.strategy=ddp",
    "--trainer.profiler=simple",
    "--trainer.enable_progress_bar=no",
    "--seed_everything=true",
    "--ckpt_path=last.ckpt",
    "--data.num_workers=2",
]


@pytest.mark.parametrize("words", GOOD)
def test_what_works_is_let_through(words):
    assert find_problem("--config=digits-cnn", *words.split()) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.parametrize("words", GOOD)
def test_what_is_let_through_is_what_the_parser_takes(words):
    from lightning_adabelief.cli.lightning import AdaBeliefCLI

    class Parsing(AdaBeliefCLI):
        def instantiate_classes(self):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Parsing(read_settings(["fit", "--config=digits-cnn", *words.split()]))


@pytest.mark.parametrize("name", list_names())
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_every_recipe_is_good_for_every_command(name, command):
    assert find_problem("--config", name, command=command) is None


def test_configs_are_merged_in_the_order_that_they_are_given_in():
    Path("mine.yaml").write_text("trainer:\n  max_epochs: abc\n  callbacks+:\n  - class_path: EarlyStopping")
    assert find_problem("--config=digits-cnn", "--config=mine.yaml") == (
        "In mine.yaml, trainer.max_epochs must be a whole number. Got 'abc'"
    )
    assert find_problem("--config=digits-cnn", "--config=mine.yaml", "--trainer.max_epochs=3") is None
    tree = read_settings(["fit", "--config=digits-cnn", "--config=mine.yaml"]).tree
    assert [callback["class_path"] for callback in tree["trainer"]["callbacks"]][1:] == [
        "ModelCheckpoint",
        "ModelCheckpoint",
        "EarlyStopping",
    ]


def test_another_class_does_not_keep_the_arguments_of_the_one_before():
    settings = read_settings(["fit", "--config=digits-cnn", "--model.optimizer=torch.optim.SGD"])
    assert settings.tree["model"]["init_args"]["optimizer"] == {"class_path": "torch.optim.SGD"}
    assert "init_args" in settings.configs["digits-cnn"]["model"]["init_args"]["optimizer"], "the config is as it was"


OWN = """
import importlib
from torch import nn
from lightning_adabelief.recipes.image_classification import ImageClassifier
import pytorch_lightning as pl

class Inheriting(ImageClassifier):
    pass

class Open(ImageClassifier):
    def __init__(self, depth: int = 3, **options):
        super().__init__(**options)

class Own(pl.LightningModule):
    def __init__(self, depth: int = 3, net: nn.Module = None, names: "list[str] | None" = None):
        super().__init__()

globals()["Made"] = Own
"""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--model=own.Inheriting --model.num_clases=3", "Did you mean '--model.num_classes'?"),
        ("--model=own.Inheriting --model.num_classes=3", None),
        ("--model=own.Open --model.anything=3", None),
        ("--model=own.Open --model.depth=deep", "--model.depth must be a whole number. Got 'deep'"),
        ("--model=own.Own --model.dpth=3", "Own has no option 'dpth'. Did you mean '--model.depth'?"),
        ("--model=own.Own --model.names=[a,b]", None),
        ("--model=own.Own --model.net=own.Made", None),
        ("--model=own.Missing", None),  # its module makes names at run time: the parser will know
    ],
)
def test_of_a_users_own_class_no_more_is_refused_than_its_source_tells(words, problem):
    Path("own.py").write_text(OWN)
    found = find_problem("--config=digits-cnn", *words.split())
    assert (found is None) if problem is None else (found is not None and problem in found)
    assert "own" not in sys.modules


@pytest.mark.parametrize("option", [*LEAST["AdaBelief"], "betas"])
@pytest.mark.parametrize("value", [-1, -1e-9, 0, 0.5, 0.999, 1, 2, float("inf"), float("nan")])
def test_numbers_are_in_the_range_that_the_optimizer_takes(option, value):
    given = [value, 0.9] if option == "betas" else value
    words = [
        "--config=digits-cnn",
        f"--model.optimizer.{option}={str(given).replace('nan', '.nan').replace('inf', '.inf')}",
    ]
    try:
        check_values({option: given})
    except ValueError:
        assert find_problem(*words) is not None
    else:
        assert find_problem(*words) is None


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trainer:\n  max_epochs: 1\n  max_epochs: 2", "the key 'max_epochs' is given 2 times"),
        ("model: {a: 1, a: 1}", "the key 'a' is given 2 times"),
        ("a: &a\n  b: *a", "has more than 10000 keys and values"),
        (BOMB, "has more than 10000 keys and values"),
        ("- 1", "holds [1], not keys"),
        ("a: [", "is not YAML"),
    ],
    ids=["duplicate", "duplicate in braces", "an alias of itself", "aliases of aliases", "list", "unfinished"],
)
def test_a_config_that_another_reader_would_misread_is_refused(text, problem):
    Path("mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(problem)):
        read_config(Path("mine.yaml"))


def test_a_merge_key_is_no_duplicate():
    Path("mine.yaml").write_text("model: &m {a: 1, b: 2}\ndata: {<<: *m, a: 3}")
    assert read_config(Path("mine.yaml"))["data"] == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["fit", "--config", "digit-cnn"], 2),
        (["fit", "--config", "digits-cnn", "--optimizer", "X"], 2),
        (["fit", "--config", "digits-cnn", "--model.optimizer.lr=abc"], 2),
        (["test", "--config", "digits-cnn"], 1),
        (["validate-config", "digits-cnn"], 0),
        (["validate-config", "digits-cnn", "--trainer.max_epochs=abc"], 2),
        (["--version"], 0),
        (["--help"], 0),
        (["list"], 0),
        (["ft"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_needs_no_torch_does_not_import_it(words, status):
    run = (
        "import sys\nfrom lightning_adabelief.cli.main import main\ntry: status = main(sys.argv[1:])\n"
        "except SystemExit as exit: status = exit.code or 0\n"
        "assert not {'torch', 'pytorch_lightning', 'lightning', 'jsonargparse'} & set(sys.modules), 'imported'\n"
        "sys.exit(status)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True, env=env)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
