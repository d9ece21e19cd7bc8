"""Parameters that are left without weight decay, in networks as their libraries build them."""

from collections import Counter

import pytest
import timm
import torch
import torchvision
from packaging.version import Version
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.nn.utils import parametrize

from lightning_adabelief import configure_adabelief
from tests.configure.nets import Net


def undecayed(module, **options):
    """The names of the parameters without weight decay."""
    groups = configure_adabelief(module, weight_decay=0.1, **options).param_groups
    return {name for group in groups if group["weight_decay"] == 0 for name in group["param_names"]}


timm_exempts_logit_scale = pytest.mark.skipif(
    Version(timm.__version__) < Version("1.0.31"), reason="timm means to, and looks for it among modules"
)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "beit_base_patch16_224",  # gamma_1, relative_position_bias_table
        "swin_tiny_patch4_window7_224",
        pytest.param("swinv2_tiny_window8_256", marks=timm_exempts_logit_scale),
        "mvitv2_tiny",  # rel_pos_h
        "convnext_atto",
        "levit_128s",  # attention_biases
        "resnet18",
    ],
)
def test_timms_networks_are_split_as_timm_splits_them(name):
    network = timm.create_model(name)
    exempt = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    without_decay, _ = param_groups_weight_decay(network, 0.1, no_weight_decay_list=exempt)
    by_timm = set(without_decay["params"])
    assert without_decay["weight_decay"] == 0
    assert undecayed(network) == {key for key, param in network.named_parameters() if param in by_timm}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_b_16", {"class_token": 1, "pos_embedding": 1}),
        ("swin_t", {"relative_position_bias_table": 12}),  # one in each of its 2 + 2 + 6 + 2 blocks
        ("swin_v2_t", {"logit_scale": 12}),
        ("convnext_tiny", {"layer_scale": 18}),  # 3 + 3 + 9 + 3
        ("resnet18", {}),
    ],
)
def test_of_torchvisions_networks_tokens_positions_and_scales_are_left_out(name, expected):
    network = getattr(torchvision.models, name)()
    dimensions = {key: param.ndim for key, param in network.named_parameters()}
    found = undecayed(network)
    assert Counter(key.split(".")[-1] for key in found if dimensions[key] > 1) == expected
    assert {key for key, number in dimensions.items() if number <= 1} <= found


class ViTEmbeddings(nn.Module):
    """Named as in Hugging Face's ViT."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 5, 4))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, 4, 2)})


class BertEmbeddings(nn.Module):
    """Named as in Hugging Face's BERT."""

    def __init__(self):
        super().__init__()
        self.word_embeddings = nn.Embedding(9, 4)
        self.position_embeddings = nn.Embedding(5, 4)


def test_in_hugging_faces_naming_a_position_parameter_is_left_out_and_a_position_embedding_is_an_embedding():
    assert undecayed(ViTEmbeddings()) == {
        "cls_token",
        "mask_token",
        "position_embeddings",
        "patch_embeddings.projection.bias",
    }
    network = nn.ModuleDict({"bert": BertEmbeddings(), "head": nn.Linear(4, 2)})
    assert undecayed(network) == {"head.bias"}
    assert undecayed(network, decay_embeddings=False) == {
        "bert.word_embeddings.weight",
        "bert.position_embeddings.weight",
        "head.bias",
    }


class Exempting(nn.Module):
    def __init__(self, *names):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 4))
        self.mixer = nn.Linear(4, 4, bias=False)
        self.names = set(names)

    def no_weight_decay(self):
        return self.names


def test_no_weight_decay_of_a_module_within_counts_from_that_module():
    network = nn.ModuleDict({"model": Exempting("table"), "other": Exempting("mixer.*"), "third": Exempting()})
    assert undecayed(network) == {"model.table", "other.mixer.weight"}


def test_no_weight_decay_by_a_tied_weights_second_name_counts():
    network = Exempting("head.weight")
    network.head = nn.Linear(4, 4, bias=False)
    network.head.weight = network.mixer.weight
    assert undecayed(network) == {"mixer.weight"}


def test_vectors_and_numbers_are_left_out_whatever_they_are_called():
    network = nn.ModuleDict({"act": nn.PReLU(4), "lin": nn.Linear(4, 4, bias=False)})
    network.temperature = nn.Parameter(torch.tensor(1.0))
    network.wide = nn.Parameter(torch.zeros(1, 4))
    assert undecayed(network) == {"temperature", "act.weight"}


@pytest.mark.parametrize("mark", ["_fsdp_flattened", "ds_shape"])
def test_a_weight_that_a_wrapper_flattened_stays_decayed(mark):
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[0].weight = nn.Parameter(network[0].weight.detach().flatten())
    assert undecayed(network) == {"0.weight", "0.bias", "1.bias"}
    setattr(network[0].weight, mark, True)
    assert undecayed(network) == {"0.bias", "1.bias"}


def test_a_parameter_named_in_full_is_decayed_if_the_user_asks_for_it_and_by_a_glob_it_is_not():
    network = timm.create_model("test_vit")
    groups = configure_adabelief(network, weight_decay=0.05, layers={"pos_embed": {"weight_decay": 0.1}}).param_groups
    (group,) = (group for group in groups if "pos_embed" in group["param_names"])
    assert (group["name"], group["weight_decay"], group["param_names"]) == ("pos_embed/decayed", 0.1, ["pos_embed"])
    assert "pos_embed" in undecayed(network, layers={"pos_*": {"weight_decay": 0.1}})
    assert "pos_embed" in undecayed(network, layers={"pos_embed": {"lr": 0.1}})
    assert "network.0.bias" not in undecayed(Net(), layers={"network.0.bias": {"weight_decay": 0.1}})


class Identity(nn.Module):
    def forward(self, weight):
        return weight


class Parametrized(nn.Module):
    """One weight of each kind, behind a parametrization."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.lstm = nn.LSTM(4, 4)
        self.norm = nn.LayerNorm((2, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 3, 4))
        self.kernel = nn.Parameter(torch.zeros(4, 4))
        for module, name in (
            (self.embedding, "weight"),
            (self.lstm, "weight_hh_l0"),
            (self.lstm, "bias_hh_l0"),
            (self.norm, "weight"),
            (self, "pos_embed"),
            (self, "kernel"),
        ):
            parametrize.register_parametrization(module, name, Identity())

    def no_weight_decay(self):
        return {"kernel"}


@pytest.mark.parametrize("decay_embeddings", [True, False])
def test_a_weight_behind_a_parametrization_is_decayed_as_it_would_be_without(decay_embeddings):
    biases = {"lstm.bias_hh_l0", "lstm.bias_ih_l0", "norm.bias"}
    expected = {*biases, "norm.weight", "pos_embed", "kernel", *(() if decay_embeddings else ["embedding.weight"])}
    assert undecayed(Parametrized(), decay_embeddings=decay_embeddings) == expected
