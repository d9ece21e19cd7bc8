"""``adabelief sample --ckpt_path PATH --out DIR``: images of a trained GAN, one by one and in a grid."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning_adabelief.cli.checkpoint_config import CONFIG_NAME, find_model


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "sample",
        help="draw images with a trained GAN",
        description="Draw images with a trained GAN, on the CPU. The same seed draws the same images.",
        epilog="Written into DIR: sample-00000.png and so on, in the size of the data, and samples.png, all of them in "
        "a grid. Where the GAN has classes, each has a row of the grid, and a file's name ends in its class's number.",
    )
    parser.add_argument("--ckpt_path", required=True, metavar="PATH", help="a GAN's checkpoint")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--n", type=int, default=64, help="number of images (default: 64)")
    parser.add_argument(
        "--class", dest="label", metavar="CLASS", help="name of the class, or its number from 0 (default: all in turn)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument(
        "--interpolate", action="store_true", help="also draw interpolation.png: strips from one noise to another"
    )
    parser.add_argument(
        "--config",
        help=f"the GAN's config, or a recipe's name (default: {CONFIG_NAME} of the checkpoint's run, "
        "or else what the checkpoint holds)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Check the arguments, draw and write.

    Raises:
        CheckpointError: If the checkpoint can't be read, or is of another network than the config's.
        FileExistsError: If the folder holds samples already.
        OSError: If the folder can't be written.
        UsageError: If an argument is not possible, or the config is missing or not a GAN's.
    """
    from lightning_adabelief.cli.signals import handle_signals
    from lightning_adabelief.config_file import UsageError

    checkpoint, out = Path(arguments.ckpt_path), Path(arguments.out)
    if not checkpoint.is_file():
        raise UsageError(
            f"There is no checkpoint {checkpoint}. Give a file that ModelCheckpoint wrote, such as best.ckpt"
        )
    if arguments.n < 1:
        raise UsageError(f"--n is {arguments.n}. Give 1 or more")
    if not 0 <= arguments.seed < 2**63:
        raise UsageError(f"--seed is {arguments.seed}. Give a whole number from 0 to 2^63 - 1")
    model, source = find_model(checkpoint, arguments.config)
    model = _leave_out_scores(model, source)
    generator = model["init_args"]["generator"].get("init_args") or {}
    if "num_classes" in generator and not model["init_args"].get("conditional"):  # which takes the data's classes
        _check_has_classes(arguments.label, generator["num_classes"], source)
    if any(out.glob("sample*.png")):
        raise FileExistsError(f"{out} holds samples already, and is left as it is. Give --out another folder")
    with handle_signals():
        _draw(arguments, model, source)


def _leave_out_scores(model: Any, source: Path) -> dict[str, Any]:
    """Return a GAN without its scores: their network may not be at hand, and is not needed."""
    from lightning_adabelief.config_file import UsageError

    if not isinstance(model, dict):
        raise UsageError(
            f"In {source}, model is {model!r}, not a GAN with its networks. Give a GAN's checkpoint and config"
        )
    options = model.get("init_args")
    if not isinstance(options, dict) or not isinstance(options.get("generator"), dict):
        named = model.get("class_path")
        raise UsageError(f"In {source}, model is {named}, which has no generator. Give a GAN's checkpoint and config")
    return {**model, "init_args": {**options, "scores": None}}


def _check_has_classes(given: str | None, classes: int | None, source: Path) -> None:
    """Refuse a class of a generator without classes."""
    from lightning_adabelief.config_file import UsageError

    if given is not None and classes is None:
        raise UsageError(
            f"--class is {given}, and the GAN of {source} has no classes. Leave --class out, or train with "
            "model.conditional true"
        )


def _find_label(given: str | None, gan: Any, source: Path) -> int | None:
    """Return the number of a class, given by its name or else by that number."""
    from lightning_adabelief.config_file import UsageError
    from lightning_adabelief.suggest import suggest

    classes, names = gan.generator.num_classes, gan.class_names or []
    _check_has_classes(given, classes, source)
    if given is None or given in names:  # a name may be a number too, and another than the class's own
        return None if given is None else names.index(given)
    if given.isdecimal() and int(given) < classes:
        return int(given)
    of_name = f". {suggest(given, names)}" if names else ""
    raise UsageError(
        f"--class is {given}, and the GAN of {source} has {classes} classes. Give 0 to {classes - 1}{of_name}"
    )


def _draw(arguments: argparse.Namespace, model: dict[str, Any], source: Path) -> None:
    """Draw the images, and write them."""
    import torch

    from lightning_adabelief.cli.load_module import load_module

    gan = load_module(Path(arguments.ckpt_path), model, str(source))
    label = _find_label(arguments.label, gan, source)

    from lightning_adabelief.recipes.gan.drawing import (
        choose_labels,
        draw_images,
        draw_interpolation,
        generate_images,
    )
    from lightning_adabelief.recipes.pictures import save_picture

    out = Path(arguments.out)
    noise = gan.draw_noise(arguments.n, torch.Generator().manual_seed(arguments.seed))
    labels = choose_labels(gan, arguments.n, label)
    images = generate_images(gan, noise, labels)
    for number, image in enumerate((images * 255).round().byte()):
        of_class = "" if labels is None else f"-class-{labels[number]}"
        save_picture(image, out / f"sample-{number:05}{of_class}.png")
    # Images of one class need no name beside them, and make a square.
    grid = draw_images(gan, images, labels if label is None else None)
    save_picture(grid, out / "samples.png")
    written = "samples.png"
    if arguments.interpolate:
        save_picture(draw_interpolation(gan, arguments.seed, label), out / "interpolation.png")
        written += ", interpolation.png"
    of_name = "" if label is None or gan.class_names is None else f" of class {gan.class_names[label]}"
    print(f"Wrote {written} and {arguments.n} single images{of_name} into {out}")
