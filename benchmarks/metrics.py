"""The detection metrics against mmdet, Detectron2, torchmetrics and the evaluators of COCO's files.

OMP_NUM_THREADS=1 python benchmarks/metrics.py [--rows voc detectron2 coco json memory size crowded] [--repeats 7]

1,000 images, 20 classes, 100,000 detections; process time from arrays (or tensors, or files) to numbers, the median of
7 runs in turns on two busy cores; in each row all have to give the same numbers. The time of cvplugins includes the
checks of its input; mmdet gets lists by class that are ready. How many times as long the others take:

    row         cvplugins   what for            others
    voc         50 ms       AP, 10 thresholds   mmdet eval_map 178
    detectron2  67 ms       the same            voc_eval 285
    coco        75 ms       12 numbers          torchmetrics with pycocotools 101, with faster-coco-eval 25
    json        238 ms      12 numbers, files   pycocotools 37, faster-coco-eval 8, hotcoco 0.5, ultrafast 0.45
    everything  113 ms      VOC's and COCO's rule, operating points, errors
    memory      42 bytes a detection held, 245 at most while AP is computed, 284 with everything
    crowded     0.3 and 1.9 s for 100,000 and 1,000,000 detections of one class in an image of 2,000 objects
    size        45, 47 and 55 us an image with 1,000, 5,000 and 20,000 images, COCO's rule

NumPy 2.4.6, mmdet (onedl) 3.5.1, Detectron2 0.6, torchmetrics 1.9.0, pycocotools 2.0.11, faster-coco-eval 1.8.0,
hotcoco 1.3.0, ultrafast-pycocotools 0.1.14, msgspec 0.23.0. Decoding alone takes about 70 ms of the row json; the
evaluators in Rust, which make no Python objects of the file, stay ahead.

Other metrics have their own file: classification_metric.py, segmentation_metric.py, image_quality_metric.py,
tracking_metric.py.
"""

import argparse
import contextlib
import copy
import importlib
import importlib.metadata
import io
import json
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from cvplugins.datasets import read_coco_annotations, read_coco_results
from cvplugins.metrics import DetectionMetric, ImageDetections, detection_rule

NUM_CLASSES = 20
CLASSES = [f"class{label}" for label in range(NUM_CLASSES)]
COCO = detection_rule("coco")
COCO_NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
TORCHMETRICS_NAMES = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)


def random_image(generator, image_id, num_detections=100, num_truths=6):
    """Return the fields of an image in which about every third detection lies on an object."""
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
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    # Eighths of a pixel are exact in float32, so that all evaluators see the same widths and heights.
    boxes, truths = np.round(boxes * 8) / 8, np.round(truths * 8) / 8
    return {
        "image_id": image_id,
        "boxes": boxes.astype(np.float32),
        "scores": generator.random(num_detections).astype(np.float32),
        "labels": labels,
        "truth_boxes": truths.astype(np.float32),
        "truth_labels": truth_labels,
        "difficult": generator.random(num_truths) < 0.1,
    }


def random_images(count):
    """Return the fields of each image."""
    generator = np.random.default_rng(0)
    images = [random_image(generator, index) for index in range(count)]
    # Equal scores would leave the order to the evaluator.
    scores = generator.permutation(count * 100).astype(np.float32) / np.float32(count * 100)
    for image, own in zip(images, scores.reshape(count, -1), strict=True):
        image["scores"] = own
    return images


def evaluated(images, rules):
    """Return our metric with all images."""
    metric = DetectionMetric(CLASSES, rules)
    for image in images:
        metric.update(ImageDetections(**image))
    return metric


