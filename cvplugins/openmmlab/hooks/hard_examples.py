"""HardExampleMiningHook: find the images with the largest losses and let the sampler draw them more often."""

from __future__ import annotations

from typing import Any

from mmengine.optim import AmpOptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from cvplugins.errors import UserError
from cvplugins.monitors import HardExampleMonitor
from cvplugins.openmmlab.data.hard_example_samplers import HardExampleSampler, InfiniteHardExampleSampler
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook
from .reproducibility import start_again
from .validation_loss import ImageLosses

__all__ = ["HardExampleMiningHook"]


@HOOKS.register_module()
class HardExampleMiningHook(MonitorHook):
    """mmengine's :class:`cvplugins.monitors.HardExampleMonitor`; logs ``train/hard_examples``.

    Needs a sampler that can draw hard images: ``cvplugins.HardExampleSampler`` for training by epochs,
    ``cvplugins.InfiniteHardExampleSampler`` for training by iterations. By epochs the pool is made after each of them
    and drawn in the next one; ``interval`` is for training by iterations.

    Args:
        exact_interval: With 0, images are judged by the loss of their batches, which costs nothing. With n, the
            loss of each image of every n-th batch is computed alone, by one more forward pass in evaluation mode;
            worth it for large batches.
        key: Entry of the data that names an image, in the dataset's ``get_data_info`` and in the data samples.

    Raises:
        UserError: When training begins: the sampler does not fit, or the data does not name its images.

    Example:
        In a config::

            train_dataloader = dict(sampler=dict(type='cvplugins.HardExampleSampler', ratio=0.25))
            custom_hooks = [dict(type='cvplugins.HardExampleMiningHook', capacity=256)]
    """

    monitor_type = HardExampleMonitor
    checkpoint_key = "cvplugins_hard_examples"

    def __init__(self, *arguments: Any, exact_interval: int = 0, key: str = "img_path", **options: Any) -> None:
        super().__init__(*arguments, **options)
        if exact_interval < 0:
            raise ValueError(f"HardExampleMiningHook: exact_interval is {exact_interval}; use 0 (never) or more")
        self.exact_interval = exact_interval
        self.key = key
        self._seed: int | None = None  # of the run that is resumed

    def before_train(self, runner) -> None:
        """Learn the images' names, and take up where a resumed run stopped."""
        loader = runner.train_dataloader
        self.sampler = _sampler(loader, by_epoch=not isinstance(runner.train_loop, IterBasedTrainLoop))
        is_endless = isinstance(self.sampler, InfiniteHardExampleSampler)
        fetched = loader.num_workers * (loader.prefetch_factor or 0) if is_endless else 0
        self.monitor.know(_names(loader.dataset, self.key), self.key, self.sampler.plan, fetched)
        super().before_train(runner)
        if self._seed is not None:
            self.sampler.seed = self._seed  # mmengine draws a new one if the config has none
        if is_endless:
            self.sampler.part_length = self.monitor.interval * loader.batch_sampler.batch_size
            self.sampler.indices = self.sampler._indices_of_rank()
            start_again(runner.train_loop.dataloader_iterator, loader)  # with part_length

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Compute the loss of each image, with the weights that its batch will be trained with."""
        if self.exact_interval and runner.iter % self.exact_interval == 0:
            fp16 = isinstance(runner.optim_wrapper, AmpOptimWrapper)
            measured = ImageLosses(runner.model, fp16=fp16, resized=True)
            measured.process(data_batch, [])
            for index, (_, losses) in zip(self._indices(data_batch), measured.results, strict=True):
                self.monitor.observe([index], losses)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Observe the batch; by iterations, also make the pool."""
        if not self.exact_interval:
            self.monitor.observe(self._indices(data_batch), outputs)
        if isinstance(self.sampler, InfiniteHardExampleSampler):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner) -> None:
        """Make the pool of the next epoch."""
        if isinstance(self.sampler, HardExampleSampler):
            done = runner.epoch + 1
            self.monitor.refresh(self.run, part=done, epoch=done, iteration=runner.iter)

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store the monitor's state and the sampler's seed."""
        super().before_save_checkpoint(runner, checkpoint)
        if self.checkpoint_key in checkpoint:
            checkpoint[self.checkpoint_key]["seed"] = self.sampler.seed

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Restore them when a run is resumed."""
        super().after_load_checkpoint(runner, checkpoint)
        if runner._resume and self.checkpoint_key in checkpoint:
            self._seed = checkpoint[self.checkpoint_key]["seed"]

    def _indices(self, data_batch: Any) -> list[int]:
        try:
            return self.monitor.indices([sample.get(self.key) for sample in data_batch["data_samples"]])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"HardExampleMiningHook needs batches whose data_samples hold '{self.key}', as the training set's "
                "get_data_info names it; let the pipeline end with PackDetInputs or PackSegInputs and have "
                f"'{self.key}' among its meta_keys, or name another entry by key=..."
            ) from error


def _sampler(loader: DataLoader, by_epoch: bool) -> HardExampleSampler | InfiniteHardExampleSampler:
    right = HardExampleSampler if by_epoch else InfiniteHardExampleSampler
    found = getattr(loader.batch_sampler, "sampler", None)  # a batch_sampler of the config hides it from the loader
    if not isinstance(found, right):
        raise UserError(
            f"HardExampleMiningHook: train_dataloader's sampler is {type(found).__name__}, which this training loop "
            f"cannot draw hard images with; set train_dataloader.sampler.type='cvplugins.{right.__name__}'"
        )
    return found


def _names(dataset: Any, key: str) -> list[str]:
    while not hasattr(dataset, "get_data_info") and len(getattr(dataset, "dataset", ())) == len(dataset):
        dataset = dataset.dataset  # MultiImageMixDataset
    try:
        return [dataset.get_data_info(index)[key] for index in range(len(dataset))]
    except (AttributeError, KeyError) as error:
        raise UserError(
            f"HardExampleMiningHook: {type(dataset).__name__}.get_data_info does not give '{key}', which names an "
            "image; name another entry by key=..."
        ) from error
