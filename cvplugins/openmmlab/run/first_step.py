"""The first step of a training, taken before it: losses and weights have to be finite."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from cvplugins.distributed import is_distributed
from cvplugins.errors import UserError
from cvplugins.refusals import shown

from .config_walk import at
from .replay import loss_components

__all__ = ["Beginning", "NotFiniteError", "take_first_step"]

logger = logging.getLogger(__name__)


class NotFiniteError(UserError):
    """The images or the losses of a batch are not finite; other batches may have better ones."""


@dataclass(frozen=True)
class Beginning:
    """What a first step is taken with.

    Attributes:
        runner: A trial's, with its optimizer.
        cfg: The config, for messages.
        has_weights: Whether the model has the weights with which the run begins. Others may be too large or too small.
    """

    runner: Runner
    cfg: Config
    has_weights: bool


def take_first_step(model: Any, beginning: Beginning, batch: Any) -> None:
    """Take one step of the optimizer, as ``BaseModel.train_step`` does (mmengine, 0.10).

    With AMP the first gradients may overflow: the scaler skips that step, and the weights stay as they are. Gradients
    are not accumulated here.

    Args:
        model: The model; its weights change.
        beginning: The trial's run.
        batch: What the loader gives.

    Raises:
        NotFiniteError: The images or the losses are not finite.
        UserError: The weights after the step, or the losses with them, are not.
    """
    model.train()
    if type(model).train_step is not BaseModel.train_step:
        values = model.train_step(batch, optim_wrapper=beginning.runner.optim_wrapper)
        _check_losses(dict(values or {}), "the first step gives")
        return
    wrapper: Any = beginning.runner.optim_wrapper
    if isinstance(wrapper, OptimWrapper):
        wrapper._accumulative_counts = 1
    losses = _losses(model, batch, beginning)
    if odd := _not_finite(loss_components(losses)):
        # Other processes would not take part in another forward pass.
        is_looked_for = not is_distributed()
        place = _first_odd_module(model, batch, beginning) if is_looked_for else None
        # Without its weights a backbone may overflow that would not with them; losses alone cannot.
        if beginning.has_weights or (is_looked_for and place is None):
            _refuse_losses(odd, place, is_looked_for)
        logger.warning(
            "the first batch gives losses that are not finite (%s), but without the weights that the run downloads",
            _said(odd),
        )
        return
    wrapper.update_params(model.parse_losses(losses)[0])
    _check_weights(model, beginning)
    if beginning.has_weights and (odd := _not_finite(loss_components(_losses(model, batch, beginning)))):
        raise UserError(
            f"after the first step of the optimizer the losses are not finite ({_said(odd)}): {_rates(beginning)}"
        )


def _losses(model: Any, batch: Any, beginning: Beginning) -> Any:
    """Return the losses of a batch, of which the preprocessor, which changes it, gets a copy."""
    with beginning.runner.optim_wrapper.optim_context(model):
        inputs = model.data_preprocessor(copy.deepcopy(batch), True)
        _check_inputs(inputs, batch, beginning.cfg)
        return model._run_forward(inputs, mode="loss")


def _check_inputs(inputs: Any, batch: Any, cfg: Config) -> None:
    images = inputs.get("inputs") if isinstance(inputs, Mapping) else inputs
    if all(_is_finite(each) for each in _tensors(images)):
        return
    raw = batch.get("inputs") if isinstance(batch, Mapping) else batch
    if not all(_is_finite(each) for each in _tensors(raw)):
        raise NotFiniteError("the images of the first batch of train_dataloader are not finite; look at its pipeline")
    path = "model.data_preprocessor" if at(cfg, "model.data_preprocessor") else "data_preprocessor"
    options = at(cfg, path) or {}
    given = ", ".join(f"{path}.{key} = {shown(options[key])}" for key in ("mean", "std") if key in options)
    raise NotFiniteError(f"the images are not finite after {path}: {given or 'look at what it does'}; std is above 0")


def _check_losses(values: Mapping[str, Any], what: str) -> None:
    found = {name: value for name, value in values.items() if isinstance(value, (Tensor, list, float))}
    if odd := _not_finite(found):
        raise NotFiniteError(f"{what} losses that are not finite ({_said(odd)})")


def _refuse_losses(odd: Mapping[str, float], place: str | None, is_looked_for: bool) -> None:
    if not is_looked_for:
        where = "a training with one process says which part they come from"
    elif place is None:
        where = "the weights and what the layers give are finite: look at the targets, coders and losses"
    else:
        where = f"the first numbers that are not finite come out of {place}"
    raise NotFiniteError(
        f"the first batch of train_dataloader gives losses that are not finite ({_said(odd)}); {where}"
    )


def _check_weights(model: nn.Module, beginning: Beginning) -> None:
    for name, weight in model.named_parameters():
        if not _is_finite(weight):
            raise UserError(f"the first step of the optimizer makes {name} not finite: {_rates(beginning)}")


def _rates(beginning: Beginning) -> str:
    """Return what is said about the learning rate, and what it is at the first iteration."""
    optimizer = at(beginning.cfg, "optim_wrapper.optimizer")
    if not isinstance(optimizer, Mapping) or "lr" not in optimizer:
        return "lower the learning rate of optim_wrapper"
    now = {float(group["lr"]) for group in beginning.runner.optim_wrapper.optimizer.param_groups}
    first = f" (the schedules make {max(now):g} of it)" if now != {optimizer["lr"]} else ""
    return f"optim_wrapper.optimizer.lr = {optimizer['lr']}{first} is too high, or a gradient is not finite; lower it"


def _first_odd_module(model: Any, batch: Any, beginning: Beginning) -> str | None:
    """Return the path of the first module whose output is not finite although its input is, None if there is none."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if not found and not all(_is_finite(each) for each in _tensors(output)):
                found.append(f"model.{name}")

        return hook

    handles = [
        module.register_forward_hook(look(name))
        for name, module in model.named_modules()
        if name and not _is_loss(name) and name != "data_preprocessor"
    ]
    try:
        _losses(model, batch, beginning)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _is_loss(name: str) -> bool:
    return any(part.startswith("loss") for part in name.split("."))


def _not_finite(losses: Mapping[str, Any]) -> dict[str, float]:
    """Return the losses that are not finite; of a list the first such number."""
    odd = {}
    for name, value in losses.items():
        for each in _tensors(value):
            if not _is_finite(each):
                odd[name] = float(each.detach()[~torch.isfinite(each)].flatten()[0])
    return odd


def _said(odd: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in odd.items())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, float):
        yield torch.tensor(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
