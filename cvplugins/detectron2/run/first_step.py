"""The first iteration of a training, before the run: what fails there, or is not finite, in one line."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cvplugins.detectron2.data.loading import TrainingLoader
from cvplugins.detectron2.hooks.nonfinite import NonFiniteGuardHook
from cvplugins.detectron2.hooks.plugin_hook import PluginHook, plugin_hooks
from cvplugins.detectron2.models.model_losses import named_losses
from cvplugins.detectron2.models.scripted import as_written
from cvplugins.distributed import raised_on_every_rank
from cvplugins.errors import UserError, first_line
from cvplugins.monitors.finite import describe_nonfinite
from cvplugins.monitors.nonfinite import running_statistics
from cvplugins.monitors.random_state import random_state
from cvplugins.monitors.replay import first_nonfinite_layer
from cvplugins.refusals import shown

from .building import keys_read_by, leaves, where
from .trainer import CvpluginsTrainer

__all__ = ["failures_told", "first_step"]

logger = logging.getLogger(__name__)

MOST_IMAGES = 64  # of a trial batch, which is for finding faults and not for measuring memory
MOST_NAMES = 3
MOST_KEYS = 4


def first_step(trainer: CvpluginsTrainer, cfg: CfgNode, *, judged: bool, given: Sequence[Collection[str]] = ()) -> None:
    """Let the first batch through a trainer's losses and make the optimizer's step, with the hooks of the config.

    The losses are computed once more after the step: a learning rate that is far too high shows there. Where a guard
    is told to skip what is not finite, that is no reason to refuse, and a step that AMP skips is none either.

    Args:
        trainer: Its model has the weights that the run begins with; it is of no use afterwards.
        cfg: The config of the run.
        judged: Whether losses that are not finite are refused; else they are only warned of.
        given: See :func:`cvplugins.detectron2.run.building.refusals_named`.

    Raises:
        UserError: The batch cannot be loaded, does not go through the model, or something is not finite.
    """
    hooks = list(plugin_hooks(trainer))
    guards = [hook for hook in hooks if isinstance(hook, NonFiniteGuardHook)]
    with raised_on_every_rank(), failures_told(cfg, "a batch of DATASETS.TRAIN cannot be loaded", given):
        batch = _first_batch(trainer.data_loader)
    trainer.model.train()
    trainer.iter = 0
    try:
        with raised_on_every_rank(), EventStorage(0) as trainer.storage, as_written():
            with failures_told(cfg, "a batch of DATASETS.TRAIN does not go through the model", given):
                _train(trainer, hooks, batch, guarded=bool(guards))
            if all(hook.monitor.guard.policy == "raise" for hook in guards):
                _look_again(trainer, batch)
    except _NotFiniteError as error:
        if judged:
            raise
        logger.warning("with random weights, %s", error)


class _NotFiniteError(UserError):
    """A number of the first step is NaN or infinite."""


def _train(trainer: CvpluginsTrainer, hooks: list[PluginHook], batch: list[Any], *, guarded: bool) -> None:
    """Make the iteration without an exchange of gradients, in which a rank would wait for one that failed."""
    model, inner, optimizer = _unwrapped(trainer.model), trainer._trainer, trainer.optimizer
    for hook in hooks:
        hook.before_step()
    random = random_state()
    with _precision(trainer):
        try:
            losses = named_losses(model(batch))
        except FloatingPointError as error:  # Detectron2's RPN raises it
            raise _NotFiniteError(_words(first_line(error), _part(model, batch, random))) from error
    if not guarded and (bad := _bad(losses)):
        raise _NotFiniteError(_words(bad, _part(model, batch, random)))
    optimizer.zero_grad()
    total = torch.stack([value.sum() for value in losses.values()]).sum()
    if isinstance(inner, AMPTrainer):
        inner.grad_scaler.scale(total).backward()
        inner.grad_scaler.step(optimizer)
        inner.grad_scaler.update()
    else:
        total.backward()
        optimizer.step()
    for hook in hooks:
        hook.after_step()


def _look_again(trainer: CvpluginsTrainer, batch: list[Any]) -> None:
    model = _unwrapped(trainer.model)
    rate = max(group["lr"] for group in trainer.optimizer.param_groups)
    step = f"the first step of the optimizer, at a learning rate of {rate:g} (SOLVER.BASE_LR, SOLVER.WARMUP_FACTOR)"
    broken = describe_nonfinite(dict(model.named_parameters()))
    if broken:
        raise _NotFiniteError(f"{step}, leaves NaN or infinity in {_listed(broken)}; --traceback shows the code")
    try:
        with torch.no_grad(), _precision(trainer):
            bad = _bad(named_losses(model(batch)))
    except FloatingPointError as error:
        bad = first_line(error)
    if bad:
        raise _NotFiniteError(f"after {step}, the losses are not finite: {bad}; lower it, or clip the gradients")


def _precision(trainer: CvpluginsTrainer) -> contextlib.AbstractContextManager[Any]:
    device = next(trainer.model.parameters()).device.type
    precision = getattr(trainer._trainer, "precision", torch.float16)
    return torch.autocast(device, dtype=precision, enabled=trainer.cfg.SOLVER.AMP.ENABLED)


def _first_batch(loader: TrainingLoader) -> list[Any]:
    """Load the run's first batch in this process: workers would load several at once. Of a huge one, some images."""
    loader.num_workers = 0
    loader.batch_size = min(loader.batch_size, MOST_IMAGES)
    return next(iter(loader))


