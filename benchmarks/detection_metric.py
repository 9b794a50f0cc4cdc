"""The detection metric against mmdet's eval_map and pycocotools, on the same boxes in the same run.

python benchmarks/detection_metric.py [--images 1000] [--detections 100]
"""

import argparse
import contextlib
import io
import time

import numpy as np

from cvplugins.metrics import DetectionMetric, ImageDetections

NUM_CLASSES = 20


def random_image(generator, image_id, num_detections, num_truths=6):
    """An image in which about every third detection lies on an object."""
    corner = generator.uniform(0, 400, (num_truths, 2))
    truths = np.concatenate([corner, corner + generator.uniform(20, 200, (num_truths, 2))], axis=1)
    truth_labels = generator.integers(0, NUM_CLASSES, num_truths)
    corner = generator.uniform(0, 400, (num_detections, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(20, 200, (num_detections, 2))], axis=1)
    labels = generator.integers(0, NUM_CLASSES, num_detections)
    near = generator.random(num_detections) < 1 / 3
    copied = generator.integers(0, num_truths, near.sum())
    boxes[near] = truths[copied] + generator.normal(0, 8, (near.sum(), 4))
    labels[near] = truth_labels[copied]
    return ImageDetections(
        image_id,
        boxes.astype(np.float32),
        generator.random(num_detections).astype(np.float32),
        labels,
        truths.astype(np.float32),
        truth_labels,
        generator.random(num_truths) < 0.1,
    )


def ours(images):
    """All metrics, from adding the images to the scalars."""
    metric = DetectionMetric([str(label) for label in range(NUM_CLASSES)])
    for image in images:
        metric.update(image)
    return metric.compute().scalars()


def mmdet(images, threshold, mode):
    """One metric at one threshold, as VOCMetric calls it."""
    from mmdet.evaluation.functional import eval_map

    detections, annotations = [], []
    for image in images:
        rows = np.hstack([image.boxes, image.scores[:, None]])
        detections.append([rows[image.labels == label] for label in range(NUM_CLASSES)])
        easy = ~image.difficult
        annotations.append(
            {
                "bboxes": image.truth_boxes[easy],
                "labels": image.truth_labels[easy],
                "bboxes_ignore": image.truth_boxes[~easy],
                "labels_ignore": image.truth_labels[~easy],
            }
        )
    options = {"iou_thr": threshold, "eval_mode": mode, "use_legacy_coordinate": True, "logger": "silent"}
    return eval_map(detections, annotations, **options)[0]


def pycocotools(images):
    """COCOeval over the same boxes; it cannot ignore objects that are no crowd, so they count as crowds here."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, rows = [], []
    for image in images:
        for box, label, difficult in zip(image.truth_boxes, image.truth_labels, image.difficult, strict=True):
            x, y, right, bottom = map(float, box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.image_id,
                    "category_id": int(label),
                    "bbox": [x, y, right - x, bottom - y],
                    "area": (right - x) * (bottom - y),
                    "iscrowd": int(difficult),
                }
            )
        for box, score, label in zip(image.boxes, image.scores, image.labels, strict=True):
            x, y, right, bottom = map(float, box)
            rows.append([image.image_id, x, y, right - x, bottom - y, float(score), int(label)])
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image.image_id} for image in images],
        "annotations": annotations,
        "categories": [{"id": label} for label in range(NUM_CLASSES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(np.array(rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


def timed(name, function, *arguments, repeats):
    """Print the fastest of some runs."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = function(*arguments)
        seconds.append(time.perf_counter() - start)
    shown = {key: round(value[key], 4) for key in ("AP50", "AP50_11point", "AP")} if isinstance(value, dict) else value
    print(f"{name:<40}{min(seconds):>9.3f} s   {shown}")


def main():
    """Run every evaluator on the same images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--detections", type=int, default=100)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    images = [random_image(generator, index, options.detections) for index in range(options.images)]
    print(f"{options.images} images, {options.images * options.detections} detections, {NUM_CLASSES} classes")
    timed("cvplugins, everything", ours, images, repeats=5)
    with contextlib.suppress(ImportError):
        timed("mmdet eval_map, area at 0.5 only", mmdet, images, 0.5, "area", repeats=2)
        timed("mmdet eval_map, 11 points at 0.5 only", mmdet, images, 0.5, "11points", repeats=2)
    with contextlib.suppress(ImportError):
        timed("pycocotools, COCO metrics only", pycocotools, images, repeats=1)


if __name__ == "__main__":
    main()
