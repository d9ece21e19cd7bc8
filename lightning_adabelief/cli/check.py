"""The check of a command line and its configs that takes a moment, for it imports neither torch nor Lightning.

It refuses only what would certainly fail later; what it can't tell, the Lightning CLI's parser checks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_adabelief.cli.class_source import (
    PACKAGES,
    ClassSource,
    UnknownClassError,
    find_class,
    list_arguments,
    list_names,
)
from lightning_adabelief.cli.users_modules import list_class_paths
from lightning_adabelief.cli.value_ranges import list_out_of_range
from lightning_adabelief.cli.value_types import fits, list_class_names, say_type
from lightning_adabelief.config_file import UsageError, parse_value, read_config, read_number
from lightning_adabelief.settings import CONFIG_ENDINGS, Settings
from lightning_adabelief.suggest import find_similar, join_names, suggest

TREE = "pytorch_lightning"
RUN_ARGUMENTS = ("model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders")
"""Arguments of ``Trainer.fit`` and the like that the command fills in itself."""

MODULES_OF_SHORT_NAMES = {
    "Callback": (f"{TREE}.callbacks", "lightning_adabelief.callbacks"),
    "Logger": (f"{TREE}.loggers",),
    "OptimizerCallable": ("torch.optim", "lightning_adabelief"),
    "LRSchedulerCallable": ("torch.optim.lr_scheduler",),
}
"""From a type to where a class of it is looked for whose path is its name alone."""

OPTIMIZER_KEYS = {"optimizer": "OptimizerCallable", "lr_scheduler": "LRSchedulerCallable"}
"""LightningCLI's own keys, by which a module is given its ``configure_optimizers``, and the types of their values."""

SYNONYMS = {
    "learning_rate": "lr",
    "epsilon": "eps",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "beta": "betas",
    "beta1": "betas",
    "beta2": "betas",
    "bs": "batch_size",
    "epochs": "max_epochs",
    "n_epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "steps": "max_steps",
    "gpus": "devices",
    "scheduler": "lr_scheduler",
    "schedule": "lr_scheduler",
    "seed": "seed_everything",
    "checkpoint": "ckpt_path",
    "ckpt": "ckpt_path",
    "resume": "ckpt_path",
}
"""From what people call an option elsewhere to its name here."""

MAX_PROBLEMS = 5
"""Problems that are told at once."""


def check(settings: Settings) -> list[str]:
    """Check keys, class paths, names of arguments and the types of plain values.

    Args:
        settings: A command line and its configs.

    Returns:
        The keys of classes whose arguments could not be checked, because their source does not tell them.

    Raises:
        UsageError: If something is wrong; its message has a line for each problem.
    """
    return _Check(settings).run()


