"""The recipe pydocs-lstm, as it is run."""

import re
from pathlib import Path

import pytest

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import find

RESULT = Path(__file__).parents[3] / "benchmarks" / "results" / "pydocs-lstm.md"


def test_what_was_measured_is_at_most_half_of_a_bigrams_and_quoted():
    measured = RESULT.read_text(encoding="utf-8")
    rows = [list(map(float, row)) for row in re.findall(r"^\| \d \| ([0-9.]+) \| ([0-9.]+) \|", measured, re.MULTILINE)]
    assert len(rows) >= 3 and all(model <= bigram / 2 for model, bigram in rows)
    quoted = (find("pydocs-lstm").path.parent / "README.md").read_text(encoding="utf-8")
    assert f"{rows[0][1]:.4f}" in quoted
    assert re.search(r"test/perplexity (\S+ ± \S+)", measured)[1] in quoted


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_its_perplexity_is_at_most_half_of_a_bigrams_with_any_seed(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "pydocs-lstm", f"--seed_everything={seed}"]) == 0
    scores = dict(re.findall(r"test/(perplexity\w*) +([0-9.]+)", capsys.readouterr().out))
    assert float(scores["perplexity"]) <= float(scores["perplexity_bigram"]) / 2
