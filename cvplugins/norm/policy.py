"""Which batch norms of a model share their statistics between ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from .sync_batch_norm import SyncBatchNorm

__all__ = ["NormLayer", "NormSummary", "convert_batch_norm"]

TARGETS = ("SyncBN", "BN")
FROZEN = ("keep", "convert")


@dataclass(frozen=True)
class NormLayer:
    """What became of one layer.

    Attributes:
        name: Its name in the model.
        before: Its package and class.
        after: The same now.
        reason: Why it was left alone; empty if it was converted.
    """

    name: str
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True)
class NormSummary:
    """What became of every batch norm of a model."""

    layers: tuple[NormLayer, ...]

    @property
    def converted(self) -> tuple[str, ...]:
        """Names of the layers that were converted."""
        return tuple(layer.name for layer in self.layers if not layer.reason)

    @property
    def left(self) -> dict[str, str]:
        """Names of the layers that were left alone, and why."""
        return {layer.name: layer.reason for layer in self.layers if layer.reason}

    def table(self) -> str:
        """Return one line per layer."""
        rows = [
            ("layer", "was", "is", "left because"),
            *((x.name or "(model)", x.before, x.after, x.reason) for x in self.layers),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def convert_batch_norm(
    model: nn.Module,
    *,
    to: str = "SyncBN",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    frozen: str = "keep",
    process_group: dist.ProcessGroup | None = None,
) -> NormSummary:
    """Convert batch norms in place.

    A layer changes its class and nothing else: it stays the same object with the same parameters (optimizers
    stay valid), statistics, mode, hooks and places in the model. There and back is the identity.

    Args:
        model: Any module that holds ``torch.nn.BatchNorm1d/2d/3d``, ``torch.nn.SyncBatchNorm`` or
            :class:`SyncBatchNorm`. Subclasses with a ``forward`` of their own are left alone.
        to: ``"SyncBN"`` for :class:`SyncBatchNorm`; ``"BN"`` for the class from before, ``BatchNorm2d`` if
            there is none.
        include: Patterns such as ``"backbone.*"`` (fnmatch, case matters) of names to convert; all if None.
        exclude: Patterns of names to leave alone.
        frozen: ``"keep"`` leaves a layer alone none of whose parameters requires a gradient; ``"convert"``.
        process_group: Ranks that share statistics; all if None.

    Returns:
        What became of every batch norm.

    Raises:
        ValueError: An unknown ``to`` or ``frozen``.
        TypeError: ``include`` or ``exclude`` is one string.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> print(convert_batch_norm(model).table())
        layer  was                is                       left because
        1      torch.BatchNorm2d  cvplugins.SyncBatchNorm
    """
    for name, value, known in (("to", to, TARGETS), ("frozen", frozen, FROZEN)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; use one of {', '.join(map(repr, known))}")
    for name, patterns in (("include", include), ("exclude", exclude)):
        if isinstance(patterns, str):
            raise TypeError(f"{name} is the string {patterns!r}; give a list of patterns")
    layers = []
    for name, layer in model.named_modules():
        if not isinstance(layer, _BatchNorm):
            continue
        before = _class_name(layer)
        reason = _filter_reason(name, include, exclude) or _reason_to_leave(layer, to, frozen, process_group)
        if not reason:
            _convert(layer, to, process_group)
        layers.append(NormLayer(name, before, _class_name(layer), reason))
    return NormSummary(tuple(layers))


def _filter_reason(name: str, include: Sequence[str] | None, exclude: Sequence[str]) -> str:
    if include is not None and not any(fnmatchcase(name, pattern) for pattern in include):
        return "not included"
    return "excluded" if any(fnmatchcase(name, pattern) for pattern in exclude) else ""


def _reason_to_leave(layer: _BatchNorm, to: str, frozen: str, group: dist.ProcessGroup | None) -> str:
    parameters = list(layer.parameters())
    if frozen == "keep" and parameters and not any(parameter.requires_grad for parameter in parameters):
        return "frozen"
    if isinstance(layer, LazyModuleMixin):
        return "lazy: has not seen an input yet"
    if type(layer).forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward, SyncBatchNorm.forward):
        return "has a forward of its own"
    if to == "SyncBN" and isinstance(layer, SyncBatchNorm) and group in (None, layer.process_group):
        return "already SyncBN"
    if to == "BN" and not isinstance(layer, (SyncBatchNorm, nn.SyncBatchNorm)):
        return "already BN"
    return ""


def _class_name(layer: nn.Module) -> str:
    """Return the package and class: two frameworks have a SyncBatchNorm."""
    return f"{type(layer).__module__.split('.')[0]}.{type(layer).__name__}"


def _convert(layer: _BatchNorm, to: str, group: dist.ProcessGroup | None) -> None:
    """Change the class of a layer, as torch itself does with lazy and parametrised modules."""
    state = vars(layer)
    if to == "BN":
        layer.__class__ = state.pop("plain", nn.BatchNorm2d)
        state.pop("process_group", None)
        return
    if not isinstance(layer, (SyncBatchNorm, nn.SyncBatchNorm)):
        state["plain"] = type(layer)
    if group is not None:
        state["process_group"] = group
    layer.__class__ = SyncBatchNorm
