"""Fold batch norms into the convolutions before them, for inference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from .conversion import is_batch_norm, kind, obstacle

__all__ = ["FusionReport", "fuse_conv_bn"]


@dataclass(frozen=True)
class FusionReport:
    """What was folded.

    Attributes:
        folded: Names of the convolution and the batch norm of each pair.
        left: Names of the batch norms that stay, and why.
    """

    folded: tuple[tuple[str, str], ...]
    left: dict[str, str]

    def __str__(self) -> str:
        """Return a line for the log."""
        text = f"{len(self.folded)} of {len(self.folded) + len(self.left)} batch norms folded into convolutions"
        reasons: dict[str, list[str]] = defaultdict(list)
        for name, reason in self.left.items():
            reasons[reason].append(name)
        return text + "".join(f"; {len(names)} {reason} ({names[0]})" for reason, names in reasons.items())


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Which convolution's output goes into which batch norm, and where else outputs of convolutions go.

    Tensors are followed through operators, not through modules: that sees what happens between two modules, and
    Detectron2's convolutions, whose module includes the normalisation. Convolutions are known by the id of their
    weight, batch norms by the id of their running mean.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made_by: Any = WeakTensorKeyDictionary()  # the convolution of each of its outputs that still lives
        self.norms_of: dict[int, set[int]] = defaultdict(set)  # batch norms that got a convolution's output
        self.sources: dict[int, set[int | None]] = defaultdict(set)  # what batch norms got; None for all else
        self.needed: dict[int, str] = {}  # convolutions whose output something else needs, and what

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if "batch_norm" in name:
            # (input, weight, bias, running mean, ...) in all of them: native, cuDNN, MIOpen, without training.
            source, norm = self.made_by.get(args[0]), id(args[3])
            self.sources[norm].add(source)
            if source is not None:
                self.norms_of[source].add(norm)
        else:
            for value in tree_flatten((args, kwargs))[0]:
                if isinstance(value, Tensor) and value in self.made_by:
                    self.needed.setdefault(self.made_by[value], name.removeprefix("aten::"))
        output = func(*args, **(kwargs or {}))
        if name == "aten::convolution":
            self.made_by[output] = id(args[1])
        return output

    def note_survivors(self) -> None:
        """Count an output that still lives as needed: it was returned or stored."""
        for source in list(self.made_by.values()):
            self.needed.setdefault(source, "the caller")


@torch.no_grad()
def fuse_conv_bn(model: nn.Module, *inputs: Any, call: Callable[..., Any] | None = None) -> FusionReport:
    """Fold each batch norm into the convolution whose output it alone receives, in place.

    One run of the model shows what follows what; order of registration, which mmcv's ``fuse_conv_bn`` goes by, does
    not. Modules stay at their places: the convolution gets a new weight and bias, the batch norm becomes an identity.
    A pair that is used several times is folded if it always goes together.

    Args:
        model: Any module in evaluation mode. What the example does not reach stays as it is.
        inputs: An example, such as an image batch.
        call: Runs the model on ``inputs``, such as ``model.test_step`` of OpenMMLab; the model itself if None.

    Returns:
        How many pairs were folded, and why the others were not.

    Raises:
        ValueError: The model, or a layer to fold, is in training mode.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).eval()
        >>> print(fuse_conv_bn(model, torch.zeros(1, 3, 8, 8)))
        1 of 1 batch norms folded into convolutions
    """
    norms = {name: layer for name, layer in model.named_modules() if _is_candidate(layer)}
    for name, layer in {"": model, **norms}.items():
        if layer.training:
            raise ValueError(f"{name or 'the model'} is in training mode; call model.eval() before folding")
    trace = _Trace()
    with trace:
        output = (call or model)(*inputs)
    trace.note_survivors()
    del output
    convolutions: dict[int, list[tuple[str, _ConvNd]]] = defaultdict(list)
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd):
            convolutions[id(module._parameters.get("weight"))].append((name, module))
    folded, left = [], {}
    for name, norm in norms.items():
        sources = trace.sources.get(id(norm.running_mean), set())
        pair = convolutions.get(next(iter(sources)) or 0, []) if len(sources) == 1 else []
        if reason := _reason_to_leave(norm, sources, pair, trace):
            left[name] = reason
        else:
            folded.append((pair[0][0], name))
            _fold(pair[0][1], norm)
    return FusionReport(tuple(folded), left)


def _is_candidate(layer: nn.Module) -> bool:
    return (
        is_batch_norm(layer) and kind(layer) not in ("GN", "LN2d") and getattr(layer, "running_mean", None) is not None
    )


def _reason_to_leave(norm: nn.Module, sources: set[int | None], pair: list[tuple[str, _ConvNd]], trace: _Trace) -> str:
    if reason := obstacle(norm, "BN", 1):
        return reason
    if not sources:
        return "not reached by the example"
    if None in sources:
        return "after something else than a convolution"
    if len(sources) > 1:
        return "after several convolutions"
    source = next(iter(sources))
    assert source is not None
    if len(trace.norms_of[source]) > 1:
        return "after a convolution that feeds several"
    if needed := trace.needed.get(source):
        return f"after a convolution whose output goes to {needed} too"
    if len(pair) != 1:
        return "after a convolution whose weight is computed or shared"
    convolution = pair[0][1]
    if any(module._forward_hooks or module._forward_pre_hooks for module in (norm, convolution)):
        return "with hooks, or after a convolution with hooks"
    if convolution.transposed and convolution.groups > 1:
        return "after a transposed convolution of several groups"
    return ""


def _fold(convolution: _ConvNd, norm: Any) -> None:
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        *(norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias),
        transpose=convolution.transposed,
    )
    # The same object, so that it is an identity wherever it is referred to.
    norm._parameters.clear()
    norm._buffers.clear()
    norm.__class__ = nn.Identity
