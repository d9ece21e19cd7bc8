"""What a person sees in the terminal: the closing table, and the progress bar on demand."""

import pytest
import pytorch_lightning as pl

from lightning_adabelief import BeliefMonitor
from lightning_adabelief.callbacks.belief_monitor.outputs.closing_table import TITLE
from tests.callbacks.belief_monitor.conftest import Net
from tests.callbacks.belief_monitor.test_monitor import LAYERS, TwoOptimizers


def test_a_fit_closes_with_the_notable_layers(fit, capsys):
    fit(Net(), BeliefMonitor(top_k=2))
    printed = capsys.readouterr().out
    assert printed.count(TITLE) == 1
    assert sum(layer in printed for layer in LAYERS) == 2


def test_an_interrupted_fit_closes_with_them_too(fit, capsys):
    class Interrupted(Net):
        def on_train_batch_end(self, *args):
            if args[-1] == 7:
                raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        fit(Interrupted(), BeliefMonitor())
    assert capsys.readouterr().out.count(TITLE) == 1


def test_nothing_is_printed_where_nothing_was_measured(fit, capsys):
    fit(Net(), BeliefMonitor(), log_every_n_steps=0)
    assert TITLE not in capsys.readouterr().out


def test_it_can_be_left_out(fit, capsys):
    fit(Net(), BeliefMonitor(closing_table=False))
    assert TITLE not in capsys.readouterr().out


class Bar(pl.Callback):
    """Keeps what the progress bar would show."""

    def on_train_end(self, trainer, pl_module):
        self.shown = trainer.progress_bar_metrics


def test_nothing_is_on_the_progress_bar_unless_asked(fit):
    bar = Bar()
    fit(Net(), BeliefMonitor(), bar)
    assert bar.shown == {}


def test_summaries_asked_for_are_on_the_progress_bar(fit, csv_rows):
    bar = Bar()
    fit(Net(warmup=20), BeliefMonitor(prog_bar=["s_t", "warmup"], include="*"), bar)
    rows = csv_rows()
    last = {"s_t": rows["belief/s_t/model"][9], "warmup": rows["belief/warmup/AdaBelief"][9]}
    assert bar.shown == pytest.approx(last, rel=1e-5)


def test_each_optimizers_summary_is_on_the_progress_bar(fit, csv_rows):
    bar = Bar()
    fit(TwoOptimizers(), BeliefMonitor(prog_bar="s_t"), bar)
    assert bar.shown.keys() == {"s_t", "s_t/AdaBelief-1"}


def test_what_is_not_logged_cannot_be_on_the_progress_bar():
    with pytest.raises(ValueError, match="prog_bar='warmup' is not among statistics=\\('s_t',\\)"):
        BeliefMonitor(statistics="s_t", prog_bar="warmup")
