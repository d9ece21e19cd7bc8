"""The commands in the recipes' READMEs run as they are written, on small files, for an epoch."""

import re
import shlex
from pathlib import Path

import pytest
import pytorch_lightning as pl

import lightning_adabelief
from lightning_adabelief.cli.main import main
from lightning_adabelief.optim.scaling import rectification
from lightning_adabelief.recipes.catalog import recipes
from tests.recipes.test_catalog import SMALL_IMAGES

RECIPES = Path(lightning_adabelief.__file__).parent / "recipes"
READMES = sorted(RECIPES.glob("*/README.md"))


def commands(readme):
    """The lines that begin with ``adabelief`` in a README's blocks of bash, continued ones joined."""
    blocks = re.findall(r"```bash\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.startswith("adabelief ")]


PLAIN = [f"adabelief fit --config {name}" for name in recipes()]
"""What test_catalog runs for every recipe."""


FEW_SCENES = ["--data.train_scenes=2", "--data.val_scenes=2", "--data.test_scenes=2"]
"""An epoch of one batch, where Lightning reads ``limit_train_batches=1`` as 1.0, which is all batches.

It does so in the process of pytest, in which an equal ``Optional[Union[float, int]]`` was made before Trainer's own:
the typing module gives Trainer that one, with float first.
"""

OTHERS = [command for readme in READMES for command in commands(readme) if command not in PLAIN]


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_every_recipe_of_the_folder_has_its_command(readme):
    of_folder = [name for name, recipe in recipes().items() if recipe.path.parent == readme.parent]
    assert {f"adabelief fit --config {name}" for name in of_folder} <= set(commands(readme))


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.filterwarnings(
    "ignore:(AdaBelief|generator|critic), step"
)  # what BeliefMonitor says of random images is no matter here
@pytest.mark.parametrize("command", OTHERS)
def test_each_other_command_runs_for_an_epoch(command, paper_data, capsys):
    words = shlex.split(command)[1:]
    if words[0] == "predict":  # with the checkpoint of a run
        short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_test_batches=1"]
        assert main(["fit", *words[1:3], *short]) == 0
    if any("EMAWeightAveraging" in word for word in words) and not hasattr(pl.callbacks, "EMAWeightAveraging"):
        pytest.skip("Lightning has EMAWeightAveraging since 2.6")
    if words[0] == "sample":  # from the folder that the recipe's run leaves
        recipe = Path(words[words.index("--ckpt_path") + 1]).parts[1]
        short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.check_val_every_n_epoch=1"]
        assert main(["fit", "--config", recipe, *short]) == 0
    if words[0] == "fit":
        short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1"]
        words += [
            *short,
            "--trainer.check_val_every_n_epoch=1",
            "--trainer.limit_val_batches=1",
            "--trainer.limit_test_batches=1",
            "--data.num_workers=0",
            "--data.batch_size=2",
        ]
        if "voc-fasterrcnn" in words:
            words += SMALL_IMAGES
        if "scenes-fasterrcnn" in words:
            words += FEW_SCENES
    assert main(words) == 0
    out = capsys.readouterr().out
    found = {"copy": [], "fit": ["test/", "checkpoints/"], "predict": ["Predictions:"], "sample": ["Wrote"]}
    assert all(part in out for part in found[words[0]])


def test_the_figures_of_rectification_are_those_measured():
    folder = Path(lightning_adabelief.__file__).parents[1]
    measured = (folder / "benchmarks/results/rectification-digits-cnn.md").read_text(encoding="utf-8").splitlines()
    readme = (RECIPES / "image_classification/README.md").read_text(encoding="utf-8").splitlines()
    quoted = [line.removesuffix("|") for line in readme if re.match(r"\| test/(accuracy|loss) \|", line)]
    assert len(quoted) == 6
    assert all(any(line.startswith(quote) for line in measured) for quote in quoted)


def test_the_mean_factor_of_rectification_is_that_of_the_digits_run():
    factor = sum(rectification(step, 0.999) for step in range(1, 481)) / 480
    readme = (RECIPES / "image_classification/README.md").read_text(encoding="utf-8")
    assert f"480 steps, over which rectification would come to a mean factor of {factor:.2f}" in readme


def test_the_distances_with_and_without_rectification_are_those_measured():
    folder = Path(lightning_adabelief.__file__).parents[1]
    measured = (folder / "benchmarks/results/rectification-digits-sngan.md").read_text(encoding="utf-8")
    readme = (RECIPES / "gan/README.md").read_text(encoding="utf-8")
    (paragraph,) = [part for part in readme.split("\n\n") if part.startswith("The digits' recipes train without")]
    figures = re.findall(r"[+-]?\d\.\d{4}(?: ± \d\.\d{4})?", paragraph)
    assert len(figures) == 5 and all(figure in measured for figure in figures)
