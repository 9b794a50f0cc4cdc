"""Non-maximum suppression: both conventions of a box's size, ties, equal boxes, degenerate and no boxes."""

from __future__ import annotations

import numpy as np
from ops.cases import Case


def random_boxes(count: int, seed: int, whole: bool = False) -> dict[str, np.ndarray]:
    """Return boxes ``(N, 4)`` and scores in clusters; whole pixels and tenths of scores make ties."""
    rng = np.random.RandomState(seed)
    centre = rng.uniform(0, 60, (max(count // 4, 1), 2)).repeat(4, axis=0)[:count] + rng.randn(count, 2) * 3
    size = rng.uniform(2, 30, (count, 2))
    boxes, scores = np.concatenate([centre - size / 2, centre + size / 2], axis=1), rng.uniform(0, 1, count)
    if whole:
        boxes, scores = boxes.round(), scores.round(1)
    return {"boxes": boxes.astype(np.float32), "scores": scores.astype(np.float32)}


def mmcv_nms(**options):
    def call(boxes, scores):
        from mmcv.ops import nms

        return nms(boxes, scores, **options)

    return call


CASES = [
    Case(
        "nms", f"{kind}_{offset}_{threshold}", inputs, mmcv_nms(iou_threshold=threshold, offset=offset), rtol=0, atol=0
    )
    for kind, inputs in [
        ("random", random_boxes(200, seed=1)),
        ("ties", random_boxes(200, seed=2, whole=True)),
        ("one", random_boxes(1, seed=3)),
        ("empty", random_boxes(0, seed=4)),
    ]
    for offset in (0, 1)
    for threshold in (0.0, 0.3, 0.5, 0.7)
]
