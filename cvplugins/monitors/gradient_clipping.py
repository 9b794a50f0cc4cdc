"""Clip gradients by norm, by value or adaptively, each group of parameters by its own rule, and count how often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

__all__ = ["ClippingReport", "ClippingRule", "GradientClipping", "adaptive_clip_"]

KINDS = ("max_norm", "max_value", "clip_factor")


@dataclass(frozen=True)
class ClippingRule:
    """How the gradients of some parameters are clipped: exactly one of the three ways, or not at all.

    Args:
        pattern: Of the parameters' names, as in file names: ``"backbone.*"``. The first rule that matches counts.
        max_norm: Scale the gradients of all its parameters together down to this norm.
        max_value: Cut each value to ``[-max_value, max_value]``.
        clip_factor: Adaptive clipping (AGC): the gradient of each output unit has at most ``clip_factor`` times the
            norm of the unit's weights. 0.01 is the paper's for a batch of 4096, up to 0.16 for smaller ones; it
            leaves the last linear layer out, which a rule without a limit does.
        norm_type: Of ``max_norm`` and ``clip_factor``; may be infinite.
        eps: Least norm of weights that ``clip_factor`` counts with, so that zero weights can move.

    Raises:
        ValueError: Two limits, or one that is not above 0.

    Reference: Brock et al., High-Performance Large-Scale Image Recognition Without Normalization, 2021,
    arXiv:2102.06171.
    """

    pattern: str = "*"
    max_norm: float | None = None
    max_value: float | None = None
    clip_factor: float | None = None
    norm_type: float = 2.0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        given = {name: value for name in KINDS if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise ValueError(f"rule {self.pattern!r} has {' and '.join(given)}; give one of {', '.join(KINDS)}")
        for name, value in {**given, "norm_type": self.norm_type, "eps": self.eps}.items():
            if not value > 0:
                raise ValueError(f"{name} of rule {self.pattern!r} is {value}; it must be above 0")

    @property
    def limits(self) -> bool:
        """Whether it clips at all."""
        return any(getattr(self, name) is not None for name in KINDS)

    def clip_(self, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Clip in place; return whether it had to, and the norm before if it is by norm. Does not synchronise."""
        gradients = [value.grad for value in parameters if value.grad is not None]
        if self.max_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm, self.norm_type)
            return norm > self.max_norm, norm
        if self.max_value is not None:
            largest = torch.stack([_largest(gradient) for gradient in gradients]).max()
            torch.nn.utils.clip_grad_value_(parameters, self.max_value)
            return largest > self.max_value, None
        assert self.clip_factor is not None
        return adaptive_clip_(parameters, self.clip_factor, self.eps, self.norm_type), None


@dataclass(frozen=True)
class ClippingReport:
    """How often each rule clipped since the report before.

    Attributes:
        steps: Steps counted.
        share: Part of them in which a rule clipped, by its pattern.
        norm: Mean norm before clipping, by the pattern of the rules by norm.
    """

    steps: int
    share: dict[str, float]
    norm: dict[str, float]

    def scalars(self) -> dict[str, float]:
        """Return the numbers under the names that a logger shows."""
        named = [("clipped", self.share), ("norm_before_clipping", self.norm)]
        return {
            f"gradient/{what}" + ("" if pattern == "*" else f"/{pattern}"): value
            for what, values in named
            for pattern, value in values.items()
        }


