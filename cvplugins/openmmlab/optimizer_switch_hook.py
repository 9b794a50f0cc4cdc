"""OptimizerSwitchHook: begin with one optimizer, finish with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapperDict
from mmengine.registry import OPTIMIZERS

from cvplugins.monitors import Monitor, PlateauMonitor, switch_optimizer
from cvplugins.registry import HOOKS

from .evaluation_hook import EvaluationHook
from .monitor_hook import check_step

__all__ = ["OptimizerSwitchHook"]


@HOOKS.register_module()
class OptimizerSwitchHook(EvaluationHook):
    """Go on with another optimizer from an iteration or epoch on, or when a metric stops improving.

    Parameter groups with their factors on rate and decay, the place in the schedule, gradient clipping and
    accumulation, the loss scale of AMP and hooks on the optimizer carry over; moments begin anew. See
    :func:`cvplugins.monitors.switch_optimizer`. A run resumes on either side of the switch.

    Args:
        optimizer: Config of the new optimizer, as in ``optim_wrapper``; its ``lr`` stands where the schedule's base
            rate stood.
        at: First iteration, or epoch, with the new optimizer, counted from 0; None with ``plateau``.
        by_epoch: Whether ``at`` is an epoch.
        plateau: Options of :class:`cvplugins.openmmlab.early_stopping_hook.EarlyStoppingHook`: ``monitor``, ``rule``,
            ``min_delta``, ``patience`` and ``warmup``; switches where that would stop.
    """

    priority = "HIGHEST"  # before RuntimeInfoHook logs the rate of the iteration
    checkpoint_key = "cvplugins_optimizer_switch"
    monitor: Any

    def __init__(
        self,
        optimizer: Mapping[str, Any],
        at: int | None = None,
        by_epoch: bool = False,
        plateau: Mapping[str, Any] | None = None,
    ) -> None:
        if (at is None) == (plateau is None):
            raise ValueError("OptimizerSwitchHook switches either at= a step or at a plateau; set one of them")
        if at is not None and at < 1:
            raise ValueError(f"at is {at}; it must be at least 1, else put the optimizer into optim_wrapper")
        if "type" not in optimizer or "lr" not in optimizer:
            raise ValueError(f"the new optimizer needs type and lr: dict(type='SGD', lr=0.01), not {dict(optimizer)}")
        self.optimizer = dict(optimizer)
        self.at = at
        self.by_epoch = by_epoch
        self.monitor = Monitor()  # which does nothing
        self._due = self._switched = False
        if plateau is not None:
            if "monitor" not in plateau:
                raise ValueError("plateau needs the name of a metric: plateau=dict(monitor='val/loss', patience=3)")
            self.monitor = PlateauMonitor(**plateau)

    def before_run(self, runner) -> None:
        """Refuse what cannot be switched before work begins."""
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise ValueError("OptimizerSwitchHook switches one optimizer, and this run has several")
        super().before_run(runner)

    def before_train(self, runner) -> None:
        """Begin with the journal of plateaus, and see whether the step can come."""
        if self.at is not None:
            check_step(runner, "OptimizerSwitchHook: at", self.at, self.by_epoch)
        super().before_train(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Switch when it is time."""
        if self.at is not None:
            self._due = (runner.epoch if self.by_epoch else runner.iter) >= self.at
        else:
            self._due = self.monitor.due
        if self._due and not self._switched:
            self._switch(runner)

    def monitored(self) -> dict[str, str]:
        """Return the name of the metric of the plateau, if there is one."""
        return {} if self.at is not None else super().monitored()

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store the monitor's state, and which optimizer the checkpoint's is."""
        super().before_save_checkpoint(runner, checkpoint)
        state = checkpoint.setdefault(self.checkpoint_key, {})
        state.update(due=self.monitor.due if self.at is None else self._due, switched=self._switched)

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Switch, so that the optimizer fits the state that the runner loads next."""
        state = checkpoint.get(self.checkpoint_key)
        if not runner._resume or state is None:
            return
        if self.at is None and "monitor" in state:
            super().after_load_checkpoint(runner, checkpoint)
        self._due = state["due"]
        if self.at is None:
            self.monitor.due = self._due
        if state["switched"]:
            self._switch(runner)

    def _switch(self, runner) -> None:
        self._due = self._switched = True
        wrapper = runner.optim_wrapper
        old = type(wrapper.optimizer).__name__

        def build(groups: list[dict[str, Any]]):
            return OPTIMIZERS.build(dict(self.optimizer, params=groups))

        wrapper.optimizer, ratio = switch_optimizer(wrapper.optimizer, build)
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
        runner.logger.info(
            f"iteration {runner.iter}: {type(wrapper.optimizer).__name__} follows {old}, with "
            f"{ratio:g} times the learning rate"
        )


def _hand_over_momentum(scheduler, defaults: Mapping[str, Any]) -> None:
    """Let a momentum scheduler go on from the new optimizer's momentum, which Adam and its kin keep in ``betas``."""
    scheduler.use_betas = "betas" in defaults
    momentum = defaults["betas"][0] if scheduler.use_betas else defaults.get("momentum", 0.0)
    scheduler.base_values = [momentum] * len(scheduler.base_values)
    for group in scheduler.optimizer.param_groups:
        group["momentum"] = group["initial_momentum"] = momentum