class _Check:
    """The state of one check.

    Attributes:
        problems: A line each.
        unknown: Keys that their class does not have, with what is similar there: suggestions are made when all
            keys are known.
        keys: Every key that could be given.
        unchecked: Keys of classes that could not be read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.problems: list[str] = []
        self.unknown: list[tuple[str, str, list[str]]] = []
        self.keys: list[str] = []
        self.unchecked: list[str] = []

    def run(self) -> list[str]:
        settings = self.settings
        trainer = find_class(f"{TREE}.Trainer")
        run_method = _find_method(trainer, settings.command)
        top_level = {"model": None, "data": None, "trainer": None, "seed_everything": None, "config": None}
        top_level |= {name: None for name in run_method if name not in RUN_ARGUMENTS}
        values = {"model": "LightningModule", "data": "LightningDataModule"}
        if not self._trains_a_recipe():  # whose optimizer is an argument of its module
            top_level |= dict.fromkeys(OPTIMIZER_KEYS)
            values |= OPTIMIZER_KEYS
        self._check_names("", settings.tree, list(top_level), "")
        for key, type_name in values.items():
            self._check_value(key, settings.tree.get(key), ast.Name(type_name))
        if isinstance(settings.tree.get("trainer"), dict) and trainer is not None:
            self._check_arguments("trainer", settings.tree["trainer"], trainer)
        self._check_seed(settings.tree.get("seed_everything"))
        missing = [key for key in ("data", "model") if not settings.tree.get(key)]
        if missing and not self.unknown:
            self.problems.append(
                f"There is no {' and no '.join(missing)}. Give a config that has both, for example --config digits-cnn"
            )
        if settings.tree.get("lr_scheduler") and not settings.tree.get("optimizer"):
            place = settings.say_place("lr_scheduler")
            self.problems.append(f"{place} has no effect without an optimizer beside it. Give --optimizer too")
        self.problems += [self._explain_unknown(*unknown) for unknown in self.unknown]
        if self.problems:
            others = len(self.problems) - MAX_PROBLEMS
            ending = [f"(and {others} more)"] if others > 0 else []
            raise UsageError("\n".join([*self.problems[:MAX_PROBLEMS], *ending]))
        return self.unchecked

    def _trains_a_recipe(self) -> bool:
        model = self.settings.tree.get("model")
        class_path = model.get("class_path") if isinstance(model, dict) else model
        return str(class_path).startswith("lightning_adabelief.")

    def _check_seed(self, seed: Any) -> None:
        number = read_number(seed)
        if (number is None and not isinstance(seed, bool | None)) or (number is not None and not 0 <= number < 2**32):
            place = self.settings.say_place("seed_everything")
            self.problems.append(
                f"{place} must be a whole number from 0 to {2**32 - 1}, or true or false. Got {seed!r:.80}"
            )

    def _check_names(self, key: str, given: Iterable[str], known: list[str], owner: str) -> None:
        prefix = f"{key}." if key else ""
        self.keys += [f"{prefix}{name}" for name in known]
        # A key with a dot in it, such as "optimizer.lr" in a file, is left to the parser, which takes it apart.
        self.unknown += [
            (f"{prefix}{name}", owner, known) for name in given if name not in known and "." not in str(name)
        ]

    def _check_value(self, key: str, value: Any, annotation: ast.expr | None) -> None:
        """Check a value against its type, and the classes that it names."""
        if value is None or annotation is None:
            return
        if not fits(value, annotation):
            place = self.settings.say_place(key)
            self.problems.append(f"{place} must be {say_type(annotation)}. Got {value!r:.80}")
            return
        class_names = list_class_names(annotation)
        for item in value if isinstance(value, list) else [value]:
            item = parse_value(item) if isinstance(item, str) and item.startswith("{") else item
            if class_names and isinstance(item, str):
                item = {"class_path": item}
            if isinstance(item, dict) and class_names and not _is_class_node(item):
                self.problems.append(
                    f"{self.settings.say_place(key)} needs a class_path that is text, and init_args that are keys "
                    f"with values. Got {item!r:.80}"
                )
                continue
            if isinstance(item, dict) and isinstance(item.get("class_path"), str) and ast.unparse(annotation) != "Any":
                self._check_class(key, item, class_names)

    def _check_class(self, key: str, node: dict[str, Any], base_names: list[str]) -> None:
        class_path = node["class_path"]
        if class_path.endswith(CONFIG_ENDINGS):  # a config of its own
            if Path(class_path).is_file():
                read_config(Path(class_path))  # says what is wrong with it
            self.unchecked.append(key)
            return
        try:
            source = find_class(class_path) if "." in class_path else self._find_short_name(class_path, base_names)
        except UnknownClassError as error:
            self.problems.append(f"{self.settings.say_place(key)}: {error}")
            return
        if source is None:
            self.unchecked.append(key)
            return
        given = node.get("init_args")
        # An OptimizerCallable is called with parameters, an LRSchedulerCallable with an optimizer.
        filled_in = 1 if any(name.endswith("Callable") for name in base_names) else 0
        self._check_arguments(key, given if isinstance(given, dict) else {}, source, filled_in)
        extra = node.keys() - {"class_path", "init_args", "dict_kwargs"}
        self.problems += [
            f"{self.settings.say_place(f'{key}.{name}')} stands beside class_path. Arguments of {source.name} "
            "stand under init_args"
            for name in sorted(extra)
        ]

    def _find_short_name(self, name: str, base_names: list[str]) -> ClassSource | None:
        modules = [module for base in base_names for module in MODULES_OF_SHORT_NAMES.get(base, ())]
        for module in modules:
            if name in list_names(module):
                return find_class(f"{module}.{name}")
        known = [known for module in modules for known in list_names(module) if known[0].isupper()]
        # A class of a module that has been imported can be named so too: only what looks misspelt is refused.
        if find_similar(name, known) and not self._names_users_modules():
            raise UnknownClassError(f"There is no class {name!r}. {suggest(name, known)}")
        if modules and not name.isidentifier():
            raise UnknownClassError(f"There is no class {name!r}. Give its path, as package.module.Class")
        return None

    def _names_users_modules(self) -> bool:
        return any(path.partition(".")[0] not in PACKAGES for path in list_class_paths(self.settings.tree))

    def _check_arguments(self, key: str, given: dict[str, Any], source: ClassSource, filled_in: int = 0) -> None:
        """Check the arguments of a class, of which the first few are not the config's to give."""
        arguments = list_arguments(source)
        names = list(arguments.annotations)[filled_in:]
        if arguments.are_complete:
            self._check_names(key, given, names, source.name)
        else:
            self.keys += [f"{key}.{name}" for name in names]
            self.unchecked.append(key)
        for name, value in given.items():
            self._check_value(f"{key}.{name}", value, arguments.annotations.get(name))
        self.problems += [
            f"{self.settings.say_place(f'{key}.{name}')} must be {allowed}. Got {value}"
            for name, allowed, value in list_out_of_range(source.name, source.module, given)
        ]

    def _explain_unknown(self, key: str, owner: str, siblings: list[str]) -> str:
        parent, _, name = key.rpartition(".")
        has_no = f"{owner} has no option {name!r}" if owner else f"There is no option {name!r}"
        start = "" if self.settings.is_typed(key) else f"{self.settings.say_place(key)}: "
        guesses = self._guess(key, siblings)
        if not guesses:
            known = sorted({key.partition(".")[0] for key in self.keys}) if not parent else siblings
            return f"{start}{has_no}. {suggest(name, known)}"
        if self.settings.is_typed(key):
            guesses = [f"--{guess}" for guess in guesses]
        return f"{start}{has_no}. Did you mean {join_names(guesses, 'or')}?"

    def _guess(self, key: str, siblings: list[str]) -> list[str]:
        """Guess which keys were meant: of the same name elsewhere, or of a similar one here, or elsewhere."""
        parent, _, name = key.rpartition(".")
        prefix = f"{parent}." if parent else ""
        same = [known for known in self.keys if known.rpartition(".")[2] in (name, SYNONYMS.get(name))]
        if same:
            here = [known for known in same if known.startswith(prefix)]
            return sorted(here or same, key=lambda known: known.count("."))[:3]
        similar = find_similar(name, siblings, max_count=2)
        if similar:
            return [f"{prefix}{known}" for known in similar]
        names = {known.rpartition(".")[2]: known for known in reversed(self.keys)}
        return [names[known] for known in find_similar(name, names, max_count=2, cutoff=0.75)]


def _find_method(trainer: ClassSource | None, name: str) -> list[str]:
    """List the arguments of one of the Trainer's methods."""
    assert trainer is not None and isinstance(trainer.node, ast.ClassDef)
    (method,) = (m for m in trainer.node.body if isinstance(m, ast.FunctionDef) and m.name == name)
    return [argument.arg for argument in [*method.args.args[1:], *method.args.kwonlyargs]]


def _is_class_node(node: dict[str, Any]) -> bool:
    """Return False if the keys of a class hold what they can't; a class without class_path may be the type itself."""
    return isinstance(node.get("class_path", ""), str) and isinstance(node.get("init_args") or {}, dict | str)
