"""The names of Faster R-CNN's weights (ResNet, FPN, two fully connected layers) in mmdet and in Detectron2.

Only names differ. In both the background is the last class, the channels of RPN are ordered by anchor and then by
coordinate, anchors by rising height over width, boxes of a class lie beside each other, and the first fully connected
layer reads its 7 x 7 cells channel by channel. What is no weight, and must be set equal, is in docs/weights.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from cvplugins.errors import UserError

__all__ = ["FRAMEWORKS", "convert_weights"]

FRAMEWORKS = ("mmdet", "detectron2")
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
# Counts batches where a batch norm trains; Detectron2's frozen ones have none, and torch adds it when it is missing.
COUNTER = "num_batches_tracked"
# Constants that old checkpoints of Detectron2 carry; models make them from the config.
NO_WEIGHTS = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.cell_anchors.")

Value = TypeVar("Value")


def convert_weights(weights: Mapping[str, Value], *, source: str, target: str) -> dict[str, Value]:
    """Return the weights of a Faster R-CNN with the names of another framework; the values stay as they are.

    Args:
        weights: A state dict; of a model in ``DistributedDataParallel`` too.
        source: ``"mmdet"`` or ``"detectron2"``.
        target: The other one.

    Raises:
        UserError: A framework is unknown, or the weights are not those of a Faster R-CNN with ResNet and FPN. Names
            what is left over and what is missing.

    Example:
        >>> names = {mmdet: mmdet for mmdet, _ in parameter_names(50)}
        >>> converted = convert_weights(names, source="mmdet", target="detectron2")
        >>> converted["backbone.bottom_up.res2.0.shortcut.norm.bias"]
        'backbone.layer1.0.downsample.1.bias'
    """
    for framework in (source, target):
        if framework not in FRAMEWORKS:
            raise UserError(f"framework {framework!r} is unknown; accepted: {', '.join(FRAMEWORKS)}")
    if source == target:
        raise UserError(f"weights of {source} need no conversion for {target}")
    given = {name.removeprefix("module."): value for name, value in weights.items()}
    given = {name: value for name, value in given.items() if not name.startswith(NO_WEIGHTS)}
    names = min(_of_every_depth(source, target), key=lambda names: len(_optional_left_out(names) ^ given.keys()))
    _check(given, names, source)
    return {names[name]: value for name, value in given.items()}


def parameter_names(depth: int) -> Iterator[tuple[str, str]]:
    """Yield the two names, mmdet's and Detectron2's, of each parameter and buffer.

    Args:
        depth: Of the ResNet.
    """
    for mmdet, detectron2, parameters in _modules(depth):
        for parameter in parameters:
            yield f"{mmdet}.{parameter}", f"{detectron2}.{parameter}"


def _modules(depth: int) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the names of each module, and of its parameters."""
    layer = ("weight", "bias")
    body = "backbone.bottom_up"
    yield "backbone.conv1", f"{body}.stem.conv1", layer[:1]
    yield "backbone.bn1", f"{body}.stem.conv1.norm", (*BATCH_NORM, COUNTER)
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            of_mmdet, of_detectron2 = f"backbone.layer{stage}.{block}", f"{body}.res{stage + 1}.{block}"
            for conv in range(1, 3 if depth < 50 else 4):
                yield f"{of_mmdet}.conv{conv}", f"{of_detectron2}.conv{conv}", layer[:1]
                yield f"{of_mmdet}.bn{conv}", f"{of_detectron2}.conv{conv}.norm", (*BATCH_NORM, COUNTER)
            if block == 0 and (stage > 1 or depth >= 50):  # elsewhere the channels stay as they are
                yield f"{of_mmdet}.downsample.0", f"{of_detectron2}.shortcut", layer[:1]
                yield f"{of_mmdet}.downsample.1", f"{of_detectron2}.shortcut.norm", (*BATCH_NORM, COUNTER)
    for level in range(4):
        yield f"neck.lateral_convs.{level}.conv", f"backbone.fpn_lateral{level + 2}", layer
        yield f"neck.fpn_convs.{level}.conv", f"backbone.fpn_output{level + 2}", layer
    for of_mmdet, of_detectron2 in (("conv", "conv"), ("cls", "objectness_logits"), ("reg", "anchor_deltas")):
        yield f"rpn_head.rpn_{of_mmdet}", f"proposal_generator.rpn_head.{of_detectron2}", layer
    for number in range(2):
        yield f"roi_head.bbox_head.shared_fcs.{number}", f"roi_heads.box_head.fc{number + 1}", layer
    for of_mmdet, of_detectron2 in (("cls", "cls_score"), ("reg", "bbox_pred")):
        yield f"roi_head.bbox_head.fc_{of_mmdet}", f"roi_heads.box_predictor.{of_detectron2}", layer


def _of_every_depth(source: str, target: str) -> Iterator[dict[str, str]]:
    for depth in BLOCKS:
        pairs = (dict(zip(FRAMEWORKS, pair, strict=True)) for pair in parameter_names(depth))
        yield {pair[source]: pair[target] for pair in pairs}


def _optional_left_out(names: Mapping[str, str]) -> set[str]:
    return {name for name in names if not name.endswith(COUNTER)}


def _check(given: Mapping[str, object], names: Mapping[str, str], source: str) -> None:
    problems = []
    for what, found in (
        ("missing", _optional_left_out(names) - given.keys()),
        ("left over", given.keys() - names.keys()),
    ):
        if found:
            shown = sorted(found)[:3]
            problems.append(f"{what}: {', '.join(shown)}" + (f" and {len(found) - 3} more" if len(found) > 3 else ""))
    if problems:
        raise UserError(
            f"these are not the weights of {source}'s Faster R-CNN with ResNet, FPN and two fully connected layers; "
            f"{'; '.join(problems)}. Only that model can be converted; check which framework the file is from"
        )