def _bad(losses: Mapping[str, Tensor]) -> str:
    """Return the losses that are not finite, in words."""
    values = {name: float(value.detach().sum()) for name, value in losses.items()}
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    return ", ".join(bad)


def _words(what: str, part: str) -> str:
    return f"the losses of the first batch of DATASETS.TRAIN are not finite: {what}{part}"


def _part(model: nn.Module, batch: list[Any], random: dict[str, Any]) -> str:
    """Return the part of a model that is not finite first, in words; nothing if it cannot be told."""
    moved = {name for name, _ in running_statistics(model)}  # by the forward pass that failed
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    broken = describe_nonfinite({name: value for name, value in held.items() if name not in moved})
    if broken:
        return f"; the model is built with {_listed(broken)}"
    with contextlib.suppress(FloatingPointError), EventStorage(0):
        layer = first_nonfinite_layer(model, lambda: _without_raising(model, batch), random)
        if layer is not None:
            return f"; the first layer with such an output is {layer.name} ({layer.detail})"
    return "; the outputs of all layers are finite"


def _without_raising(model: nn.Module, batch: list[Any]) -> None:
    with contextlib.suppress(FloatingPointError):
        model(batch)


def _listed(broken: Mapping[str, str]) -> str:
    first = [f"{name} ({found})" for name, found in itertools.islice(broken.items(), MOST_NAMES)]
    rest = len(broken) - len(first)
    return ", ".join(first) + (f" and {rest} more" if rest else "")


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextlib.contextmanager
def failures_told(cfg: CfgNode, what: str, given: Sequence[Collection[str]] = ()) -> Iterator[None]:
    """Say in one line what failed, where in the code, and which keys are to blame.

    Args:
        cfg: The config of the run.
        what: What fails if anything is raised.
        given: Keys to suspect: those of the command line, then those of the config file itself.
    """
    try:
        yield
    except UserError:
        raise
    except FloatingPointError as error:  # the hooks raise it, and say what it is
        raise _NotFiniteError(f"{what}: {first_line(error)}") from error
    except Exception as error:
        read = keys_read_by(error, cfg)
        suspected = [{path: value for path, value in read.items() if path in keys} for keys in given]
        of_command, of_file = [*suspected, {}, {}][:2]
        keys = _values(of_command) or _command_line(cfg, given) or _values(of_file or read)
        said = f"{type(error).__name__}: {first_line(error)} ({where(error)})"
        raise UserError(f"{what}: {said}{keys and f'; {keys}'}; --traceback shows all of it") from error


def _command_line(cfg: CfgNode, given: Sequence[Collection[str]]) -> str:
    """Return what the command line changes, in words; for where the code that failed read nothing of it."""
    known = {path: value for path, value in leaves(cfg) if given and path in given[0]}
    return f"the command line sets {_values(known)}" if known else ""


def _values(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {shown(value, 40)}" for path, value in itertools.islice(found.items(), MOST_KEYS))
