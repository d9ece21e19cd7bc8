"""Averages of 16 and 8 bits in Lightning: configured, told of, resumed, and from the command line."""

import logging

import pytest
import torch
from torch import nn

from lightning_adabelief import AdaBelief
from lightning_adabelief.callbacks import ResumeReport
from lightning_adabelief.cli.main import main
from lightning_adabelief.configure.configured import ConfiguredAdaBelief
from tests.configure.nets import Net, fit
from tests.configure.test_resume import lines, run

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided"),
]


class Wide(Net):
    """A network with one layer that is large enough to be packed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.network = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

    @property
    def packed(self):
        return self.network[2].weight


class Plain(Wide):
    """As a config makes it: an AdaBelief without configure_adabelief."""

    def configure_optimizers(self):
        return AdaBelief(self.parameters(), **self.options)


class Held(Wide):
    """As a config makes it that names ConfiguredAdaBelief."""

    def configure_optimizers(self):
        return ConfiguredAdaBelief(self.parameters(), **self.options)


@pytest.mark.parametrize("kind", [Wide, Plain, Held])
def test_one_line_says_how_many_parameters_are_kept_in_how_many_bits(kind, caplog):
    with caplog.at_level(logging.INFO):
        module = kind(state_bits=8)
        optimizer = fit(module, max_epochs=1)
        fit(kind(), max_epochs=1)
    assert optimizer.state[module.packed]["exp_avg"].dtype == torch.uint8
    assert [record.message for record in caplog.records if "m_t and s_t" in record.message] == [
        "AdaBelief keeps m_t and s_t in 8 bits for 1 tensor (4,096 parameters), "
        "in floating point for 5 tensors (449 parameters)"
    ]


def test_layers_may_have_their_own_bits():
    module = Wide(state_bits=16, layers={"network.2.*": {"state_bits": 32}})
    assert fit(module, max_epochs=1).state[module.packed]["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize("bits", [16, 8])
def test_a_resumed_run_ends_at_the_same_parameters_and_bytes(bits, tmp_path, caplog):
    whole, resumed = (Wide(lr=1e-2, warmup=0.5, state_bits=bits) for _ in range(2))
    trained = run(whole, save_every=5, folder=tmp_path, max_epochs=2)
    with caplog.at_level(logging.INFO):
        again = run(resumed, tmp_path / "step=5.ckpt", max_epochs=2, callbacks=[ResumeReport()])
    assert lines(caplog) == []
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    states = [trainer.optimizers[0].state_dict()["state"] for trainer in (trained, again)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize(("before", "after"), [(32, 8), (8, 32), (8, 16)])
def test_a_run_that_is_resumed_in_other_bits_says_so_and_keeps_the_configs(before, after, tmp_path, caplog):
    run(Wide(state_bits=before), save_every=6, folder=tmp_path, max_epochs=1)
    module = Wide(state_bits=after)
    with caplog.at_level(logging.INFO):
        trainer = run(module, tmp_path / "step=6.ckpt", max_epochs=2, callbacks=[ResumeReport()])
    assert [line for line in lines(caplog) if "total_steps" not in line] == [
        f"ckpt_path: AdaBelief's state_bits is {before} in the checkpoint and {after} in the config; m_t and s_t are "
        "converted to the config's"
    ]
    (optimizer,) = trainer.optimizers
    kept = optimizer.state[module.packed]["exp_avg_var"]
    assert kept.dtype == {32: torch.float32, 16: torch.bfloat16, 8: torch.uint8}[after]


def test_a_checkpoint_of_an_older_version_is_one_of_32_bits(tmp_path, caplog):
    run(Wide(), save_every=6, folder=tmp_path, max_epochs=1)
    checkpoint = torch.load(tmp_path / "step=6.ckpt", weights_only=True)
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        del group["state_bits"]
    torch.save(checkpoint, tmp_path / "older.ckpt")
    with caplog.at_level(logging.INFO):
        run(Wide(state_bits=16), tmp_path / "older.ckpt", max_epochs=2, callbacks=[ResumeReport()])
    assert "AdaBelief's state_bits is 32 in the checkpoint and 16 in the config" in "".join(lines(caplog))


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:.*num_workers", "ignore:Experiment logs")
def test_a_recipe_takes_them_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.callbacks=null"]
    words = ["--model.optimizer.init_args.state_bits", "8"]
    assert main(["fit", "--config", "digits-cnn", *words, *short, *quiet]) == 0
    (path,) = tmp_path.rglob("*.ckpt")
    state = torch.load(path, weights_only=True)["optimizer_states"][0]["state"]
    assert torch.uint8 in {values["exp_avg"].dtype for values in state.values()}
