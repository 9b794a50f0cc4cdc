"""Feature maps of a frozen network, for the losses that compare images through them."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cvplugins.errors import UserError, first_line
from cvplugins.safe_loading import load_plain

from .reduction import at_least_float32, full_precision

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "FrozenFeatures", "feature_maps"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def feature_maps(output: Any) -> list[Tensor]:
    """Return what a network gave, a tensor or lists, tuples and dicts of them, as one list.

    Raises:
        TypeError: There is something else among it.

    Example:
        >>> len(feature_maps({"fine": torch.zeros(1), "coarse": [torch.zeros(1), torch.zeros(1)]}))
        3
    """
    if isinstance(output, Tensor):
        return [output]
    if not isinstance(output, (Mapping, Sequence)) or isinstance(output, str):
        raise TypeError(
            f"{type(output).__name__} is no feature map; expected a tensor, or a list, tuple or dict of them"
        )
    parts = output.values() if isinstance(output, Mapping) else output
    return [each for part in parts for each in feature_maps(part)]


class FrozenFeatures(nn.Module):
    """Feature maps of images from a network that does not learn.

    The network is no part of the model that holds this: it appears in neither its ``parameters()`` nor its
    ``state_dict()``, so that no optimiser sees it and no checkpoint repeats it, and ``train()`` leaves it in
    evaluation mode. It moves with ``to(device)``. It computes in its own type, also inside autocast; to have it in
    half precision, say ``loss.bfloat16()``. Gradients reach the images.

    Args:
        backbone: A module that takes images ``(N, C, H, W)`` and returns a tensor or a list, tuple or dict of them,
            of which a frozen copy is kept; or the name of a torchvision model.
        weights: Path of a file with a state dict that fits all of the module. For a torchvision model it has to be
            given: a path, ``"torchvision"`` for the published weights, or ``"random"`` for tests.
        layers: Which feature maps, in this order. Of a torchvision model the names of its nodes ("layer3"), and for
            VGG also those of the papers ("relu3_2": block 3, second convolution). Of a module that returns a
            dict, list or tuple its keys or indices; all if None.
        mean: Subtracted from each channel of the images; None to leave it out.
        std: What each channel is divided by; None to leave it out.

    Raises:
        ValueError: Names, layers, weights or channels do not fit; the message says what does.
        ImportError: torchvision is asked for and missing.

    Example:
        >>> features = FrozenFeatures(nn.Conv2d(3, 8, 3))
        >>> features(torch.rand(2, 3, 6, 6))[0].shape, list(features.parameters())
        (torch.Size([2, 8, 4, 4]), [])
    """

    backbone: nn.Module
    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        backbone: nn.Module | str,
        weights: str | os.PathLike[str] | None = None,
        layers: Sequence[str | int] | None = None,
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] | None = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str):
            network, layers = _torchvision_layers(backbone, weights, layers)
        elif isinstance(backbone, nn.Module):
            network = copy.deepcopy(backbone)  # freezing the caller's own would be a surprise
            if weights is not None:
                _load(network, _state_dict(weights), f"weights {weights}")
        else:
            raise TypeError(
                f"backbone is a {type(backbone).__name__}; expected a module or the name of a torchvision model"
            )
        network.eval()  # apart, because mmdet's networks return nothing here
        network.requires_grad_(False)
        self.__dict__["backbone"] = network  # past nn.Module's bookkeeping, which would make it a part of the model
        self.layers = layers
        self.register_buffer("mean", _per_channel(mean), persistent=False)
        self.register_buffer("std", _per_channel(std), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps of ``images`` ``(N, C, H, W)``, values in [0, 1] if ``mean`` is ImageNet's."""
        images = at_least_float32(images)
        for factor in (self.mean, self.std):
            if factor is not None and (images.ndim != 4 or images.shape[1] != len(factor)):
                raise ValueError(
                    f"images {tuple(images.shape)} do not fit mean and std of {len(factor)} channels: expected "
                    f"(N, {len(factor)}, H, W); give the mean and std of your images, or None"
                )
        if self.mean is not None:
            images = images - self.mean
        if self.std is not None:
            images = images / self.std
        with full_precision(images):
            output = self.backbone(self._in_its_type(images))
        return feature_maps(output if self.layers is None else [output[layer] for layer in self.layers])

    def _in_its_type(self, images: Tensor) -> Tensor:
        for parameter in self.backbone.parameters():
            return images.to(parameter.dtype)
        return images

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.backbone.eval()  # a copy of torchvision's feature extractor comes in training mode

    def _apply(self, *arguments: Any, **options: Any) -> FrozenFeatures:
        """Move the network too, wherever the model goes."""
        self.backbone._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        return self


