"""The parts of a Markdown document that a reader runs: Python, YAML and commands."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_adabelief.cli.main import main

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
SECTIONS = {"seed_everything", "model", "data", "trainer", "optimizer", "lr_scheduler"}
"""The sections of a Lightning CLI's config."""


def read(name):
    """Return the text of a document, named by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    """The fenced blocks of a language, each called by its document and the line that it begins at."""
    text, found = read(name), []
    for block in FENCE.finditer(text):
        if block["language"] == language:
            found.append(pytest.param(_dedent(block), id=_locate(name, text, block)))
    return found


def outputs(name):
    """The blocks of Python that a block of text follows, with that text: what they print."""
    text, found = read(name), []
    fences = list(FENCE.finditer(text))
    for code, printed in itertools.pairwise(fences):
        follows = not text[code.end() : printed.start()].strip()
        if follows and (code["language"], printed["language"]) == ("python", "text"):
            found.append(pytest.param(_dedent(code), _dedent(printed), id=_locate(name, text, code)))
    return found


def commands(name):
    """Every ``adabelief ...``: in a block, behind a path or beside its explanation, and in a sentence."""
    text = read(name)
    shown = "".join(_dedent(block) for block in FENCE.finditer(text) if block["language"] in ("", "bash"))
    lines = shown.replace("\\\n", " ").splitlines()
    lines = [re.sub(r"^.*/bin/(?=adabelief)", "", line) for line in lines] + re.findall(r"`(adabelief [^`]+)`", text)
    return list(dict.fromkeys(re.split(r" {2,}(?!-)| && ", line)[0] for line in lines if line.startswith("adabelief ")))


def _locate(name, text, block):
    return f"{name}, line {text.count(chr(10), 0, block.start()) + 2}"


def _dedent(block):
    return re.sub(rf"^{block['indent']}", "", block["text"], flags=re.MULTILINE)


def check_names(snippet):
    """Hold a block of Python to the names that it imports or makes."""
    pytest.importorskip("ruff")  # which [dev] has, and [test] has not
    words = ["-m", "ruff", "check", "--isolated", "--select=F821,F811", "--stdin-filename=block.py", "-"]
    checked = subprocess.run([sys.executable, *words], input=snippet, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


class Completion:
    """The parts of a LightningModule that a snippet leaves out: layers, by the documents' names, and a loss."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.head(self.encoder(batch[0])).square().mean()


def run(snippet):
    """Run a block of Python, train by what it configures, and return what it printed.

    A module that lacks ``training_step`` is completed, and so is a lone ``configure_optimizers``; a Trainer of the
    block gives its callbacks.
    """
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(snippet, "block.py", "exec"), names)
    modules = [kind for kind in names.values() if isinstance(kind, type) and issubclass(kind, pl.LightningModule)]
    modules = [kind for kind in modules if kind.__module__ == "builtins" and "training_step" not in vars(kind)]
    if "configure_optimizers" in names:
        modules.append(type("LitModel", (pl.LightningModule,), {"configure_optimizers": names["configure_optimizers"]}))
    for module in modules:
        _train(module, names["trainer"].callbacks if "trainer" in names else [])
    return printed.getvalue()


def _train(module, callbacks):
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


def parse(command, capsys):
    """Run a command as far as it takes no training, in an empty current folder; print the config of a ``fit``."""
    assert main(["copy", "digits-cnn", "mine.yaml"]) == 0
    Path("config.yaml").write_text("optimizer:\n  class_path: torch.optim.Adam\n")
    words = shlex.split(command)[1:]
    if words[0] in ("fit", "validate", "test", "predict"):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--print_config"])
        assert ended.value.code == 0
        assert "class_path:" in capsys.readouterr().out
        return
    if words[0] == "export":  # as far as the checkpoint, which is not there
        assert main(words) != 0
        assert words[words.index("--ckpt_path") + 1] in capsys.readouterr().err
        return
    if words[0] == "copy":
        Path("mine.yaml").unlink()
    if words[0] == "compare":
        words += ["--list"]
    if words[0] == "landscapes":
        words += ["--steps=5", "--no-animation"]
    assert main(words) == 0
