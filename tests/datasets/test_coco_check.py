"""The check of an annotation file before training, against what the loaders do with the same file."""

import contextlib
import io
import json
import logging

import pytest
from coco_files import changed, coco_files

from cvplugins.datasets import DataError, check_coco_file

FILES = coco_files()
MMDET = dict(masks="needed", required=("area",), other_categories=True)
DETECTRON2 = dict(masks="optional")
RUNS = {"size": [100, 120], "counts": [0, 4, 11996]}


@pytest.fixture
def written(tmp_path):
    def write(files, before=b""):
        path = tmp_path / "train.json"
        path.write_bytes(before + json.dumps(files[0]).encode())
        return path

    return write


def without(part, key, count=1):
    content = json.loads(json.dumps(FILES[0]))
    for entry in content[part][:count]:
        del entry[key]
    return content, []


GOOD = {
    "as it is": FILES,
    "no annotations, as of a test set": ({**FILES[0], "annotations": []}, []),
    "no key annotations": ({key: value for key, value in FILES[0].items() if key != "annotations"}, []),
    "no iscrowd": without("annotations", "iscrowd", None),
    "of an image that is not listed": changed(FILES, "annotations", "image_id", 99, count=2),
    "polygons of two points": changed(FILES, "annotations", "segmentation", [[1, 2, 3, 4]], count=2),
    "run lengths": changed(FILES, "annotations", "segmentation", RUNS, count=2),
    "two categories of one name": changed(FILES, "categories", "name", "animal"),
}
BAD = {
    "a word as height": (
        changed(FILES, "images", "height", "100", count=1),
        r"images\[0\]\.height is \"100\"; expected",
    ),
    "a height of null": (changed(FILES, "images", "height", None, count=1), r"images\[0\]\.height is null; expected"),
    "a height of 0": (changed(FILES, "images", "height", 0, count=1), r"images\[0\]\.height is 0; expected"),
    "no file name": (without("images", "file_name"), r"images\[0\] has no 'file_name'"),
    "no category": (without("annotations", "category_id"), r"annotations\[0\] has no 'category_id'"),
    "no id": (without("annotations", "id"), r"annotations\[0\] has no 'id'"),
    "one id twice": (
        changed(FILES, "annotations", "id", 7, count=2),
        r"annotations\[1\]\.id is 7, as annotations\[0\]",
    ),
    "no box": (without("annotations", "bbox"), r"annotations\[0\] has no 'bbox'"),
    "three numbers": (
        changed(FILES, "annotations", "bbox", [1, 2, 3], count=1),
        r"annotations\[0\]\.bbox is \[1, 2, 3\]",
    ),
    "NaN": (changed(FILES, "annotations", "bbox", [1, 2, 3, float("nan")], count=1), r"bbox is \[1, 2, 3, NaN\]"),
    "a word as outline": (changed(FILES, "annotations", "segmentation", "x", count=1), r"segmentation .* is \"x\""),
    "a flat outline": (changed(FILES, "annotations", "segmentation", [1] * 6, count=1), r"segmentation .* is \[1, 1"),
    "runs of another sum": (
        changed(FILES, "annotations", "segmentation", {**RUNS, "counts": [4]}, count=1),
        "sum is 4; expected 12000",
    ),
    "runs of a swapped size": (
        changed(FILES, "annotations", "segmentation", {**RUNS, "size": [120, 100]}, count=1),
        "height and width are swapped",
    ),
    "images all of other ids": (changed(FILES, "annotations", "image_id", "1"), "which is none of its images"),
}
# What only one of the two stumbles over.
MMDET_BAD = {
    "no area": (without("annotations", "area"), r"annotations\[0\] has no 'area'"),
    "no outline": (without("annotations", "segmentation"), r"segmentation .* is missing"),
    "an empty outline": (changed(FILES, "annotations", "segmentation", [], count=1), r"segmentation .* is empty"),
    "no area above 0": (changed(FILES, "annotations", "area", 0), "no annotation has an area above 0"),
}
DETECTRON2_BAD = {
    "an unknown category": (
        changed(FILES, "annotations", "category_id", 99, count=1),
        r"annotations\[0\]\.category_id is 99, which is none of its categories",
    ),
}


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.parametrize("loader", [MMDET, DETECTRON2], ids=["mmdet", "detectron2"])
def test_good_files_pass(written, case, loader):
    check_coco_file(written(GOOD[case]), **loader)


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("loader", [MMDET, DETECTRON2], ids=["mmdet", "detectron2"])
def test_bad_files_are_named(written, case, loader):
    files, message = BAD[case]
    with pytest.raises(DataError, match=rf"train\.json: .*{message}"):
        check_coco_file(written(files), **loader)


