"""LayerFreezeHook: layers frozen for a while, and learning rates by layer."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from cvplugins.monitors import LayerFreezeMonitor
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook, check_step
from .monitored_run import RunnerRun

__all__ = ["LayerFreezeHook"]


@HOOKS.register_module()
class LayerFreezeHook(MonitorHook):
    """mmengine's :class:`cvplugins.monitors.LayerFreezeMonitor`.

    In distributed runs set ``find_unused_parameters=True`` in the config: DistributedDataParallel waits for the
    gradient of every parameter that trained when it was made.

    Args:
        by_epoch: Whether ``begin`` and ``until`` are epochs instead of iterations, both counted from 0.
    """

    # Before hooks that look at what trains
    priority = "ABOVE_NORMAL"
    monitor_type = LayerFreezeMonitor
    checkpoint_key = "cvplugins_layer_freeze"

    def __init__(self, *arguments: Any, by_epoch: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.by_epoch = by_epoch

    def before_run(self, runner) -> None:
        """Split the optimizer's groups while it is new: after the schedulers are made, before a state is loaded."""
        if self.monitor.lr_factors and isinstance(runner.optim_wrapper, OptimWrapper):
            if isinstance(runner.optim_wrapper, OptimWrapperDict):
                raise ValueError("LayerFreezeHook: lr_factors are for one optimizer, and this run has several")
            _split(RunnerRun(runner), self.monitor)

    def before_train(self, runner) -> None:
        """Find the layers."""
        if self.monitor.rules and getattr(runner.model, "find_unused_parameters", True) is False:
            raise ValueError(
                "LayerFreezeHook: DistributedDataParallel would wait for the gradients of frozen layers; "
                "set find_unused_parameters=True at the top of the config, or in model_wrapper_cfg where there is one"
            )
        for rule in self.monitor.rules:
            check_step(runner, "LayerFreezeHook: begin", rule.begin, self.by_epoch)
            check_step(runner, "LayerFreezeHook: until", rule.until, self.by_epoch)
        super().before_train(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Freeze and release what is due."""
        if self.by_epoch:
            self.monitor.observe(self.run, runner.epoch, "epoch")
        else:
            super().before_train_iter(runner, batch_idx, data_batch)


def _split(run: RunnerRun, monitor: LayerFreezeMonitor) -> None:
    runner = run.runner
    wrapper = runner.optim_wrapper
    # Schedulers also see a group without parameters, with the rate without factors, where the wrapper has one.
    base = dict(wrapper.param_groups[0]) if wrapper.base_param_settings is None else None
    origins = monitor.split(run, wrapper.optimizer, run.model)
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
