"""The recipe pydocs-lstm, as it is run."""

import re

import pytest

from lightning_adabelief.cli.main import main


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_its_perplexity_is_at_most_half_of_a_bigrams_with_any_seed(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "pydocs-lstm", f"--seed_everything={seed}"]) == 0
    scores = dict(re.findall(r"test/(perplexity\w*) +([0-9.]+)", capsys.readouterr().out))
    assert float(scores["perplexity"]) <= float(scores["perplexity_bigram"]) / 2
