"""Which batch norms of a model become what: the policy as data, and the function that applies it."""

from __future__ import annotations

import difflib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

import torch.distributed as dist
from torch import nn

from cvplugins.distributed import world_size

from .conversion import CLASSES, class_name, convert, is_batch_norm, is_frozen, kind, moves_statistics, obstacle
from .summary import NormLayer, NormSummary, shorten
from .sync_batch_norm import SyncBatchNorm

__all__ = ["NormRule", "apply_norm_policy", "convert_batch_norm", "norm_kinds", "read_rules"]

TARGETS = (*CLASSES, "BN", "keep")
CHOICES = ("keep", "convert")
MOMENTUM_OF = ("SyncBN", "BN")
BY_NORM_EVAL = "in evaluation mode (norm_eval)"


@dataclass(frozen=True)
class NormRule:
    """What becomes of some layers; the first rule of a policy that fits a layer decides.

    Args:
        to: ``"SyncBN"``, ``"BN"``, ``"FrozenBN"``, ``"GN"`` (group norm), ``"LN2d"`` (layer norm over channels),
            or ``"keep"`` to leave the layers as they are.
        names: Patterns such as ``"backbone.*"`` (fnmatch, case matters) of layers' names.
        types: Patterns of classes, such as ``"BatchNorm2d"`` or ``"torch.Sync*"``; any if empty.
        momentum: Weight of a batch in the running statistics, for ``SyncBN`` and ``BN``; the layer's own if None.
        num_groups: For ``GN``.
        process_group: For ``SyncBN``: ranks that share statistics. All if None, ``"node"`` for those of each
            machine, a number for groups of so many neighbouring ranks, or a group.
        frozen: What to do with a layer that has weights of which none requires a gradient. ``"keep"`` leaves it
            as it is, unless it becomes ``FrozenBN``; ``"convert"``.
        evaluating: What to do with a layer in evaluation mode or below a module with ``norm_eval=True``, which
            never sees batch statistics. ``"keep"`` leaves it as it is, unless it becomes ``FrozenBN`` or ``BN``;
            ``"convert"``.

    Raises:
        ValueError: An option has a value that it cannot have.
    """

    to: str
    names: tuple[str, ...] = ("*",)
    types: tuple[str, ...] = ()
    momentum: float | None = None
    num_groups: int = 32
    process_group: dist.ProcessGroup | int | str | None = None
    frozen: str = "keep"
    evaluating: str = "keep"

    def __post_init__(self) -> None:
        accepted = (("to", TARGETS), ("frozen", CHOICES), ("evaluating", CHOICES))
        for name, known in accepted:
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; use one of {', '.join(map(repr, known))}")
        for name in ("names", "types"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"{name} is the string {value!r}; give a list of patterns")
            object.__setattr__(self, name, tuple(value))
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum is {self.momentum}; it must be between 0 and 1")
        if self.num_groups < 1:
            raise ValueError(f"num_groups is {self.num_groups}; it must be at least 1")
        group = self.process_group
        if (isinstance(group, str) and group != "node") or (isinstance(group, int) and group < 1):
            raise ValueError(f"process_group is {group!r}; use None, 'node', a number of ranks or a process group")

    def fits(self, name: str, layer: nn.Module) -> bool:
        """Return whether the rule is for a layer."""
        kinds = (type(layer).__name__, class_name(layer))
        return any(fnmatchcase(name, pattern) for pattern in self.names) and (
            not self.types or any(fnmatchcase(each, pattern) for each in kinds for pattern in self.types)
        )


def read_rules(rules: Iterable[NormRule | Mapping[str, Any]]) -> tuple[NormRule, ...]:
    """Return the rules that a config states as dicts.

    Raises:
        ValueError: There is none, a rule is no dict, has an unknown option or a wrong value; it is counted from 0.

    Example:
        >>> read_rules([{"to": "FrozenBN", "names": ["backbone.*"]}])[0].names
        ('backbone.*',)
    """
    if isinstance(rules, (str, Mapping)) or not (rules := list(rules)):
        raise ValueError(f"rules is {rules!r}; give a list of rules such as dict(to='SyncBN', names=['backbone.*'])")
    return tuple(_read(number, rule) for number, rule in enumerate(rules))


