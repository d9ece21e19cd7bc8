"""Sums over layers that are cut into pieces, and what measuring costs."""

from collections import defaultdict

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_adabelief import AdaBelief
from lightning_adabelief.beliefs import pieces
from lightning_adabelief.beliefs.layers import SAMPLED_AT_ONCE
from lightning_adabelief.beliefs.measure import measure_columns_of, read_layers, to_statistics
from lightning_adabelief.beliefs.pieces import cut_into_pieces

SHAPES = [(32, 16, 4, 4), (5000,), (40, 128), (3, 7), ()]

OPTIMIZERS = {
    "plain": AdaBelief,
    "decay and a bound": lambda params: AdaBelief(params, weight_decay=0.1, max_update_to_lr=0.5),
    "coupled decay": lambda params: AdaBelief(params, weight_decay=0.1, weight_decouple=False, maximize=True),
    "amsgrad": lambda params: AdaBelief(params, amsgrad=True),
    "16 bits": lambda params: AdaBelief(params, state_bits=16),
    "8 bits": lambda params: AdaBelief(params, state_bits=8, amsgrad=True),
    "Adam": torch.optim.Adam,
    "AdamW with amsgrad": lambda params: torch.optim.AdamW(params, amsgrad=True),
}


def step(make_optimizer, shapes, steps=7, **layout):
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    params[0].data = params[0].data.to(**layout)
    optimizer = make_optimizer(params)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator)
        optimizer.step()
    return optimizer


def measure(optimizer):
    return to_statistics(measure_columns_of(optimizer, list(read_layers(optimizer).values())))


@pytest.mark.parametrize("layout", [{}, {"memory_format": torch.channels_last}], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_statistics_do_not_depend_on_how_layers_are_cut(monkeypatch, make_optimizer, layout):
    optimizer = step(make_optimizer, SHAPES, **layout)
    whole = measure(optimizer)
    counts = []

    def cut_and_count(batch):
        for found in cut_into_pieces(batch):
            counts.append(len(found))
            yield found

    monkeypatch.setattr(pieces, "CACHED_WEIGHTS", 1000)
    monkeypatch.setattr("lightning_adabelief.beliefs.sums.cut_into_pieces", cut_and_count)
    cut = measure(optimizer)
    assert sum(counts) > 2 * len(SHAPES)
    for own, expected in zip(cut, whole, strict=True):
        assert own == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)


class Operations(TorchDispatchMode):
    """Counts operations, and keeps the largest number of elements that each kind computed with."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.largest = defaultdict(int)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        self.count += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        name = function.overloadpacket.__name__
        self.largest[name] = max([self.largest[name], *(tensor.numel() for tensor in tensors)])
        return result


def count_operations(layers, **options):
    optimizer = step(lambda params: AdaBelief(params, **options), [(32,), (32, 64), (4096,)] * (layers // 3))
    optimizer.step_sums = {}
    optimizer.step()
    measure(optimizer)  # samples are drawn once
    with Operations() as operations:
        measure(optimizer)
    return operations


@pytest.mark.parametrize(("options", "each"), [({"fused": True}, 20), ({"foreach": True}, 50)], ids=str)
def test_a_measurement_takes_few_operations_a_layer(options, each):
    few, many, most = (count_operations(layers, **options).count for layers in (30, 60, 120))
    assert many - few < 30 * each
    assert most - many < 60 * each


def test_beside_the_sums_of_a_fused_step_only_samples_are_read():
    largest = count_operations(60, fused=True).largest
    assert {name for name, size in largest.items() if size > SAMPLED_AT_ONCE} == set()
