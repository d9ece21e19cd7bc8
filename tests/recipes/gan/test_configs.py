"""The GANs' configs and the figures of their README."""

from pathlib import Path

import pytest
import yaml

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import recipes

GANS = [recipe for recipe in recipes().values() if recipe.path.parent.name == "gan"]


@pytest.mark.parametrize("recipe", GANS, ids=lambda recipe: recipe.name)
def test_the_authors_settings_are_written_out(recipe):
    model = yaml.safe_load(recipe.path.read_text())["model"]["init_args"]
    options = model["generator_optimizer"]["init_args"]
    assert model["critic_optimizer"] is None, "the generator's"
    if recipe.name.startswith("cifar10"):
        assert (options["lr"], options["betas"], model["n_critic"]) == (2e-4, [0.5, 0.999], 5)
        assert options["eps"] == (1e-16 if "sngan" in recipe.name else 1e-12)
        assert options["rectify"] is ("sngan" in recipe.name)
    assert (options["residual"] == "previous") == (options["betas"][0] == 0)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [recipe.name for recipe in GANS if recipe.name.startswith("digits")])
def test_digits_come_within_15_percent_of_the_untrained_generators_distance(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", recipe]) == 0
    share = capsys.readouterr().out.split("frechet_digits_share")[1].split()[0]
    assert float(share) < 0.15


def test_the_readme_quotes_the_comparison_that_was_measured():
    folder = Path(__file__).parents[3]
    measured = (folder / "benchmarks/results/comparisons.md").read_text(encoding="utf-8").splitlines()
    readme = GANS[0].path.with_name("README.md").read_text(encoding="utf-8").splitlines()
    quoted = [line for line in readme if line.startswith("| digits-wgan | ") and "test/distance" in line]
    assert len(quoted) >= 6 and set(quoted) <= set(measured)
