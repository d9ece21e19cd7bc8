"""Networks with pretrained weights."""

import socket
import sys

import pytest
import pytorch_lightning as pl
import torch
import torchvision

from lightning_adabelief.recipes.image_classification import ImageClassifier, PretrainedNetwork
from tests.recipes.image_classification.random_images import RandomImages

SMALL = "shufflenet_v2_x0_5"

HEADS = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "maxvit_t": "classifier.5",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "resnet18": "fc",
    "resnext50_32x4d": "fc",
    "shufflenet_v2_x0_5": "fc",
    "squeezenet1_1": "classifier.1",
    "swin_t": "head",
    "swin_v2_t": "head",
    "vgg11": "classifier.6",
    "vit_b_32": "heads.head",
    "vit_h_14": "heads.head",  # whose images have 518 pixels
    "wide_resnet50_2": "fc",
    "timm/resnet18": "fc",
    "timm/convnext_tiny": "head.fc",
    "timm/levit_128": "head.linear head_dist.linear",
    "timm/vit_tiny_patch16_224": "head",
    "timm/vit_small_patch14_dinov2": "head",
}


def new_layers(network):
    kept = {id(param) for layer in network.pretrained_layers for param in layer.parameters(recurse=False)}
    names = [name for name, param in network.named_parameters() if id(param) not in kept]
    return " ".join(dict.fromkeys(name.removeprefix("body.").rpartition(".")[0] for name in names))


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_new_and_in_its_right_place(name):
    with torch.device("meta"):
        network = PretrainedNetwork(name, in_channels=3, num_classes=5)
        size = network.preprocessing.size
        assert network(torch.rand(2, 3, size, size)).shape == (2, 5)
    assert new_layers(network) == HEADS[name]


def test_the_head_of_a_network_that_the_meta_device_cant_make_is_found_too():
    assert new_layers(PretrainedNetwork("regnet_y_400mf", in_channels=3, num_classes=5)) == "fc"


def test_with_other_channels_the_first_convolution_is_new():
    network = PretrainedNetwork(SMALL, in_channels=1, num_classes=5)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 5)
    assert new_layers(network) == "conv1.0 fc"
    assert new_layers(PretrainedNetwork("timm/resnet18", in_channels=1, num_classes=5)) == "conv1 fc"


def test_the_preprocessing_is_that_of_the_librarys_weights_whatever_the_weights():
    network = PretrainedNetwork("vit_h_14", weights=None)
    assert (network.preprocessing.size, network.preprocessing.interpolation) == (518, "bicubic")
    of_timm = PretrainedNetwork("timm/vit_tiny_patch16_224", weights="mine.pt").preprocessing
    assert (of_timm.size, of_timm.mean, of_timm.crop) == (224, (0.5, 0.5, 0.5), 0.9)
    of_torchvision = PretrainedNetwork("resnet50").preprocessing
    assert round(of_torchvision.size / of_torchvision.crop) == 232


def save(path, wrap=dict, prefix="", name=SMALL, num_classes=7):
    """Save a network's weights as people have them; the weights."""
    state = torchvision.models.get_model(name, num_classes=num_classes).state_dict()
    torch.save(wrap({prefix + key: value for key, value in state.items()}), path)
    return state


def test_weights_of_a_file_are_in_all_layers_but_the_head(tmp_path):
    state = save(tmp_path / "x.pt", prefix="network.body.", wrap=lambda state: {"state_dict": state, "epoch": 1})
    network = PretrainedNetwork(SMALL, str(tmp_path / "x.pt"), in_channels=3, num_classes=7)
    head = network.body.fc.weight.detach().clone()
    network.load_weights()
    assert torch.equal(network.body.conv1[0].weight, state["conv1.0.weight"])
    assert torch.equal(network.body.conv5[1].running_var, state["conv5.1.running_var"])
    assert torch.equal(network.body.fc.weight, head)


def test_other_heads_of_a_file_are_left_out(tmp_path):
    network = PretrainedNetwork("googlenet", str(tmp_path / "x.pt"), in_channels=3, num_classes=5)
    state = network.body.state_dict() | {"aux1.fc2.weight": torch.zeros(7, 1024), "fc.weight": torch.zeros(7, 1024)}
    torch.save(state, tmp_path / "x.pt")
    network.load_weights()
    state["conv9.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "y.pt")
    with pytest.raises(ValueError, match="it has besides conv9.weight"):
        PretrainedNetwork("googlenet", str(tmp_path / "y.pt"), in_channels=3, num_classes=5).load_weights()


def test_weights_of_another_shape_are_named_and_those_missing(tmp_path):
    save(tmp_path / "x.pt", name="shufflenet_v2_x1_0")
    network = PretrainedNetwork(SMALL, str(tmp_path / "x.pt"), in_channels=3, num_classes=7)
    with pytest.raises(ValueError, match=r"of another shape stage2.0.branch1.2.weight \(it has .* and \d+ more. Give"):
        network.load_weights()
    state = network.body.state_dict()
    del state["conv5.0.weight"], state["conv5.1.num_batches_tracked"]
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="those of shufflenet_v2_x0_5: it lacks conv5.0.weight. Give weights of"):
        network.load_weights()


