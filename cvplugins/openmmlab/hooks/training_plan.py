"""TrainingPlanHook: what a run is about to do."""

from __future__ import annotations

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from cvplugins.registry import HOOKS

__all__ = ["TrainingPlanHook"]


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


def _images_once(dataset) -> int:
    """Return the number of images behind repeating wrappers."""
    while hasattr(dataset, "times"):
        dataset = dataset.dataset
    return len(dataset)
