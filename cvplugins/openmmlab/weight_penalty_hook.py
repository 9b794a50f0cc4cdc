"""WeightPenaltyHook: L1, L2 and elastic net on chosen parameters, without touching the loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from torch.optim import Optimizer

from cvplugins.monitors import WeightShrinkage
from cvplugins.registry import HOOKS

from .monitor_hook import optim_wrappers

__all__ = ["WeightPenaltyHook"]

FORMS = ("gradient", "proximal")


@HOOKS.register_module()
class WeightPenaltyHook(Hook):
    """Penalise chosen parameters at the optimizer's step; see :class:`cvplugins.monitors.WeightShrinkage`.

    The loss in the log stays that of the data. Every ``interval`` iterations the log gets
    ``train/weight_penalty`` and ``train/weight_sparsity`` (the share of weights that are exactly 0), at the end the
    sparsest layers.

    Args:
        l1: Factor of the absolute values; it makes weights small, with ``form="proximal"`` exactly 0.
        l2: Factor of the squares' halves; as gradient it is SGD's ``weight_decay``.
        form: ``"gradient"``, added before the step, or ``"proximal"``, a step of its own after it.
        include: Patterns of the names of the parameters, such as ``["backbone.*"]``.
        exclude: Patterns of those that are left out, such as ``["*relative_position_bias_table"]``.
        min_dims: Parameters with fewer dimensions are left out; 2 leaves out biases.
        norms: Whether normalisation layers are penalised too.
        interval: Iterations between two reports.
    """

    priority = "NORMAL"

    def __init__(
        self,
        l1: float = 0.0,
        l2: float = 0.0,
        form: str = "gradient",
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        min_dims: int = 2,
        norms: bool = False,
        interval: int = 50,
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form is {form!r}; use one of {', '.join(FORMS)}")
        if not (l1 >= 0 and l2 >= 0 and l1 + l2 > 0):
            raise ValueError(f"l1 is {l1} and l2 is {l2}; neither may be negative, and one has to be above 0")
        if interval < 1:
            raise ValueError(f"interval is {interval}; it must be at least 1 iteration")
        self.options: dict[str, Any] = dict(
            l1=l1, l2=l2, include=include, exclude=exclude, min_dims=min_dims, norms=norms
        )
        self.form = form
        self.interval = interval

    def before_train(self, runner) -> None:
        """Register with every optimizer."""
        self.monitor = WeightShrinkage(runner.model, **self.options)
        wrappers = optim_wrappers(runner).values()
        self._handles = []
        for optimizer in (each.optimizer for each in wrappers):
            if self.form == "gradient":
                self._handles.append(optimizer.register_step_pre_hook(lambda own, *_: self._before_step(own)))
            else:
                self._handles.append(optimizer.register_step_post_hook(lambda own, *_: self._after_step(own)))
            self._warn_of_two_decays(runner.logger, optimizer)
        runner.logger.info(f"weight penalty on {len(self.monitor.parameters)} parameters, as {self.form}")

    def _warn_of_two_decays(self, logger: logging.Logger, optimizer: Optimizer) -> None:
        own = {id(parameter) for parameter in self.monitor.parameters.values()}
        decayed = any(
            group.get("weight_decay") and any(id(parameter) in own for parameter in group["params"])
            for group in optimizer.param_groups
        )
        if self.options["l2"] and decayed:
            logger.warning("l2 of WeightPenaltyHook comes on top of the optimizer's weight_decay; set one of them to 0")

    # Fused optimizers unscale in their step, and are called for a step that they skip: see GradScaler.step.
    def _before_step(self, optimizer: Optimizer) -> None:
        scale = getattr(optimizer, "grad_scale", None)
        self.monitor.add_gradient(optimizer, scale=1.0 if scale is None else scale)

    def _after_step(self, optimizer: Optimizer) -> None:
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is None or not overflow.item():
            self.monitor.shrink(optimizer)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report at intervals."""
        if self.every_n_train_iters(runner, self.interval):
            report = self.monitor.report()
            runner.message_hub.update_scalar("train/weight_penalty", report.penalty)
            runner.message_hub.update_scalar("train/weight_sparsity", report.sparsity)

    def after_train(self, runner) -> None:
        """Leave the optimizers as they were, and say what came of it."""
        for handle in self._handles:
            handle.remove()
        report = self.monitor.report()
        sparsest = sorted(report.layers.items(), key=lambda layer: -layer[1])[:5]
        runner.logger.info(
            f"{report.sparsity:.2%} of the penalised weights are 0; most in "
            + ", ".join(f"{name} ({share:.1%})" for name, share in sparsest)
        )
