"""Non-maximum suppression: both conventions of a box's size, overlaps at the threshold, degenerate and no boxes.

Where operators sort, scores differ: torch's sort, which mmcv's operators call, orders equal ones as the machine likes.
"""

from __future__ import annotations

import numpy as np
from ops.cases import Case


def random_boxes(count: int, seed: int, whole: bool = False) -> dict[str, np.ndarray]:
    """Return boxes ``(N, 4)`` in clusters, and scores; whole pixels make overlaps that are equal to a threshold."""
    rng = np.random.RandomState(seed)
    centre = rng.uniform(0, 60, (count // 4 + 1, 2)).repeat(4, axis=0)[:count] + rng.randn(count, 2) * 3
    size = rng.uniform(2, 30, (count, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    boxes = boxes.round() if whole else boxes
    return {"boxes": boxes.astype(np.float32), "scores": rng.uniform(0, 1, count).astype(np.float32)}


def without_area(scores: list[float]) -> dict[str, np.ndarray]:
    """Return the example of mmcv's soft_nms: boxes without a width or a height, of which some are equal."""
    boxes = [[4, 3, 5, 3], [4, 3, 5, 4], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1]]
    return {"boxes": np.array(boxes, dtype=np.float32), "scores": np.array(scores, dtype=np.float32)}


def tied(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the same with scores of tenths."""
    return {**inputs, "scores": inputs["scores"].round(1)}


INPUTS = {
    "random": random_boxes(100, seed=1),
    "whole": random_boxes(100, seed=2, whole=True),
    "one": random_boxes(1, seed=3),
    "empty": random_boxes(0, seed=4),
    "without_area": without_area([0.9, 0.8, 0.5, 0.7, 0.4, 0.0]),
}
TIED_INPUTS = {
    "tied": tied(INPUTS["whole"]),
    "tied_without_area": without_area([0.9, 0.9, 0.5, 0.5, 0.4, 0.0]),
}


def call_nms(**options):
    def call(boxes, scores):
        from mmcv.ops import nms

        return nms(boxes, scores, **options)[1]

    return call


def call_soft_nms(**options):
    def call(boxes, scores):
        from mmcv.ops import soft_nms

        dets, indices = soft_nms(boxes, scores, **options)
        return dets[:, 4], indices

    return call


def call_nms_match(iou_threshold):
    def call(boxes, scores):
        import torch
        from mmcv.ops import nms_match

        groups = nms_match(torch.cat([boxes, scores[:, None]], 1), iou_threshold)
        return torch.cat([group.new_tensor([len(group), *group.tolist()]) for group in groups] or [scores.long()])

    return call


def exact(operator: str, name: str, inputs: dict[str, np.ndarray], call) -> Case:
    """Return a case whose results have to be equal to the last bit."""
    return Case(operator, name, inputs, call, rtol=0, atol=0)


def soft(name: str, inputs: dict[str, np.ndarray], method: str, **options) -> Case:
    """Return a case of soft_nms; exponentials of two libraries differ in the last bit, and their products in more."""
    call = call_soft_nms(method=method, **options)
    return Case("softnms", name, inputs, call, rtol=1e-5 if method == "gaussian" else 0, atol=0)


CASES = [
    exact("nms", f"{kind}_{offset}_{threshold}", inputs, call_nms(iou_threshold=threshold, offset=offset))
    for kind, inputs in INPUTS.items()
    for offset in (0, 1)
    for threshold in (0.0, 0.3, 0.5, 0.7)
]
CASES += [
    exact("nms", f"first_{offset}", INPUTS["random"], call_nms(**limits, offset=offset))
    for offset in (0, 1)
    for limits in [{"iou_threshold": 0.5, "score_threshold": 0.2, "max_num": 20}]
]
CASES += [
    soft(f"{kind}_{method}_{offset}", inputs, method=method, offset=offset)
    for kind, inputs in (INPUTS | TIED_INPUTS).items()
    for offset in (0, 1)
    for method in ("naive", "linear", "gaussian")
]
CASES += [
    soft(f"dropped_{method}", INPUTS["random"], method=method, iou_threshold=0.5, sigma=0.2, min_score=0.3)
    for method in ("naive", "linear", "gaussian")
]
CASES += [
    exact("nms_match", f"{kind}_{threshold}", inputs, call_nms_match(threshold))
    for kind, inputs in INPUTS.items()
    for threshold in (0.0, 0.3, 0.5, 0.7)
]
