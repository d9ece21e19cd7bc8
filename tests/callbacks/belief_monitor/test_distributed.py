"""BeliefMonitor on one process, two DDP ranks and two FSDP2 ranks; rank 0 alone has a logger."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sharding import needs_fsdp2_on_cpu

TREES = ["pytorch_lightning", pytest.param("lightning.pytorch", marks=pytest.mark.slow)]


def statistics(tree, kind, folder):
    script = Path(__file__).with_name("transformer.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, str(script), tree, kind, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    with open(folder / "csv" / "version_0" / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            found |= {(tag, int(row["step"])): float(value) for tag, value in row.items() if value and "/" in tag}
    return found


@pytest.fixture(scope="module", params=TREES)
def tree_and_single(request, tmp_path_factory):
    return request.param, statistics(request.param, "single", tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp2", marks=needs_fsdp2_on_cpu)])
def test_two_ranks_log_what_one_process_does_on_the_same_global_batches(tree_and_single, kind, tmp_path):
    tree, single = tree_and_single
    assert {step for _, step in single} == {1, 3, 5}
    assert ("belief/unclipped_grad_norm/model", 1) in single
    assert statistics(tree, kind, tmp_path) == pytest.approx(single, rel=1e-5)
