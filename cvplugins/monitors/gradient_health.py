"""Gradient health: norms per layer and block, which gradients are not finite, and what is wrong with a training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .device_norms import read_norms
from .gradient_verdicts import GradientLimits, GradientVerdict, GradientVerdicts
from .layer_details import ActivationDetails, StepDetails

__all__ = ["DetailReport", "GradientHealth", "GradientReport"]

Parameters = nn.Module | Iterable[tuple[str, Tensor]]


@dataclass(frozen=True)
class GradientReport:
    """What one observation found.

    Attributes:
        iteration: When it was made.
        total_norm: Euclidean norm of all gradients; NaN or infinite if one is not finite.
        block_norms: The same per block, in the order of the model.
        nonfinite: Parameters whose gradient holds NaN or infinity.
        unused: Parameters that require a gradient but have none.
        layer_norms: As ``block_norms``, per module that owns parameters.
        verdicts: What has just become sure; each cause once.
    """

    iteration: int
    total_norm: float
    block_norms: dict[str, float]
    nonfinite: tuple[str, ...]
    unused: tuple[str, ...]
    layer_norms: dict[str, float] = field(default_factory=dict, repr=False)
    verdicts: tuple[GradientVerdict, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class DetailReport:
    """What a closer look at one step found.

    Attributes:
        iteration: When it was made.
        layers: For each module that owns parameters ``norm`` of its gradient, share of ``zeros`` in it, and
            ``update_ratio``: the norm of what the step changed over the norm of the weights before it.
        blocks: The same per block.
        activations: For each module asked for ``mean``, ``std``, share of ``zeros`` and share of ``dead`` units.
        verdicts: What has just become sure; each cause once.
    """

    iteration: int
    layers: dict[str, dict[str, float]]
    blocks: dict[str, dict[str, float]]
    activations: dict[str, dict[str, float]]
    verdicts: tuple[GradientVerdict, ...] = ()

    @property
    def total_norm(self) -> float:
        """Euclidean norm of all gradients of this part."""
        return math.hypot(*(numbers["norm"] for numbers in self.blocks.values()))

    def scalars(self) -> dict[str, float]:
        """Return the finite numbers of the blocks and activations under the names that a logger shows."""
        found = {
            f"gradient/{name}/{block}": value
            for block, numbers in self.blocks.items()
            for name, value in numbers.items()
            if math.isfinite(value)  # weights that start at 0 have no ratio
        }
        for module, numbers in self.activations.items():
            found |= {f"activation/{name}/{module}": value for name, value in numbers.items()}
        return found


class GradientHealth:
    """Norms and non-finite values of a model's gradients, for one device synchronisation an observation.

    A finite norm proves that a gradient is finite, so that only a norm that is not needs a second look. Norms
    of half precision gradients are accumulated in float32. Sparse gradients and failures synchronise more. A closer
    look (zeros, updates, activations) holds a copy of the weights during the step and synchronises once more.

    Args:
        depth: Parts of a module's name that make a block, at least 1: 2 gives ``backbone.layer1``.
        interval: Observe when so many iterations have passed since the last observation, at least 1. Calls of
            the same iteration, for different parts of a model, are all observed.
        detail_interval: The same for the closer look, which an observation begins and :meth:`after_step` ends;
            0 for never.
        activations: Names of modules whose output a closer look covers; ``*`` and ``?`` stand for any part.
        limits: Where trouble begins.

    Attributes:
        first_nonfinite: Iteration at which each parameter's gradient was first seen not to be finite.

    Raises:
        ValueError: ``depth``, ``interval`` or ``detail_interval`` is too small, or a limit is out of range.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1))
        >>> model[0].weight.grad = torch.tensor([[3.0, 4.0]])
        >>> GradientHealth(depth=1).observe(model, iteration=0)
        GradientReport(iteration=0, total_norm=5.0, block_norms={'0': 5.0}, nonfinite=(), unused=('1.weight', '1.bias'))
    """

    def __init__(
        self,
        depth: int = 2,
        interval: int = 1,
        detail_interval: int = 0,
        activations: Sequence[str] = (),
        limits: GradientLimits | dict[str, float] | None = None,
    ) -> None:
        options = (("depth", depth, 1), ("interval", interval, 1), ("detail_interval", detail_interval, 0))
        for name, value, least in options:
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if isinstance(activations, str):
            raise ValueError(f"activations is {activations!r}; give a list of names: [{activations!r}]")
        if activations and not detail_interval:
            raise ValueError("activations are looked at every detail_interval iterations, but that is 0; set it to 100")
        self.depth = depth
        self.interval = interval
        self.detail_interval = detail_interval
        self.activations = tuple(activations)
        self.first_nonfinite: dict[str, int] = {}
        self._last: int | None = None  # iteration of the last observation
        self._last_detail: int | None = None
        self._verdicts = GradientVerdicts(GradientLimits.of(limits))
        self._plans: dict[str, _Plan] = {}
        self._steps: dict[str, tuple[StepDetails, _Plan, npt.NDArray[np.float64]]] = {}
        self._watched: ActivationDetails | None = None

    def is_due(self, iteration: int) -> bool:
        """Return whether :meth:`observe` would look at this iteration."""
        return self._last is None or not 0 < iteration - self._last < self.interval

    def is_detail_due(self, iteration: int) -> bool:
        """Return whether an observation of this iteration would begin a closer look."""
        if not self.detail_interval:
            return False
        return self._last_detail is None or not 0 < iteration - self._last_detail < self.detail_interval

    def check(self, model: nn.Module) -> None:
        """Raise ``ValueError`` if no module of the model has a name in ``activations``."""
        if self.activations:
            ActivationDetails(model, self.activations).close()

    def before_forward(self, model: nn.Module, iteration: int) -> None:
        """Begin to watch the activations asked for, if this iteration is due for a closer look."""
        if self.activations and self._watched is None and self.is_detail_due(iteration):
            self._watched = ActivationDetails(model, self.activations)

    @torch.no_grad()
    def observe(
        self, model: Parameters, iteration: int, scale: float = 1.0, part: str = "", loss: float | None = None
    ) -> GradientReport | None:
        """Look at the gradients as they are now.

        Args:
            model: A module, or its named parameters. The prefix that DistributedDataParallel adds is dropped.
            iteration: The current step.
            scale: Loss scale that the gradients are still multiplied by.
            part: Name of the part of a model that these parameters are, if it is observed in parts.
            loss: The newest known loss, to find plateaus; reading it is the caller's synchronisation.

        Returns:
            A report, or None between intervals.
        """
        if not self.is_due(iteration):
            return None
        self._last = iteration
        names, gradients, unused = [], [], []
        parameters = list(model.named_parameters() if isinstance(model, nn.Module) else model)
        for name, parameter in parameters:
            gradient = parameter.grad
            if gradient is not None:
                names.append(name)
                gradients.append(gradient.coalesce().values() if gradient.is_sparse else gradient)
            elif parameter.requires_grad:
                unused.append(name.removeprefix("module."))
        plan = self._plans.get(part)
        if plan is None or plan.given != names:
            plan = self._plans[part] = _Plan(names, [gradient.ndim > 1 for gradient in gradients], self.depth)
        norms = np.array(read_norms(gradients))
        nonfinite = []
        for index in np.flatnonzero(~np.isfinite(norms)):
            norms[index] = _norm_without_overflow(gradients[index])
            if not math.isfinite(norms[index]):
                nonfinite.append(plan.names[index])
                self.first_nonfinite.setdefault(plan.names[index], iteration)
        norms /= scale
        layer_norms, block_norms = plan.layers.combine(norms).tolist(), plan.blocks.combine(norms).tolist()
        total_norm = math.hypot(*block_norms)
        verdicts: list[GradientVerdict] = []
        if not nonfinite:
            judge = self._verdicts
            verdicts += judge.judge(iteration, plan.layers.names, layer_norms, plan.with_matrix, unused, part)
            verdicts += [] if loss is None else judge.judge_loss(iteration, loss, total_norm)
            if self.is_detail_due(iteration):
                self._last_detail = iteration
                self._steps[part] = (StepDetails(dict(parameters)), plan, norms)
        return GradientReport(
            iteration,
            total_norm,
            dict(zip(plan.blocks.names, block_norms, strict=True)),
            tuple(nonfinite),
            tuple(unused),
            dict(zip(plan.layers.names, layer_norms, strict=True)),
            tuple(verdicts),
        )

    def after_step(self, iteration: int, part: str = "") -> DetailReport | None:
        """End the closer look that the observation of this iteration began, after the optimizer's step.

        Args:
            iteration: The current step.
            part: As in :meth:`observe`.

        Returns:
            A report, or None if there was no closer look.
        """
        if part not in self._steps:
            return None
        step, plan, norms = self._steps.pop(part)
        numbers = step.after_step()
        layers, blocks = (_details(level, plan, norms, numbers) for level in (plan.layers, plan.blocks))
        activations = {}
        if self._watched is not None:
            try:
                activations = self._watched.read()
            finally:
                self.close()
        # A weight of a layer that starts at 0, or a scale alone, has no size to compare with.
        to_weight = {
            name: each["norm"] / each["weight"]
            for name, each in [list(layers.items())[index] for index in plan.with_matrix]
            if each["weight"] > 0
        }
        dead = {name: each["dead"] for name, each in activations.items()}
        verdicts = self._verdicts.judge_details(iteration, to_weight, dead, part)
        for each in (*layers.values(), *blocks.values()):
            del each["weight"]
        return DetailReport(iteration, layers, blocks, activations, tuple(verdicts))

    def close(self) -> None:
        """Leave the model as it was: no hook stays on it."""
        if self._watched is not None:
            self._watched.close()
            self._watched = None

    def scalars(self, report: GradientReport) -> dict[str, float]:
        """Return the norms under the names that a logger shows."""
        return {
            "gradient/norm": report.total_norm,
            **{f"gradient/norm/{block}": norm for block, norm in report.block_norms.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {
            "first_nonfinite": dict(self.first_nonfinite),
            "last": self._last,
            "last_detail": self._last_detail,
            "verdicts": self._verdicts.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.first_nonfinite, self._last = dict(state["first_nonfinite"]), state["last"]
        if "verdicts" in state:  # checkpoints of the first version have none
            self._last_detail = state["last_detail"]
            self._verdicts.load_state_dict(state["verdicts"])


class _Groups:
    """Parameters put together: the name of each group, and how to combine their norms."""

    def __init__(self, group_of: Sequence[str]) -> None:
        self.names = list(dict.fromkeys(group_of))
        place = {name: index for index, name in enumerate(self.names)}
        self.index = np.array([place[name] for name in group_of], dtype=np.int64)

    def add(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.bincount(self.index, values, len(self.names)).astype(np.float64, copy=False)

    def combine(self, norms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.sqrt(self.add(norms * norms))


class _Plan:
    """What follows from the names of parameters, worked out once."""

    def __init__(self, given: list[str], is_matrix: list[bool], depth: int) -> None:
        self.given = given
        self.names = [name.removeprefix("module.") for name in given]
        owners = [name.rpartition(".")[0].split(".") for name in self.names]
        # A parameter of the model itself is its own layer and block.
        self.layers = _Groups([".".join(owner) or name for owner, name in zip(owners, self.names, strict=True)])
        self.blocks = _Groups([".".join(owner[:depth]) or name for owner, name in zip(owners, self.names, strict=True)])
        self.with_matrix = np.flatnonzero(self.layers.add(np.array(is_matrix, dtype=np.float64))).tolist()


def _details(
    groups: _Groups, plan: _Plan, norms: npt.NDArray[np.float64], numbers: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Return the numbers of a closer look per group; those of sparse gradients are missing."""
    none = {"size": 0.0, "zeros": 0.0, "weight": 0.0, "update": 0.0}
    each = [numbers.get(name, none) for name in plan.given]
    size, zeros = (groups.add(np.array([number[key] for number in each])) for key in ("size", "zeros"))
    weight, update = (groups.combine(np.array([number[key] for number in each])) for key in ("weight", "update"))
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {"norm": groups.combine(norms), "zeros": zeros / size, "update_ratio": update / weight}
    columns["weight"] = weight
    return {
        name: {key: float(values[index]) for key, values in columns.items()} for index, name in enumerate(groups.names)
    }


def _norm_without_overflow(gradient: Tensor) -> float:
    """Return the norm without squaring large values; NaN exactly if the gradient is not finite."""
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    largest = gradient.abs().max()
    return float(largest) * float(torch.linalg.vector_norm(gradient / largest))
