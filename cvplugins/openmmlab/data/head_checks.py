"""Compare the numbers of classes of mmdet's heads with those of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import MODELS, init_default_scope

from cvplugins.errors import UserError
from cvplugins.openmmlab.run.config import type_name
from cvplugins.openmmlab.run.defaults import argument_default

__all__ = ["check_heads"]

# What has no classes of the data: proposals, persons to recognise, and parts that heads do not sit in.
PASSED_OVER = ("rpn_head", "reid", "backbone", "neck", "data_preprocessor", "train_cfg", "test_cfg", "init_cfg")
# Their classes are those of label maps beside the boxes (HTC, SCNet).
OF_LABEL_MAPS = ("FusedSemanticHead", "SCNetSemanticHead")


def check_heads(
    model: Mapping[str, Any] | None, scope: str | None, classes: tuple[str, ...], stuff: int, place: str
) -> None:
    """Raise ``UserError`` unless every head of a detector has as many classes as a dataset.

    Heads of region proposals count no classes, heads that compare with text count words; both are passed over.

    Args:
        model: The config's model.
        scope: The config's ``default_scope``.
        classes: Names of the dataset's classes that have boxes.
        stuff: How many classes it has besides that have none (panoptic segmentation).
        place: What messages call the dataset.
    """
    if model is None or "language_model" in model:
        return
    if scope:
        init_default_scope(scope)
    expected = {"num_classes": len(classes), "num_things_classes": len(classes), "num_stuff_classes": stuff}
    wrong: dict[str, list[tuple[str, int]]] = {}
    for key, node in _heads(model, "model"):
        for name, count in expected.items():
            found = node[name] if name in node else _default(node, name)
            if isinstance(found, int) and found != count:
                wrong.setdefault(name, []).append((f"{key}.{name}", found))
        _check_weights(node, key, len(classes) + stuff, place)
    for name, keys in wrong.items():
        several = len(keys) > 1
        numbers = sorted({number for _, number in keys})
        names = f" ({', '.join(classes)})" if name != "num_stuff_classes" and len(classes) <= 10 else ""
        kind = " without boxes" if name == "num_stuff_classes" else ""
        raise UserError(
            f"{', '.join(key for key, _ in keys)} {'are' if several else 'is'} {' and '.join(map(str, numbers))}, but "
            f"{place} has {expected[name]} classes{kind}{names}; set {'them' if several else 'it'} to "
            f"{expected[name]}, or metainfo=dict(classes=...) of every dataset to what the model shall learn"
        )


def _heads(node: Any, key: str, inside: bool = False) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the parts of a model that are heads or lie in one, and their keys."""
    if isinstance(node, (list, tuple)):
        for number, each in enumerate(node):
            yield from _heads(each, f"{key}.{number}", inside)
    if not isinstance(node, Mapping):
        return
    if inside and not _has_other_classes(node):
        yield key, node
    for name, child in node.items():
        if name not in PASSED_OVER:
            # Losses such as SeesawLoss count classes too; the node of Detectron2's RetinaNet in a wrapper has no type.
            yield from _heads(child, f"{key}.{name}", "head" in name or name in ("loss_cls", "retinanet"))


def _has_other_classes(node: Mapping[str, Any]) -> bool:
    name = type_name(node) if "type" in node else ""
    return name in OF_LABEL_MAPS or name.endswith("ReIDHead") or bool(node.get("class_agnostic"))


def _default(node: Mapping[str, Any], name: str) -> Any:
    """Return the value that a head's class has for a number that the config does not give."""
    if "type" not in node:
        return None
    kind: Any = node["type"]
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return argument_default(kind, name)


def _check_weights(node: Mapping[str, Any], key: str, classes: int, place: str) -> None:
    """Compare the weights of classes in a softmax loss, the last one of which is the background's."""
    loss = node.get("loss_cls")
    weights = loss.get("class_weight") if isinstance(loss, Mapping) else None
    is_softmax = isinstance(loss, Mapping) and not loss.get("use_sigmoid")
    if is_softmax and isinstance(weights, (list, tuple)) and len(weights) != classes + 1:
        raise UserError(
            f"{key}.loss_cls.class_weight has {len(weights)} numbers; the {classes} classes of {place} need "
            f"{classes + 1}, the last one for what is none of them"
        )