def measured(calls, repeats):
    """Run the calls in turns; return what each gives and the median of its process time in seconds."""
    calls["cvplugins"]()  # imports
    values, seconds = {}, {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            values[name] = call()
            seconds[name].append(time.process_time() - start)
    return values, {name: statistics.median(each) for name, each in seconds.items()}


def show(row, seconds):
    """Print a row: our time, and how many times as long the others take."""
    ours = seconds.pop("cvplugins")
    others = "".join(f", {name} {1e3 * each:.0f} ms = {each / ours:.3g} times" for name, each in seconds.items())
    print(f"{row:<11} cvplugins {1e3 * ours:.1f} ms{others}", flush=True)


def voc(repeats):
    """AP by PASCAL VOC's rule at ten thresholds; mmdet gets lists by class that are ready."""
    images = random_images(1000)
    rule = detection_rule({"base": "voc2012", "iou_thresholds": COCO.iou_thresholds})
    calls = {"cvplugins": lambda: evaluated(images, [rule]).average_precision()[rule.name].area}
    if has("mmdet"):
        from mmdet.evaluation.functional import eval_map

        rows = [np.hstack([image["boxes"], image["scores"][:, None]]) for image in images]
        detections = [
            [found[image["labels"] == label] for label in range(NUM_CLASSES)]
            for found, image in zip(rows, images, strict=True)
        ]
        annotations = [
            {
                "bboxes": image["truth_boxes"][~image["difficult"]],
                "labels": image["truth_labels"][~image["difficult"]],
                "bboxes_ignore": image["truth_boxes"][image["difficult"]],
                "labels_ignore": image["truth_labels"][image["difficult"]],
            }
            for image in images
        ]
        options = {"eval_mode": "area", "use_legacy_coordinate": True, "logger": "silent"}
        calls["mmdet"] = lambda: [
            [each["ap"] for each in eval_map(detections, annotations, iou_thr=threshold, **options)[1]]
            for threshold in rule.iou_thresholds
        ]
    values, seconds = measured(calls, repeats)
    for name in list(calls)[1:]:
        np.testing.assert_allclose(values["cvplugins"], np.array(values[name]), atol=1e-6, rtol=0)  # mmdet has float32
    show("voc", seconds)
    calls = {"cvplugins": lambda: evaluated(images, ["voc2012", "coco"]).compute().scalars()}
    show("everything", measured(calls, repeats)[1])


def detectron2(repeats):
    """AP by Detectron2's rule; it reads the files that its evaluator writes, annotations from its own cache.

    Scores are not rounded to three decimals as the evaluator does, since voc_eval leaves the order of equal ones open.
    """
    images = random_images(1000)
    for image in images:
        image["truth_boxes"] = np.round(image["truth_boxes"])
    rule = detection_rule({"base": "detectron2", "score_decimals": None})
    calls = {"cvplugins": lambda: evaluated(images, [rule]).average_precision()[rule.name].eleven_point}
    with tempfile.TemporaryDirectory() as folder:
        if has("detectron2"):
            from detectron2.evaluation.pascal_voc_evaluation import voc_eval

            write_voc_files(Path(folder), images)
            paths = [f"{folder}/{name}" for name in ("{}.txt", "{}.xml", "images.txt")]
            calls["detectron2"] = lambda: [
                [voc_eval(*paths, name, threshold, True)[2] for name in CLASSES] for threshold in COCO.iou_thresholds
            ]
        values, seconds = measured(calls, repeats)
    for name in list(calls)[1:]:
        np.testing.assert_allclose(values["cvplugins"], np.array(values[name]), atol=1e-9, rtol=0)
    show("detectron2", seconds)


def write_voc_files(folder, images):
    """Write PASCAL VOC's annotations, and detections as PascalVOCDetectionEvaluator does."""
    (folder / "images.txt").write_text("".join(f"{image['image_id']:05}\n" for image in images))
    lines = {label: [] for label in range(NUM_CLASSES)}
    for image in images:
        name = f"{image['image_id']:05}"
        objects = zip(image["truth_boxes"], image["truth_labels"], image["difficult"], strict=True)
        (folder / f"{name}.xml").write_text(
            "<annotation>"
            + "".join(
                f"<object><name>{CLASSES[label]}</name><pose/><truncated>0</truncated><difficult>{int(flag)}</difficult>"
                f"<bndbox><xmin>{box[0] + 1:.0f}</xmin><ymin>{box[1] + 1:.0f}</ymin>"
                f"<xmax>{box[2]:.0f}</xmax><ymax>{box[3]:.0f}</ymax></bndbox></object>"
                for box, label, flag in objects
            )
            + "</annotation>"
        )
        for (left, top, right, bottom), score, label in zip(
            image["boxes"], image["scores"], image["labels"], strict=True
        ):
            lines[label].append(f"{name} {score} {left + 1:.1f} {top + 1:.1f} {right:.1f} {bottom:.1f}\n")
    for label, name in enumerate(CLASSES):
        (folder / f"{name}.txt").write_text("".join(lines[label]))


def coco(repeats):
    """COCO's twelve numbers from tensors on both sides."""
    import torch

    names = {"boxes": "boxes", "scores": "scores", "labels": "labels"}
    truths = {"truth_boxes": "boxes", "truth_labels": "labels", "difficult": "iscrowd"}
    images = [{key: torch.as_tensor(value) for key, value in image.items()} for image in random_images(1000)]
    predicted = [{name: image[key] for key, name in names.items()} for image in images]
    targets = [{name: image[key] for key, name in truths.items()} for image in images]

    def ours():
        metric = DetectionMetric(CLASSES, ["coco"])
        for number, (found, there) in enumerate(zip(predicted, targets, strict=True)):
            columns = (found["boxes"], found["scores"], found["labels"], there["boxes"], there["labels"])
            metric.update(ImageDetections(number, *(each.numpy() for each in columns), crowd=there["iscrowd"].numpy()))
        return metric.average_precision()["coco"].scalars()

    def theirs(backend):
        from torchmetrics.detection import MeanAveragePrecision

        with contextlib.redirect_stdout(io.StringIO()):
            # Its own thresholds are float32, which moves what lies on one.
            thresholds = {
                "iou_thresholds": list(COCO.iou_thresholds),
                "rec_thresholds": np.linspace(0, 1, 101).tolist(),
            }
            metric = MeanAveragePrecision(backend=backend, **thresholds)
            metric.update(predicted, targets)
            found = metric.compute()
        return dict(zip(COCO_NAMES, (float(found[name]) for name in TORCHMETRICS_NAMES), strict=True))

    calls = {"cvplugins": ours}
    for backend in ("pycocotools", "faster_coco_eval"):
        if has("torchmetrics") and has(backend):
            calls[f"torchmetrics with {backend}"] = lambda backend=backend: theirs(backend)
    values, seconds = measured(calls, repeats)
    for name in list(calls)[1:]:
        for number, value in values[name].items():
            difference = abs(values["cvplugins"][number] - value)
            assert difference < 1e-7, f"{name}, {number}: differs by {difference}"  # float32
    show("coco", seconds)


def coco_files(repeats):
    """COCO's twelve numbers from two JSON files."""
    with tempfile.TemporaryDirectory() as folder:
        annotations, results = write_coco_files(Path(folder), random_images(1000))

        def ours():
            known = read_coco_annotations(annotations)
            found = read_coco_results(results, known)
            metric = DetectionMetric(known.classes, ["coco"])
            for image_id, truth in known.images.items():
                own = found[image_id]
                metric.update(
                    ImageDetections(
                        *(image_id, own.boxes, own.scores, own.labels, truth.boxes, truth.labels),
                        crowd=truth.crowd,
                        truth_areas=truth.areas,
                    )
                )
            found = metric.average_precision()["coco"].scalars()
            return [found[name] for name in COCO_NAMES]

        def theirs(module, evaluation, name):
            with contextlib.redirect_stdout(io.StringIO()):
                truth = importlib.import_module(module).COCO(annotations)
                evaluator = getattr(importlib.import_module(evaluation), name)(truth, truth.loadRes(results), "bbox")
                evaluator.evaluate()
                evaluator.accumulate()
                evaluator.summarize()
            return list(evaluator.stats)[:12]

        peers = {
            "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
            "faster_coco_eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
            "hotcoco": ("hotcoco", "hotcoco", "COCOeval"),
            "ultrafast_pycocotools": ("ultrafast_pycocotools", "ultrafast_pycocotools", "COCOeval"),
        }
        calls = {"cvplugins": ours}
        calls |= {name: lambda names=names: theirs(*names) for name, names in peers.items() if has(name)}
        values, seconds = measured(calls, repeats)
    for name in list(calls)[1:]:
        np.testing.assert_allclose(values["cvplugins"], values[name], atol=1e-9, rtol=0, err_msg=name)
    show("json", seconds)


def write_coco_files(folder, images):
    """Write annotations and results; difficult objects become crowds, the only ones that COCO ignores."""
    annotations, results = [], []
    for image in images:
        boxes = image["truth_boxes"].astype(np.float64)
        for (x, y, right, bottom), label, crowd in zip(
            boxes.tolist(), image["truth_labels"].tolist(), image["difficult"].tolist(), strict=True
        ):
            width, height = right - x, bottom - y
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["image_id"],
                    "category_id": label + 1,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(crowd),
                }
            )
        boxes = image["boxes"].astype(np.float64)
        for (x, y, right, bottom), score, label in zip(
            boxes.tolist(), image["scores"].tolist(), image["labels"].tolist(), strict=True
        ):
            box = [x, y, right - x, bottom - y]
            results.append({"image_id": image["image_id"], "category_id": label + 1, "bbox": box, "score": score})
    content = {
        "info": {},
        "licenses": [],
        "images": [{"id": image["image_id"], "width": 640, "height": 640} for image in images],
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)],
    }
    for name, part in (("annotations", content), ("results", results)):
        (folder / f"{name}.json").write_text(json.dumps(part))
    return str(folder / "annotations.json"), str(folder / "results.json")


