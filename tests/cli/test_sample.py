"""``adabelief sample``: a trained GAN's images, from its checkpoint."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from lightning_adabelief.cli.main import main

QUICK = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.callbacks=null",
    "--trainer.logger.save_dir=logs",
    "--trainer.logger.version=run",
    "--model.scores=null",
    "--model.generator.width=4",
    "--model.critic.width=4",
]
CLASSES = ["--model.generator.num_classes=10", "--model.critic.num_classes=10"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a small GAN with classes."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", "digits-sngan", *QUICK, *CLASSES]) == 0
    return folder / "logs/digits-sngan/run"


def find_checkpoint(run):
    (checkpoint,) = run.glob("checkpoints/*.ckpt")
    return checkpoint


def sample(run, out, *words):
    assert main(["sample", "--ckpt_path", str(find_checkpoint(run)), "--out", str(out), *words]) == 0
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_images_of_a_class_are_written_one_by_one_in_a_grid_and_as_strips(run, tmp_path, capsys):
    written = sample(run, tmp_path / "out", "--n", "5", "--class", "3", "--interpolate")
    singles = [f"sample-0000{number}-class-3.png" for number in range(5)]
    assert written.keys() == {*singles, "samples.png", "interpolation.png"}
    with Image.open(tmp_path / "out" / singles[0]) as single, Image.open(tmp_path / "out/samples.png") as grid:
        assert single.size == (8, 8) and single.mode == "L"
        assert grid.size == (3 * (64 + 8) + 8, 2 * (64 + 8) + 8)
    assert "Wrote samples.png, interpolation.png and 5 single images into" in capsys.readouterr().out


@pytest.fixture
def named(run, tmp_path):
    """The same run, on folders whose names are numbers, which are sorted as text."""
    shutil.copytree(run, tmp_path / "named")
    path = find_checkpoint(tmp_path / "named")
    content = torch.load(path, weights_only=True)
    content["gan"]["class_names"] = sorted(str(number) for number in range(1, 11))
    torch.save(content, path)
    return tmp_path / "named"


def test_a_class_is_given_by_its_name_or_else_by_its_number(run, named, tmp_path, capsys):
    assert "sample-00000-class-1.png" in sample(named, tmp_path / "ten", "--n=1", "--class=10")
    assert "1 single images of class 10 into" in capsys.readouterr().out
    assert "sample-00000-class-2.png" in sample(named, tmp_path / "two", "--n=1", "--class=2")
    assert "sample-00000-class-0.png" in sample(named, tmp_path / "first", "--n=1", "--class=0"), (
        "no class has the name"
    )
    for given, folder, message in [
        ("10", run, "has 10 classes. Give 0 to 9\n"),
        ("-1", run, "has 10 classes. Give 0 to 9\n"),
        ("eleven", named, "has 10 classes. Give 0 to 9. There are 10, such as '1', '10' and '2'"),
    ]:
        words = ["sample", "--ckpt_path", str(find_checkpoint(folder)), "--out", str(tmp_path / "none")]
        assert main([*words, f"--class={given}"]) == 2
        assert message in capsys.readouterr().err


def test_in_the_grid_of_all_images_each_class_has_a_row(run, tmp_path):
    sample(run, tmp_path / "out", "--n", "12")
    with Image.open(tmp_path / "out/samples.png") as grid:
        assert grid.height == 10 * (64 + 8) + 8
        assert grid.width - (2 * (64 + 8) + 8) in range(1, 50), "and its number to the left"


def test_a_seed_draws_the_same_images_again_and_another_seed_others(run, tmp_path):
    first = sample(run, tmp_path / "first", "--n", "12")
    assert "sample-00011-class-1.png" in first, "all classes in turn"
    assert sample(run, tmp_path / "again", "--n", "12") == first
    assert sample(run, tmp_path / "other", "--n", "12", "--seed", "1")["samples.png"] != first["samples.png"]


def test_samples_of_another_time_are_left_as_they_are(run, tmp_path, capsys):
    before = sample(run, tmp_path, "--n", "1")
    words = ["sample", "--ckpt_path", str(find_checkpoint(run)), "--out", str(tmp_path)]
    assert main(words) == 1
    assert "holds samples already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_of_another_network_than_the_configs_is_an_error_that_says_so(run, tmp_path, capsys):
    words = ["sample", "--ckpt_path", str(find_checkpoint(run)), "--out", str(tmp_path), "--config", "digits-wgan"]
    assert main(words) == 1
    assert "is of another network than the config's: it lacks" in capsys.readouterr().err


def refuse(words):
    """Run a command that must fail before torch is imported, and return its message."""
    code = f"import sys; from lightning_adabelief.cli.main import main; status = main({words!r}); " + (
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "0"], "--n is 0. Give 1 or more"),
        (["--seed", "-1"], "--seed is -1. Give a whole number from 0"),
        (["--config", "digits-sngan", "--class", "3"], "has no classes. Leave --class out"),
        (["--config", "digits-cnn"], "ImageClassifier, which has no generator. Give a GAN's checkpoint"),
        (["--ckpt_path", "missing.ckpt"], "There is no checkpoint missing.ckpt"),
    ],
)
def test_bad_input_is_refused_before_torch_is_imported(words, message, tmp_path):
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    (folder / "best.ckpt").write_bytes(b"not read")
    generator = {"class_path": "Generator", "init_args": {"num_classes": 10}}
    model = {"class_path": "GAN", "init_args": {"generator": generator}}
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump({"model": model}))
    given = ["sample", "--ckpt_path", str(folder / "best.ckpt"), "--out", str(tmp_path / "out")]
    assert message in refuse([*given, *words])
    assert not Path(tmp_path / "out").exists()


def test_a_checkpoint_alone_tells_the_networks(run, tmp_path):
    expected = sample(run, tmp_path / "expected", "--n", "2")
    shutil.copy(find_checkpoint(run), tmp_path / "alone.ckpt")
    words = ["sample", "--ckpt_path", str(tmp_path / "alone.ckpt"), "--out", str(tmp_path / "out"), "--n", "2"]
    assert main(words) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected


def test_an_older_checkpoint_without_its_config_is_an_error_that_asks_for_it(run, tmp_path, capsys):
    content = torch.load(find_checkpoint(run), weights_only=True)
    del content["hyper_parameters"]
    torch.save(content, tmp_path / "old.ckpt")
    assert main(["sample", "--ckpt_path", str(tmp_path / "old.ckpt"), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "has no config.yaml beside it or in the folder above" in message and "Give --config" in message
