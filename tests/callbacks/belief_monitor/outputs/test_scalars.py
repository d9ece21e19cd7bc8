"""The numbers of a measurement in TensorBoard's files."""

from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from lightning_adabelief import BeliefMonitor
from tests.callbacks.belief_monitor.conftest import Net


class Shouting(TensorBoardLogger):
    """A logger of the user's own."""

    def log_metrics(self, metrics, step=None):
        super().log_metrics({tag.upper(): value for tag, value in metrics.items()}, step)


def test_the_numbers_of_a_step_are_one_event_written_by_the_loggers_own_rules(fit, tmp_path):
    fit(Net(), BeliefMonitor(heat_map=False), logger=Shouting(tmp_path, name="tb", prefix="run"), log_every_n_steps=4)
    (path,) = (tmp_path / "tb" / "version_0").glob("events.*")
    events = [(event.step, [value.tag for value in event.summary.value]) for event in EventFileLoader(str(path)).Load()]
    belief = [(step, tags) for step, tags in events if any("BELIEF/" in tag for tag in tags)]
    assert [step for step, _ in belief] == [3, 7, 11]
    for _, tags in belief:
        assert {"run-BELIEF/S_T/MODEL", "run-BELIEF/GRAD_NORM/HEAD.BIAS", "run-BELIEF/LR/ADABELIEF"} <= {*tags}
    assert [step for step, tags in events if tags == ["run-TRAIN/LOSS"]] == [3, 7, 11]
