"""LayerFreezeHook: layers frozen for a while, and learning rates by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict

from cvplugins.monitors import FreezeRule, LayerFreeze, split_learning_rates
from cvplugins.registry import HOOKS

from .monitor_hook import check_step

__all__ = ["LayerFreezeHook"]


@HOOKS.register_module()
class LayerFreezeHook(Hook):
    """Freeze layers by a schedule and give layers learning rates of their own, for transfer learning.

    See :class:`cvplugins.monitors.LayerFreeze` and :func:`cvplugins.monitors.split_learning_rates`. Frozen batch
    norms do not move, whatever the loop does with ``model.train()``. Schedulers of mmengine keep the factors. Resumed
    runs go on as they were, with the same options.

    In distributed runs set ``find_unused_parameters=True`` in the config: DistributedDataParallel waits for the
    gradient of every parameter that trained when it was made.

    Args:
        frozen: Rules: ``dict(layers=['backbone'], until=1000)`` and optionally ``begin``; without ``until`` for the
            whole training. Names or patterns of modules or parameters.
        by_epoch: Whether ``begin`` and ``until`` are epochs instead of iterations, both counted from 0.
        lr_factors: Factor on the learning rate by name or pattern; the last that matches counts.
    """

    # Before hooks that look at what trains
    priority = "ABOVE_NORMAL"

    def __init__(
        self,
        frozen: Sequence[Mapping[str, Any]] = (),
        by_epoch: bool = False,
        lr_factors: Mapping[str, float] | None = None,
    ) -> None:
        if not frozen and not lr_factors:
            raise ValueError("LayerFreezeHook has nothing to do; set frozen or lr_factors")
        self.rules = [FreezeRule(**rule) for rule in frozen]
        self.by_epoch = by_epoch
        self.lr_factors = dict(lr_factors or {})

    def before_run(self, runner) -> None:
        """Split the optimizer's groups while it is new: after the schedulers are made, before a state is loaded."""
        if self.lr_factors and isinstance(runner.optim_wrapper, OptimWrapper):
            if isinstance(runner.optim_wrapper, OptimWrapperDict):
                raise ValueError("LayerFreezeHook: lr_factors are for one optimizer, and this run has several")
            _split(runner, self.lr_factors)

    def before_train(self, runner) -> None:
        """Find the layers, and freeze the first before DDP's first iteration."""
        model = runner.model
        if self.rules and getattr(model, "find_unused_parameters", True) is False:
            raise ValueError(
                "LayerFreezeHook: DistributedDataParallel would wait for the gradients of frozen layers; "
                "set find_unused_parameters=True at the top of the config, or in model_wrapper_cfg where there is one"
            )
        for rule in self.rules:
            check_step(runner, "LayerFreezeHook: begin", rule.begin, self.by_epoch)
            check_step(runner, "LayerFreezeHook: until", rule.until, self.by_epoch)
        self.monitor = LayerFreeze(model.module if is_model_wrapper(model) else model, self.rules)

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Freeze and release what is due."""
        report = self.monitor.observe(runner.epoch if self.by_epoch else runner.iter)
        if report:
            runner.logger.info(f"{'epoch' if self.by_epoch else 'iteration'} {report.step}: {report}")

    def after_train(self, runner) -> None:
        """Leave the model as it came."""
        self.monitor.restore()


def _split(runner, factors: Mapping[str, float]) -> None:
    wrapper, model = runner.optim_wrapper, runner.model
    # Schedulers also see a group without parameters, with the rate without factors, where the wrapper has one.
    base = dict(wrapper.param_groups[0]) if wrapper.base_param_settings is None else None
    origins = split_learning_rates(wrapper.optimizer, model.module if is_model_wrapper(model) else model, factors)
    if base is not None and len(origins) > 1:
        wrapper.base_param_settings = {**base, "params": torch.tensor([0.0])}
        origins = [*origins, (0, 1.0)]
    elif base is None:
        origins = [*origins, (max(index for index, _ in origins) + 1, 1.0)]
    for scheduler in runner.param_schedulers or []:
        for name in ("base_values", "_last_value", "min_values"):
            values = getattr(scheduler, name, None)
            if isinstance(values, list):
                scales = scheduler.param_name == "lr" and name != "min_values"
                new = [values[index] * (factor if scales else 1.0) for index, factor in origins]
                setattr(scheduler, name, new)
    runner.logger.info(
        "learning rates by layer: " + ", ".join(f"{pattern} x {factor:g}" for pattern, factor in factors.items())
    )