def _read(number: int, rule: NormRule | Mapping[str, Any]) -> NormRule:
    if isinstance(rule, NormRule):
        return rule
    if not isinstance(rule, Mapping):
        raise ValueError(f"rule {number} is {rule!r}; give a dict such as dict(to='SyncBN', names=['backbone.*'])")
    known = [field.name for field in fields(NormRule)]
    for option in rule:
        if option not in known:
            close = difflib.get_close_matches(str(option), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            raise ValueError(f"rule {number} has no option {option!r}; {hint}")
    if "to" not in rule:
        raise ValueError(f"rule {number} has no 'to'; use one of {', '.join(map(repr, TARGETS))}")
    try:
        return NormRule(**rule)
    except ValueError as error:
        raise ValueError(f"rule {number}: {error}") from None


def apply_norm_policy(model: nn.Module, rules: Iterable[NormRule | Mapping[str, Any]]) -> NormSummary:
    """Convert the batch norms of a model in place.

    A layer changes its class and nothing else: it stays the same object with the same parameters (optimizers
    and checkpoints stay valid), statistics, mode, hooks and places in the model. ``FrozenBN`` also stops the
    gradients of its parameters. Group and layer norm keep the running statistics, unused, so that back to ``BN`` is
    the identity; back from ``FrozenBN`` needs ``frozen="convert"``. Other classes with a ``forward`` of their own
    are left alone. With process groups by number or node all ranks have to call this.

    Args:
        model: Any module that holds batch norms of torch, mmcv, Detectron2 or this package. Group and layer norms
            count if a policy made them.
        rules: In the order in which they are tried; dicts with the options of :class:`NormRule` will do.

    Returns:
        What became of every batch norm, and which settings do nothing or contradict each other.

    Raises:
        ValueError: A rule is not valid, or the number of ranks is no multiple of ``process_group``.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
        >>> print(apply_norm_policy(model, [{"to": "FrozenBN", "names": ["1"]}]).overview())
        layers  was                is                         left because  names
        1       torch.BatchNorm2d  cvplugins.FrozenBatchNorm                1
        1       torch.BatchNorm2d  torch.BatchNorm2d          no rule fits  2
    """
    rules = read_rules(rules)
    groups = _process_groups(rules)
    norm_eval = _below_norm_eval(model)
    layers, fitting = [], defaultdict(list)
    found = [(name, layer) for name, layer in model.named_modules() if is_batch_norm(layer)]
    for name, layer in found:
        before, after, reason = class_name(layer), "", "no rule fits"
        rule = next((rule for rule in rules if rule.fits(name, layer)), None)
        if rule is not None:
            fitting[rules.index(rule)].append(name)
            group = groups[rules.index(rule)]
            reason = _reason_to_leave(layer, rule, group, evaluating=name in norm_eval or not layer.training)
            if not reason:
                after = _apply(layer, rule, group)
        layers.append(NormLayer(name, before, class_name(layer) + after, reason))
    warnings = [*_idle_rules(rules, fitting), *_contradictions(found, norm_eval)]
    return NormSummary(tuple(layers), tuple(warnings))


def norm_kinds(model: nn.Module) -> dict[str, str]:
    """Return, per batch norm, converted or not, what its weights are used for: ``"BN"``, ``"GN"`` or ``"LN2d"``.

    >>> norm_kinds(nn.Sequential(nn.BatchNorm2d(4), SyncBatchNorm(4)))
    {'0': 'BN', '1': 'BN'}
    """
    found = ((name, kind(layer)) for name, layer in model.named_modules() if is_batch_norm(layer))
    return {name: each if each in ("GN", "LN2d") else "BN" for name, each in found}


def _apply(layer: nn.Module, rule: NormRule, group: dist.ProcessGroup | None) -> str:
    if kind(layer) != rule.to or rule.to == "GN":  # which may have another number of groups
        convert(layer, rule.to, num_groups=rule.num_groups, group=group)
    elif group is not None:
        vars(layer)["process_group"] = group
    if rule.momentum is None or rule.to not in MOMENTUM_OF:
        return ""
    vars(layer)["momentum"] = rule.momentum
    return f" (momentum {rule.momentum:g})"


def _reason_to_leave(layer: nn.Module, rule: NormRule, group: dist.ProcessGroup | None, evaluating: bool) -> str:
    if rule.to == "keep":
        return "kept by a rule"
    if rule.frozen == "keep" and rule.to != "FrozenBN" and is_frozen(layer):
        return "frozen"
    if rule.evaluating == "keep" and rule.to not in ("FrozenBN", "BN") and evaluating:
        return BY_NORM_EVAL if layer.training else "in evaluation mode"
    if reason := obstacle(layer, rule.to, rule.num_groups):
        return reason
    is_there = kind(layer) == rule.to and group in (None, vars(layer).get("process_group"))
    same_momentum = rule.to not in MOMENTUM_OF or rule.momentum in (None, getattr(layer, "momentum", None))
    same_groups = rule.to != "GN" or getattr(layer, "num_groups", None) == rule.num_groups
    return f"already {rule.to}" if is_there and same_momentum and same_groups else ""


def _below_norm_eval(model: nn.Module) -> set[str]:
    """Return the names of all modules below one that keeps its batch norms in evaluation mode, as OpenMMLab's."""
    heads = [name for name, module in model.named_modules() if getattr(module, "norm_eval", False) is True]
    prefixes = tuple(f"{name}." if name else "" for name in heads)
    return {name for name, _ in model.named_modules() if name.startswith(prefixes)} if prefixes else set()


def _idle_rules(rules: Sequence[NormRule], fitting: Mapping[int, list[str]]) -> Iterable[str]:
    """Yield the options and rules that do nothing."""
    for number, rule in enumerate(rules):
        label = f"rule {number} ({rule.to})"
        if number not in fitting:
            yield (
                f"{label} decides about no batch norm: nothing fits names={list(rule.names)}"
                + (f", types={list(rule.types)}" if rule.types else "")
                + (" that an earlier rule does not fit" if number else "")
            )
        if rule.momentum is not None and rule.to not in MOMENTUM_OF:
            yield f"{label}: momentum={rule.momentum:g} does nothing, {rule.to} moves no running statistics"
        if rule.process_group is not None and rule.to != "SyncBN":
            yield f"{label}: process_group does nothing, only SyncBN has one"
        if rule.num_groups != NormRule.num_groups and rule.to != "GN":
            yield f"{label}: num_groups={rule.num_groups} does nothing, only GN has groups"


def _contradictions(found: Sequence[tuple[str, nn.Module]], norm_eval: set[str]) -> Iterable[str]:
    """Yield what contradicts itself in the model as it is now."""
    moving, idle, still = [], [], []
    for name, layer in found:
        in_evaluation = name in norm_eval or not layer.training
        moves = moves_statistics(layer)
        if moves and not in_evaluation and is_frozen(layer):
            moving.append(name)
        if isinstance(layer, (SyncBatchNorm, nn.SyncBatchNorm)) and in_evaluation:
            idle.append(name)
        if moves and not in_evaluation and getattr(layer, "momentum", None) == 0:
            still.append(name)
    if moving:
        yield (
            f"{len(moving)} layers do not learn, but their running statistics move in training ({shorten(moving)}); "
            "make them FrozenBN"
        )
    if idle:
        yield f"{len(idle)} layers are SyncBN but in evaluation mode, where it does nothing ({shorten(idle)})"
    if still:
        yield f"{len(still)} layers have momentum 0: their running statistics never move ({shorten(still)})"


def _process_groups(rules: Sequence[NormRule]) -> list[dist.ProcessGroup | None]:
    """Return the group of each rule; ranks make the same groups in the same order."""
    made: dict[int, dist.ProcessGroup | None] = {}
    groups: list[dist.ProcessGroup | None] = []
    for rule in rules:
        group = rule.process_group
        if group == "node":
            group = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
        if isinstance(group, int) and group not in made:
            made[group] = _neighbours(group)
        groups.append(made[group] if isinstance(group, int) else group)  # type: ignore[arg-type]
    return groups


def _neighbours(size: int) -> dist.ProcessGroup | None:
    """Return this rank's group of ``size`` neighbouring ranks; None for all ranks together."""
    ranks = world_size()
    if ranks == 1 or size == ranks:
        return None
    if ranks % size:
        raise ValueError(f"process_group is {size}, which does not divide {ranks} ranks; use a divisor, 'node' or None")
    group: dist.ProcessGroup = dist.new_subgroups(size)[0]  # type: ignore[no-untyped-call]
    return group


def convert_batch_norm(
    model: nn.Module,
    *,
    to: str = "SyncBN",
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    frozen: str = "keep",
    process_group: dist.ProcessGroup | int | str | None = None,
) -> NormSummary:
    """Convert batch norms in place by one rule, whatever mode they are in; see :func:`apply_norm_policy`.

    Args:
        model: Any module.
        to: The target; see :class:`NormRule`.
        include: Patterns such as ``"backbone.*"`` (fnmatch, case matters) of names to convert.
        exclude: Patterns of names to leave alone.
        frozen: ``"keep"`` leaves a layer alone none of whose parameters requires a gradient; ``"convert"``.
        process_group: Ranks that share statistics; all if None.

    Returns:
        What became of every batch norm.

    Raises:
        ValueError: An option has a value that it cannot have.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> print(convert_batch_norm(model).table())
        layer  was                is                       left because
        1      torch.BatchNorm2d  cvplugins.SyncBatchNorm
    """
    rule = NormRule(to, tuple(include), process_group=process_group, frozen=frozen, evaluating="convert")
    return apply_norm_policy(model, [NormRule("keep", tuple(exclude)), rule])
