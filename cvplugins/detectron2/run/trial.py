"""Build everything that a run needs in a folder that is thrown away, and let one batch through it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cvplugins.detectron2.hooks.plugin_hook import plugin_hooks
from cvplugins.detectron2.models.scripted import as_written
from cvplugins.distributed import raised_on_every_rank
from cvplugins.errors import UserError

from .building import refusals_named
from .first_step import failures_told, first_step
from .trainer import CvpluginsTrainer

__all__ = ["trial_evaluation", "trial_training"]


def trial_training(cfg: CfgNode, begin: Callable[[nn.Module], bool], *, given: Sequence[Collection[str]] = ()) -> None:
    """Build a trainer as the run will have it and make its first iteration; all that it writes is deleted.

    It costs one iteration of the run, and the evaluation of one image of each test set.

    Args:
        cfg: The config of a run; it stays as it is.
        begin: Loads the weights that the run begins with; returns False if they are not at hand.
        given: See :func:`cvplugins.detectron2.run.building.refusals_named`.

    Raises:
        UserError: Something refuses its values, there is nothing to load, or a batch fails.
    """
    with _in_another_folder(cfg) as trial:
        with refusals_named(cfg, given):
            trainer = CvpluginsTrainer(trial)
            with EventStorage(0) as trainer.storage:
                for hook in plugin_hooks(trainer):
                    hook.before_train()
        model = trainer.model
        try:
            known = begin(model.module if isinstance(model, DistributedDataParallel) else model)
            first_step(trainer, cfg, judged=known, given=given)
        finally:
            for hook in plugin_hooks(trainer):
                hook.release()
            for writers in (hook._writers for hook in trainer._hooks if isinstance(hook, PeriodicWriter)):
                for writer in writers:
                    writer.close()
        _evaluate(trial, model, cfg, given)


def trial_evaluation(cfg: CfgNode, model: nn.Module, *, given: Sequence[Collection[str]] = ()) -> None:
    """Build the loaders and evaluators of a test, and let one image through; all that they write is deleted.

    Args:
        cfg: The config of a test; it stays as it is.
        model: With its weights.
        given: See :func:`cvplugins.detectron2.run.building.refusals_named`.

    Raises:
        UserError: Something refuses its values, there is nothing to load, or the image fails.
    """
    with _in_another_folder(cfg) as trial:
        _evaluate(trial, model, cfg, given)


@contextlib.contextmanager
def _in_another_folder(cfg: CfgNode) -> Iterator[CfgNode]:
    with tempfile.TemporaryDirectory() as folder:
        trial = cfg.clone()
        trial.defrost()
        trial.OUTPUT_DIR = folder
        for entry in trial.CVPLUGINS.HOOKS:
            if isinstance(entry, MutableMapping) and "NonFiniteGuardHook" in str(entry.get("type")):
                entry["max_replays"] = 0  # of no use after the folder is gone
        yield trial


def _evaluate(trial: CfgNode, model: nn.Module, cfg: CfgNode, given: Sequence[Collection[str]]) -> None:
    for name in trial.DATASETS.TEST:
        with refusals_named(cfg, given):
            loader = CvpluginsTrainer.build_test_loader(trial, name)
            evaluator = CvpluginsTrainer.build_evaluator(trial, name)
        if len(loader.dataset) == 0:
            raise UserError(f"DATASETS.TEST: {name} has no images")
        with raised_on_every_rank(), failures_told(cfg, f"an image of {name} cannot be loaded", given):
            inputs = [loader.dataset[0]]
        training = model.training
        model.eval()
        failure = f"an image of {name} does not go through model and evaluators"
        with raised_on_every_rank(), failures_told(cfg, failure, given), torch.no_grad(), as_written():
            evaluator.reset()
            evaluator.process(inputs, model(inputs))
        model.train(training)
