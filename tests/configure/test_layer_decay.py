"""Layer-wise lr decay in configure_adabelief: with everything else that groups and training bring."""

import pytest
import pytorch_lightning as pl
import timm
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger
from timm.optim import param_groups_layer_decay

from lightning_adabelief import ConfiguredAdaBelief, configure_adabelief
from tests.configure.nets import Stacked, fit, make_trainer


def lrs(optimizer):
    """From each parameter's name to its lr."""
    return {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}


def test_lr_and_decay_of_every_parameter_are_those_of_timms_own_groups():
    network = timm.create_model("vit_tiny_patch16_224", depth=3)
    exempt = network.no_weight_decay()
    timms = param_groups_layer_decay(network, weight_decay=0.05, no_weight_decay_list=exempt, layer_decay=0.75)
    expected = {param: (group["lr_scale"], group["weight_decay"]) for group in timms for param in group["params"]}
    groups = configure_adabelief(network, lr=2e-3, weight_decay=0.05, layer_decay=0.75).param_groups
    found = {param: (group["lr"] / 2e-3, group["weight_decay"]) for group in groups for param in group["params"]}
    assert found.keys() == expected.keys()
    assert all(found[param] == pytest.approx(expected[param]) for param in expected)


def test_groups_are_named_by_depth_and_decay_the_lowest_first():
    groups = configure_adabelief(Stacked(), lr=1e-3, weight_decay=0.1, layer_decay=0.5).param_groups
    assert [group["name"] for group in groups] == [
        f"depth{depth}/{decay}" for depth in range(5) for decay in ("decayed", "undecayed")
    ]
    assert [group["lr"] for group in groups[::2]] == [1e-3 / 16, 1e-3 / 8, 1e-3 / 4, 1e-3 / 2, 1e-3]
    assert groups[0]["param_names"] == ["stem.weight"] and groups[-1]["param_names"] == ["head.bias"]


def test_an_lr_in_layers_wins_and_other_options_of_layers_keep_the_depths():
    layers = {"head.*": {"lr": 1e-2}, "blocks.*": {"eps": 1e-8}}
    optimizer = configure_adabelief(Stacked(), lr=1e-3, layer_decay=0.5, layers=layers)
    found = lrs(optimizer)
    assert found["head.weight"] == 1e-2
    assert found["blocks.2.linear1.weight"] == 1e-3 / 2 and found["stem.bias"] == 1e-3 / 16
    assert [(group["name"], group["eps"]) for group in optimizer.param_groups] == [
        ("depth0", 1e-16),
        ("head", 1e-16),
        ("blocks/depth1", 1e-8),
        ("blocks/depth2", 1e-8),
        ("blocks/depth3", 1e-8),
    ]


def test_depths_are_those_of_the_whole_network_where_a_part_is_frozen():
    module = Stacked()
    module.stem.requires_grad_(False)
    module.blocks[0].requires_grad_(False)
    found = lrs(configure_adabelief(module, lr=1e-3, layer_decay=0.5))
    assert found["blocks.1.linear1.weight"] == 1e-3 / 4
    assert not any(name.startswith(("stem", "blocks.0")) for name in found)


def test_a_tensor_lr_stays_one_in_each_group():
    groups = configure_adabelief(Stacked(), lr=torch.tensor(1e-3), layer_decay=0.5).param_groups
    assert all(isinstance(group["lr"], torch.Tensor) for group in groups)
    assert [float(group["lr"]) for group in groups] == pytest.approx([1e-3 / 2**n for n in (4, 3, 2, 1, 0)])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
def test_a_schedule_scales_all_depths_alike_after_a_common_warmup(schedule, tmp_path):
    class Ratios(pl.Callback):
        seen = []

        def on_train_batch_end(self, trainer, pl_module, *_):
            lr = lrs(trainer.optimizers[0])
            self.seen.append((lr["head.weight"], lr["stem.weight"]))

    options = dict(lr=1e-2, layer_decay=0.5, warmup=6, schedule=schedule)
    optimizer = fit(Stacked(**options), max_epochs=4, callbacks=[Ratios()])
    assert {group["warmup"] for group in optimizer.param_groups} == {6}
    assert len({head for head, _ in Ratios.seen}) > 1
    assert all(stem == pytest.approx(head / 16) for head, stem in Ratios.seen)


def test_the_lowest_layers_move_least_and_a_resumed_run_goes_on_exactly(tmp_path):
    def run(max_epochs, ckpt_path=None):
        torch.manual_seed(0)
        module = Stacked(lr=1e-2, weight_decay=0.1, layer_decay=0.25, schedule="cosine", total_steps=18)
        before = [param.detach().clone() for param in module.parameters()]
        trainer = make_trainer(max_epochs=max_epochs)
        data = torch.utils.data.DataLoader(torch.ones(24, 4).cumsum(1), batch_size=4)
        trainer.fit(module, data, ckpt_path=ckpt_path)
        if max_epochs == 1:
            trainer.save_checkpoint(tmp_path / "one.ckpt")
        return module, [
            (param - old).norm() / old.numel() ** 0.5 for param, old in zip(module.parameters(), before, strict=True)
        ]

    module, moved = run(3)
    assert moved[0] < moved[-2] / 20
    run(1)
    resumed, _ = run(3, tmp_path / "one.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), resumed.parameters(), strict=True))


def test_learning_rate_monitor_logs_each_depth_under_its_name(tmp_path):
    trainer = make_trainer(
        max_epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1, callbacks=[LearningRateMonitor("step")]
    )
    module = Stacked(lr=1e-3, layer_decay=0.5)
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(8, 4), batch_size=4))
    assert {f"lr-AdaBelief/depth{depth}" for depth in range(5)} <= set(trainer.callback_metrics)


def test_a_config_can_ask_for_it_and_for_decay_apart_from_lr():
    module = Stacked()
    options = dict(lr=1e-3, weight_decay=1e-5, layer_decay=0.5, decouple_lr=True)
    optimizer = ConfiguredAdaBelief(module.parameters(), **options).configure(module, None)
    expected = configure_adabelief(module, **options).param_groups
    assert len(expected) == 10 and lrs(optimizer)["stem.weight"] == 1e-3 / 16
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (group["lr"], group["weight_decay"]) for group in expected
    ]


@pytest.mark.parametrize("layer_decay", [0, -0.5, 1.5, "0.75", float("nan")])
def test_a_factor_out_of_range_is_an_error_that_says_what_it_is(layer_decay):
    with pytest.raises(ValueError, match="Invalid layer_decay: .*above 0 and at most 1, for example layer_decay=0.75"):
        configure_adabelief(Stacked(), layer_decay=layer_decay)


def test_a_network_without_numbered_layers_is_an_error_that_names_layers():
    with pytest.raises(ValueError, match="layer_decay needs the order of the layers, and LSTM has no numbered layers"):
        configure_adabelief(torch.nn.LSTM(4, 4), layer_decay=0.75)
