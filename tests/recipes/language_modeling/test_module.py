"""The module that trains a language model by truncated backpropagation through time."""

import math
import re
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lightning_adabelief import AdaBelief, BeliefMonitor
from lightning_adabelief.callbacks import ExactResume
from lightning_adabelief.recipes.language_modeling import AWDLSTM, LanguageModel, TextDataModule
from lightning_adabelief.recipes.language_modeling.windows import IGNORED
from tests.checkpoints import WEIGHTS_ONLY
from tests.recipes.language_modeling.texts import write_fable

WINDOWS = 6
"""Of the fable, with the settings below."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_fable("fable.txt", lines=198)


def make_data(**options):
    return TextDataModule("fable.txt", **{"batch_size": 8, "eval_batch_size": 3, "bptt": 40} | options)


def make_module(num_layers=1, lr=1e-2, dropout=0.1, **options):
    torch.manual_seed(0)
    dropouts = dict.fromkeys(("embedding_dropout", "input_dropout", "output_dropout", "weight_dropout"), dropout)
    network = AWDLSTM(embedding_size=16, hidden_size=16, num_layers=num_layers, **dropouts)
    return LanguageModel(network, optimizer=partial(AdaBelief, lr=lr, rectify=False), **options)


def make_trainer(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(accelerator="cpu", **{**quiet, "enable_checkpointing": False, "max_epochs": 1} | options)


def fit(module, data=None, **options):
    trainer = make_trainer(**options)
    trainer.fit(module, data or make_data())
    return trainer


def score_all_at_once(module, data, part):
    """The perplexity, computed from the whole text as one window of each column."""
    data.bptt = 10**6
    ((words, targets),) = data._make_loader(part, data.eval_batch_size)
    module.eval()
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(
            module(words).logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
    assert int((targets != IGNORED).sum()) == len(data.words[part])
    return math.exp(losses.sum() / len(data.words[part]))


def test_the_perplexity_is_over_all_words_whatever_the_windows():
    """The last window is shorter, and the last column ends before the others: a mean of means would be off."""
    module, data = make_module(), make_data()
    trainer = fit(module, data)
    (scores,) = trainer.test(module, data, verbose=False)
    assert scores["test/loss"] == pytest.approx(math.log(scores["test/perplexity"]), rel=1e-4)
    assert scores["test/perplexity"] == pytest.approx(score_all_at_once(module, data, "test"), rel=1e-4)
    for bptt in (1, 7):
        (again,) = trainer.test(module, make_data(bptt=bptt), verbose=False)
        assert again["test/perplexity"] == pytest.approx(scores["test/perplexity"], rel=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A module that has learnt the fable, and its test scores."""
    path = tmp_path_factory.mktemp("trained") / "fable.txt"
    write_fable(path, lines=198)
    module, data = make_module(lr=2e-2, dropout=0.0), TextDataModule(str(path), batch_size=8, bptt=40)
    trainer = fit(module, data, max_epochs=40, gradient_clip_val=0.25, limit_val_batches=0)
    (scores,) = trainer.test(module, data, verbose=False)
    return module, scores


def test_it_learns_more_of_a_fable_than_a_bigram_can(trained):
    _, scores = trained
    assert 1 < scores["test/perplexity"] < 0.8 * scores["test/perplexity_bigram"]


def test_a_window_goes_on_from_the_state_of_the_one_before_and_an_epoch_begins_anew():
    starts = []

    class Spy(LanguageModel):
        def forward(self, words, state=None):
            if self.training:
                starts.append(state)
            return super().forward(words, state)

    module = make_module()
    module.__class__ = Spy
    fit(module, max_epochs=2, limit_val_batches=0)
    assert [start is None for start in starts] == [True, *[False] * (WINDOWS - 1)] * 2
    assert all(not part.requires_grad for start in starts if start for layer in start for part in layer)


def test_a_validation_within_an_epoch_leaves_the_state_of_training_alone():
    def train(**options):
        module = make_module(dropout=0.0)  # dropout would draw from the same generator as a loader does
        fit(module, num_sanity_val_steps=0, **options)
        return module.state_dict()

    often, never = train(val_check_interval=2), train(limit_val_batches=0)
    for name, weight in often.items():
        assert name.startswith(("val_", "train_")) or torch.equal(weight, never[name]), name


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("random_bptt", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(random_bptt):
    def train(folder, ckpt_path=None):
        module = make_module(num_layers=2)
        every_step = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        callbacks = [ExactResume(), every_step]
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=2, gradient_clip_val=0.25)
        trainer.fit(module, make_data(random_bptt=random_bptt), ckpt_path=ckpt_path, **WEIGHTS_ONLY)
        assert trainer.global_step == 2 * WINDOWS
        return module

    pl.seed_everything(1)
    whole = train("whole")
    for step in (3, WINDOWS, WINDOWS + 5):
        pl.seed_everything(2)
        resumed = train(f"from{step}", ckpt_path=f"whole/step={step}.ckpt")
        for name, weight in whole.network.state_dict().items():
            assert torch.equal(weight, resumed.network.state_dict()[name]), (step, name)
        torch.testing.assert_close(whole._state, resumed._state, rtol=0, atol=0)


