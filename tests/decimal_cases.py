"""COCO annotations and detections whose overlaps lie exactly on a threshold and whose scores are tied."""

from __future__ import annotations

import numpy as np

CLASSES = ("cat", "dog", "cow")
THRESHOLDS = np.linspace(0.5, 0.95, 10)
# In the order of pycocotools' stats with maxDets (1, 10, 100).
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def decimal_content(seed, num_images=30, copies=4, most_objects=6, ties=True):
    """Return annotations and results as COCO has them; ``xywh`` of one to three decimals.

    The numbers of the images, the order of their entries and that of their file names differ.
    """
    generator = np.random.default_rng(seed)
    decimals = int(generator.integers(1, 4))
    numbers = generator.permutation(np.arange(1, 1 + num_images)).tolist()
    annotations, results = [], []
    for image in numbers:
        for _ in range(generator.integers(0, most_objects)):
            x, y = (round(float(each), decimals) for each in generator.uniform(0, 300, 2))
            sides = generator.uniform(1, 150, 2) if generator.random() < 0.6 else generator.choice([32, 32.1, 96], 2)
            width, height = (round(float(each), decimals) for each in sides)
            area = float(generator.choice([width * height, width * height, 1024, 9216, 700]))
            label = int(generator.integers(0, 3))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=10 * label + 10,
                    bbox=[x, y, width, height],
                    area=area,
                    iscrowd=int(generator.random() < 0.1),
                )
            )
            for _ in range(generator.integers(0, copies)):
                share = float(generator.choice(THRESHOLDS))
                box = [
                    [x, y, width * share, height],
                    [x, y, width, height * share],
                    [x + width * (1 - share), y, width * share, height],
                    [x, y, width / share, height],
                    [x + width * (1 - share) / (1 + share), y, width, height],
                    [x, y, round(width * share, decimals), height],
                ][generator.integers(0, 6)]
                other = int(generator.integers(0, 3))
                results.append(
                    dict(
                        image_id=image,
                        category_id=10 * (label if generator.random() < 0.9 else other) + 10,
                        bbox=box,
                        score=float(generator.integers(0, 20)) / 20 if ties else float(generator.random()),
                    )
                )
    content = {
        "info": {},
        "images": [dict(id=number, file_name=f"{number}.jpg", height=640, width=640) for number in numbers],
        "categories": [dict(id=10 * number, name=name) for number, name in enumerate(CLASSES, start=1)],
        "annotations": annotations,
    }
    return content, [results[index] for index in generator.permutation(len(results))]


def pycocotools_stats(content, results, max_detections=(1, 10, 100)):
    """Return COCOeval after its summary."""
    import copy

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = copy.deepcopy(content)
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
    evaluation.params.maxDets = list(max_detections)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def defined(stats, names=NAMES):
    """Return the numbers by our names, without those that are undefined."""
    return {name: value for name, value in zip(names, stats, strict=True) if value > -1}
