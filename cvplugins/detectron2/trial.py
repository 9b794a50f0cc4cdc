"""Build everything that a run needs in a folder that is thrown away, and let one batch through it."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cvplugins.errors import UserError, first_line

from .building import keys_read_by, refusals_named, where
from .loading import TrainingLoader
from .plugin_hook import plugin_hooks
from .trainer import CvpluginsTrainer

__all__ = ["trial_evaluation", "trial_training"]

MOST_IMAGES = 64  # of a trial batch, which is for finding faults and not for measuring memory


def trial_training(cfg: CfgNode, *, batches: bool, given: Sequence[Collection[str]] = ()) -> nn.Module:
    """Build a trainer as the run will have it, and return its model; all that it writes is deleted.

    Args:
        cfg: The config of a run; it stays as it is.
        batches: Whether one batch goes through the model's losses, and another through model and evaluators.
        given: See :func:`cvplugins.detectron2.building.refusals_named`.

    Raises:
        UserError: Something refuses its values, there is nothing to load, or a batch fails.
    """
    with _in_another_folder(cfg) as trial:
        with refusals_named(cfg, given):
            trainer = CvpluginsTrainer(trial)
            with EventStorage(0) as trainer.storage:
                for hook in plugin_hooks(trainer):
                    hook.before_train()
        if batches:
            _train(trainer, cfg)
        _evaluate(trial, trainer.model, cfg, batches)
        for hook in plugin_hooks(trainer):
            hook.release()
        model = trainer.model
        return model.module if isinstance(model, DistributedDataParallel) else model


def trial_evaluation(cfg: CfgNode, model: nn.Module, *, batches: bool) -> None:
    """Build the loaders and evaluators of a test; all that they write is deleted.

    Args:
        cfg: The config of a test; it stays as it is.
        model: With its weights.
        batches: Whether one image goes through model and evaluators.

    Raises:
        UserError: Something refuses its values, there is nothing to load, or the image fails.
    """
    with _in_another_folder(cfg) as trial:
        _evaluate(trial, model, cfg, batches)


@contextlib.contextmanager
def _in_another_folder(cfg: CfgNode) -> Iterator[CfgNode]:
    with tempfile.TemporaryDirectory() as folder:
        trial = cfg.clone()
        trial.defrost()
        trial.OUTPUT_DIR = folder
        yield trial


def _train(trainer: CvpluginsTrainer, cfg: CfgNode) -> None:
    model, loader = trainer.model, trainer.data_loader
    with _failures_told(cfg, "a batch of DATASETS.TRAIN cannot be loaded"):
        batch = _first_batch(loader)
    model.train()
    with _failures_told(cfg, "a batch of DATASETS.TRAIN does not go through the model"), EventStorage(0):
        losses = model(batch)
        sum(losses.values()) if isinstance(losses, dict) else losses


def _first_batch(loader: TrainingLoader) -> list[Any]:
    """Load one batch in this process: workers would load several at once. Of a batch without bounds, some images."""
    count = min(loader.batch_size, MOST_IMAGES)
    return [loader.images[index] for index in itertools.islice(iter(loader.sampler), count)]


def _evaluate(trial: CfgNode, model: nn.Module, cfg: CfgNode, batches: bool) -> None:
    for name in trial.DATASETS.TEST:
        with refusals_named(cfg):
            loader = CvpluginsTrainer.build_test_loader(trial, name)
            evaluator = CvpluginsTrainer.build_evaluator(trial, name)
        if len(loader.dataset) == 0:
            raise UserError(f"DATASETS.TEST: {name} has no images")
        if not batches:
            continue
        with _failures_told(cfg, f"an image of {name} cannot be loaded"):
            inputs = [loader.dataset[0]]
        training = model.training
        model.eval()
        with _failures_told(cfg, f"an image of {name} does not go through model and evaluators"), torch.no_grad():
            evaluator.reset()
            evaluator.process(inputs, model(inputs))
        model.train(training)


@contextlib.contextmanager
def _failures_told(cfg: CfgNode, what: str) -> Iterator[None]:
    """Say in one line what failed, where in the code, and which keys that code read."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        keys = ", ".join(f"{path} = {value!r}" for path, value in itertools.islice(keys_read_by(error, cfg).items(), 4))
        said = f"{type(error).__name__}: {first_line(error)} ({where(error)})"
        raise UserError(f"{what}: {said}{keys and f'; {keys}'}; --traceback shows all of it") from error
