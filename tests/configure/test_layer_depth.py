"""The depth of layers, read off networks as their libraries build and name them."""

import sys

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from lightning_adabelief.configure import layer_depth
from lightning_adabelief.configure.layer_depth import levels_below_top


def levels(module):
    """From each level to the parameters' names there; no parameter is left out."""
    counted = levels_below_top(module)
    assert set(counted) == set(module.parameters())
    found = {}
    for name, param in module.named_parameters():
        found.setdefault(counted[param], []).append(name)
    return found


def level_of(module, name):
    return levels_below_top(module)[dict(module.named_parameters())[name]]


def test_a_timm_vit_is_counted_as_timm_counts_it():
    network = timm.create_model("vit_tiny_patch16_224", depth=3)
    found = levels(network)
    assert found[4] == ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    assert [{name.split(".")[1] for name in found[level] if "blocks" in name} for level in (3, 2, 1)] == [
        {"0"},
        {"1"},
        {"2"},
    ]
    assert found[0] == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_b_16", 13),
        ("swin_t", 13),  # 2 + 2 + 6 + 2 blocks and the stem
        ("convnext_tiny", 19),  # 3 + 3 + 9 + 3
        ("resnet18", 9),
        ("resnet50", 17),
        ("densenet121", 59),
        ("efficientnet_b0", 17),
        ("mobilenet_v3_small", 12),
        ("maxvit_t", 12),
        ("vgg11_bn", 8),
    ],
)
def test_torchvisions_networks_are_as_deep_as_they_have_blocks(name, expected):
    with torch.device("meta"):
        network = getattr(torchvision.models, name)()
    found = levels(network)
    assert sorted(found) == list(range(expected + 1))
    assert all(
        name.split(".")[0] in ("fc", "head", "heads", "classifier", "norm", "encoder", "features") for name in found[0]
    )


def test_torchvisions_vit_has_its_tokens_and_patches_at_the_bottom_and_its_blocks_in_order():
    found = levels(torchvision.models.VisionTransformer(32, 16, 2, 2, 8, 16))
    assert found[3] == ["class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding"]
    assert {name.split(".")[2] for name in found[2]} == {"encoder_layer_0"}
    assert {name.split(".")[2] for name in found[1]} == {"encoder_layer_1"}
    assert {name.split(".")[0] for name in found[0]} == {"encoder", "heads"} and "encoder.ln.weight" in found[0]


def test_downsampling_between_stages_belongs_to_the_stage_that_it_begins():
    with torch.device("meta"):
        swin, convnext = torchvision.models.swin_t(), torchvision.models.convnext_tiny()
    assert level_of(swin, "features.2.reduction.weight") == level_of(swin, "features.3.0.attn.qkv.weight") == 10
    assert level_of(convnext, "features.2.1.weight") == level_of(convnext, "features.3.0.block.0.weight") == 15


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto", "resnet18", "regnety_002"]
)
def test_the_tree_alone_gives_the_depths_that_timm_gives_but_for_the_final_norm(name, monkeypatch):
    network = timm.create_model(name)
    by_timm = levels_below_top(network)
    monkeypatch.delitem(sys.modules, "timm")
    by_tree = levels_below_top(network)
    different = {name for name, param in network.named_parameters() if by_timm[param] != by_tree[param]}
    assert different <= {"norm.weight", "norm.bias"}


def test_a_timm_network_without_its_head_is_below_the_users():
    network = nn.ModuleDict({"model": timm.create_model("vit_tiny_patch16_224", depth=3, num_classes=0)})
    assert level_of(network, "model.blocks.2.attn.qkv.weight") == 0  # nothing is above it
    network["head"] = nn.Linear(192, 10)
    assert level_of(network, "head.weight") == 0
    assert level_of(network, "model.blocks.2.attn.qkv.weight") == 1
    assert level_of(network, "model.cls_token") == 4


class Block(nn.Module):
    """A transformer's block, which may have experts."""

    def __init__(self, width=4, experts=0):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 1)
        self.norm = nn.LayerNorm(width)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, 8), nn.Linear(8, width)) for _ in range(experts))


