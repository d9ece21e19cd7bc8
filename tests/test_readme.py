"""The README's Python runs as it stands, its YAML is YAML, and its commands parse."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch.utils.data import DataLoader, TensorDataset

from lightning_adabelief.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


FENCED = list(re.finditer(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", README, re.DOTALL | re.MULTILINE))


def blocks(language):
    """The fenced blocks of a language, each called by the line of the README that it begins at."""
    found = [block for block in FENCED if block["language"] == language]
    return [pytest.param(block["text"], id=f"line {README.count(chr(10), 0, block.start()) + 2}") for block in found]


def commands():
    """Every ``adabelief ...`` of the README: in a block, behind a path or beside its explanation, and in a sentence."""
    lines = [line for block in FENCED if block["language"] in ("", "bash") for line in block["text"].splitlines()]
    lines = [re.sub(r"^.*/bin/(?=adabelief)", "", line) for line in lines] + re.findall(r"`(adabelief [^`]+)`", README)
    return list(dict.fromkeys(re.split(r" {2,}| && ", line)[0] for line in lines if line.startswith("adabelief ")))


class Completion:
    """The parts of a LightningModule that a snippet leaves out: layers, by the README's names, and a loss."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.head(self.encoder(batch[0])).square().mean()


def test_the_readme_has_the_blocks_that_are_looked_for_here():
    assert blocks("python") and blocks("yaml") and len(commands()) >= 5


@pytest.mark.parametrize("snippet", blocks("python"))
def test_a_python_block_names_nothing_that_it_does_not_import(snippet):
    words = ["-m", "ruff", "check", "--isolated", "--select=F821,F811", "--stdin-filename=README.py", "-"]
    checked = subprocess.run([sys.executable, *words], input=snippet, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("snippet", blocks("python"))
def test_a_python_block_runs_and_what_it_configures_trains(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    modules = [kind for kind in names.values() if isinstance(kind, type) and issubclass(kind, pl.LightningModule)]
    if "configure_optimizers" in names:
        modules.append(type("LitModel", (pl.LightningModule,), {"configure_optimizers": names["configure_optimizers"]}))
    for module in modules:
        callbacks = names["trainer"].callbacks if "trainer" in names else []
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=2,
            log_every_n_steps=1,
            callbacks=[callback for callback in callbacks if "lightning_adabelief" in type(callback).__module__],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        model = type("Completed", (Completion, module), {})()
        before = model.head.weight.detach().clone()
        trainer.fit(model, DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=4))
        assert trainer.global_step == 12 and not torch.equal(before, model.head.weight)


@pytest.mark.parametrize("snippet", blocks("yaml"))
def test_a_yaml_block_is_a_config_of_known_sections(snippet):
    assert yaml.safe_load(snippet).keys() <= {
        "seed_everything",
        "model",
        "data",
        "trainer",
        "optimizer",
        "lr_scheduler",
    }


@pytest.mark.parametrize("command", commands())
def test_a_command_parses(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["copy", "digits-cnn", "mine.yaml"]) == 0
    Path("config.yaml").write_text("optimizer:\n  class_path: torch.optim.Adam\n")
    words = shlex.split(command)[1:]
    if words[0] in ("fit", "validate", "test", "predict"):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--print_config"])
        assert ended.value.code == 0
        assert "class_path:" in capsys.readouterr().out
    else:
        if words[0] == "copy":
            Path("mine.yaml").unlink()
        if words[0] == "compare":
            words += ["--list"]
        if words[0] == "landscapes":
            words += ["--steps=5", "--no-animation"]
        assert main(words) == 0


def test_the_comparisons_are_quoted_as_they_were_measured():
    measured = (ROOT / "benchmarks/results/comparisons.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"<!-- comparisons -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert quoted in measured and quoted.count("\n") > 4
