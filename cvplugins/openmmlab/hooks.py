"""Hooks: feed the core monitors from mmengine's runner and act on what they find."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop
from torch.optim import Optimizer

from cvplugins.monitors import GradientHealth
from cvplugins.registry import HOOKS

from .metrics import PluginMetric

__all__ = ["GradientHealthHook", "ResultFilesHook", "TrainingPlanHook"]


@HOOKS.register_module()
class GradientHealthHook(Hook):
    """Watch the gradients just before an optimizer step; see :class:`cvplugins.monitors.GradientHealth`.

    The total norm goes to the log as ``train/gradient/norm``, the norm of each block to the visualizer. With
    gradient clipping the norms are those after clipping; mmengine logs the one before as ``grad_norm``.

    Args:
        interval: Observe every so many iterations; one device synchronisation each.
        depth: Parts of a module's name that make a block: 2 gives ``backbone.layer1``.
        stop_on_nonfinite: Stop when a gradient is NaN or infinite, at the next observation: with an interval of 1
            before it reaches the weights. False only logs it. Steps that AMP's GradScaler skips do not count.
    """

    priority = "NORMAL"
    checkpoint_key = "cvplugins_gradient_health"

    def __init__(self, interval: int = 50, depth: int = 2, stop_on_nonfinite: bool = True) -> None:
        self.monitor = GradientHealth(depth=depth, interval=interval)
        self.stop_on_nonfinite = stop_on_nonfinite

    def before_train(self, runner) -> None:
        """Register with every optimizer: mmengine zeroes the gradients before any hook could see them."""
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self._handles = [
            each.optimizer.register_step_pre_hook(lambda optimizer, *_: self._observe(runner, optimizer))
            for each in wrappers
        ]

    def after_train(self, runner) -> None:
        """Leave the optimizers as they were."""
        for handle in self._handles:
            handle.remove()

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store the monitor's state."""
        checkpoint[self.checkpoint_key] = self.monitor.state_dict()

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Restore the monitor's state."""
        if self.checkpoint_key in checkpoint:
            self.monitor.load_state_dict(checkpoint[self.checkpoint_key])

    def _observe(self, runner, optimizer: Optimizer) -> None:
        if not self.monitor.is_due(runner.iter):
            return
        # Fused optimizers unscale in their step, and are called for a step that they skip: see GradScaler.step.
        if getattr(optimizer, "found_inf", None) is not None and optimizer.found_inf.item():
            return
        scale = getattr(optimizer, "grad_scale", None)
        own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        parameters = [(name, value) for name, value in runner.model.named_parameters() if id(value) in own]
        report = self.monitor.observe(parameters, runner.iter, scale=1.0 if scale is None else scale.item())
        scalars = self.monitor.scalars(report)
        runner.message_hub.update_scalar("train/gradient/norm", report.total_norm)
        runner.visualizer.add_scalars(scalars, step=runner.iter)
        if report.nonfinite:
            names = ", ".join(report.nonfinite[:5]) + (" ..." if len(report.nonfinite) > 5 else "")
            message = f"iteration {runner.iter}: {len(report.nonfinite)} gradients are not finite: {names}"
            if self.stop_on_nonfinite:
                raise FloatingPointError(f"{message}; lower the learning rate or clip the gradients")
            runner.logger.warning(message)


@HOOKS.register_module()
class TrainingPlanHook(Hook):
    """Log at the start what repeats, epochs, batch size and learning rate amount to.

    With ``RepeatDataset`` an epoch of the config passes over the data several times; the learning rate
    belongs to ``auto_scale_lr.base_batch_size``. Both are easily misread.
    """

    priority = "VERY_LOW"

    def before_train(self, runner) -> None:
        """Log the plan."""
        loader = runner.train_dataloader
        accumulated = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        batch = loader.batch_sampler.batch_size * get_world_size()
        images, samples = _images_once(loader.dataset), len(loader.dataset)
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            length, effective = f"{runner.max_iters} iterations", runner.max_iters * batch / images
        else:
            length, effective = f"{runner.max_epochs} epochs", runner.max_epochs * samples / images
        runner.logger.info(
            f"training plan: {images} images, {samples // images} times an epoch, {length} = {effective:.1f} effective "
            f"epochs; batch {batch} ({get_world_size()} processes)"
            + (f", {accumulated} of them accumulated a step" if accumulated > 1 else "")
        )
        base = (runner.auto_scale_lr or {}).get("base_batch_size")
        if base and base != batch * accumulated and not runner.auto_scale_lr.get("enable"):
            runner.logger.warning(
                f"the learning rate is meant for a batch of {base}, but this run's is {batch * accumulated}; "
                "add --auto-scale-lr to scale it"
            )


@HOOKS.register_module()
class ResultFilesHook(Hook):
    """Let the metrics write their JSON results and figures into the run's log folder.

    A metric does not know where a run logs to. One whose ``out_dir`` is set in the config keeps it.
    """

    def before_val(self, runner) -> None:
        """Tell the metrics of the validation."""
        self._tell(runner.val_loop.evaluator, runner.log_dir)

    def before_test(self, runner) -> None:
        """Tell the metrics of the test."""
        self._tell(runner.test_loop.evaluator, runner.log_dir)

    @staticmethod
    def _tell(evaluator, folder: str) -> None:
        for metric in evaluator.metrics:
            if isinstance(metric, PluginMetric) and metric.out_dir is None:
                metric.out_dir = folder


def _images_once(dataset) -> int:
    """Return the number of images behind repeating wrappers."""
    while hasattr(dataset, "times"):
        dataset = dataset.dataset
    return len(dataset)
