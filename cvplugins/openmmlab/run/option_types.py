"""Options that a constructor takes with a value of the wrong type: a word for a number, or for True or False."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from mmengine import registry
from mmengine.config import Config

from cvplugins.errors import UserError
from cvplugins.refusals import accepted_options, shown

from .config_walk import Part, walk

__all__ = ["check_option_types", "class_at"]

# Which registry a part of a config is built from, by its path; the first that fits, and has the name, counts.
REGISTRIES = (
    (r"model(\.|$)", ("MODELS", "TASK_UTILS")),
    (r"\w+_dataloader\.(batch_)?sampler$", ("DATA_SAMPLERS",)),
    (r"\w+_dataloader\..*\.pipeline\.", ("TRANSFORMS",)),
    (r"\w+_dataloader\.dataset", ("DATASETS",)),
    (r"(custom|default)_hooks\.\w+$", ("HOOKS",)),
    (r"(custom|default)_hooks\..*\.", ("TRANSFORMS", "MODELS")),
    (r"(val|test)_evaluator(\.\d+)?$", ("METRICS",)),
    (r"optim_wrapper$", ("OPTIM_WRAPPERS",)),
    (r"optim_wrapper\.(\w+\.)?optimizer$", ("OPTIMIZERS",)),
    (r"param_scheduler(\.\w+)*$", ("PARAM_SCHEDULERS",)),
    (r"(train|val|test)_cfg$", ("LOOPS",)),
    (r"log_processor$", ("LOG_PROCESSORS",)),
    (r"visualizer$", ("VISUALIZERS",)),
)
DEFAULTS = {"optim_wrapper": "OptimWrapper", "log_processor": "LogProcessor"}
# The words of annotations that leave no room for a word as a value.
OF_FLAGS = {"typing", "Optional", "Union", "None", "NoneType", "class", "bool", "int"}
OF_NUMBERS = OF_FLAGS | {"float"}


def check_option_types(cfg: Config) -> None:
    """Raise ``UserError`` for a word where the class says, by default or annotation, number or truth value.

    Python takes every word for true, so that ``by_epoch='no'`` trains otherwise than it reads. The registries'
    default scope has to be the config's.

    Args:
        cfg: A loaded config.
    """
    for part in walk(cfg):
        if not isinstance(part.value, dict) or not ("type" in part.value or part.path in DEFAULTS):
            continue
        words = {key: value for key, value in part.value.items() if isinstance(value, str) and key != "type"}
        truths = {key: value for key, value in part.value.items() if value is True} if _is_optimizer(part) else {}
        kind: Any = class_at(part) if words or truths else None
        options = accepted_options(kind) if kind is not None else {}
        for key, value in [*words.items(), *truths.items()]:
            wanted = _wanted(options[key], value) if key in options else None
            if wanted is not None:
                raise UserError(f"{part.path}.{key} = {shown(value)}: {kind.__name__} {wanted}")


def class_at(part: Part) -> Any:
    """Return the class or function that a part of a config is built from, None if no registry knows it.

    Args:
        part: A dict of a config.
    """
    name = part.value.get("type", DEFAULTS.get(part.path))
    if not isinstance(name, str):
        return name if callable(name) else None
    for candidate in _registries(part.path):
        with candidate.switch_scope_and_registry(None) as found:
            kind = found.get(name)
        if kind is not None:
            return kind
    return None


def _registries(path: str) -> Iterator[Any]:
    for pattern, names in REGISTRIES:
        if re.match(pattern, path):
            yield from (getattr(registry, name) for name in names)
            return


def _is_optimizer(part: Part) -> bool:
    return part.key == "optimizer" and part.path.startswith("optim_wrapper.")


def _wanted(option: inspect.Parameter, value: Any) -> str | None:
    """Return what an option takes if that is no word, and not this value."""
    default, words = option.default, _annotated(option)
    has_default = default is not inspect.Parameter.empty and default is not None
    tail = f"; its default is {shown(default)}" if has_default else ""
    if isinstance(default, bool) or (words and "bool" in words and "int" not in words):
        return f"expects True or False{tail}" if isinstance(value, str) and words <= OF_FLAGS else None
    if isinstance(default, (int, float)) or words & {"int", "float"}:
        return f"expects a number{tail}" if words <= OF_NUMBERS else None
    return None


def _annotated(option: inspect.Parameter) -> set[str]:
    """Return the words of an option's annotation, none if it has none."""
    if option.annotation is inspect.Parameter.empty:
        return set()
    return set(re.findall(r"[A-Za-z]\w*", str(option.annotation)))
