"""Transfer learning: freeze layers for a while, and give layers learning rates of their own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["FreezeReport", "FreezeRule", "LayerFreeze", "split_learning_rates"]

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # what schedulers keep in a parameter group


@dataclass(frozen=True)
class FreezeRule:
    """Layers that are frozen from one step to another.

    Attributes:
        layers: Names of modules or parameters, or patterns (as of file names) of them; a module stands for all in it.
        until: The first step at which they train; None for never.
        begin: The first step at which they are frozen.

    Raises:
        ValueError: There are no layers, or ``until`` is not after ``begin``.
    """

    layers: tuple[str, ...]
    until: int | None = None
    begin: int = 0

    def __post_init__(self) -> None:
        """Accept one name, or a list of names."""
        layers = (self.layers,) if isinstance(self.layers, str) else tuple(self.layers)
        object.__setattr__(self, "layers", layers)
        if not layers:
            raise ValueError("a rule names no layers; give names or patterns, such as layers=['backbone']")
        if self.begin < 0 or (self.until is not None and self.until <= self.begin):
            raise ValueError(
                f"layers {', '.join(layers)} are frozen from step {self.begin} until {self.until}; "
                "begin must be at least 0 and until after it, or None for the whole training"
            )

    def holds(self, step: int) -> bool:
        """Return whether the layers are frozen at ``step``."""
        return self.begin <= step and (self.until is None or step < self.until)


@dataclass(frozen=True)
class FreezeReport:
    """What changed at a step.

    Attributes:
        step: When.
        frozen: Parameters that no longer train.
        released: Parameters that train again.
        trainable: Number of values that train now.
    """

    step: int
    frozen: tuple[str, ...]
    released: tuple[str, ...]
    trainable: int

    def __str__(self) -> str:
        """Return a line for the log."""
        parts = [
            f"{len(names)} parameters {what} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
            for what, names in (("frozen", self.frozen), ("released", self.released))
            if names
        ]
        return f"{'; '.join(parts)}; {self.trainable} values train"


class LayerFreeze:
    """Freeze and release parameters by rules; a parameter is frozen while any rule that names it holds.

    Frozen parameters get no gradient. Norms whose parameters are all frozen, or that a rule names, are in evaluation
    mode, so that their statistics stand still. What the model froze itself stays frozen, and its norms that are in
    evaluation mode stay so. What is frozen is a function of the step alone, so that there is no state to resume.

    Args:
        model: The model, unwrapped.
        rules: The rules, or dicts of their fields.

    Raises:
        ValueError: A rule names nothing in the model.

    Example:
        >>> model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> freeze = LayerFreeze(model, [FreezeRule(("backbone",), until=100)])
        >>> freeze.observe(0).frozen
        ('backbone.weight', 'backbone.bias')
        >>> freeze.observe(100).released
        ('backbone.weight', 'backbone.bias')
    """

    def __init__(self, model: nn.Module, rules: Iterable[FreezeRule | Mapping[str, Any]]) -> None:
        self.model = model
        self.rules = [rule if isinstance(rule, FreezeRule) else FreezeRule(**rule) for rule in rules]
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        _demand_matches(model, [pattern for rule in self.rules for pattern in rule.layers])
        self._rules_of = {name: self._rules_that_name(name) for name in self._parameters}
        # Norms by the rules that name them, or all of their parameters.
        self._norms = {
            name: module for name, module in model.named_modules() if getattr(module, "running_mean", None) is not None
        }
        self._frozen: set[str] = set()
        self._stilled: dict[str, nn.Module] = {}  # norms that were put into evaluation mode here

    def observe(self, step: int) -> FreezeReport | None:
        """Freeze and release what is due, and put frozen norms into evaluation mode; call it before each iteration.

        Returns:
            What changed; None where nothing did.
        """
        frozen = {name for name, rules in self._rules_of.items() if any(rule.holds(step) for rule in rules)}
        new, released = frozen - self._frozen, self._frozen - frozen
        for name in new:
            self._parameters[name].requires_grad_(False)
            self._parameters[name].grad = None  # else the optimizer would go on with it
        for name in released:
            self._parameters[name].requires_grad_(True)
        self._frozen = frozen
        self._still_norms(step)
        if not new and not released:
            return None
        trainable = sum(value.numel() for value in self._parameters.values() if value.requires_grad)
        return FreezeReport(step, self._in_order(new), self._in_order(released), trainable)

    def restore(self) -> None:
        """Release everything, and put the norms back into training mode."""
        for name in self._frozen:
            self._parameters[name].requires_grad_(True)
        for module in self._stilled.values():
            module.train()
        self._frozen, self._stilled = set(), {}

    def _still_norms(self, step: int) -> None:
        """Training loops call ``model.train()`` whenever they like, so this is done anew at each step."""
        for name, module in self._norms.items():
            still = self._is_still(name, module, step)
            if still and module.training:
                module.eval()
                self._stilled[name] = module
            elif not still and name in self._stilled:
                self._stilled.pop(name).train()

    def _is_still(self, name: str, module: nn.Module, step: int) -> bool:
        own = [f"{name}.{each}" if name else each for each, _ in module.named_parameters(recurse=False)]
        own = [each for each in own if each in self._rules_of]
        if own:
            return all(each in self._frozen for each in own)
        return any(rule.holds(step) for rule in self._rules_that_name(name))

    def _rules_that_name(self, name: str) -> list[FreezeRule]:
        return [rule for rule in self.rules if any(_names(pattern, name) for pattern in rule.layers)]

    def _in_order(self, names: set[str]) -> tuple[str, ...]:
        return tuple(name for name in self._parameters if name in names)


def split_learning_rates(
    optimizer: Optimizer, model: nn.Module, factors: Mapping[str, float]
) -> list[tuple[int, float]]:
    """Split an optimizer's groups so that layers have a factor on their learning rate of their own.

    ``lr`` and what schedulers keep beside it (``initial_lr`` ...) are multiplied, so that schedules that work by
    ratio keep the factor. To be called before the first step and before a state is loaded.

    Args:
        optimizer: Its groups are replaced, in place.
        model: The model, unwrapped.
        factors: Factor by name or pattern of modules or parameters; the last that names a parameter counts.

    Returns:
        For each new group the index of the old one and the factor; groups that need no split stay as they are.

    Raises:
        ValueError: A factor is not above 0, or a pattern names nothing.

    Example:
        >>> from torch.optim import SGD
        >>> model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> optimizer = SGD(model.parameters(), lr=1.0)
        >>> split_learning_rates(optimizer, model, {"backbone": 0.1})
        [(0, 0.1), (0, 1.0)]
        >>> [(len(group["params"]), group["lr"]) for group in optimizer.param_groups]
        [(2, 0.1), (2, 1.0)]
    """
    for pattern, factor in factors.items():
        if not factor > 0:
            raise ValueError(f"the factor of {pattern} is {factor}; it must be above 0 (freeze a layer instead of 0)")
    _demand_matches(model, factors)
    names = {id(value): name for name, value in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    origins: list[tuple[int, float]] = []
    for index, group in enumerate(optimizer.param_groups):
        by_factor: dict[float, list[Tensor]] = {}
        for parameter in group["params"]:
            by_factor.setdefault(_factor(names.get(id(parameter), ""), factors), []).append(parameter)
        for factor, parameters in by_factor.items():
            rates = {name: group[name] * factor for name in RATES if name in group}
            groups.append({**group, **rates, "params": parameters})
            origins.append((index, factor))
    optimizer.param_groups[:] = groups
    return origins


def _factor(name: str, factors: Mapping[str, float]) -> float:
    return next((factors[pattern] for pattern in reversed(list(factors)) if _names(pattern, name)), 1.0)


def _names(pattern: str, name: str) -> bool:
    """Return whether a pattern names a parameter or module, or one that it lies in."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _demand_matches(model: nn.Module, patterns: Iterable[str]) -> None:
    known: Sequence[str] = [
        *(name for name, _ in model.named_modules() if name),
        *(name for name, _ in model.named_parameters()),
    ]
    for pattern in patterns:
        if not any(_names(pattern, name) for name in known):
            close = difflib.get_close_matches(pattern, known, n=3) or known[:5]
            raise ValueError(f"'{pattern}' names no layer of the model; there are {', '.join(close)} ...")
