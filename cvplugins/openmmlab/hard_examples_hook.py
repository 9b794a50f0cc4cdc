"""Hard example mining: find the images with the largest losses and let the sampler draw them more often."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from cvplugins.monitors import HardExamples
from cvplugins.registry import HOOKS

from .hard_example_samplers import HardExampleSampler, InfiniteHardExampleSampler
from .reproducibility import start_again
from .validation_loss import ImageLosses

__all__ = ["HardExampleMiningHook"]


@HOOKS.register_module()
class HardExampleMiningHook(Hook):
    """Draw the images with the largest losses more often; see :class:`cvplugins.monitors.HardExamples`.

    Needs a sampler that can: ``cvplugins.HardExampleSampler`` for training by epochs,
    ``cvplugins.InfiniteHardExampleSampler`` for training by iterations. After each epoch, or ``interval`` iterations,
    all ranks exchange what they found and agree on the pool of hard images. It is used in the next epoch; by
    iterations, in the interval after the next, because the workers have fetched much of the next one already. The
    pool lies in ``hard_examples.json`` beside the log: look at it, because wrong labels are hard too.

    Args:
        capacity: Images in the pool at most, at least 1.
        min_hardness: Images in the pool are harder than so many times the median image, at least 0.
        rate: How fast an estimate follows what is seen, in (0, 1].
        interval: Iterations between two pools when training by iterations, at least 1.
        exact_interval: With 0, images are judged by the loss of their batches, which costs nothing. With n, the
            loss of each image of every n-th batch is computed alone, by one more forward pass in evaluation mode;
            worth it for large batches.
        loss: Which entry of the model's losses to go by: ``"loss"``, the sum, or a part such as ``"loss_bbox"``.
        key: Entry of the data that names an image, in the dataset's ``get_data_info`` and in the data samples.

    Raises:
        ValueError: An option is out of its range; or, when training begins, the sampler does not fit or the data
            does not name its images.

    Example:
        In a config::

            train_dataloader = dict(sampler=dict(type='cvplugins.HardExampleSampler', ratio=0.25))
            custom_hooks = [dict(type='cvplugins.HardExampleMiningHook', capacity=256)]
    """

    priority = "NORMAL"
    checkpoint_key = "cvplugins_hard_examples"

    def __init__(
        self,
        capacity: int = 256,
        min_hardness: float = 2.0,
        rate: float = 0.5,
        interval: int = 1000,
        exact_interval: int = 0,
        loss: str = "loss",
        key: str = "img_path",
    ) -> None:
        if interval < 1:
            raise ValueError(f"HardExampleMiningHook: interval is {interval}; it must be at least 1")
        if exact_interval < 0:
            raise ValueError(f"HardExampleMiningHook: exact_interval is {exact_interval}; use 0 (never) or more")
        self.options: dict[str, Any] = {"capacity": capacity, "min_hardness": min_hardness, "rate": rate}
        HardExamples(1, **self.options)  # a wrong option is told at once
        self.interval = interval
        self.exact_interval = exact_interval
        self.loss = loss
        self.key = key
        self._resumed: dict[str, Any] | None = None

    def before_train(self, runner) -> None:
        """Learn the images' names, and take up where a resumed run stopped."""
        loader = runner.train_dataloader
        self.sampler = _sampler(loader, by_epoch=not isinstance(runner.train_loop, IterBasedTrainLoop))
        if isinstance(self.sampler, InfiniteHardExampleSampler):
            fetched = loader.num_workers * (loader.prefetch_factor or 0)
            if self.interval < fetched:
                raise ValueError(
                    f"HardExampleMiningHook: interval is {self.interval}; it must be at least {fetched}, the batches "
                    "that train_dataloader's workers fetch ahead"
                )
            self.sampler.part_length = self.interval * loader.batch_sampler.batch_size
        names = _names(loader.dataset, self.key)
        self._index = {name: index for index, name in reversed(list(enumerate(names)))}  # the first of equal names
        self._name = names
        self.monitor = HardExamples(len(names), **self.options)
        if self._resumed is not None:
            self.monitor.load_state_dict(self._resumed["monitor"])
            self.sampler.plan.pools = {part: list(pool) for part, pool in self._resumed["pools"].items()}
            self.sampler.seed = self._resumed["seed"]  # mmengine draws a new one if the config has none
            self._resumed = None
            if isinstance(self.sampler, InfiniteHardExampleSampler):
                self.sampler.indices = self.sampler._indices_of_rank()
        if isinstance(self.sampler, InfiniteHardExampleSampler):
            start_again(runner.train_loop.dataloader_iterator, loader)  # with part_length

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Compute the loss of each image, with the weights that its batch will be trained with."""
        if self.exact_interval and runner.iter % self.exact_interval == 0:
            fp16 = isinstance(runner.optim_wrapper, AmpOptimWrapper)
            measured = ImageLosses(runner.model, fp16=fp16, resized=True)
            measured.process(data_batch, [])
            for index, (_, losses) in zip(self._indices(data_batch), measured.results, strict=True):
                self.monitor.observe([index], self._select(losses))

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Observe the batch; by iterations, also make the pool."""
        if not self.exact_interval:
            self.monitor.observe(self._indices(data_batch), self._select(outputs))
        if isinstance(self.sampler, InfiniteHardExampleSampler) and self.every_n_train_iters(runner, self.interval):
            self._refresh(runner, part=runner.iter // self.interval + 2)

    def after_train_epoch(self, runner) -> None:
        """Make the pool of the next epoch."""
        if isinstance(self.sampler, HardExampleSampler):
            self._refresh(runner, part=runner.epoch + 1)

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store estimates, pools and seed; of several ranks, what the first has observed since the last pool."""
        if hasattr(self, "monitor"):
            checkpoint[self.checkpoint_key] = {
                "monitor": self.monitor.state_dict(),
                "pools": dict(self.sampler.plan.pools),
                "seed": self.sampler.seed,
            }

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Keep the state of a run that is resumed until the data is known; weights alone bring none."""
        if runner._resume:
            self._resumed = checkpoint.get(self.checkpoint_key)

    def _refresh(self, runner, part: int) -> None:
        report = self.monitor.refresh()
        pools = self.sampler.plan.pools
        pools[part] = list(report.pool)
        for old in [old for old in pools if old < part - 2]:
            del pools[old]
        runner.message_hub.update_scalar("train/hard_examples", len(report.pool))
        runner.visualizer.add_scalars({"hard_examples/count": len(report.pool)}, step=runner.iter)
        if words := report.in_words(self._name):
            runner.logger.info(f"hard examples: {words}")
        if is_main_process():
            when = {"epoch": runner.epoch + 1, "iteration": runner.iter + 1}
            report.write(Path(runner.log_dir, "hard_examples.json"), self._name, self.key, **when)

    def _indices(self, data_batch: Any) -> list[int]:
        try:
            return [self._index[sample.get(self.key)] for sample in data_batch["data_samples"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"HardExampleMiningHook needs batches whose data_samples hold '{self.key}', as the training set's "
                "get_data_info names it; let the pipeline end with PackDetInputs or PackSegInputs and have "
                f"'{self.key}' among its meta_keys, or name another entry by key=..."
            ) from error

    def _select(self, losses: Mapping[str, Any]) -> torch.Tensor | float:
        if self.loss not in losses:
            raise ValueError(
                f"HardExampleMiningHook: the model has no loss '{self.loss}'; it has {', '.join(sorted(losses))}"
            )
        return losses[self.loss]


def _sampler(loader: DataLoader, by_epoch: bool) -> HardExampleSampler | InfiniteHardExampleSampler:
    right = HardExampleSampler if by_epoch else InfiniteHardExampleSampler
    found = getattr(loader.batch_sampler, "sampler", None)  # a batch_sampler of the config hides it from the loader
    if not isinstance(found, right):
        raise ValueError(
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
        raise ValueError(
            f"HardExampleMiningHook: {type(dataset).__name__}.get_data_info does not give '{key}', which names an "
            "image; name another entry by key=..."
        ) from error
