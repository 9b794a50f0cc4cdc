"""One batch of each loop through loader, model, optimizer and metrics, before a run begins."""

from __future__ import annotations

import contextlib
import itertools
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from cvplugins.distributed import is_distributed
from cvplugins.errors import UserError, first_line
from cvplugins.openmmlab.hooks.nonfinite import NonFiniteGuardHook

from .building import object_path, with_words
from .checkpoint_readers import is_at_hand
from .first_step import Beginning, NotFiniteError, take_first_step

__all__ = ["begin_weights", "failures_told", "run_first_batches", "try_batches"]


def begin_weights(model: nn.Module) -> bool:
    """Give a model the weights that its config begins with; return whether it has all of them.

    What would have to be downloaded is left out: a dry run fetches nothing.
    """
    whole = True
    parts: list[Any] = list(model.modules())
    for module in parts:
        source = _pretrained(getattr(module, "init_cfg", None))
        if source is not None and not is_at_hand(source):
            module.init_cfg, whole = None, False
    if hasattr(model, "init_weights"):
        parts[0].init_weights()
    return whole


def run_first_batches(
    runner: Runner, cfg: Config, loops: Sequence[str], *, has_weights: bool = True, given: Collection[str] = ()
) -> None:
    """Let one batch of each loop through; training takes a step of the optimizer.

    Args:
        runner: A trial's, whose weights change.
        cfg: The config, for messages.
        loops: ``"train_loop"``, ``"val_loop"`` or ``"test_loop"``.
        has_weights: Whether the model has the weights with which the run begins.
        given: Keys that the command line gives, which messages name.

    Raises:
        UserError: A batch cannot be loaded, or fails; or the first step makes losses or weights that are not finite.
    """
    model: Any = runner.model
    if is_model_wrapper(model) and not isinstance(model, (DistributedDataParallel, BaseTTAModel)):
        return  # what shards a model has no whole one inside
    if isinstance(model, DistributedDataParallel):
        model = model.module  # a rank whose batch fails must not leave others waiting for its gradients
    for loop in loops:
        if getattr(runner, loop) is None:
            continue
        job = loop.removesuffix("_loop")
        passes_over = job == "train" and _passes_over(runner)
        count = 2 if passes_over and not is_distributed() else 1
        with failures_told(cfg, f"{job}_dataloader cannot load a batch", f"{job}_dataloader", given):
            batches = list(_first_batches(getattr(runner, loop).dataloader, count))
        with failures_told(cfg, f"one batch of {job}_dataloader does not go through the model", "model", given):
            if job == "train":
                # One process cannot try another batch without the others, and the run passes over this one.
                ignored = (NotFiniteError,) if passes_over and is_distributed() else ()
                with contextlib.suppress(*ignored):
                    try_batches(partial(take_first_step, model, Beginning(runner, cfg, has_weights)), batches)
                continue
            outputs = _predict(model, batches[0], job)
        evaluator = getattr(runner, loop).evaluator
        with failures_told(cfg, f"{job}_evaluator cannot read the model's predictions", f"{job}_evaluator", given):
            evaluator.process(data_samples=outputs, data_batch=batches[0])


def try_batches(step: Callable[[Any], Any], batches: Sequence[Any]) -> None:
    """Take a step with the first batch; where that is not finite, the second decides, if there is one.

    Args:
        step: What is done with a batch.
        batches: The batches.

    Raises:
        NotFiniteError: Neither is finite.
    """
    first, *others = batches
    try:
        step(first)
    except NotFiniteError:
        if not others:
            raise
        step(others[0])


@contextlib.contextmanager
def failures_told(cfg: Config, what: str, within: str, given: Collection[str] = ()) -> Iterator[None]:
    """Say in one line which part of the config failed while it worked, and where in the code.

    Args:
        cfg: The config.
        what: What failed.
        within: The key whose parts may have failed.
        given: Keys that the command line gives; those in ``within`` are named, or all.

    Raises:
        UserError: Something failed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
        place = f"{frame.f_globals.get('__name__')}, line {line}"
        said = first_line(with_words(error))
        changed = [key for key in given if key.startswith(within)] or [key for key in given if "." in key]
        hint = f"; --cfg-options sets {', '.join(changed)}" if changed else ""
        path = object_path(error, cfg, within)
        raise UserError(
            f"{what}: {path}: {type(error).__name__}: {said} ({place}){hint}; --traceback shows all of it"
        ) from error


def _pretrained(init_cfg: Any) -> str | None:
    """Return what a module's ``init_cfg`` loads, which may be one of several."""
    for each in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if isinstance(each, dict) and "Pretrained" in str(each.get("type")):
            return str(each.get("checkpoint"))
    return None


def _first_batches(loader: DataLoader, count: int) -> Iterator[Any]:
    """Load some batches in this process: workers would load several at once."""
    if loader.batch_sampler is None:
        yield from itertools.islice(loader, count)
        return
    dataset: Any = loader.dataset
    for indices in itertools.islice(loader.batch_sampler, count):
        yield loader.collate_fn([dataset[index] for index in indices])


def _passes_over(runner: Runner) -> bool:
    """Return whether a hook of the run goes on after a batch whose loss is not finite."""
    return any(isinstance(hook, NonFiniteGuardHook) and hook.monitor.guard.policy != "raise" for hook in runner.hooks)


def _predict(model: nn.Module, batch: Any, job: str) -> Any:
    model.eval()
    with torch.no_grad():
        return getattr(model, f"{job}_step")(batch)
