"""What W&B and MLflow keep of a run, read back from their own files."""

import json
import struct
from collections import defaultdict

import pytest
import wandb
from mlflow.tracking import MlflowClient
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, WandbLogger
from wandb.proto.wandb_internal_pb2 import Record

from lightning_adabelief import BeliefMonitor
from lightning_adabelief.beliefs.statistic import OPTIMIZER_STATISTICS
from lightning_adabelief.callbacks.belief_monitor.outputs.history import NAMES
from tests.callbacks.belief_monitor.conftest import Net
from tests.callbacks.belief_monitor.test_monitor import LAYERS, belief

OPTIMIZER = [row.name for row in OPTIMIZER_STATISTICS]
TAGS = {f"belief/{name}/{layer}" for name in NAMES for layer in [*LAYERS, "model"]} | {
    f"belief/{name}/AdaBelief" for name in OPTIMIZER
}


def wandb_records(path):
    """The records of a .wandb file: LevelDB's log format, after a header of 7 bytes."""
    content, record, block = path.read_bytes(), b"", 32768
    position = 7
    while position < len(content):
        if block - position % block < 7:  # no room for a chunk: padding
            position += block - position % block
            continue
        size, kind = struct.unpack_from("<xxxxHB", content, position)
        record += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # the whole of a record, or its end
            yield Record.FromString(record)
            record = b""


@pytest.fixture
def offline_wandb(tmp_path, monkeypatch):
    """A logger, and what reads its file: from a key to its values by ``trainer/global_step``."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="test")

    def read():
        wandb.teardown()  # which waits for the process that writes the file
        (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
        values = defaultdict(dict)
        for record in wandb_records(path):
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for key, value in row.items():
                if not key.startswith("_"):
                    values[key][row["trainer/global_step"]] = value
        return dict(values)

    yield logger, read
    wandb.teardown()


def test_wandb_keeps_numbers_histograms_and_the_picture_at_the_trainers_steps(fit, tmp_path, csv_rows, offline_wandb):
    logger, read = offline_wandb
    monitor = BeliefMonitor(include="*", histograms=True)
    fit(Net(), monitor, logger=[logger, CSVLogger(tmp_path, "csv")])
    values = read()
    assert {tag for tag in belief(values) if not tag.startswith("belief/heat_map/")} == TAGS
    assert list(values["train/loss"]) == [4, 9]
    for tag, rows in belief(csv_rows()).items():
        assert values[tag] == pytest.approx(rows, rel=1e-5)
    assert list(values["belief_histograms/log10_s_t/encoder.weight/values"]) == [4, 9]
    assert sum(values["belief_histograms/log10_s_t/encoder.weight/values"][9]) == 30
    (picture,) = tmp_path.glob("wandb/offline-run-*/files/media/images/belief/heat_map*.png")
    with Image.open(picture) as image:
        assert values["belief/heat_map/width"] == {9: image.width}
    assert (tmp_path / "test" / logger.version / "belief.csv").exists()  # where ModelCheckpoint writes


@pytest.mark.filterwarnings(
    "ignore:The filesystem tracking backend:FutureWarning", "ignore:codecs.open:DeprecationWarning"
)
def test_mlflow_keeps_numbers_and_the_picture_at_the_trainers_steps(fit, tmp_path, csv_rows, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path}/mlruns")
    fit(Net(), BeliefMonitor(include="*"), logger=[logger, CSVLogger(tmp_path, "csv")])
    client = MlflowClient(f"file:{tmp_path}/mlruns")
    metrics = client.get_run(logger.run_id).data.metrics
    assert belief(metrics).keys() == TAGS
    for tag, rows in csv_rows().items():
        kept = {metric.step: metric.value for metric in client.get_metric_history(logger.run_id, tag)}
        assert kept == pytest.approx(rows, rel=1e-5)
    assert [file.path for file in client.list_artifacts(logger.run_id, "belief")] == ["belief/heat_map.png"]
