"""The param groups as they are logged: one line for the plain split, a table for more."""

import logging

import pytest
import timm
import torch
from torch import nn

from lightning_adabelief import AdaBelief, configure_adabelief
from tests.configure.nets import Net, Stacked, fit


def logged(caplog, module, **options):
    """The lines that configuring logs of the groups."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        configure_adabelief(module, **options)
    messages = [record.message for record in caplog.records if "param groups" in record.message]
    return messages[0].splitlines() if messages else []


class Plain(Net):
    """As a config makes it: an AdaBelief without configure_adabelief."""

    def configure_optimizers(self):
        return AdaBelief(self.parameters())


def test_the_table_tells_a_layers_size_lr_decay_and_place(caplog):
    module = Stacked()
    module.blocks[0].requires_grad_(False)
    lines = logged(caplog, module, lr=1e-3, weight_decay=0.05, layer_decay=0.5, layers={"head.*": {"lr": 1e-2}})
    assert lines[0] == "AdaBelief's 8 param groups, decayed and undecayed of a layer together:"
    assert [line.split() for line in lines if "──" not in line][1:] == [
        ["group", "tensors", "parameters", "lr", "decay", "of"],
        ["depth0", "2", "20", "6.25e-05", "0.05", "/", "0", "stem.*"],
        ["depth2", "12", "172", "2.50e-04", "0.05", "/", "0", "blocks.1.*"],
        ["depth3", "12", "172", "5.00e-04", "0.05", "/", "0", "blocks.2.*"],
        ["head", "2", "5", "1.00e-02", "0.05", "/", "0", "head.*"],
        ["frozen,", "left", "out", "12", "172", "blocks.0.*"],
    ]


def test_many_groups_are_merged_to_a_table_that_fits_a_terminal(caplog):
    with torch.device("meta"):
        network = timm.create_model("vit_large_patch16_224")
    lines = logged(caplog, network, lr=1e-3, weight_decay=0.05, layer_decay=0.75)
    assert "52 param groups" in lines[0]
    assert len(lines) < 10 and max(map(len, lines)) <= 80
    (merged,) = (line for line in lines if "depth01..23" in line)
    assert merged.split()[:4] == ["depth01..23", "276", f"{23 * 12_596_224:,}", "1.00e-06..5.63e-04"]


def test_layers_that_differ_in_size_are_not_merged(caplog):
    widths = [2 + i % 2 for i in range(24)]
    blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 1, 8) for width in widths)
    lines = logged(caplog, nn.ModuleDict({"blocks": blocks, "head": nn.Linear(4, 4)}), layer_decay=0.9)
    assert sum("depth" in line for line in lines) == 25


@pytest.mark.parametrize("glob", ["a_module_with_a_name.that_is_long.*", "*weight", "head.*"])
def test_no_line_is_longer_than_80_characters_and_brackets_are_no_markup(glob, caplog):
    network = nn.ModuleDict(
        {"a_module_with_a_name": nn.ModuleDict({"that_is_long": nn.Linear(9, 9)}), "head": nn.Linear(9, 9)}
    )
    lines = logged(caplog, network, weight_decay=0.1, layers={glob: {"lr": 1e-4}, "hea[d]*": {"eps": 1e-8}})
    assert lines and max(map(len, lines)) <= 80
    assert any("a_mod" in line for line in lines)


def test_the_plain_split_and_a_single_group_have_no_table(caplog):
    assert logged(caplog, Net(), weight_decay=0.1) == logged(caplog, Net()) == []


def test_the_table_is_logged_once_in_a_run(caplog):
    with caplog.at_level(logging.INFO):
        fit(Stacked(layer_decay=0.5), max_epochs=1)
    assert sum("param groups" in record.message for record in caplog.records) == 1


def test_one_line_says_what_becomes_of_weights_in_bfloat16(caplog):
    for module in (Net(), Net(master_weight_bits=16), Plain()):
        with caplog.at_level(logging.INFO):
            fit(module, max_epochs=1, precision="bf16-true")
    lines = [record.message for record in caplog.records if "master_weight_bits" in record.message]
    of_32 = (
        "AdaBelief: 8 tensors in bfloat16 (41 parameters) are stepped in 32 bits, of which 2 bytes a weight are kept "
        "beside it (master_weight_bits=32)"
    )
    of_16 = "AdaBelief: 8 tensors in bfloat16 (41 parameters) are rounded stochastically (master_weight_bits=16)"
    assert lines == [of_32, of_16, of_32]


def test_weights_in_float32_have_no_such_line(caplog):
    with caplog.at_level(logging.INFO):
        fit(Net(master_weight_bits=24), max_epochs=1)
    assert not any("master_weight_bits" in record.message for record in caplog.records)
