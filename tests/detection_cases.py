"""Random detections and ground truth, and slow evaluators that are too simple to be wrong."""

from __future__ import annotations

import numpy as np

from cvplugins.metrics import DetectionMetric, ImageDetections

CLASSES = ("cat", "dog", "cow", "bus")  # the last is never labelled


def random_image(generator, image_id, ties=False, whole_pixels=False, crowds=False, scale=1.0):
    """An image whose detections lie near its objects, with duplicates, misses, other labels and noise."""
    count = generator.integers(0, 6)
    corner = generator.uniform(0, 80, (count, 2))
    truth_boxes = np.concatenate([corner, corner + generator.uniform(5, 60, (count, 2))], axis=1)
    if whole_pixels or generator.random() < 0.5:
        truth_boxes = truth_boxes.round()
    truth_labels = generator.integers(0, 3, count)
    copies = generator.integers(0, 5, count)
    near = np.repeat(truth_boxes, copies, axis=0)
    near = near + generator.normal(0, generator.choice([0.5, 3, 8]), near.shape)
    labels = np.repeat(truth_labels, copies)
    noise = generator.integers(0, 5)
    corner = generator.uniform(0, 80, (noise, 2))
    boxes = np.concatenate([near, np.concatenate([corner, corner + generator.uniform(0, 50, (noise, 2))], axis=1)])
    labels = np.concatenate([labels, generator.integers(0, 4, noise)])
    if whole_pixels:
        boxes = boxes.round()
    scores = generator.permutation(1000)[: len(labels)] / 1000 + generator.uniform(0, 1e-4)
    if ties:
        scores = generator.integers(0, 4, len(labels)) / 4
    return ImageDetections(
        image_id=image_id,
        boxes=(scale * boxes).astype(np.float32),
        scores=scores.astype(np.float32),
        labels=labels,
        truth_boxes=(scale * truth_boxes).astype(np.float32),
        truth_labels=truth_labels,
        difficult=generator.random(count) < 0.25,
        crowd=generator.random(count) < 0.25 if crowds else None,
        truth_areas=generator.choice([500.0, 1024.0, 5000.0, 9216.0, 2e4], count) if crowds else None,
    )


def random_images(seed, count=12, **options):
    generator = np.random.default_rng(seed)
    return [random_image(generator, index, **options) for index in range(count)]


def evaluate(images, classes=CLASSES, **options):
    metric = DetectionMetric(classes, **options)
    for image in images:
        metric.update(image)
    return metric.compute()


def voc_ap_by_loops(images, label, threshold=0.5):
    """PASCAL VOC's rule, one detection after the other: returns (area AP, 11-point AP)."""
    truths, found, wanted = {}, [], 0
    for image in images:
        mine = image.truth_labels == label
        order = np.argsort(image.difficult[mine], kind="stable")
        truths[image.image_id] = (image.truth_boxes[mine][order], image.difficult[mine][order], set())
        wanted += int((~image.difficult[mine]).sum())
        for box, score in zip(image.boxes[image.labels == label], image.scores[image.labels == label], strict=True):
            found.append((image.image_id, box, score))
    found.sort(key=lambda each: -each[2])  # stable: ties stay in the order of images and detections
    if wanted == 0:
        return None
    curve, hits, misses = [], 0, 0
    for image_id, box, _ in found:
        boxes, difficult, taken = truths[image_id]
        overlaps = [_iou(box, other, np.float32(1)) for other in boxes]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= threshold:
            if not difficult[best]:
                hits, misses = (hits, misses + 1) if best in taken else (hits + 1, misses)
                taken.add(best)
        else:
            misses += 1
        curve.append((hits / wanted, hits / max(hits + misses, 1)))
    highest = [max((p for r, p in curve if r >= recall), default=0.0) for recall, _ in curve]
    area = sum((r - before) * p for (r, _), (before, _), p in zip(curve, [(0, 0), *curve], highest, strict=False))
    eleven = [max((p for r, p in curve if r >= at), default=0.0) for at in np.arange(0, 1.1, 0.1)]
    return area, sum(eleven) / 11


def _iou(box, other, pixel):
    width = max(min(box[2], other[2]) - max(box[0], other[0]) + pixel, np.float32(0))
    height = max(min(box[3], other[3]) - max(box[1], other[1]) + pixel, np.float32(0))
    area = (box[2] - box[0] + pixel) * (box[3] - box[1] + pixel)
    other_area = (other[2] - other[0] + pixel) * (other[3] - other[1] + pixel)
    overlap = width * height
    return overlap / (area + other_area - overlap)


def pycocotools_evaluation(images, num_classes):
    """COCOeval with the difficult objects ignored, not crowds: its ``_prepare`` makes ``ignore`` mean crowd."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class WithIgnored(COCOeval):
        def _prepare(self):
            super()._prepare()
            for truths in self._gts.values():
                for truth in truths:
                    truth["ignore"] = truth["difficult"]

    annotations, detections = [], []
    for image in images:
        areas = [None] * len(image.truth_labels) if image.truth_areas is None else image.truth_areas
        columns = (image.truth_boxes, image.truth_labels, image.difficult, image.crowd, areas)
        for box, label, difficult, crowd, area in zip(*columns, strict=True):
            x, y, right, bottom = box.astype(float)
            size = [x, y, right - x, bottom - y]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.image_id,
                    "category_id": int(label),
                    "bbox": size,
                    "area": size[2] * size[3] if area is None else area,
                    "iscrowd": int(crowd),
                    "difficult": int(difficult or crowd),
                }
            )
        for box, score, label in zip(image.boxes, image.scores, image.labels, strict=True):
            x, y, right, bottom = box.astype(float)
            detections.append(
                {
                    "image_id": image.image_id,
                    "category_id": int(label),
                    "bbox": [x, y, right - x, bottom - y],
                    "score": float(score),
                }
            )
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image.image_id} for image in images],
        "annotations": annotations,
        "categories": [{"id": label} for label in range(num_classes)],
    }
    truth.createIndex()
    evaluation = WithIgnored(truth, truth.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval
