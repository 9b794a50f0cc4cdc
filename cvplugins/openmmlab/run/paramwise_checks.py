"""Keys of ``optim_wrapper.paramwise_cfg`` that its constructor never reads, and parameters that do not exist."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from cvplugins.errors import UserError
from cvplugins.misspelt import slip_of
from cvplugins.refusals import did_you_mean, shown

__all__ = ["check_paramwise"]

PLACE = "optim_wrapper.paramwise_cfg"
READ = re.compile(
    r"paramwise_cfg(?:\.get\(|\.pop\(|\[)\s*['\"](\w+)['\"]|['\"](\w+)['\"] (?:not )?in (?:self\.)?paramwise_cfg(?!\[)"
)
OF_A_KEY = ("lr_mult", "decay_mult")


def check_paramwise(cfg: Config, model: nn.Module) -> None:
    """Raise ``UserError`` for what constructors of optimizers pass over in silence.

    Which keys one reads is taken from its source, because every constructor has others.

    Args:
        cfg: The config.
        model: Its model.
    """
    wrapper = cfg.optim_wrapper
    given = wrapper.get("paramwise_cfg")
    if not isinstance(given, Mapping):
        return
    kind = _constructor(wrapper.get("constructor", "DefaultOptimWrapperConstructor"))
    known = _keys_of(kind)
    for key, value in given.items():
        if not known or key in known:
            continue
        meant = slip_of(key, known)
        if meant or kind is DefaultOptimWrapperConstructor:
            guess = f"did you mean {meant}?" if meant else did_you_mean(key, known)
            raise UserError(
                f"{PLACE}.{key} = {shown(value)}: {kind.__name__} reads no such key; "
                f"{guess or 'it has ' + ', '.join(known)}"
            )
    for key in known:
        if key.endswith("_mult") and key in given:
            _check_factor(f"{PLACE}.{key}", given[key])
    if kind is DefaultOptimWrapperConstructor and isinstance(given.get("custom_keys"), Mapping):
        _check_custom_keys(given["custom_keys"], [name for name, _ in model.named_parameters()])


def _constructor(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    with OPTIM_WRAPPER_CONSTRUCTORS.switch_scope_and_registry(None) as registry:
        return registry.get(name)


def _keys_of(kind: Any) -> list[str]:
    """Return the keys that a class reads from ``paramwise_cfg``, none if its source is not there."""
    found: dict[str, None] = {}
    for each in getattr(kind, "__mro__", ())[:-1]:
        try:
            source = inspect.getsource(each)
        except (OSError, TypeError):
            return []
        found.update(dict.fromkeys(one or other for one, other in READ.findall(source)))
    return list(found)


def _check_custom_keys(keys: Mapping[str, Any], parameters: list[str]) -> None:
    """Refuse misspelt names: one that no parameter has is legal, as that of a layer which another size has."""
    parts = {part for name in parameters for part in name.split(".")}
    for key, options in keys.items():
        path = f"{PLACE}.custom_keys.{key}"
        for option, value in options.items() if isinstance(options, Mapping) else ():
            # Others become settings of the parameter group, as momentum.
            if meant := slip_of(option, OF_A_KEY):
                raise UserError(f"{path}.{option} = {shown(value)}: did you mean {meant}?")
            if option in OF_A_KEY:
                _check_factor(f"{path}.{option}", value)
        if any(key in name for name in parameters):
            continue
        for part in str(key).split("."):
            if meant := slip_of(part, parts):
                raise UserError(f"{path}: no parameter of the model has {key!r} in its name; did you mean {meant}?")


def _check_factor(path: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise UserError(f"{path} = {shown(value)}: expected a factor, 0 or more")