@pytest.mark.parametrize("case", MMDET_BAD)
def test_what_only_mmdet_reads(written, case):
    files, message = MMDET_BAD[case]
    check_coco_file(written(files), **DETECTRON2)
    with pytest.raises(DataError, match=rf"train\.json: .*{message}"):
        check_coco_file(written(files), **MMDET)


@pytest.mark.parametrize("case", DETECTRON2_BAD)
def test_what_only_detectron2_refuses(written, case):
    files, message = DETECTRON2_BAD[case]
    check_coco_file(written(files), **MMDET)
    with pytest.raises(DataError, match=rf"train\.json: .*{message}"):
        check_coco_file(written(files), **DETECTRON2)


def test_what_is_left_out_is_said(written, caplog):
    caplog.set_level(logging.WARNING, logger="cvplugins")
    check_coco_file(written(changed(FILES, "annotations", "image_id", 99, count=2)), **MMDET)
    check_coco_file(written(changed(FILES, "annotations", "category_id", 99, count=3)), **MMDET)
    check_coco_file(written(changed(FILES, "annotations", "segmentation", [[1, 2, 3, 4]], count=4)), **MMDET)
    check_coco_file(written(changed(FILES, "annotations", "area", 0, count=5)), **MMDET)
    check_coco_file(written(changed(FILES, "annotations", "bbox", [5, 5, -3, 4], count=6)), **MMDET)
    assert [record.args[1] for record in caplog.records] == [2, 3, 4, 5, 6]


def test_a_byte_order_mark(written):
    """pycocotools, which both loaders use, refuses it."""
    with pytest.raises(DataError, match="begins with a byte order mark"):
        check_coco_file(written(FILES, before=b"\xef\xbb\xbf"))


def fails(load):
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            load()
    except Exception:  # whatever it is
        return True
    return False


@pytest.mark.openmmlab
def test_mmdet_loads_what_passes_and_stumbles_over_the_rest(written):
    pytest.importorskip("mmdet")
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations

    def load(files, before=b""):
        names = tuple(category["name"] for category in files[0]["categories"])
        dataset = CocoDataset(
            ann_file=str(written(files, before)), data_prefix={"img": ""}, metainfo={"classes": names}, pipeline=[]
        )
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            LoadAnnotations(with_bbox=True, with_mask=True)({**info, "ori_shape": (100, 120), "img_shape": (100, 120)})

    assert fails(lambda: load(FILES, before=b"\xef\xbb\xbf"))
    assert [case for case, files in GOOD.items() if fails(lambda files=files: load(files))] == []
    # A height of 0 and images of other ids lose all objects in silence; mmdet compares NaN in silence, too.
    silent = {"a height of 0", "images all of other ids", "NaN", "runs of another sum", "runs of a swapped size"}
    loaded = [case for case, (files, _) in (BAD | MMDET_BAD).items() if not fails(lambda files=files: load(files))]
    assert set(loaded) <= {*silent, "no area above 0"}


@pytest.mark.detectron2
def test_detectron2_loads_what_passes_and_stumbles_over_the_rest(written):
    pytest.importorskip("detectron2")
    from detectron2.data import MetadataCatalog
    from detectron2.data.datasets import load_coco_json

    def load(files, before=b""):
        name = "cvplugins_test_coco_check"
        try:
            load_coco_json(str(written(files, before)), "", name)
        finally:
            MetadataCatalog.pop(name, None)

    assert fails(lambda: load(FILES, before=b"\xef\xbb\xbf"))
    assert [case for case, files in GOOD.items() if fails(lambda files=files: load(files))] == []
    # These fail in a worker's mapper, or never.
    later = {
        "a word as height",
        "a height of null",
        "a height of 0",
        "no box",
        "three numbers",
        "NaN",
        "a word as outline",
        "runs of another sum",
        "runs of a swapped size",
        "images all of other ids",
    }
    files = BAD | DETECTRON2_BAD
    assert {case for case, (each, _) in files.items() if not fails(lambda each=each: load(each))} <= later
