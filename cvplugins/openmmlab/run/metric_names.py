"""The numbers that the validations of a run can give, and the hooks that monitor one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import Runner

from cvplugins.monitors import MetricNames
from cvplugins.openmmlab.hooks.undefined_numbers import flat, monitored_by_checkpoints
from cvplugins.openmmlab.metrics.base import PluginMetric

from .config import type_name
from .config_walk import walk

__all__ = ["check_monitors", "metric_names"]

# Packages whose hooks add no numbers to a validation.
KNOWN_PACKAGES = ("mmengine", "mmdet", "mmseg", "mmcv", "cvplugins")
OF_IOU_METRIC = {
    "mIoU": ("aAcc", "mIoU", "mAcc"),
    "mDice": ("aAcc", "mDice", "mAcc"),
    "mFscore": ("aAcc", "mFscore", "mPrecision", "mRecall"),
}
OF_COCO_METRIC = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def check_monitors(runner: Runner) -> None:
    """Raise ``UserError`` if a hook or a schedule monitors a number that no validation can give.

    Args:
        runner: A run with its hooks and its validation loop, if it has one.
    """
    if runner.val_loop is None:
        return
    names = metric_names(runner)
    for kind, option, name in _monitored(runner):
        names.check(name, _key_of(runner.cfg, option, name) or f"{kind}: {option}")


def metric_names(runner: Runner) -> MetricNames:
    """Return the names of what the validations of a run can give; a hook may say in ``adds`` what comes of it."""
    found = MetricNames(())
    for metric in runner.val_loop.evaluator.metrics:
        found += _of_metric(metric)
    for hook in runner.hooks:
        if hasattr(hook, "adds"):
            found += hook.adds
        elif _adds_numbers(hook):
            found += MetricNames((), ("",))
    return found


def _of_metric(metric: BaseMetric) -> MetricNames:
    """Return what a metric gives; of one that does not say so, names with its prefix."""
    beginning = f"{metric.prefix}/" if metric.prefix else ""
    names = metric.names() if isinstance(metric, PluginMetric) else _of_upstream(metric)
    if names is None:
        return MetricNames((), (beginning,))
    return MetricNames(tuple(f"{beginning}{each}" for each in names))


def _of_upstream(metric: Any) -> list[str] | None:
    """Return what the usual metrics of mmdet (3.3) and mmseg (1.2) give by their most usual options."""
    name = type(metric).__name__
    if name == "VOCMetric" and metric.metric == "mAP":
        return ["mAP", *(f"AP{int(threshold * 100):02d}" for threshold in metric.iou_thrs)]
    if name == "CocoMetric" and not (metric.classwise or metric.metric_items or metric.format_only):
        is_usual = set(metric.metrics) <= {"bbox", "segm"}
        return [f"{kind}_{item}" for kind in metric.metrics for item in OF_COCO_METRIC] if is_usual else None
    if name == "IoUMetric" and not metric.format_only and set(metric.metrics) <= set(OF_IOU_METRIC):
        return list(dict.fromkeys(each for kind in metric.metrics for each in OF_IOU_METRIC[kind]))
    return None


def _adds_numbers(hook: Hook) -> bool:
    """Return whether a hook may add numbers of its own to those of a validation: one that nobody here knows."""
    package = type(hook).__module__.partition(".")[0]
    return package not in KNOWN_PACKAGES and type(hook).after_val_epoch is not Hook.after_val_epoch


def _key_of(cfg: Config, option: str, name: str) -> str | None:
    """Return the config's key that has this value, None if it is a class's default."""
    for part in walk(cfg):
        values = part.value if isinstance(part.value, (list, tuple)) else [part.value]
        if part.path.endswith(f".{option}") and name in values:
            return part.path
    return None


def _monitored(runner: Runner) -> Iterator[tuple[str, str, str]]:
    """Yield the kind of each hook or schedule that monitors a number, its option, and the number's name."""
    for hook in runner.hooks:
        kind = type(hook).__name__
        for option, name in getattr(hook, "monitored", dict)().items():
            yield kind, option, name
        if isinstance(hook, CheckpointHook):
            yield from ((kind, "save_best", name) for name in monitored_by_checkpoints(hook))
        if isinstance(hook, EarlyStoppingHook):
            yield kind, "monitor", hook.monitor
    for scheduler in flat(runner.param_schedulers):
        if isinstance(scheduler, Mapping):  # not built yet
            if "type" in scheduler and type_name(scheduler).startswith("ReduceOnPlateau"):
                yield type_name(scheduler), "monitor", scheduler.get("monitor", "loss")
        elif getattr(scheduler, "need_val_args", False):
            yield type(scheduler).__name__, "monitor", scheduler.monitor