def test_with_random_windows_a_step_has_the_learning_rate_of_its_length_and_the_schedule_its_own():
    seen = []

    class Spy(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.length = len(batch[0])
            (optimizer,) = trainer.optimizers
            if batch_idx == 0:
                optimizer.register_step_post_hook(self.note)

        def note(self, optimizer, args, kwargs):
            seen.append((self.length, optimizer.param_groups[0]["lr"]))

    trainer = fit(make_module(), make_data(random_bptt=True), callbacks=[Spy()])
    assert len({length for length, _ in seen}) > 2
    assert all(lr == pytest.approx(1e-2 * length / 40) for length, lr in seen)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-2


def test_both_regularizations_are_added_to_what_is_trained_on_and_to_no_figure():
    batch = torch.randint(10, (6, 2)), torch.randint(10, (6, 2))

    def compute(**options):
        module = LanguageModel(AWDLSTM(10, 8, 8, 1, weight_dropout=0.0), **options)
        logged = {}
        module.log = lambda name, value, **_: logged.setdefault(name, value)
        torch.manual_seed(0)
        return module, module.training_step(batch, 0), logged["train/loss_step"]

    def with_weights(reference, **options):
        module, _, _ = compute(**options)
        module.load_state_dict(reference.state_dict())
        torch.manual_seed(0)
        return module.training_step(batch, 0)

    plain, loss, logged = compute()
    assert loss == logged
    torch.manual_seed(0)
    output = plain(batch[0])
    ar = output.dropped_activations.square().mean()
    tar = (output.activations[1:] - output.activations[:-1]).square().mean()
    regularized = with_weights(plain, activation_regularization=2.0, temporal_activation_regularization=3.0)
    torch.testing.assert_close(regularized, loss + 2 * ar + 3 * tar)
    one_word = plain.__class__(plain.network, temporal_activation_regularization=1.0)
    one_word.log = lambda *_, **__: None
    assert one_word.training_step((batch[0][:1], batch[1][:1]), 0).isfinite()


@pytest.mark.parametrize("name", ["activation_regularization", "temporal_activation_regularization"])
def test_a_negative_factor_is_named(name):
    with pytest.raises(ValueError, match=f"Invalid {name}: -1"):
        LanguageModel(AWDLSTM(), **{name: -1.0})


def test_a_prompt_is_continued_the_same_way_by_the_same_seed_and_the_likeliest_at_temperature_0(trained):
    module, _ = trained
    write = partial(module.continue_text, "The fox saw the", 30)
    assert write(1.0, seed=1) == write(1.0, seed=1) != write(1.0, seed=2)
    assert write(0, seed=1) == write(0, seed=2)
    assert re.match(r" \w+, and the (fox|crow|wolf|hen) ran\.\nThe (fox|crow|wolf|hen) saw the ", write(0))
    assert "<unk>" not in module.continue_text("Unheard words", 30, 2.0)


def test_a_checkpoint_holds_the_words_so_that_a_prompt_needs_no_text_and_its_continuation_is_printed(capsys):
    module = make_module()
    fit(module).save_checkpoint("model.ckpt")
    Path("fable.txt").unlink()
    torch.load("model.ckpt", weights_only=True)
    data = make_data(prompt="The fox", length=5, temperature=0.0)
    (text,) = make_trainer().predict(make_module(), data, ckpt_path="model.ckpt")
    assert capsys.readouterr().out == f"{text}\n"
    assert text == "The fox" + module.continue_text("The fox", 5, 0.0)
    loaded = LanguageModel.load_from_checkpoint("model.ckpt", network=AWDLSTM(None, 16, 16, 1, weight_dropout=0.1))
    assert loaded.continue_text("The fox", 5, 0.0) == text.removeprefix("The fox")


def test_without_a_checkpoint_a_prompt_can_not_be_continued():
    with pytest.raises(ValueError, match="knows no words yet. Give a checkpoint by --ckpt_path"):
        make_module().continue_text("The", 5)
    with pytest.raises(ValueError, match="a DataModule of your own that has the attribute vocabulary"):
        make_module()(torch.zeros(2, 2, dtype=torch.long))


def test_a_checkpoint_of_another_text_is_named():
    module = make_module()
    fit(module).save_checkpoint("model.ckpt")
    Path("other.txt").write_text("a dog met a cat\n" * 100)
    data = TextDataModule("other.txt", batch_size=2, eval_batch_size=2)
    with pytest.raises(ValueError, match="words are those of fable.txt, SHA-256 .* are those of other.txt, SHA-256"):
        make_trainer().test(make_module(), data, ckpt_path="model.ckpt")


def test_several_processes_are_an_error():
    data = make_data()
    data.trainer = type("Trainer", (), {"world_size": 2})()
    with pytest.raises(ValueError, match="read in one process, and there are 2"):
        data.train_dataloader()


def test_the_monitor_names_layers_as_the_module_does_and_leaves_out_words_that_never_came():
    class Rare(TextDataModule):
        def setup(self, stage):
            super().setup(stage)
            self.vocabulary.words += [f"never{i}" for i in range(100)]

    monitor = BeliefMonitor(every_n_steps=1, include="*")
    network = AWDLSTM(None, 16, 16, 1, tie_weights=False, weight_dropout=0.1)
    module = LanguageModel(network, optimizer=partial(AdaBelief, lr=1e-3, rectify=False))
    trainer = fit(
        module, Rare("fable.txt", batch_size=8, eval_batch_size=3, bptt=40), callbacks=[monitor], logger=CSVLogger(".")
    )
    figures = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("belief/")}
    assert "belief/s_t/network.lstms.0.weight_hh_l0" in figures
    assert not any("parametrizations" in name for name in figures)

    (optimizer,) = trainer.optimizers
    state = optimizer.state[network.embedding.weight]
    came = state["exp_avg"] != 0
    assert 0 < came.float().mean() < 0.2
    s_t = state["exp_avg_var"][came] / (1 - 0.999 ** state["step"].item())
    expected = (1e-3 / (s_t.sqrt() + 1e-16)).median().item()
    assert figures["belief/effective_step_size/network.embedding.weight"] == pytest.approx(expected, rel=1e-3)
    assert figures["belief/eps_share/network.embedding.weight"] == pytest.approx(
        (1e-13 / s_t).clamp(max=1).mean().item(), rel=1e-3
    )
