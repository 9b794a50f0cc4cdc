"""OptimizerSwitchHook: begin with one optimizer, finish with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapperDict
from mmengine.registry import OPTIMIZERS

from cvplugins.errors import UserError
from cvplugins.monitors import OptimizerSwitchMonitor
from cvplugins.registry import HOOKS

from .evaluation import EvaluationHook
from .monitor_hook import check_step
from .monitored_run import RunnerRun

__all__ = ["OptimizerSwitchHook"]


@HOOKS.register_module()
class OptimizerSwitchHook(EvaluationHook):
    """mmengine's :class:`cvplugins.monitors.OptimizerSwitchMonitor`.

    ``optimizer`` is a config as in ``optim_wrapper``, of any registered type. Gradient clipping and accumulation carry
    over too.

    Args:
        by_epoch: Whether ``at`` is an epoch.
    """

    priority = "HIGHEST"  # before RuntimeInfoHook logs the rate of the iteration
    monitor_type = OptimizerSwitchMonitor
    checkpoint_key = "cvplugins_optimizer_switch"
    monitor: OptimizerSwitchMonitor

    def __init__(self, *arguments: Any, by_epoch: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.by_epoch = by_epoch

    def before_run(self, runner) -> None:
        """Refuse what cannot be switched before work begins."""
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise UserError("OptimizerSwitchHook switches one optimizer, and this run has several")
        super().before_run(runner)

    def before_train(self, runner) -> None:
        """See whether the step can come."""
        if self.monitor.at is not None:
            check_step(runner, "OptimizerSwitchHook: at", self.monitor.at, self.by_epoch)
        super().before_train(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Switch when it is time."""
        if self.monitor.is_time(runner.epoch if self.by_epoch else runner.iter):
            self._switch(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Switch, so that the optimizer fits the state that the runner loads next."""
        super().after_load_checkpoint(runner, checkpoint)
        if runner._resume and checkpoint.get(self.checkpoint_key, {}).get("switched"):
            self._switch(runner)

    def _switch(self, runner) -> None:
        wrapper = runner.optim_wrapper

        def build(groups: list[dict[str, Any]]):
            return OPTIMIZERS.build(dict(self.monitor.optimizer, params=groups))

        wrapper.optimizer, ratio = self.monitor.switch(RunnerRun(runner), wrapper.optimizer, build)
        if wrapper.base_param_settings is not None:
            settings = wrapper.base_param_settings
            wrapper.base_param_settings = {**wrapper.optimizer.defaults, **settings, "lr": settings["lr"] * ratio}
            if "initial_lr" in settings:
                wrapper.base_param_settings["initial_lr"] *= ratio
        for scheduler in runner.param_schedulers or []:
            if scheduler.param_name == "lr" and hasattr(scheduler, "base_values"):
                scheduler.base_values = [value * ratio for value in scheduler.base_values]
            elif scheduler.param_name == "momentum":
                _hand_over_momentum(scheduler, wrapper.optimizer.defaults)


def _hand_over_momentum(scheduler, defaults: Mapping[str, Any]) -> None:
    """Let a momentum scheduler go on from the new optimizer's momentum, which Adam and its kin keep in ``betas``."""
    scheduler.use_betas = "betas" in defaults
    momentum = defaults["betas"][0] if scheduler.use_betas else defaults.get("momentum", 0.0)
    scheduler.base_values = [momentum] * len(scheduler.base_values)
    for group in scheduler.optimizer.param_groups:
        group["momentum"] = group["initial_momentum"] = momentum
