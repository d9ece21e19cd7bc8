"""``adabelief export --ckpt_path PATH OUT``: a trained network as ONNX, or as a program of torch.export."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_adabelief.recipes.exportable import Exportable

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra ``onnx``."""

OLDEST_TORCH_OF_ONNX = "2.7"
"""The oldest torch that writes ONNX with the packages' newest releases."""

MAX_DIFFERENCE = 1e-4
"""The largest difference between outputs in [0, 1] that is put down to rounding."""

MAX_PRINTED = 100
"""The most characters that are printed of an item of the metadata, such as a thousand class names."""

METADATA_FILE = "metadata.json"
"""The file of metadata in an archive of torch.export."""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="export a trained classifier or generator as ONNX or by torch.export",
        description="Export a trained network, and check the exported one against it. A classifier takes images in "
        "[0, 1], of the size that it was trained on and any number, and gives probabilities; a GAN's generator takes "
        "noise, and classes if it has them, and gives images in [0, 1].",
        epilog="Class names, size, mean and standard deviation are in the file too: in ONNX as metadata_props, in .pt2 "
        f"as {METADATA_FILE} (torch.export.load(..., extra_files={{'{METADATA_FILE}': ''}})).",
    )
    parser.add_argument("out", metavar="OUT", help="the file to write, ending in .onnx or .pt2")
    parser.add_argument("--ckpt_path", required=True, metavar="PATH", help="a checkpoint of a classifier or GAN")
    parser.add_argument(
        "--config",
        help="the config that it was trained with, or a recipe's name (default: config.yaml of the checkpoint's run, "
        "or else what the checkpoint holds)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Check the arguments, export, check the result and write it.

    Raises:
        CheckpointError: If the checkpoint can't be read, or is of another network than the config's.
        FileExistsError: If the file exists.
        OSError: If it can't be written.
        UsageError: If an argument is not possible, a package is missing, or the config is missing.
        ValueError: If the network can't be exported, or gives something else once it is.
    """
    from lightning_adabelief.cli.checkpoint_config import find_model
    from lightning_adabelief.cli.signals import handle_signals
    from lightning_adabelief.config_file import UsageError

    checkpoint, out = Path(arguments.ckpt_path), Path(arguments.out)
    if out.suffix not in (".onnx", ".pt2"):
        raise UsageError(f"{out} ends in neither .onnx (ONNX) nor .pt2 (torch.export). Give a name that does")
    if not checkpoint.is_file():
        raise UsageError(
            f"There is no checkpoint {checkpoint}. Give a file that ModelCheckpoint wrote, such as best.ckpt"
        )
    if out.exists():
        raise FileExistsError(f"{out} exists, and is left as it is. Give another name")
    if out.suffix == ".onnx":
        _check_onnx()
    model, source = find_model(checkpoint, arguments.config)
    if not isinstance(model, dict):
        raise UsageError(f"In {source}, model is {model!r}, not a module with its networks. Give its config")
    with handle_signals():
        _export(checkpoint, model, source, out)


def _check_onnx() -> None:
    """Raise a UsageError if a package that ONNX takes is missing, or torch is too old."""
    from lightning_adabelief.config_file import UsageError

    missing = [package for package in ONNX_PACKAGES if find_spec(package) is None]
    if missing:
        raise UsageError(f"To write ONNX takes {', '.join(missing)}. Run pip install 'lightning-adabelief[onnx]'")
    import torch

    if torch.__version__ < OLDEST_TORCH_OF_ONNX:  # a TorchVersion, which compares numbers
        raise UsageError(
            f"To write ONNX takes torch {OLDEST_TORCH_OF_ONNX} or newer, and this is {torch.__version__}. "
            "Update torch, or give a name that ends in .pt2 (torch.export)"
        )


def _export(checkpoint: Path, model: dict[str, Any], source: Path, out: Path) -> None:
    """Export a checkpoint's network, check it and write it."""
    import torch

    from lightning_adabelief.cli.load_module import load_module
    from lightning_adabelief.files import replace_file

    options = {**(model.get("init_args") or {})}
    if "compile" in options:  # a compiled network can't be traced
        options["compile"] = False
    if "scores" in options:  # their network may not be at hand, and is not needed
        options["scores"] = None
    module = load_module(checkpoint, {**model, "init_args": options}, str(source))
    with torch.no_grad():
        exportable = _make_exportable(module, checkpoint)
        content, call = (_make_onnx if out.suffix == ".onnx" else _make_pt2)(_trace(exportable), exportable)
        difference = _compare(exportable, call)
    if not difference <= MAX_DIFFERENCE:
        raise ValueError(
            f"The exported {exportable.output} differ from the module's own by up to {difference:.1e}, more than "
            f"{MAX_DIFFERENCE:.0e}, and {out} is not written. Try the other format, .onnx or .pt2"
        )
    with replace_file(out) as part:
        part.write_bytes(content)
    examples = len(next(iter(exportable.inputs.values())))
    print(
        f"Wrote {out}. On {examples} random inputs its {exportable.output} differ from the module's own by at most "
        f"{difference:.1e}"
    )
    for name, text in exportable.metadata.items():
        print(f"  {name + ':':15}{text if len(text) <= MAX_PRINTED else text[:MAX_PRINTED] + ' ...'}")


def _make_exportable(module: Any, checkpoint: Path) -> Exportable:
    from lightning_adabelief.config_file import UsageError
    from lightning_adabelief.recipes import gan, image_classification
    from lightning_adabelief.recipes.gan.exportable import make_exportable as make_generator
    from lightning_adabelief.recipes.image_classification.exportable import make_exportable as make_classifier

    if isinstance(module, image_classification.ImageClassifier):
        return make_classifier(module)
    if isinstance(module, gan.GAN):
        return make_generator(module)
    raise UsageError(
        f"{checkpoint} is of a {type(module).__name__}, which can't be exported. Give one of an ImageClassifier or "
        "a GAN"
    )


def _trace(exportable: Exportable) -> Any:
    """Trace the program, for any number of images.

    Raises:
        ValueError: If torch.export can't trace it.
    """
    import torch

    dynamic = {name: {0: torch.export.Dim("N")} for name in exportable.inputs}
    try:
        return torch.export.export(
            exportable.program, tuple(exportable.inputs.values()), dynamic_shapes=dynamic, strict=False
        )
    except Exception as error:  # of torch's many
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"torch.export can't trace the network: {type(error).__name__}: {reason}") from error


