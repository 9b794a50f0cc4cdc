"""Change the class of a batch norm and nothing else: the same object, parameters, statistics and hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from .layers import ConvertedGroupNorm, ConvertedLayerNorm2d, FrozenBatchNorm
from .sync_batch_norm import SyncBatchNorm

__all__ = ["CLASSES", "class_name", "convert", "is_batch_norm", "is_frozen", "kind", "moves_statistics", "obstacle"]

CLASSES: dict[str, type[nn.Module]] = {
    "SyncBN": SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm,
    "GN": ConvertedGroupNorm,
    "LN2d": ConvertedLayerNorm2d,
}
FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward, *(each.forward for each in CLASSES.values()))
# Known by name, because the core imports no framework: they have batch norm's attributes and state.
SYNCHRONISED = ("mmcv.ops.sync_bn.SyncBatchNorm", "detectron2.layers.batch_norm.NaiveSyncBatchNorm")
# Their weight and bias are buffers.
FROZEN = ("detectron2.layers.batch_norm.FrozenBatchNorm2d", "torchvision.ops.misc.FrozenBatchNorm2d")
# What the layers of other classes have beyond plain batch norm.
EXTRA = (
    *("process_group", "group", "group_size", "stats_mode", "_stats_mode", "plain"),
    *("num_groups", "num_channels", "normalized_shape", "elementwise_affine"),
)


@dataclass(frozen=True)
class Plain:
    """What a converted layer was, for the way back."""

    layer: type[nn.Module]
    momentum: float | None
    trained: tuple[str, ...]


def is_batch_norm(layer: nn.Module) -> bool:
    """Return whether a layer is a batch norm of torch or of a framework, or was one before it was converted."""
    return isinstance(layer, (_BatchNorm, *CLASSES.values())) or _path(layer) in SYNCHRONISED + FROZEN


def is_frozen(layer: nn.Module) -> bool:
    """Return whether nothing of a layer is learned by gradients, although it has weights."""
    parameters = list(layer.parameters())
    return _path(layer) in FROZEN or (bool(parameters) and not any(x.requires_grad for x in parameters))


def kind(layer: nn.Module) -> str:
    """Return which target a layer already is: a key of ``CLASSES``, ``"BN"``, or nothing for other classes."""
    for name, cls in CLASSES.items():
        if isinstance(layer, cls):
            return name
    return "BN" if type(layer).forward is _BatchNorm.forward else ""


def moves_statistics(layer: nn.Module) -> bool:
    """Return whether a layer changes its running statistics in training mode."""
    is_still = isinstance(layer, (FrozenBatchNorm, ConvertedGroupNorm, ConvertedLayerNorm2d)) or _path(layer) in FROZEN
    return not is_still and getattr(layer, "running_mean", None) is not None


def obstacle(layer: nn.Module, to: str, num_groups: int) -> str:
    """Return why a layer cannot become ``to``; nothing if it can."""
    if isinstance(layer, LazyModuleMixin):
        return "lazy: has not seen an input yet"
    if type(layer).forward not in FORWARDS and _path(layer) not in SYNCHRONISED + FROZEN:
        return "has a forward of its own"
    if to == "FrozenBN" and getattr(layer, "running_mean", None) is None:
        return "has no running statistics to freeze"
    channels = _channels(layer)
    if to == "GN" and channels % num_groups:
        return f"{num_groups} groups do not divide {channels} channels"
    return ""


def class_name(layer: nn.Module) -> str:
    """Return the package and class: two frameworks have a SyncBatchNorm."""
    return f"{type(layer).__module__.split('.')[0]}.{type(layer).__name__}"


def convert(layer: nn.Module, to: str, *, num_groups: int = 32, group: dist.ProcessGroup | None = None) -> None:
    """Change the class of a layer, as torch itself does with lazy and parametrised modules.

    Whatever it was becomes plain batch norm first: class, momentum and what trains are as before a conversion.
    """
    group = group or vars(layer).get("process_group")
    _make_plain(layer)
    if to == "BN":
        return
    state: dict[str, Any] = vars(layer)
    trained = tuple(name for name, parameter in layer.named_parameters() if parameter.requires_grad)
    state["plain"] = Plain(type(layer), state["momentum"], trained)
    if to == "SyncBN" and group is not None:
        state["process_group"] = group
    elif to == "FrozenBN":
        layer.requires_grad_(False)
        layer.zero_grad()  # a gradient that is left over would still be applied by the next step
    elif to == "GN":
        state.update(num_groups=num_groups, num_channels=state["num_features"])
    elif to == "LN2d":
        state.update(normalized_shape=(state["num_features"],), elementwise_affine=state["affine"])
    layer.__class__ = CLASSES[to]


def _make_plain(layer: nn.Module) -> None:
    if kind(layer) == "BN":
        return
    state: dict[str, Any] = vars(layer)
    plain: Plain | None = state.get("plain")
    if plain is not None and isinstance(layer, FrozenBatchNorm):
        for name in plain.trained:
            layer.get_parameter(name).requires_grad_(True)
    if _path(layer) in FROZEN:
        _adopt_frozen(layer)
    for name in EXTRA:
        state.pop(name, None)
    if plain is not None:
        state["momentum"] = plain.momentum
    layer.__class__ = nn.BatchNorm2d if plain is None else plain.layer


def _adopt_frozen(layer: nn.Module) -> None:
    """Give a frozen layer of Detectron2 or torchvision what batch norm has, with parameters that do not train."""
    buffers = layer._buffers
    for name in ("weight", "bias"):
        value = buffers.pop(name)
        assert value is not None
        layer.register_parameter(name, nn.Parameter(value, requires_grad=False))
        if buffers.get("num_batches_tracked") is None:
            buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.long, device=value.device)
    vars(layer).update(num_features=_channels(layer), momentum=0.1, affine=True, track_running_stats=True)


def _channels(layer: nn.Module) -> int:
    # torchvision's frozen layer does not store the number.
    mean: Any = layer.running_mean
    return int(getattr(layer, "num_features", 0)) or len(mean)


def _path(layer: nn.Module) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"
