"""Benchmarks print what they measure, and replace a committed table only where they are asked to."""

import importlib
import logging
import os
import re
import sys
from pathlib import Path
from subprocess import Popen

import pytest

from lightning_adabelief.comparison.compare import Result
from lightning_adabelief.comparison.statistics import Comparison
from lightning_adabelief.recipes.catalog import recipes

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
COMMITTED = sorted(path.name for path in (FOLDER / "results").iterdir() if path.is_file())


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Import a benchmark, whose results go to a folder of the test."""
    modules = {path.stem for path in FOLDER.glob("*.py")}
    monkeypatch.syspath_prepend(FOLDER)
    importlib.import_module("common")
    monkeypatch.setattr("common.RESULTS", tmp_path)
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    yield importlib.import_module
    logger.setLevel(level)  # a benchmark may quieten it
    for name in modules & set(sys.modules):
        del sys.modules[name]


def make_it_quick(name, module, monkeypatch):
    """Leave out of a benchmark what takes long, and return the words of its command line."""
    few = {"AdamW fused", "AdamW foreach", "AdaBelief fused", "AdaBelief foreach"}
    if name in ("memory", "step_time"):
        monkeypatch.setattr(module, "OPTIMIZERS", {key: make for key, make in module.OPTIMIZERS.items() if key in few})
    if name == "memory":
        monkeypatch.setattr(module, "MEASURED_MODELS", ["400 tensors of 32"])
    if name == "step_time":
        monkeypatch.setattr(module, "time_first_step", lambda device: (1.0, 0.1))
        return ["--rounds=2", "--models", "400 tensors of 32"]
    if name == "gradient_release":
        monkeypatch.setattr(module, "MODELS", {"2 layers": lambda: module.make_perceptron(layers=2, width=16)})
        return ["--rounds=2"]
    if name == "low_precision":
        monkeypatch.setattr(module, "MODEL", "400 tensors of 32")
        monkeypatch.setattr(module, "EPOCHS", 1)
        monkeypatch.setattr(module, "FORMATS", dict(list(module.FORMATS.items())[:2]))
        monkeypatch.setattr(module.torch, "set_num_threads", lambda threads: None)
        return ["--rounds=2", "--seeds=1"]
    if name == "low_memory":
        of_24_bits = [kind for kind in module.KINDS if kind.options.get("master_weight_bits") == 24]
        monkeypatch.setattr(module, "KINDS", [module.KINDS[0], *of_24_bits])
        values = {"32 bits": {0: 1.0, 1: 2.0}, "8 bits": {0: 1.25, 1: 2.5}}
        difference = Comparison("8 bits", (0, 1), (0.25, 0.5), 0.375, (-1.2, 2.0), 0.2, 0.2, seeds_needed=7.0)
        result = Result(None, "test/loss", values, {"8 bits": difference}, Path("report.html"))
        monkeypatch.setattr(module.lightning_adabelief, "compare", lambda **_: result, raising=False)
        return ["--rounds=2", "--models", "400 tensors of 32", "--recipes", "digits-cnn"]
    if name == "monitor_overhead":
        monkeypatch.setattr(module, "INTERVAL", 1)
        monkeypatch.setattr(module, "BATCH_SIZE", 2)
        monkeypatch.setattr(module, "IMPLEMENTATIONS", ("foreach",))
        return ["--rounds=2"]
    if name == "recipe":
        monkeypatch.setattr(module, "run", lambda recipe, seed, metrics, texts: [0.9 + seed / 100, 20.0, 1000.0])
        return ["digits-cnn", "--seeds=2"]
    if name == "resume":
        found = module.Kills(2, 1, 0, [[0] * 6])
        monkeypatch.setattr(module, "kill_and_resume", lambda *_: found)
        return ["digits-cnn", "--kills=2"]
    if name == "rectification":
        monkeypatch.setattr(module, "run", lambda config, seed, metrics: [0.9 + seed / 100, 0.1, 20.0, 1000.0])
        return ["digits-cnn", "--seeds=2"]
    if name == "gan_folder":
        monkeypatch.setattr(module, "run", lambda config, seed, metrics: [1.0 + seed] * len(metrics) + [20.0, 1000.0])
    if name == "gan_scores":
        monkeypatch.setattr(module, "STRENGTHS", (1,))
        monkeypatch.setattr(module, "compare", lambda scores, real, images: float(images.square().mean()))
    if name == "folder_classifier":
        monkeypatch.setattr(module, "run", lambda config, seed, metrics: [0.9 + seed / 100, 0.1, 0.2, 20.0, 1000.0])
    if name == "recipe_step":
        step = '{"batch": 128, "seconds": 0.5, "memory": 1.25}'
        monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: module.argparse.Namespace(stdout=step))
        return ["cifar10-vgg11"]
    if name == "bad_inputs":
        monkeypatch.setattr(module, "GROUPS", {title: rows[:1] for title, rows in module.GROUPS.items()})
    if name == "reliability":
        for measurement in ("compare_ranks_with_one_process", "kill_each_rank"):
            monkeypatch.setattr(module, measurement, lambda folder: [["two ranks", "1.0 s"]])
        monkeypatch.setattr(module.torch, "set_num_threads", lambda threads: None)
        return ["--steps=200"]
    if name == "reliability_steps":
        return ["--cases=5"]
    if name == "compare_null":
        return ["--simulations=20"]
    if name == "comparisons":
        difference = Comparison("adamw", (0, 1), (0.25, 0.5), 0.375, (-1.2, 2.0), 0.2, 0.2, seeds_needed=7.0)
        values = {"adabelief": {0: 1.0, 1: 2.0}, "adamw": {0: 1.25, 1: 2.5}}
        result = Result(None, "test/loss", values, {"adamw": difference}, Path("report.html"))
        monkeypatch.setattr(module.lightning_adabelief, "compare", lambda **_: result, raising=False)
        monkeypatch.setattr(module, "copy_report", lambda *_: None)
        return ["digits-cnn"]
    if name == "compare_kills":
        monkeypatch.setattr(module, "start_comparison", lambda out: Popen(["true"]))
        monkeypatch.setattr(module, "run_and_kill", lambda *_: ["one trial"])
        monkeypatch.setattr(module, "read_table", lambda out: {"one": {"test/loss": "0.25"}})
    if name == "state_bits":
        recorded = [module.Recording(0.01 * module.torch.randn(20, 512), (0.9, 0.999), 1e-16)]
        monkeypatch.setattr(module, "record", lambda recipe, steps: recorded)
        monkeypatch.setattr(module, "train", lambda recipe, seed, callback, *words: callback.losses.append(0.5))
        for constant, few in (("STEPS_BEFORE", 5), ("STEPS_AFTER", 5)):
            monkeypatch.setattr(module, constant, few)
        return ["--seeds=2"]
    if name == "step_gain":
        pairs = [module.Pair("digits-cnn", "adam", 1e-3, 1.0 + i / 10, 0.1 * (-1) ** i) for i in range(5)]
        monkeypatch.setattr(module, "pair_runs", lambda task, is_tuned: pairs)
        monkeypatch.setattr(module, "PICTURE", Path(os.devnull))
    if name == "landscapes":
        return ["--seeds=2", "--steps=5"]
    return []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_writes_what_it_prints_only_with_write(name, benchmark, monkeypatch, tmp_path, capsys):
    if name == "low_memory":
        pytest.importorskip("torchao")  # which [dev] has, and [test] has not
    module = benchmark(name)
    words = make_it_quick(name, module, monkeypatch)
    before = {file: (FOLDER / "results" / file).read_bytes() for file in COMMITTED}

    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    module.main()
    printed = capsys.readouterr().out
    assert "\n| --- | ---:" in printed and f"- command: `python benchmarks/{name}.py" in printed
    assert not list(tmp_path.iterdir())

    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words, "--write"])
    module.main()
    (written,) = tmp_path.iterdir()
    document = written.read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert printed == f"{document}\nwritten to benchmarks/results/{written.name}\n"
    assert "--write`\n" in document and written.name in COMMITTED
    assert {file: (FOLDER / "results" / file).read_bytes() for file in COMMITTED} == before


def test_the_readme_of_the_benchmarks_names_every_script_and_every_result():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)\.py` \|.*\| `python benchmarks/(\w+)\.py.*` \| `(.*)` \|$", readme, re.MULTILINE)
    assert sorted(script for script, _, _ in rows) == SCRIPTS
    assert all(script == run for script, run, _ in rows)
    stands_for = {"<device>": "(cpu|cuda-.+)", "<recipe>": f"({'|'.join(recipes())})"}
    patterns = [re.sub("<.*>", lambda word: stands_for[word[0]], result) for _, _, result in rows]
    assert [file for file in COMMITTED if not any(re.fullmatch(pattern, file) for pattern in patterns)] == []