def test_the_librarys_own_weights_are_taken_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    state = save(tmp_path / "hub/checkpoints/shufflenetv2_x0.5-f707e7126e.pth", num_classes=1000)
    network = PretrainedNetwork(SMALL, in_channels=3, num_classes=5)
    network.load_weights()
    assert torch.equal(network.body.conv1[0].weight, state["conv1.0.weight"])


def test_offline_one_error_names_the_file_where_it_is_looked_for_and_the_option(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(
        ValueError,
        match=r"resnet18 could not be downloaded: .* Fetch https://download.pytorch.org/models/resnet18-f37072fd.pth "
        rf"\(torchvision looks for this file in {tmp_path}/hub/checkpoints\) and give its path",
    ):
        PretrainedNetwork("resnet18", in_channels=3, num_classes=5).load_weights()


def test_offline_timms_error_names_the_hubs_file(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    address = "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    with pytest.raises(ValueError, match=rf"Fetch {address} \(timm looks for it in {tmp_path}\) and give its path"):
        PretrainedNetwork("timm/resnet18", in_channels=3, num_classes=5).load_weights()


def test_names_that_a_library_does_not_have_are_errors_with_near_names():
    with pytest.raises(ValueError, match="torchvision: 'resnet43'. Did you mean 'resnet34'.* begin with timm/: timm/"):
        PretrainedNetwork("resnet43")
    with pytest.raises(ValueError, match="Unknown network of timm: 'resnet43'. Did you mean 'resnet"):
        PretrainedNetwork("timm/resnet43")
    with pytest.raises(ValueError, match=r"timm has no weights called 'resnet18.a5_in1k'. Did you mean 'resnet18.a"):
        PretrainedNetwork("timm/resnet18.a5_in1k")


def test_without_timm_an_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm/resnet18 needs the package timm: pip install 'lightning-ad"):
        PretrainedNetwork("timm/resnet18")


def make_trainer(tmp_path, **options):
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_epochs": 1} | options,
    )


def test_after_training_began_nothing_reads_the_weights_again(tmp_path):
    """A checkpoint has them all: a test, a prediction and a resumed run do without the file."""
    save(tmp_path / "x.pt")

    def make():
        return ImageClassifier(PretrainedNetwork(SMALL, str(tmp_path / "x.pt")))

    trainer = make_trainer(tmp_path, limit_val_batches=0)
    trainer.fit(make(), RandomImages())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    weight = trainer.lightning_module.network.body.conv1[0].weight
    (tmp_path / "x.pt").unlink()

    tested = make()
    make_trainer(tmp_path).test(tested, RandomImages(), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    make_trainer(tmp_path).predict(tested, RandomImages(), ckpt_path=tmp_path / "x.ckpt")
    assert torch.equal(tested.network.body.conv1[0].weight, weight)
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(make(), RandomImages(), ckpt_path=tmp_path / "x.ckpt")
    assert trainer.global_step == 4
    loaded = ImageClassifier.load_from_checkpoint(
        tmp_path / "x.ckpt", network=PretrainedNetwork(SMALL, str(tmp_path / "x.pt"))
    )
    make_trainer(tmp_path).fit(loaded, RandomImages())
    with pytest.raises(FileNotFoundError, match="no file .*x.pt, given as the network's weights. Give"):
        make_trainer(tmp_path).fit(make(), RandomImages())


def test_training_begins_from_the_weights_even_after_a_test_without_them(tmp_path):
    state = save(tmp_path / "x.pt")
    module = ImageClassifier(PretrainedNetwork(SMALL, str(tmp_path / "x.pt"), in_channels=3, num_classes=3))
    make_trainer(tmp_path).test(module, RandomImages(), verbose=False)
    assert not torch.equal(module.network.body.conv1[0].weight, state["conv1.0.weight"])
    make_trainer(tmp_path, max_steps=0).fit(module, RandomImages())
    assert torch.equal(module.network.body.conv1[0].weight, state["conv1.0.weight"])


@pytest.mark.filterwarnings("ignore:.*max_steps=0")
def test_steps_that_are_only_tried_begin_from_the_weights_and_leave_them(tmp_path):
    """They end with a state dict, that of before them."""
    state = save(tmp_path / "x.pt")
    module = ImageClassifier(PretrainedNetwork(SMALL, str(tmp_path / "x.pt")))
    finder = pl.callbacks.BatchSizeFinder(steps_per_trial=1, max_trials=1)
    make_trainer(tmp_path, max_epochs=0, callbacks=[finder]).fit(module, RandomImages())
    assert torch.equal(module.network.body.conv1[0].weight, state["conv1.0.weight"])
