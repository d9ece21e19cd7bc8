"""Every shipped config says what it is, parses, and runs."""

import re
from pathlib import Path

import pytest
import yaml

from lightning_adabelief.cli.lightning import AdaBeliefCLI
from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes import catalog
from lightning_adabelief.recipes.catalog import FACTS, UnknownRecipeError, find, find_config, list_names, recipes

SMALL_IMAGES = ["--model.network.min_size=64", "--model.network.max_size=64"]
"""A ResNet50 takes half a minute for four images of 600x1000 pixels."""

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_recipes_are_all_the_configs_in_the_package_sorted_by_name():
    files = Path(catalog.__file__).parent.rglob("*.yaml")
    assert list(recipes()) == list_names() == sorted(path.stem for path in files)
    assert "digits-cnn" in recipes(), "the default recipe"


@pytest.mark.parametrize("recipe", recipes().values(), ids=recipes().keys())
def test_each_config_tells_its_facts_and_measured_figures_come_from_results(recipe):
    assert recipe.title and recipe.facts.keys() == set(FACTS)
    if recipe.facts["measured"] != "-":
        (summary, *_) = (RESULTS / f"{recipe.name}.md").read_text(encoding="utf-8").splitlines()
        assert recipe.facts["measured"] == summary
        assert summary in (recipe.path.parent / "README.md").read_text(encoding="utf-8")


def test_digits_cnn_scores_at_least_98_percent(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "digits-cnn"]) == 0
    assert float(re.search(r"test/accuracy +([0-9.]+)", capsys.readouterr().out)[1]) >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_digits_cnn_scores_at_least_98_percent_with_any_seed(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "digits-cnn", f"--seed_everything={seed}"]) == 0
    assert float(re.search(r"test/accuracy +([0-9.]+)", capsys.readouterr().out)[1]) >= 0.98


def test_the_readme_quotes_what_was_measured():
    (summary, *_) = (RESULTS / "digits-cnn.md").read_text(encoding="utf-8").splitlines()
    assert summary in (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings(
    "ignore:(AdaBelief|generator|critic), step"
)  # what BeliefMonitor says of random images is no matter here
@pytest.mark.parametrize("recipe", recipes().values(), ids=recipes().keys())
def test_each_config_runs_and_its_parameters_are_counted(recipe, paper_data, monkeypatch):
    models = []
    monkeypatch.setattr(AdaBeliefCLI, "before_fit", lambda self: models.append(self.model), raising=False)
    words = ["--data.batch_size=4", "--data.num_workers=0", "--trainer.fast_dev_run=true"]
    if recipe.name == "voc-fasterrcnn":
        words += SMALL_IMAGES
    assert main(["fit", "--config", recipe.name, *words]) == 0
    assert recipe.facts["parameters"] == f"{sum(p.numel() for p in models[0].parameters()):,}"


@pytest.mark.parametrize("recipe", recipes().values(), ids=recipes().keys())
def test_each_config_writes_out_every_argument_of_the_rule(recipe):
    model = yaml.safe_load(recipe.path.read_text())["model"]["init_args"]
    # A critic's that is null is the generator's.
    optimizers = [value for key, value in model.items() if key.endswith("optimizer") and value is not None]
    assert optimizers
    for optimizer in optimizers:
        assert optimizer["class_path"] in ("lightning_adabelief.AdaBelief", "lightning_adabelief.ConfiguredAdaBelief")
        needed = {
            "lr",
            "betas",
            "eps",
            "weight_decay",
            "weight_decouple",
            "fixed_decay",
            "amsgrad",
            "rectify",
            "degenerated_to_sgd",
            "warmup",
            "residual",
        }
        if optimizer["class_path"].endswith("ConfiguredAdaBelief"):
            needed = needed - {"degenerated_to_sgd"} | {"layer_decay", "schedule"}
        assert needed <= optimizer["init_args"].keys()


def test_an_existing_path_wins_over_a_recipes_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("digits-cnn") == find("digits-cnn").path
    Path("digits-cnn").write_text("model: mine")
    assert find_config("digits-cnn") == Path("digits-cnn")


def test_an_unknown_name_is_an_error_that_lists_near_names():
    with pytest.raises(
        UnknownRecipeError, match="'digit-cn' is neither a file nor a recipe. Did you mean 'digits-cnn'"
    ):
        find_config("digit-cn")
    with pytest.raises(UnknownRecipeError, match=f"'zzz'. There are {len(recipes())}, .* 'adabelief list' lists all"):
        find("zzz")


def test_the_readme_quotes_the_speed_that_was_measured():
    readme = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8").splitlines()
    measured = (RESULTS / "step_time-cpu.md").read_text(encoding="utf-8").splitlines()
    quoted = [line for line in readme if re.match(r"\| [\w -]+ \|( \d+\.\d\d \|){3}$", line)]
    assert len(quoted) == 4
    assert set(quoted) <= set(measured)
