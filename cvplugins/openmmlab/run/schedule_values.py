"""Values of ``param_scheduler`` that mmengine takes, and that make a schedule do nothing or harm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from cvplugins.errors import UserError
from cvplugins.refusals import shown

__all__ = ["check_schedules"]


def check_schedules(cfg: Config) -> None:
    """Raise ``UserError`` for milestones, ends and factors that cannot be meant.

    Milestones may have any order: mmengine counts them (mmengine/optim/scheduler/param_scheduler.py, 0.10).
    """
    for path, schedule in _schedules(cfg.get("param_scheduler"), "param_scheduler"):
        if not isinstance(schedule, dict):
            raise UserError(f"{path} = {shown(schedule)}: expected a schedule, such as dict(type='LinearLR')")
        stones = schedule.get("milestones", [])
        if not isinstance(stones, (list, tuple)) or not all(_is_number(each, int) for each in stones):
            raise UserError(f"{path}.milestones = {shown(stones)}: expected a list such as [8, 11]")
        early = [each for each in stones if each < 0]
        if early:
            raise UserError(f"{path}.milestones = {shown(stones)}: {early[0]} is never reached; give 0 or more")
        for key, what in (("begin", "0 or more"), ("end", "a number above begin")):
            value = schedule.get(key)
            if value is not None and not _is_number(value, (int, float)):
                raise UserError(f"{path}.{key} = {shown(value)}: expected {what}")
        if (schedule.get("begin") or 0) < 0:
            raise UserError(f"{path}.begin = {schedule['begin']}: a training begins at 0; expected 0 or more")
        converts = schedule.get("convert_to_iter_based", False)
        if converts not in (True, False):
            raise UserError(f"{path}.convert_to_iter_based = {shown(converts)}: expected True or False")
        gamma = schedule.get("gamma")
        if gamma is not None and (not _is_number(gamma, (int, float)) or gamma < 0):
            raise UserError(
                f"{path}.gamma = {shown(gamma)}: the rate is multiplied by it; expected 0 or more, such as 0.1"
            )


def _schedules(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and the config of each schedule; several optimizers have a dict of lists."""
    if isinstance(node, (list, tuple)):
        for number, each in enumerate(node):
            yield from _schedules(each, f"{path}.{number}")
    elif isinstance(node, dict) and "type" not in node and not any(map(_is_plain, node.values())):
        for name, each in node.items():
            yield from _schedules(each, f"{path}.{name}")
    elif isinstance(node, dict) or _is_plain(node):
        yield path, node


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


def _is_number(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
