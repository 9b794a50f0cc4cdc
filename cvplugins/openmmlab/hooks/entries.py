"""Entries of ``custom_hooks`` and ``default_hooks`` that are no hooks, and their priorities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.runner import Priority

from cvplugins.errors import UserError
from cvplugins.openmmlab.run.config import walk_dicts
from cvplugins.refusals import did_you_mean, shown

__all__ = ["check_hook_entries"]


def check_hook_entries(cfg: Config) -> None:
    """Raise ``UserError`` for an entry that is no hook, and for a priority that mmengine has no number for."""
    custom = cfg.get("custom_hooks") or []
    if not isinstance(custom, (list, tuple)):
        raise UserError(f"custom_hooks = {shown(custom)}: expected a list of hooks")
    hooks = cfg.get("default_hooks") or {}
    steps = any(str(node.get("type")).endswith("ParamSchedulerHook") for node in walk_dicts(custom))
    if hooks.get("param_scheduler", hooks) is None and cfg.get("param_scheduler") and not steps:
        raise UserError(
            "default_hooks.param_scheduler = None: without this hook no schedule of param_scheduler takes a step, "
            "and the learning rate stays at its first value; leave it in, or set param_scheduler to None too"
        )
    for path, hook in _entries(cfg, custom):
        if isinstance(hook, (bool, int, float, str, list, tuple)):
            raise UserError(f"{path} = {shown(hook)}: expected a hook, such as dict(type='EMAHook')")
        if isinstance(hook, dict) and hook.get("priority") is not None:
            _check_priority(f"{path}.priority", hook["priority"])


def _entries(cfg: Config, custom: Any) -> Iterator[tuple[str, Any]]:
    for number, hook in enumerate(custom):
        yield f"custom_hooks.{number}", hook
    for name, hook in (cfg.get("default_hooks") or {}).items():
        if hook is not None:  # which leaves a default hook out
            yield f"default_hooks.{name}", hook


def _check_priority(path: str, value: Any) -> None:
    names = list(Priority.__members__)
    if isinstance(value, Priority) or (isinstance(value, str) and value.upper() in names):
        return
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100:
        return
    guess = did_you_mean(str(value).upper(), names)
    raise UserError(f"{path} = {shown(value)}: {guess or 'expected a number from 0 to 100, or ' + ', '.join(names)}")
