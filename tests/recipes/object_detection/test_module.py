"""Training, validation and prediction of a detector."""

import sys

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_adabelief import configure_adabelief
from lightning_adabelief.recipes.object_detection import (
    DetectionDataModule,
    ObjectDetector,
    ResNet50FasterRCNN,
    SmallFasterRCNN,
)
from lightning_adabelief.recipes.object_detection.detection_data import collate_lists
from tests.recipes.object_detection.small_detector import make_detector, make_scenes, make_trainer


class Images(DetectionDataModule):
    """The same two images in each part."""

    class_names = ["cat", "dog"]

    def __init__(self, *targets):
        super().__init__(2, 0)
        source = torch.Generator().manual_seed(0)
        self.train_set = self.val_set = self.test_set = self.predict_set = [
            (torch.randint(0, 256, (3, 96, 96), generator=source, dtype=torch.uint8), target) for target in targets
        ]


def make_target(boxes=(), labels=(), crowd=None, file="x.jpg"):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "iscrowd": torch.tensor(crowd or [0] * len(labels)),
        "file": file,
    }


def test_losses_and_precision_are_logged(tmp_path):
    trainer, module = make_trainer(tmp_path, log_every_n_steps=1), make_detector()
    trainer.fit(module, make_scenes())
    assert {"train/loss", "train/classifier", "train/box_reg", "train/objectness", "train/rpn_box_reg"} | {
        "val/map",
        "val/map_50",
        "val/map_75",
        "val/mar_100",
    } <= trainer.callback_metrics.keys()
    (scores,) = trainer.test(module, make_scenes(), verbose=False)
    assert scores.keys() == {"test/map", "test/map_50", "test/map_75", "test/mar_100"}


def test_without_the_package_of_mean_average_precision_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ValueError, match=r"pip install 'lightning-adabelief\[detection\]'"):
        make_detector()


def test_perfect_detections_have_precision_1_and_shifted_ones_less(tmp_path):
    class Oracle(torch.nn.Module):
        shift = 0.0

        def forward(self, images):
            (target,) = self.targets
            return [{"boxes": target["boxes"] + self.shift, "labels": target["labels"], "scores": torch.ones(2)}]

    network = Oracle()
    network.targets = [make_target([[5, 5, 25, 25], [40, 40, 80, 90]], [1, 2])]
    module, trainer = ObjectDetector(network), make_trainer(tmp_path)
    (scores,) = trainer.validate(module, Images(*network.targets), verbose=False)
    assert scores["val/map"] == scores["val/map_50"] == scores["val/map_75"] == 1
    network.shift = 3.0  # intersection over union 0.57 and 0.77
    (scores,) = trainer.validate(module, Images(*network.targets), verbose=False)
    assert scores["val/map_50"] == 1 and scores["val/map_75"] == 0.5


def test_a_crowd_that_is_not_found_and_one_that_is_are_no_mistakes(tmp_path):
    boxes = torch.tensor([[5.0, 5, 25, 25], [40, 40, 80, 90]])
    target = make_target(boxes.tolist(), [1, 1], crowd=[0, 1])
    for found in (boxes, boxes[:1]):
        network = torch.nn.Module()
        network.forward = lambda images, found=found: [
            {"boxes": found, "labels": torch.ones(len(found)).long(), "scores": torch.ones(len(found))}
        ]
        (scores,) = make_trainer(tmp_path).validate(ObjectDetector(network), Images(target), verbose=False)
        assert scores["val/map"] == 1


def test_crowds_are_not_trained_on():
    module = make_detector(SmallFasterRCNN(width=8, num_classes=2))
    seen = []
    module.network.forward = lambda images, targets: seen.extend(targets) or {"loss": torch.zeros(())}
    module.log = module.log_dict = lambda *_, **__: None
    module.training_step(([torch.rand(3, 96, 96)], [make_target([[1, 1, 9, 9], [2, 2, 8, 8]], [1, 2], [1, 0])]), 0)
    assert seen[0]["labels"].tolist() == [2] and seen[0]["boxes"].tolist() == [[2, 2, 8, 8]]


def test_images_without_objects_are_trained_and_validated_on(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.fit(make_detector(), Images(make_target(), make_target()))
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.callback_metrics["val/map"] == -1


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (make_target([[5, 5, 5, 9]], [1], file="a.jpg"), r"The box \[5.0, 5.0, 5.0, 9.0\] in a.jpg has no area"),
        (make_target([[9, 5, 5, 9]], [1], file="b.jpg"), "in b.jpg has no area"),
        (make_target([[float("nan"), 5, 5, 9]], [1], file="c.jpg"), "in c.jpg has no area"),
        (make_target([[5, 5, 9, 9]], [0], file="d.jpg"), "The labels in d.jpg are 0 to 0.*0 is the background"),
        (make_target([[5, 5, 9, 9]], [3], file="e.jpg"), "The labels in e.jpg are 3 to 3.*from 1 to num_classes, 2"),
    ],
)
def test_what_cannot_be_trained_on_is_an_error_that_names_the_file(target, complaint, tmp_path):
    with pytest.raises(ValueError, match=complaint):
        make_trainer(tmp_path).fit(make_detector(), Images(make_target([[1, 1, 9, 9]], [1]), target))


