"""A hook that recomputes the statistics of batch norms before they are used."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from cvplugins.norm import recompute_statistics
from cvplugins.randomness import kept_randomness, seed_everything
from cvplugins.registry import HOOKS

from .reproducibility import SeededBatches

__all__ = ["PreciseBNHook"]

STREAM = 2  # of random numbers; 0 and 1 are those of IterationSeedHook


@HOOKS.register_module()
class PreciseBNHook(Hook):
    """Recompute the running statistics before validation and before checkpoints.

    By :func:`cvplugins.norm.recompute_statistics`.
    Training itself does not change: it uses the statistics of its batches, and the training loader, the generators and
    all other buffers are left alone. The images depend on the seed and the iteration only, so that a resumed run gets
    the statistics of the straight one. Layers in evaluation mode (``norm_eval``) and frozen ones stay as they are.

    Args:
        num_batches: Training batches to use, on each process; an epoch at most.
        num_workers: Of the loader of these batches; as the training loader's if None.

    Raises:
        ValueError: ``num_batches`` is less than 1; in ``before_train`` if the dataset cannot be indexed.
    """

    priority = "ABOVE_NORMAL"  # before EMAHook copies the buffers, and long before CheckpointHook

    def __init__(self, num_batches: int = 200, num_workers: int | None = None) -> None:
        if num_batches < 1:
            raise ValueError(f"num_batches is {num_batches}; it must be at least 1")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}; it must be at least 0, or None")
        self.num_batches = num_batches
        self.num_workers = num_workers
        self._training = False
        self._done_at: int | None = None  # iterations that were trained at the last recomputation

    def before_train(self, runner) -> None:
        """Check that the data can be read a second time."""
        if isinstance(runner.train_dataloader.dataset, IterableDataset):
            raise ValueError("PreciseBNHook cannot read an IterableDataset a second time; leave the hook out")
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            runner.logger.warning(
                "PreciseBNHook: the statistics are those of the raw weights, not of EMAHook's average"
            )
        self._training = True

    def after_train(self, runner) -> None:
        """Leave later validations alone."""
        self._training = False

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Recompute if a checkpoint of iterations is about to be written."""
        if any(
            self.every_n_train_iters(runner, hook.interval, hook.save_begin)
            or (hook.save_last and self.is_last_train_iter(runner))
            for hook in _checkpoint_hooks(runner, by_epoch=False)
        ):
            self._recompute(runner, runner.iter + 1)

    def after_train_epoch(self, runner) -> None:
        """Recompute if a checkpoint of epochs is about to be written."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and any(
            self.every_n_epochs(runner, hook.interval, hook.save_begin)
            or (hook.save_last and self.is_last_train_epoch(runner))
            for hook in _checkpoint_hooks(runner, by_epoch=True)
        ):
            self._recompute(runner, runner.iter)

    def before_val_epoch(self, runner) -> None:
        """Recompute before a validation during training."""
        if self._training:
            self._recompute(runner, runner.iter)

    def _recompute(self, runner, trained: int) -> None:
        if self._done_at == trained:
            return
        self._done_at = trained
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        wrapper = runner.optim_wrapper
        mixed_precision = wrapper.optim_context(runner.model) if isinstance(wrapper, OptimWrapper) else nullcontext()
        with kept_randomness(), mixed_precision:
            report = recompute_statistics(
                model,
                self._batches(runner, trained),
                self.num_batches,
                forward=lambda batch: model._run_forward(model.data_preprocessor(batch, training=True), mode="loss"),
            )
        runner.logger.info(f"precise statistics: {report}")

    def _batches(self, runner, trained: int) -> Iterable[Any]:
        """Load what is drawn for this iteration, by a loader of our own: the training one is in the middle of its."""
        loader = runner.train_dataloader
        collate = loader.collate_fn.collate if isinstance(loader.collate_fn, SeededBatches) else loader.collate_fn
        workers = loader.num_workers if self.num_workers is None else self.num_workers
        numbers = (runner.seed or 0, get_rank(), STREAM, trained)
        seed_everything(*numbers)
        batches = SeededBatches(collate, numbers, 0, workers)
        sampler = DefaultSampler(loader.dataset, shuffle=True, seed=runner.seed or 0)
        sampler.set_epoch(trained)
        return DataLoader(
            loader.dataset,
            batch_sampler=_like(loader.batch_sampler, sampler),
            num_workers=workers,
            collate_fn=batches,
            worker_init_fn=batches.start_worker,
            generator=torch.Generator().manual_seed(0),
        )


def _checkpoint_hooks(runner, by_epoch: bool) -> list[CheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.by_epoch == by_epoch]


def _like(original: Any, sampler: DefaultSampler) -> BatchSampler:
    """Return a batch sampler of the same kind, such as mmdet's by aspect ratio, or a plain one."""
    kind = type(original)
    known = set(inspect.signature(kind).parameters) <= {"sampler", "batch_size", "drop_last"}
    return (kind if known else BatchSampler)(sampler, original.batch_size, drop_last=False)