class GradientClipping:
    """Clip just before each optimizer step; counts stay on the device until a report is asked for.

    Args:
        rules: Each parameter follows the first that matches its name; one that none matches is left alone.

    Raises:
        ValueError: No rule limits anything, or two have the same pattern.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2)); weight.grad = torch.tensor([3.0, 4.0])
        >>> clipping = GradientClipping([ClippingRule(max_norm=1.0)])
        >>> clipping.clip_([("weight", weight)])
        >>> clipping.report()
        ClippingReport(steps=1, share={'*': 1.0}, norm={'*': 5.0})
        >>> round(weight.grad.norm().item(), 4)
        1.0
    """

    def __init__(self, rules: Iterable[ClippingRule]) -> None:
        self.rules = tuple(rules)
        patterns = [rule.pattern for rule in self.rules]
        if not any(rule.limits for rule in self.rules):
            raise ValueError(f"nothing would be clipped; give a rule one of {', '.join(KINDS)}")
        for pattern in patterns:
            if patterns.count(pattern) > 1:
                raise ValueError(f"two rules have the pattern {pattern!r}; only the first would count")
        self._steps: Tensor | float = 0.0
        self._clipped: dict[str, Tensor | float] = {}
        self._norms: dict[str, Tensor | float] = {}

    @classmethod
    def of(
        cls,
        max_norm: float | None = None,
        max_value: float | None = None,
        clip_factor: float | None = None,
        rules: Iterable[Mapping[str, Any]] | None = None,
    ) -> GradientClipping:
        """Return the clipping of a config: one limit for all parameters, or rules as dicts of their fields.

        Raises:
            ValueError: Both are given, or a rule is not valid.
        """
        limits = {"max_norm": max_norm, "max_value": max_value, "clip_factor": clip_factor}
        given = {name: value for name, value in limits.items() if value is not None}
        if rules is None:
            return cls([ClippingRule(max_norm=max_norm, max_value=max_value, clip_factor=clip_factor)])
        if given:
            raise ValueError(f"rules and {', '.join(given)} are both set; put {', '.join(given)} into a rule")
        return cls([_rule(each) for each in rules])

    def assign(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return the names that follow each rule, by its pattern.

        Raises:
            ValueError: A rule matches no name that an earlier one left.
        """
        assigned: dict[str, list[str]] = {rule.pattern: [] for rule in self.rules}
        names = list(names)
        for name in names:
            rule = self._rule(name)
            if rule is not None:
                assigned[rule.pattern].append(name)
        for pattern, members in assigned.items():
            if not members:
                known = ", ".join(names[:3]) + (" ..." if names[3:] else "")
                raise ValueError(
                    f"clipping rule {pattern!r} matches no parameter that earlier rules left; they are {known}"
                )
        return assigned

    @torch.no_grad()
    def clip_(self, named: Iterable[tuple[str, Tensor]], is_void: Tensor | None = None) -> None:
        """Clip the gradients of named parameters in place.

        Args:
            named: Names and parameters of one step; gradients not multiplied by a loss scale.
            is_void: Above 0 if the optimizer will skip this step, which then does not count.
        """
        members: dict[ClippingRule, list[Tensor]] = {rule: [] for rule in self.rules if rule.limits}
        for name, value in named:
            rule = self._rule(name)
            if rule in members and value.grad is not None:
                members[rule].append(value)
        counts: Tensor | float = 1.0 if is_void is None else (is_void == 0).float()
        self._steps = self._steps + counts
        for rule, parameters in members.items():
            if parameters:
                clipped, norm = rule.clip_(parameters)
                _add(self._clipped, rule.pattern, clipped.float() * counts)
                if norm is not None:
                    _add(self._norms, rule.pattern, torch.nan_to_num(norm.float()) * counts)

    def report(self) -> ClippingReport | None:
        """Return how often was clipped since the last report, and count anew; None if there was no step.

        Reads the device once.
        """
        keys = [("clipped", pattern) for pattern in self._clipped] + [("norm", pattern) for pattern in self._norms]
        values = [self._steps, *self._clipped.values(), *self._norms.values()]
        device = next((value.device for value in values if isinstance(value, Tensor)), torch.device("cpu"))
        steps, *sums = torch.stack([torch.as_tensor(value, device=device).float() for value in values]).tolist()
        self._steps, self._clipped, self._norms = 0.0, {}, {}
        if not steps:
            return None
        means = {key: value / steps for key, value in zip(keys, sums, strict=True)}
        share, norm = (
            {name: value for (kind, name), value in means.items() if kind == wanted} for wanted in ("clipped", "norm")
        )
        return ClippingReport(int(steps), share, norm)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts since the last report."""
        plain = [{name: float(value) for name, value in values.items()} for values in (self._clipped, self._norms)]
        return {"steps": float(self._steps), "clipped": plain[0], "norms": plain[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._steps = state["steps"]
        self._clipped, self._norms = dict(state["clipped"]), dict(state["norms"])

    def _rule(self, name: str) -> ClippingRule | None:
        return next((rule for rule in self.rules if fnmatchcase(name, rule.pattern)), None)


def _rule(options: Mapping[str, Any]) -> ClippingRule:
    try:
        return ClippingRule(**options)
    except TypeError as error:
        known = ", ".join(ClippingRule.__dataclass_fields__)
        raise ValueError(f"rule {dict(options)} has an unknown option ({error}); there are: {known}") from error


@torch.no_grad()
def adaptive_clip_(parameters: Iterable[Tensor], clip_factor: float, eps: float = 1e-3, norm_type: float = 2) -> Tensor:
    """Clip each output unit's gradient to ``clip_factor * max(norm of its weights, eps)``, in place.

    A unit is a row of the first dimension; vectors and scalars (biases, gains) are one unit.

    Returns:
        Whether any unit was clipped, a flag on the device.
    """
    clipped = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        limit = _unit_norms(parameter.detach(), norm_type).clamp_(min=eps).mul_(clip_factor)
        norm = _unit_norms(parameter.grad, norm_type)
        # A factor of exactly 1 where nothing is clipped; the least divisor keeps 0 gradients 0.
        parameter.grad.mul_(torch.where(norm > limit, limit / norm.clamp(min=1e-6), 1.0).to(parameter.grad.dtype))
        clipped.append((norm > limit).any())
    return torch.stack(clipped).any() if clipped else torch.zeros((), dtype=torch.bool)


def _largest(gradient: Tensor) -> Tensor:
    """Return the greatest absolute value; on a CPU in a twentieth of the time of the infinity norm."""
    if not gradient.numel():
        return gradient.new_zeros(())
    return torch.stack(torch.aminmax(gradient)).abs().max()


def _unit_norms(value: Tensor, norm_type: float) -> Tensor:
    dimensions = tuple(range(1, value.ndim)) if value.ndim > 1 else None
    norms: Tensor = torch.linalg.vector_norm(value.float(), norm_type, dim=dimensions, keepdim=True)
    return norms


def _add(sums: dict[str, Tensor | float], name: str, value: Tensor) -> None:
    sums[name] = sums.get(name, 0.0) + value
