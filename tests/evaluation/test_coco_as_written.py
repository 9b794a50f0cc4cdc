"""COCO's files as tools write them: pycocotools' numbers where it gives some."""

import json

import numpy as np
import pytest
from coco_files import MEASURES, changed, coco_files, cocoeval, with_ids

from cvplugins.errors import UserError
from cvplugins.evaluation import evaluate_detections, read_detections, read_truths

pytest.importorskip("pycocotools")
FILES = coco_files()


def ours(folder, files, masks=False, before=b""):
    for name, content in zip(("annotations.json", "results.json"), files, strict=True):
        (folder / name).write_bytes(before + json.dumps(content).encode())
    truths = read_truths(folder / "annotations.json")
    found = read_detections(folder / "results.json", truths, masks=masks is not False)
    scalars = evaluate_detections(found, truths, masks=masks).scalars()
    return {name: scalars.get(name, np.nan) for name in MEASURES}


AS_WRITTEN = {
    "categories not sorted by id": FILES,
    "image ids with leading zeros": with_ids(FILES, "{:06d}".format),
    "words as ids": with_ids(FILES, "image {}".format, "class {}".format),
    "ids with a decimal point": with_ids(FILES, float, float),
    "tied scores": (FILES[0], [{**each, "score": 0.5} for each in FILES[1]]),
    "tied scores, texts as ids": with_ids((FILES[0], [{**each, "score": 0.5} for each in FILES[1]]), str),
    "two categories of one name": changed(FILES, "categories", "name", "animal"),
    "a height of null": changed(FILES, "images", "height", None),
    "crowds as booleans": changed(FILES, "annotations", "iscrowd", True, count=5),
    "annotations of an image that is not listed": changed(FILES, "annotations", "image_id", 99, count=3),
    "boxes of no size": (FILES[0], [{**each, "bbox": [5, 5, 0, 0]} for each in FILES[1]]),
    "numbers nobody reads": ({**FILES[0], "info": {"loss": float("nan")}}, FILES[1]),
}
FAILURES = "out of range|not supported|not subscriptable|has no len|incorrect type|indices must be"  # pycocotools'
NO_OUTLINES = [[], [[]], None, [1, 2, 3, 4], [[1, 2, 3, 4]], [1, 2, 3, 4, 5, 6], [[[1, 2], [3, 4], [5, 6]]], "mask", 7]


@pytest.mark.parametrize("case", AS_WRITTEN)
def test_boxes_equal_pycocotools(tmp_path, case):
    assert ours(tmp_path, AS_WRITTEN[case]) == pytest.approx(
        cocoeval(tmp_path, AS_WRITTEN[case]), abs=1e-12, nan_ok=True
    )


@pytest.mark.parametrize("case", ["categories not sorted by id", "words as ids", "two categories of one name"])
def test_masks_equal_pycocotools(tmp_path, case):
    expected = cocoeval(tmp_path, AS_WRITTEN[case], "segm")
    assert expected["AP"] > 0.1
    assert ours(tmp_path, AS_WRITTEN[case], masks=True) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("outline", NO_OUTLINES)
def test_segmentations_that_pycocotools_refuses(tmp_path, outline):
    """For boxes nobody looks at them; for masks pycocotools raises anything, and one line says where."""
    files = changed(FILES, "annotations", "segmentation", outline, count=1)
    assert ours(tmp_path, files) == pytest.approx(cocoeval(tmp_path, files), abs=1e-12, nan_ok=True)
    with pytest.raises(Exception, match=FAILURES):
        cocoeval(tmp_path, files, "segm")
    first = files[0]["annotations"][0]["image_id"]
    with pytest.raises(UserError, match=rf"annotations\.json: annotations\[0\]\.segmentation \(image {first}\) is "):
        ours(tmp_path, files, masks=True)


def test_parts_without_area_equal_pycocotools(tmp_path):
    parts = [[1, 1, 50, 1, 50, 40, 1, 40], [], [2, 2, 90, 90]]
    files = changed(FILES, "annotations", "segmentation", parts, count=20)
    expected = cocoeval(tmp_path, files, "segm")
    assert ours(tmp_path, files, masks=True) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("masks", [False, True])
def test_no_results_are_an_ap_of_zero(tmp_path, masks):
    """Of no detection the precision is 0 at every recall; pycocotools itself fails on an empty list."""
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "annotations.json").write_text(json.dumps(FILES[0]))
    truths = read_truths(tmp_path / "annotations.json")
    found = read_detections(tmp_path / "empty.json", truths, masks=masks)
    assert evaluate_detections(found, truths).scalars()["AP"] == 0


def test_a_byte_order_mark_changes_nothing(tmp_path):
    assert ours(tmp_path, FILES, before=b"\xef\xbb\xbf") == ours(tmp_path, FILES)


def test_results_whose_segmentations_are_all_empty_are_boxes(tmp_path):
    results = [{**each, "segmentation": [] if number % 2 else None} for number, each in enumerate(FILES[1])]
    assert ours(tmp_path, (FILES[0], results), masks=None) == pytest.approx(
        cocoeval(tmp_path, FILES), abs=1e-12, nan_ok=True
    )
