"""The recipe folder-classifier, on digits as people have images."""

import re
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.image_classification import PretrainedNetwork
from tests.recipes.image_classification.digits_folder import write_digits

SMALL = [
    "--config=folder-classifier",
    "--data.root=digits",
    "--data.size=32",
    "--data.num_workers=0",
    "--data.augmentation.flip=0",
    "--model.network.name=shufflenet_v2_x0_5",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """This folder has 300 digits, and the weights of a network that was trained on something else."""
    monkeypatch.chdir(tmp_path)
    write_digits("digits", per_class=30)
    torch.save(PretrainedNetwork("shufflenet_v2_x0_5", None, 3, 7).body.state_dict(), "weights.pt")


@pytest.mark.filterwarnings("ignore:AdaBelief, step")  # what BeliefMonitor says of random weights is no matter here
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
def test_all_of_its_options_go_together_in_mixed_precision(digits, capsys):
    words = [
        "--model.network.weights=weights.pt",
        "--model.class_weights=balanced",
        "--model.mixup=0.2",
        "--model.cutmix=1",
        "--data.balanced=true",
        "--data.augmentation.rand_augment=5",
        "--data.augmentation.erasing=0.2",
        "--trainer.precision=bf16-mixed",
        "--trainer.max_epochs=2",
        "--trainer.log_every_n_steps=1",
    ]
    assert main(["fit", *SMALL, *words]) == 0
    out = capsys.readouterr().out
    names = ("accuracy", "accuracy_macro", "f1_macro", "auroc_macro")
    assert all(re.search(rf"test/{name} +[0-9.]+", out) for name in names)
    logs = Path("logs/folder-classifier/version_0")
    pictures = {path.name: imread(path).shape for path in (logs / "pictures").glob("mistakes-*.png")}
    assert pictures.keys() == {"mistakes-val.png", "mistakes-val-best.png", "mistakes-test.png"}
    assert min(pictures["mistakes-test.png"][:2]) > 900, "four rows of four"
    events = EventAccumulator(str(logs)).Reload()
    assert {"val/worst_mistakes", "test/worst_mistakes", "test/confusion_matrix"} <= set(events.Tags()["images"])
    assert len(events.Scalars("val/auroc_macro")) == 2

    Path("weights.pt").unlink()  # the checkpoint has what training made of them
    words = [f"--ckpt_path={logs}/checkpoints/best.ckpt", "--data.predict=digits/two", "--data.num_workers=0"]
    assert main(["predict", *words, "--trainer.enable_progress_bar=false"]) == 0
    (table,) = Path("logs").rglob("predictions.csv")
    assert len(table.read_text().splitlines()) == 1 + 30