def make_module(**children):
    """A module that is no container."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def make_blocks(count, **options):
    return nn.ModuleList(Block(**options) for _ in range(count))


def bert():
    bert = make_module(
        embeddings=make_module(word_embeddings=nn.Embedding(9, 4), LayerNorm=nn.LayerNorm(4)),
        encoder=make_module(layer=make_blocks(3)),
        pooler=make_module(dense=nn.Linear(4, 4)),
    )
    return make_module(bert=bert, classifier=nn.Linear(4, 2))


def gpt2():
    transformer = make_module(wte=nn.Embedding(9, 4), wpe=nn.Embedding(5, 4), h=make_blocks(3), ln_f=nn.LayerNorm(4))
    network = make_module(transformer=transformer, lm_head=nn.Linear(4, 9, bias=False))
    network.lm_head.weight = network.transformer.wte.weight
    return network


def mixtral():
    model = make_module(embed_tokens=nn.Embedding(9, 4), layers=make_blocks(3, experts=4), norm=nn.RMSNorm(4))
    return make_module(model=model, lm_head=nn.Linear(4, 9))


@pytest.mark.parametrize(
    ("make", "blocks", "bottom", "top"),
    [
        (bert, "bert.encoder.layer", "bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight"),
        (gpt2, "transformer.h", "transformer.wte.weight", "transformer.ln_f.weight"),
        (mixtral, "model.layers", "model.embed_tokens.weight", "lm_head.weight"),
    ],
)
def test_hugging_faces_language_models_have_a_level_for_each_block(make, blocks, bottom, top):
    found = levels(make())
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert bottom in found[4] and top in found[0]
    for level, number in ((3, 0), (2, 1), (1, 2)):
        assert all(name.startswith(f"{blocks}.{number}.") for name in found[level])


def hf_swin():
    stages = [
        make_module(blocks=make_blocks(2, width=width), downsample=nn.Linear(width, 2 * width)) for width in (4, 8)
    ]
    encoder = make_module(layers=nn.ModuleList(stages))
    swin = make_module(embeddings=nn.Conv2d(3, 4, 2), encoder=encoder, layernorm=nn.LayerNorm(8))
    return make_module(swin=swin, classifier=nn.Linear(8, 2))


def test_in_hugging_faces_swin_blocks_are_counted_through_the_stages():
    network = hf_swin()
    found = levels(network)
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert "swin.encoder.layers.0.blocks.0.norm.weight" in found[4]
    assert "swin.encoder.layers.0.downsample.weight" in found[3]  # it comes after that stage's last block
    assert "swin.encoder.layers.1.blocks.1.norm.weight" in found[1]
    assert found[0][:2] == ["swin.layernorm.weight", "swin.layernorm.bias"]


def test_two_towers_are_each_counted_from_their_own_top_and_the_temperature_is_at_the_top():
    network = make_module(
        text_model=make_module(embeddings=nn.Embedding(9, 4), encoder=make_module(layers=make_blocks(2))),
        vision_model=make_module(embeddings=nn.Conv2d(3, 4, 2), encoder=make_module(layers=make_blocks(3))),
        text_projection=nn.Linear(4, 4),
    )
    network.logit_scale = nn.Parameter(torch.tensor(2.6))
    assert level_of(network, "logit_scale") == level_of(network, "text_projection.weight") == 0
    assert level_of(network, "text_model.encoder.layers.1.norm.weight") == 1
    assert level_of(network, "vision_model.encoder.layers.2.norm.weight") == 1
    assert level_of(network, "text_model.embeddings.weight") == 3
    assert level_of(network, "vision_model.embeddings.weight") == 4


def test_a_lightning_modules_head_is_at_the_top_wherever_it_is_registered():
    network = make_module(head=nn.Linear(4, 2), model=make_module(stem=nn.Linear(4, 4), blocks=make_blocks(2)))
    found = levels(network)
    assert found[0] == ["head.weight", "head.bias"] and found[3] == ["model.stem.weight", "model.stem.bias"]


def test_a_network_called_classifier_is_no_head():
    network = make_module(classifier=make_module(blocks=make_blocks(2), fc=nn.Linear(4, 2)))
    assert levels(network)[0] == ["classifier.fc.weight", "classifier.fc.bias"]


def test_a_resnet_that_was_cut_into_a_sequential_is_counted_as_it_was():
    resnet = torchvision.models.resnet18()
    expected = list(levels_below_top(resnet).values())
    body = nn.Sequential(*list(resnet.children())[:-1])
    network = nn.Sequential(body, nn.Flatten(), resnet.fc)
    assert [levels_below_top(network)[param] for param in resnet.parameters()] == sorted(expected, reverse=True)
    assert sorted(set(expected)) == list(range(10))


def test_blocks_that_are_numbered_attributes_and_plain_layers_are_counted():
    network = make_module(conv1=nn.Conv2d(1, 4, 3), conv2=nn.Conv2d(4, 4, 3), fc1=nn.Linear(4, 4), fc2=nn.Linear(4, 2))
    assert [name for level in (3, 2, 1, 0) for name in levels(network)[level]] == [
        name for name, _ in network.named_parameters()
    ]
    network = make_module(block1=Block(4), block2=Block(8), out=nn.Linear(8, 2))
    assert level_of(network, "block1.norm.weight") == 2 and level_of(network, "block2.norm.weight") == 1


def test_what_compile_and_checkpointing_wrap_is_counted_all_the_same():
    def count(network):
        counted = levels_below_top(network)
        return [counted[param] for param in network.parameters()]

    wrapped = hf_swin()
    for stage in wrapped.swin.encoder.layers:
        stage.blocks = nn.ModuleList(checkpoint_wrapper(block) for block in stage.blocks)
    assert count(wrapped) == count(make_module(model=torch.compile(hf_swin()))) == count(hf_swin())
    assert len(set(count(wrapped))) == 6


@pytest.mark.parametrize("network", [nn.LSTM(4, 4), nn.Linear(4, 4), make_module(a=nn.Linear(4, 4), b=Block())])
def test_a_network_without_numbered_layers_is_an_error_that_says_what_to_do(network):
    with pytest.raises(ValueError, match=rf"{type(network).__name__} has no numbered layers.*layers={{'encoder"):
        levels_below_top(network)


def test_a_tree_whose_order_nobody_knows_is_an_error_rather_than_a_guess():
    with pytest.raises(ValueError, match="GoogLeNet seems to have 10 networks side by side"):
        levels_below_top(torchvision.models.googlenet(init_weights=False))
    assert layer_depth.MAX_NETWORKS < 10