def _make_pt2(program: Any, exportable: Exportable) -> tuple[bytes, Callable[..., Tensor]]:
    """Return the bytes of a program of torch.export, and the function that is in them."""
    import io
    import json

    import torch

    buffer = io.BytesIO()
    metadata = json.dumps(exportable.metadata, ensure_ascii=False, indent=2)
    torch.export.save(program, buffer, extra_files={METADATA_FILE: metadata})
    content = buffer.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


def _make_onnx(program: Any, exportable: Exportable) -> tuple[bytes, Callable[..., Tensor]]:
    """Return the bytes of an ONNX model, and the function that is in them.

    Raises:
        ValueError: If an operation of the network has no counterpart in ONNX.
    """
    import onnx
    import onnxruntime
    import torch

    try:
        made = torch.onnx.export(
            program,
            tuple(exportable.inputs.values()),
            input_names=list(exportable.inputs),
            output_names=[exportable.output],
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # of torch's many
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"The network can't be turned into ONNX: {type(error).__name__}: {reason}") from error
    assert made is not None
    proto = made.model_proto
    onnx.helper.set_model_props(proto, exportable.metadata)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def call(*inputs: Tensor) -> Tensor:
        arrays = {name: value.numpy() for name, value in zip(exportable.inputs, inputs, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0])

    return content, call


def _compare(exportable: Exportable, call: Callable[..., Tensor]) -> float:
    """Return the largest difference between what is exported and the module itself, for one image and for all."""
    largest = 0.0
    for size in (1, None):
        inputs = [value[:size] for value in exportable.inputs.values()]
        difference = (call(*inputs) - exportable.reference(*inputs)).abs().max().item()
        if not difference <= largest:  # NaN too
            largest = difference
    return largest