def memory(repeats):
    """Bytes a detection: what the metric holds, and the most while it computes everything."""
    images = random_images(1000)
    count = sum(len(image["labels"]) for image in images)
    evaluated(images, ["coco"]).compute()  # imports
    tracemalloc.start()
    metric = evaluated(copy.deepcopy(images), ["coco"])
    held = tracemalloc.get_traced_memory()[0]
    for name, call in (("average precision", metric.average_precision), ("everything", metric.compute)):
        tracemalloc.reset_peak()
        result = call()
        peak = tracemalloc.get_traced_memory()[1]
        del result
        print(f"memory      {held / count:.0f} bytes a detection held, {peak / count:.0f} at most for {name}")
    tracemalloc.stop()


def size(repeats):
    """Time grows with the number of images."""
    for count in (1000, 5000, 20000):
        images = random_images(count)
        seconds = measured({"cvplugins": lambda images=images: evaluated(images, ["coco"]).average_precision()}, 3)[1]
        shown = f"{1e6 * seconds['cvplugins'] / count:.0f} us an image"
        print(f"size        {count} images, {count * 100} detections: {shown}")


def crowded(repeats):
    """Time of VOC's rule and all else on one image of one class grows with its detections."""
    for count in (100_000, 1_000_000):
        image = random_image(np.random.default_rng(0), 0, count, num_truths=2000)
        for name in ("boxes", "truth_boxes"):  # an area that holds them, of small objects
            corner = 10 * image[name][:, :2]
            image[name] = np.concatenate([corner, corner + image[name][:, 2:] - image[name][:, :2]], axis=1)
        image |= {name: np.zeros_like(image[name]) for name in ("labels", "truth_labels")}
        start = time.process_time()
        evaluated([image], ["voc2007"]).compute()
        print(f"crowded     {count} detections, 2000 objects: {time.process_time() - start:.1f} s", flush=True)


ROWS = {
    **{"voc": voc, "detectron2": detectron2, "coco": coco, "json": coco_files},
    **{"memory": memory, "size": size, "crowded": crowded},
}


def has(name):
    """Return whether a peer is installed; if not, say so."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"no {name}: {error}", file=sys.stderr)
        return False
    return True


def version(name):
    """Return the version of an installed distribution, or that there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def main():
    """Run the rows; in each, all evaluators have to agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    peers = "numpy mmdet onedl-mmdetection detectron2 torchmetrics pycocotools faster-coco-eval hotcoco"
    names = [*peers.split(), "ultrafast-pycocotools", "msgspec"]
    print(", ".join(f"{name} {version(name)}" for name in names))
    print(f"{os.cpu_count()} cores, median of {options.repeats}, process time")
    for row in options.rows:
        ROWS[row](options.repeats)


if __name__ == "__main__":
    main()