def test_a_checkpoint_brings_its_classes(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.fit(make_detector(), Images(make_target([[1, 1, 40, 40]], [1])))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = ObjectDetector.load_from_checkpoint(tmp_path / "x.ckpt", network=SmallFasterRCNN(width=8))
    assert again.class_names == ["cat", "dog"] and again.network.num_classes == 2
    loader = DataLoader([(torch.rand(3, 96, 96), {"file": "x.jpg"})], collate_fn=collate_lists)
    ((found,),) = make_trainer(tmp_path).predict(make_detector(), loader, ckpt_path=tmp_path / "x.ckpt")
    assert found.keys() == {"file", "boxes", "labels", "scores"} and found["file"] == "x.jpg"


@pytest.mark.parametrize("names", [["cat", "dog", "cow"], ["dog", "cat"]])
def test_a_checkpoint_of_other_classes_is_an_error(names, tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.fit(make_detector(), Images(make_target([[1, 1, 40, 40]], [1])))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    data = Images(make_target([[1, 1, 40, 40]], [1]))
    data.class_names = names
    with pytest.raises(ValueError, match="The checkpoint's (num_classes|class_names) is .* and the data's is"):
        make_trainer(tmp_path).test(make_detector(), data, ckpt_path=tmp_path / "x.ckpt")


def test_numbers_of_classes_that_differ_or_are_unknown_are_errors(tmp_path):
    data = Images(make_target([[1, 1, 9, 9]], [1]))
    with pytest.raises(ValueError, match="num_classes is 3 by the network and 2 by the data"):
        make_trainer(tmp_path).fit(make_detector(SmallFasterRCNN(width=8, num_classes=3)), data)
    with pytest.raises(ValueError, match="The number of classes is not known"):
        make_trainer(tmp_path).fit(make_detector(), data.train_dataloader(), data.val_dataloader())


def test_weights_are_loaded_when_a_training_begins_and_at_no_other_time(tmp_path):
    loaded = []

    class Pretrained(SmallFasterRCNN):
        def load_pretrained(self):
            loaded.append(self)

    data = Images(make_target([[1, 1, 40, 40]], [1]))
    trainer = make_trainer(tmp_path)
    trainer.fit(make_detector(Pretrained(width=8)), data)
    assert len(loaded) == 1
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    make_trainer(tmp_path).test(make_detector(Pretrained(width=8)), data, ckpt_path=tmp_path / "x.ckpt", verbose=False)
    make_trainer(tmp_path, max_epochs=2).fit(make_detector(Pretrained(width=8)), data, ckpt_path=tmp_path / "x.ckpt")
    assert len(loaded) == 1


@pytest.mark.filterwarnings("ignore:AdaBelief, step")
@pytest.mark.parametrize("plain", [True, False], ids=["AdaBelief", "configure_adabelief"])
def test_the_monitor_shows_the_layers_that_are_trained_by_their_names(plain, tmp_path):
    from lightning_adabelief import AdaBelief, BeliefMonitor

    network = ResNet50FasterRCNN(trainable_layers=1, min_size=64, max_size=64, num_classes=2)
    network.load_pretrained = lambda: None
    module = make_detector(network)
    if not plain:
        module.configure_optimizers = lambda: configure_adabelief(module, lr=1e-4)
    else:
        module.optimizer = lambda params: AdaBelief(params, lr=1e-4, rectify=False)
    monitor = BeliefMonitor(every_n_steps=1, include="*", closing_table=False)
    target = make_target([[1, 1, 40, 40]], [1])
    trainer = make_trainer(tmp_path, callbacks=[monitor], limit_val_batches=0, logger=True)
    trainer.fit(module, Images(target, target))
    trained = {name for name, param in module.named_parameters() if param.requires_grad}
    frozen = {name for name, param in module.named_parameters() if not param.requires_grad}
    layers = monitor.notable_layers()
    assert layers.keys() == trained and any("backbone.body.layer4" in name for name in trained) and frozen
    state = {name: trainer.optimizers[0].state[param] for name, param in module.named_parameters() if name in trained}
    for name, values in layers.items():
        expected = state[name]["exp_avg_var"].double().mean() / (1 - 0.999)
        assert values["s_t"] == pytest.approx(float(expected), rel=1e-4), name
