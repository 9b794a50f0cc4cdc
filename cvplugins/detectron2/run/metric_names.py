"""The numbers that the evaluations of a run can give, and the hooks that monitor one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from cvplugins.detectron2.hooks.evaluation import EvaluationHook
from cvplugins.detectron2.hooks.plugin_hook import PluginHook
from cvplugins.monitors import MetricNames

__all__ = ["check_monitors", "metric_names"]

BuildEvaluator = Callable[[CfgNode, str], DatasetEvaluator]


def check_monitors(cfg: CfgNode, hooks: Iterable[HookBase], build_evaluator: BuildEvaluator) -> None:
    """Raise ``UserError`` if a hook monitors a number that no evaluation can give.

    Args:
        cfg: Detectron2's config with ours; its datasets are registered.
        hooks: Of ``build_cvplugins_hooks(cfg)``.
        build_evaluator: A trainer's. Evaluators read the data sets, so they are built only where something is
            monitored.
    """
    hooks = list(hooks)
    learning = [hook for hook in hooks if isinstance(hook, EvaluationHook)]
    monitored = [(hook, option, name) for hook in learning for option, name in hook.monitored().items()]
    if not monitored or not cfg.DATASETS.TEST:
        return
    names = metric_names(cfg, hooks, build_evaluator)
    for hook, option, name in monitored:
        names.check(name, f"CVPLUGINS.HOOKS: {type(hook).__name__}: {option}")


def metric_names(cfg: CfgNode, hooks: Iterable[HookBase], build_evaluator: BuildEvaluator) -> MetricNames:
    """Return the names of what the evaluations can give, for the arguments of :func:`check_monitors`.

    A hook may say in ``adds`` what comes of it.
    """
    several = len(cfg.DATASETS.TEST) > 1
    found = MetricNames(())
    for dataset in cfg.DATASETS.TEST:
        for evaluator in _single(build_evaluator(cfg, dataset)):
            # As detectron2/evaluation/testing.py (flatten_results_dict) joins them.
            found += _of_evaluator(evaluator, f"{dataset}/" if several else "")
    for hook in hooks:
        if hasattr(hook, "adds"):
            found += hook.adds
        elif isinstance(hook, PluginHook) and type(hook).results is not PluginHook.results:
            found += MetricNames((), ("",))
    return found


def _of_evaluator(evaluator: Any, beginning: str) -> MetricNames:
    names = getattr(evaluator, "names", None)
    if names is None:  # of somebody else
        return MetricNames((), (beginning,))
    return MetricNames(tuple(f"{beginning}{name}" for name in names()))


def _single(evaluator: DatasetEvaluator) -> Iterator[DatasetEvaluator]:
    if isinstance(evaluator, DatasetEvaluators):
        for each in evaluator._evaluators:
            yield from _single(each)
    else:
        yield evaluator
