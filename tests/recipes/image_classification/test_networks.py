"""Networks that are made for the data."""

import pytest
import torch

from lightning_adabelief.recipes.image_classification import SmallCNN, TorchvisionNetwork


@pytest.mark.parametrize("size", [8, 28, 33])
def test_the_small_cnn_takes_images_of_any_size(size):
    assert SmallCNN(in_channels=3, num_classes=7)(torch.rand(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", ["vgg11", "resnet34", "densenet121"])
def test_the_papers_networks_keep_the_resolution_of_small_images(name):
    network = TorchvisionNetwork(name, small_images=True, in_channels=3, num_classes=7)
    sizes = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, inputs, output: sizes.append(output.shape[-1]))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert sizes[0] == 32, "the first convolution"
    assert sizes[1] == (16 if name == "vgg11" else 32), "nothing is pooled before the second, but in a VGG"


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18", "densenet121", "mobilenet_v3_small", "vit_b_32"])
def test_a_network_of_torchvision_takes_the_datas_channels_and_classes(name):
    network = TorchvisionNetwork(name)
    assert not list(network.parameters())
    network.complete(in_channels=1, num_classes=5)
    assert network(torch.rand(2, 1, 224, 224)).shape == (2, 5)


def test_what_a_network_was_given_comes_before_the_datas():
    network = SmallCNN(in_channels=2, num_classes=None)
    network.complete(in_channels=1, num_classes=5)
    assert network(torch.rand(2, 2, 8, 8)).shape == (2, 5)


def test_completed_twice_it_stays_as_it_is():
    network = SmallCNN(1, 10)
    weight = network.classifier.weight
    network.complete(3, 5)
    assert network.classifier.weight is weight


def test_a_name_that_torchvision_does_not_have_is_an_error_with_near_names():
    with pytest.raises(ValueError, match="Unknown network of torchvision: 'resnet43'. Did you mean 'resnet34'"):
        TorchvisionNetwork("resnet43")
    with pytest.raises(ValueError, match="vit_b_16 with small_images"):
        TorchvisionNetwork("vit_b_16", small_images=True)
