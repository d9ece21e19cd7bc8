"""Lightning's callbacks that average weights."""

import pytest
import torch
from pytorch_lightning import callbacks

from tests.configure.nets import Net, fit


@pytest.mark.parametrize(("name", "options"), [("WeightAveraging", {}), ("EMAWeightAveraging", {"decay": 0.5})])
def test_weights_are_averaged_and_the_training_is_the_same(name, options):
    if not hasattr(callbacks, name):
        pytest.skip(f"this Lightning has no {name}")
    settings = dict(schedule="cosine", lr=0.1, warmup=0.2, weight_decay=0.1)
    plain, averaged = Net(**settings), Net(**settings)
    averaged.load_state_dict(plain.state_dict())
    alone = fit(plain, max_epochs=2)
    beside = fit(averaged, max_epochs=2, callbacks=[getattr(callbacks, name)(**options)])
    for one, other in zip(alone.state.values(), beside.state.values(), strict=True):
        assert torch.equal(one["exp_avg_var"], other["exp_avg_var"]) and one["step"] == other["step"]
    assert not torch.equal(plain.network[0].weight, averaged.network[0].weight)
    torch.testing.assert_close(plain.network[0].weight, averaged.network[0].weight, atol=0.2, rtol=0)