def _per_channel(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)


def _torchvision_layers(
    name: str, weights: str | os.PathLike[str] | None, layers: Sequence[str | int] | None
) -> tuple[nn.Module, list[str]]:
    """Return a torchvision model cut after the last of the layers, which gives a dict, and its keys in their order."""
    try:
        from torchvision import models
        from torchvision.models.feature_extraction import create_feature_extractor
    except ImportError as error:
        raise ImportError(f"backbone {name!r} needs torchvision: pip install torchvision; or give a module") from error
    if name not in models.list_models(models):
        raise ValueError(f"torchvision has no model {name!r}; torchvision.models.list_models() lists those it has")
    if weights is None:
        raise ValueError(
            f"backbone {name!r} needs weights, for features of a random network mean nothing: give the path of a "
            "file, 'torchvision' for the published ones, or 'random' for a test"
        )
    if layers is None:
        raise ValueError(f"backbone {name!r} needs layers: names of its nodes, such as 'layer2' of a ResNet")
    published = weights == "torchvision"
    # These two draw random weights for seconds, and warn of it.
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    model = _published(name) if published else models.get_model(name, weights=None, **options)
    for layer in model.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False  # else "conv1_2" would hold what the ReLU after it wrote there
    nodes = _nodes(model, name, layers)
    network: nn.Module = create_feature_extractor(model, nodes, suppress_diff_warning=True)
    if not (published or weights == "random"):
        state = _state_dict(weights)
        unused = model.state_dict().keys() - network.state_dict().keys()
        _load(network, {key: value for key, value in state.items() if key not in unused}, f"weights {weights}")
    return network, nodes


def _published(name: str) -> nn.Module:
    from torchvision.models import get_model, get_model_weights

    try:
        model: nn.Module = get_model(name, weights="DEFAULT")
    except OSError as error:  # urllib's errors are of this kind
        url = get_model_weights(name).DEFAULT.url
        raise UserError(
            f"the weights of {name} could not be downloaded ({first_line(error)}); download {url} where there is a "
            "network and give the path of the file as weights"
        ) from error
    return model


def _nodes(model: nn.Module, name: str, layers: Sequence[str | int]) -> list[str]:
    """Return the node of each layer."""
    from torchvision.models.feature_extraction import get_graph_node_names

    known = _names_in_papers(model)
    nodes = [known.get(str(layer), str(layer)) for layer in layers]
    exist = get_graph_node_names(model, suppress_diff_warning=True)[1]
    for layer, node in zip(layers, nodes, strict=True):
        if not any(each == node or each.startswith(f"{node}.") for each in exist):
            raise ValueError(f"backbone {name!r} has no layer {layer!r}; it has {', '.join(known or exist)}")
    return nodes


def _names_in_papers(model: nn.Module) -> dict[str, str]:
    """Return VGG's layers under the names that papers give them; nothing for other networks."""
    from torchvision.models import VGG

    names: dict[str, str] = {}
    block, convolution = 1, 0
    for index, layer in enumerate(model.features if isinstance(model, VGG) else ()):
        if isinstance(layer, nn.Conv2d):
            convolution += 1
            names[f"conv{block}_{convolution}"] = f"features.{index}"
        elif isinstance(layer, nn.ReLU):
            names[f"relu{block}_{convolution}"] = f"features.{index}"
        elif isinstance(layer, nn.MaxPool2d):
            names[f"pool{block}"] = f"features.{index}"
            block, convolution = block + 1, 0
    return names


def _state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a file of weights without running code from it."""
    if not os.path.isfile(path):
        raise UserError(f"weights {path}: there is no such file; give the path of a state dict")
    try:
        state = load_plain(path)
    except Exception as error:  # torch raises many kinds for what is no checkpoint
        raise UserError(
            f"weights {path} cannot be read as weights alone: {first_line(error)}; "
            "save them with torch.save(model.state_dict(), path)"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # checkpoints of OpenMMLab and others
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path} hold no state dict; save them with torch.save(model.state_dict(), path)")
    return state


def _load(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load all or raise an error that names what does not fit."""
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:  # another shape
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(f"{source} do not fit the backbone: {_some(lines, 2)}") from error
    if missing or unexpected:
        raise UserError(f"{source} do not fit the backbone: missing {_some(missing)}; unexpected {_some(unexpected)}")


def _some(keys: Sequence[str], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return (", ".join(keys[:most]) or "nothing") + more
