"""Record a run of another version of AdaBelief, and its checkpoint halfway, for tests/optim/test_versions.py.

    python tests/optim/checkpoints/record.py adabelief-pytorch 0.0.5    # a release, fetched by pip
    python tests/optim/checkpoints/record.py own 74d6f4c                # a commit of this repository

Writes ``<name>-<version>.pt`` beside this file: from the name of each case to its options, the checkpoint
(a state dict) and the parameters after ``HALF`` steps, and the parameters after ``len(gradients)`` steps.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

HERE = Path(__file__).parent
HALF = 8
STEPS = 16
CASES = {
    "defaults": {},
    "rectified": dict(rectify=True),
    "unrectified": dict(rectify=False),
    "decoupled decay": dict(rectify=False, weight_decay=0.1, weight_decouple=True),
    "fixed decay": dict(rectify=False, weight_decay=1e-3, weight_decouple=True, fixed_decay=True),
    "coupled decay": dict(rectify=False, weight_decay=0.1, weight_decouple=False),
    "amsgrad": dict(rectify=False, amsgrad=True),
    "two groups": dict(rectify=False, lr=1e-2, betas=(0.8, 0.99), eps=1e-10),
}


def make_gradients() -> torch.Tensor:
    """Return the gradients of all steps, shape (STEPS, 3)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(STEPS, 3, generator=generator, dtype=torch.float64) + 0.3


def make_groups(case: str, params: list[torch.Tensor]) -> list[dict]:
    """Return the param groups of a case, from parameters of shapes (2,) and ()."""
    if case != "two groups":
        return [{"params": params}]
    return [{"params": params[:1]}, {"params": params[1:], "lr": 3e-3}]


def take_steps(optimizer: torch.optim.Optimizer, params: list[torch.Tensor], gradients: torch.Tensor) -> None:
    """Take a step for each row of gradients: two numbers for the first parameter, one for the second."""
    for row in gradients:
        params[0].grad, params[1].grad = row[:2].clone(), row[2].clone()
        optimizer.step()


def record(case: str, optimizer_class: type) -> dict:
    """Run one case, and return what the test needs of it."""
    params = [torch.tensor([1.0, -0.5], dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)]
    for param in params:
        param.requires_grad_()
    with contextlib.redirect_stdout(io.StringIO()):  # its banner
        optimizer = optimizer_class(make_groups(case, params), **CASES[case])
    gradients = make_gradients()
    take_steps(optimizer, params, gradients[:HALF])
    own_options = {
        name: getattr(optimizer, name)
        for name in ("weight_decouple", "rectify", "fixed_decay")
        if hasattr(optimizer, name)
    }  # which adabelief-pytorch does not save
    halfway = copy.deepcopy({"checkpoint": optimizer.state_dict(), "params": [param.detach() for param in params]})
    take_steps(optimizer, params, gradients[HALF:])
    return {"options": CASES[case] | own_options, **halfway, "final": [param.detach() for param in params]}


def main() -> None:
    """Fetch the version into a folder that is removed, and record it in a process that imports it from there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["adabelief-pytorch", "own"])
    parser.add_argument("version", help="a release, or a commit")
    parser.add_argument("--code", help="the folder that the version is in already")
    args = parser.parse_args()
    if args.code is None:
        with tempfile.TemporaryDirectory() as code:
            if args.name == "own":
                archive = ["git", "archive", args.version, "lightning_adabelief"]
                files = subprocess.run(archive, cwd=HERE.parents[2], check=True, capture_output=True).stdout
                subprocess.run(["tar", "-x", "-C", code], input=files, check=True)
            else:
                pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", code]
                subprocess.run([*pip, f"{args.name}=={args.version}"], check=True)
            subprocess.run([sys.executable, __file__, args.name, args.version, "--code", code], check=True)
        return
    sys.path.insert(0, args.code)
    module = importlib.import_module("lightning_adabelief" if args.name == "own" else "adabelief_pytorch")
    assert str(module.__file__).startswith(args.code), "another version is imported"
    warnings.simplefilter("ignore")  # 0.0.5 calls torch as one did in 2020
    cases = {case: record(case, module.AdaBelief) for case in CASES}
    torch.save(cases, HERE / f"{args.name}-{args.version}.pt")


if __name__ == "__main__":
    main()
