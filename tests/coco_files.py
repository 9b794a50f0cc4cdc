"""Small COCO files, and what pycocotools computes from them."""

import contextlib
import copy
import io
import json
import random

import numpy as np

CATEGORIES = [dict(id=18, name="dog"), dict(id=4, name="cat"), dict(id=9, name="cow")]  # not sorted by id
MEASURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def rectangle(left, top, width, height):
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def coco_files(seed=0, images=8):
    """Return annotations and results of rectangles, some of them a little moved or of another class."""
    draw = random.Random(seed)
    listed = [dict(id=number, file_name=f"{number}.jpg", height=100, width=120) for number in range(1, images + 1)]
    draw.shuffle(listed)
    annotations, results = [], []
    for image in listed:
        for _ in range(4):
            left, top, width, height = (draw.randrange(*each) for each in ((0, 60), (0, 50), (5, 50), (5, 45)))
            category = draw.choice(CATEGORIES)["id"]
            box = [left, top, width, height]
            moved = [left + draw.randrange(-3, 4), top + draw.randrange(-3, 4), width, height]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image["id"],
                    category_id=category,
                    bbox=box,
                    area=width * height,
                    iscrowd=0,
                    segmentation=rectangle(*box),
                )
            )
            results.append(
                dict(
                    image_id=image["id"],
                    category_id=category if draw.random() < 0.8 else 4,
                    bbox=moved,
                    score=draw.random(),
                    segmentation=rectangle(*moved),
                )
            )
    return dict(images=listed, categories=copy.deepcopy(CATEGORIES), annotations=annotations), results


def with_ids(files, image_id, category_id=lambda number: number):
    """Return files with other ids: functions of the old ones."""
    annotations, results = copy.deepcopy(files)
    for image in annotations["images"]:
        image["id"] = image_id(image["id"])
    for category in annotations["categories"]:
        category["id"] = category_id(category["id"])
    for entry in annotations["annotations"] + results:
        entry["image_id"], entry["category_id"] = image_id(entry["image_id"]), category_id(entry["category_id"])
    return annotations, results


def changed(files, part, key, value, count=None):
    """Return files whose first entries of a part of the annotations have another value."""
    annotations, results = copy.deepcopy(files)
    for entry in annotations[part][:count]:
        entry[key] = value
    return annotations, results


def cocoeval(folder, files, kind="bbox"):
    """Return pycocotools' numbers; whatever it raises is raised."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = copy.deepcopy(files)
    (folder / "theirs.json").write_text(json.dumps(annotations))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "theirs.json"))
        if kind == "segm":
            for entry in results:
                del entry["bbox"]  # else the sizes of masks are those of the boxes
            for entry in results:
                entry["segmentation"] = truth.annToRLE(entry)
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(MEASURES, np.where(evaluation.stats[:6] < 0, np.nan, evaluation.stats[:6]).tolist(), strict=True))
