"""Values of data loaders and evaluators that are refused only when the first batch is asked for, or later."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from cvplugins.errors import UserError
from cvplugins.refusals import did_you_mean, shown

__all__ = ["check_loaders"]

LEAST = {"batch_size": 1, "num_workers": 0, "prefetch_factor": 1}
DEVICES = ("cpu", "gpu")  # of mmengine.dist.collect_results


def check_loaders(cfg: Config) -> None:
    """Raise ``UserError`` for values that loaders and metrics take, and on which they die when they begin to work."""
    for job in ("train", "val", "test"):
        loader = cfg.get(f"{job}_dataloader") or {}
        for key, least in LEAST.items():
            _check_number(f"{job}_dataloader.{key}", loader.get(key), least)
        pipeline = (loader.get("dataset") or {}).get("pipeline")
        if pipeline is not None and not isinstance(pipeline, (list, tuple)):
            raise UserError(f"{job}_dataloader.dataset.pipeline = {shown(pipeline)}: expected a list of transforms")
        if loader.get("persistent_workers") is True and loader.get("num_workers", 0) == 0:
            raise UserError(
                f"{job}_dataloader.persistent_workers = True: there are no workers to persist; set it to False, or "
                f"{job}_dataloader.num_workers to 1 or more"
            )
        evaluator = cfg.get(f"{job}_evaluator")
        if job != "train" and evaluator is not None:
            _check_evaluator(f"{job}_evaluator", evaluator)


def _check_number(path: str, value: Any, least: int) -> None:
    if value is None or not (isinstance(value, (bool, float)) or (isinstance(value, int) and value < least)):
        return  # a word is for the loader to refuse, which knows what it takes
    kind = "positive" if least == 1 else "non-negative"
    raise UserError(f"{path} = {shown(value)}: expected a {kind} whole number")


def _check_evaluator(path: str, evaluator: Any) -> None:
    """Refuse what is no metric, and a device that results cannot be collected on, which is used after a validation."""
    is_list = isinstance(evaluator, (list, tuple))
    for number, metric in enumerate(evaluator if is_list else [evaluator]):
        place = f"{path}.{number}" if is_list else path
        if isinstance(metric, (bool, int, float, str)):
            raise UserError(
                f"{place} = {shown(metric)}: expected a metric, such as dict(type='cvplugins.DetectionMetric')"
            )
        device = metric.get("collect_device") if isinstance(metric, dict) else None
        if device is not None and device not in DEVICES:
            guess = did_you_mean(device, DEVICES)
            raise UserError(f"{place}.collect_device = {shown(device)}: {guess or 'expected cpu or gpu'}")
