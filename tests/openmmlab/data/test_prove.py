"""The chain from files to evaluator, broken at each link: every break is found, and its step named.

Oracle: the unbroken config scores 1 in mmdet's and mmseg's own metrics; each break is made by hand.
"""

import copy
import json

import numpy as np
import pytest
from annotations import HEIGHT, WIDTH, dataset, write_coco, write_devkit
from PIL import Image

pytestmark = pytest.mark.openmmlab

NAMES = ("cat", "dog")
CATS = [(1, "cat"), (2, "dog")]
LIST = "VOC2007/ImageSets/Main/trainval.txt"
BOXES = ((3, 3, 30, 20), (10, 8, 50, 36), (5, 12, 20, 30), (22, 4, 58, 38))


@pytest.fixture(scope="module")
def broken():
    """Register transforms that each break one thing; return their prefix."""
    from mmengine.registry import TRANSFORMS

    def register(name, change):
        class Broken:
            def __call__(self, results):
                change(results)
                return results

        Broken.__name__ = name
        TRANSFORMS.register_module(name=name, module=Broken, force=True)

    def boxes(change):
        def _change(results):
            results["gt_bboxes"].tensor = change(results["gt_bboxes"].tensor.clone())

        return _change

    def drop(results):
        for key in ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags"):
            results[key] = results[key][1:]

    def as_xywh(tensor):
        tensor[:, 2:] -= tensor[:, :2]
        return tensor

    def mirror(tensor):
        made = tensor.clone()
        made[:, 0], made[:, 2] = WIDTH - tensor[:, 2], WIDTH - tensor[:, 0]
        return made

    def labels(change):
        def _change(results):
            results["gt_seg_map"] = change(results["gt_seg_map"])

        return _change

    def smooth(results):
        size = (WIDTH * 2, HEIGHT * 2)
        results["img"] = np.array(Image.fromarray(results["img"]).resize(size))
        results["gt_seg_map"] = np.array(Image.fromarray(results["gt_seg_map"]).resize(size, Image.BILINEAR))
        results["img_shape"] = results["img"].shape[:2]

    def cut(results):
        results["img"], results["gt_seg_map"] = results["img"][:20, :20], results["gt_seg_map"][:20, :20]
        results["img_shape"] = (20, 20)

    register("Shifted", boxes(lambda tensor: tensor + 1))
    register("Xywh", boxes(as_xywh))
    register("Scaled", boxes(lambda tensor: tensor * 1.5))
    register("Mirrored", boxes(mirror))
    register("Dropping", drop)
    register("AllCount", lambda results: results.update(gt_ignore_flags=np.zeros_like(results["gt_ignore_flags"])))
    register("Relabelled", lambda results: results.update(gt_bboxes_labels=1 - results["gt_bboxes_labels"]))
    register("ReducedAgain", labels(lambda found: np.where(found == 0, 255, np.where(found == 255, 255, found - 1))))
    register("LabelsMirrored", labels(lambda found: found[:, ::-1].copy()))
    register("LabelsShifted", labels(lambda found: np.roll(found, 1, axis=1)))
    register("Smooth", smooth)
    register("Cut", cut)


def devkit_config(folder, metric="VOCMetric"):

    objects = [(NAMES[number % 2], box) for number, box in enumerate(BOXES)]
    images = {f"00{number}": [objects[number], objects[(number + 1) % 4]] for number in range(4)}
    images["000"].append(("cat", (1, 30, 12, 39), True))
    write_devkit(folder, images)
    train = dataset("VOCDataset", folder, LIST, NAMES, filter_cfg={"filter_empty_gt": True})
    train["pipeline"].insert(3, {"type": "RandomFlip", "prob": 0.5})
    train["pipeline"][2]["scale"] = (130, 90)
    val = dataset("VOCDataset", folder, LIST, NAMES, test_mode=True)
    val["pipeline"] = [
        val["pipeline"][0],
        {"type": "Resize", "scale": (130, 90), "keep_ratio": True},
        val["pipeline"][1],
        val["pipeline"][3],
    ]
    evaluator = {"type": metric, **({"eval_mode": "11points"} if metric == "VOCMetric" else {})}
    return _config("mmdet", train, val, evaluator)


def coco_config(folder, val_categories=CATS):
    objects = [(1 + number // 2, 1 + number % 2, (x, y, a - x, b - y)) for number, (x, y, a, b) in enumerate(BOXES)]
    for name, categories in (("train", CATS), ("val", val_categories)):
        write_coco(folder / f"{name}.json", categories, objects)
    train, val = (dataset("CocoDataset", folder, f"{name}.json", NAMES) for name in ("train", "val"))
    val["test_mode"] = True
    train["pipeline"][2]["scale"] = val["pipeline"][2]["scale"] = (120, 80)
    val["pipeline"].pop(1)
    metric = {"type": "CocoMetric", "metric": "bbox", "ann_file": str(folder / "val.json")}
    return _config("mmdet", train, val, metric)


def scenes_config(folder):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for number in range(3):
            small = rng.integers(0, 4, (4, 6), dtype=np.uint8)
            label = np.kron(small, np.ones((10, 10), np.uint8))
            Image.new("RGB", (WIDTH, HEIGHT), "gray").save(folder / "images" / split / f"{number}.jpg")
            Image.fromarray(label).save(folder / "labels" / split / f"{number}.png")
    load = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    resize = {"type": "Resize", "scale": (90, 60), "keep_ratio": True}
    crop = [{"type": "RandomCrop", "crop_size": (30, 30)}, {"type": "RandomFlip", "prob": 0.5}]
    pack = {"type": "PackSegInputs"}
    common = {
        "type": "BaseSegDataset",
        "data_root": str(folder),
        "metainfo": {"classes": ("a", "b", "c")},
        "reduce_zero_label": True,
    }
    train, val = (
        {**copy.deepcopy(common), "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"}}
        for split in ("train", "val")
    )
    train["pipeline"] = [*load, resize, *crop, pack]
    val["pipeline"] = [load[0], resize, load[1], pack]
    return _config("mmseg", train, val, {"type": "IoUMetric", "iou_metrics": ["mIoU"]})


def _config(scope, train, val, evaluator):
    from mmengine.config import Config

    return Config(
        {
            "default_scope": scope,
            "model": {"decode_head": {}},
            "train_dataloader": {"dataset": train},
            "val_dataloader": {"dataset": val},
            "val_evaluator": evaluator,
        }
    )


def prove(cfg):
    from cvplugins.openmmlab.data.prove import prove_config

    return prove_config(cfg)


def insert(split, place, name, **options):
    return lambda cfg, folder: cfg[f"{split}_dataloader"].dataset.pipeline.insert(place, {"type": name, **options})


def update(split, **values):
    return lambda cfg, folder: cfg[f"{split}_dataloader"].dataset.update(values)


def loaded_before_resizing(cfg, folder):
    steps = cfg.val_dataloader.dataset.pipeline
    steps[1], steps[2] = steps[2], steps[1]


def another_images_annotations(cfg, folder):
    """Let training's own reader find the annotations of the next image."""
    from mmdet.datasets import VOCDataset
    from mmengine.registry import DATASETS

    class Displaced(VOCDataset):
        def load_data_list(self):
            found = super().load_data_list()
            listed = [each["instances"] for each in found]
            for each, other in zip(found, [*listed[1:], listed[0]], strict=True):
                each["instances"] = other
            return found

    DATASETS.register_module(name="VOCDisplaced", module=Displaced, force=True)
    cfg.train_dataloader.dataset.type = "VOCDisplaced"
    cfg.val_dataloader.dataset.type = "VOCDataset"


@pytest.mark.parametrize("metric", ["VOCMetric", "cvplugins.VOCDetectionMetric"])
def test_a_whole_chain_of_voc_is_perfect(tmp_path, metric):
    proof = prove(devkit_config(tmp_path, metric))
    assert proof.is_perfect, proof.lines()
    assert proof.images == 4
    assert proof.objects == 8  # the ninth is difficult
    assert any("difficult" in each.text for each in proof.exceptions)


@pytest.mark.parametrize(
    ("change", "step", "text"),
    [
        (update("val", metainfo={"classes": NAMES[::-1]}), "val_dataloader.dataset.metainfo", "label 0 is 'cat' in"),
        (update("val", metainfo={"classes": ("cat",)}), "val_dataloader.dataset.metainfo", "and no class here"),
        (update("train", metainfo={"classes": ("cat",)}), "val_dataloader.dataset.metainfo", "no class in training"),
        (insert("train", 2, "Shifted"), "step 3 (Shifted)", "shifted by (1, 1) pixels"),
        (insert("train", 2, "Xywh"), "step 3 (Xywh)", "xywh as xyxy"),
        (insert("train", 2, "Scaled"), "step 3 (Scaled)", "scaled by 1.5 in x and 1.5 in y"),
        (insert("train", 2, "Mirrored"), "step 3 (Mirrored)", "mirrored left to right"),
        (insert("train", 2, "Dropping"), "step 3 (Dropping)", "objects are left out"),
        (insert("train", 2, "AllCount"), "step 3 (AllCount)", "ignored objects become ordinary ones"),
        (insert("train", 2, "Relabelled"), "step 3 (Relabelled)", "label 0 (cat) becomes label 1 (dog)"),
        (
            insert("train", 3, "FilterAnnotations", min_gt_bbox_wh=(50, 40)),
            "step 4 (FilterAnnotations)",
            "objects are left out",
        ),
        (update("train", filter_cfg={"bbox_min_size": 25}), "'bbox_min_size': 25", "objects become ignored ones"),
        (update("train", filter_cfg={"min_size": 64}), "'min_size': 64", "the image is dropped, with its objects"),
        (loaded_before_resizing, "val_dataloader.dataset, step 3 (Resize)", "scaled by 2.167 in x"),
        (insert("val", 2, "RandomFlip", prob=1.0), "inverse of the test pipeline", "mirrored left to right"),
        (another_images_annotations, "train_dataloader.dataset", "content of another one"),
    ],
)
def test_each_broken_link_of_boxes_is_named(tmp_path, broken, change, step, text):
    cfg = devkit_config(tmp_path)
    change(cfg, tmp_path)
    proof = prove(cfg)
    assert not proof.is_perfect
    assert any(step in each.step and text in each.text for each in proof.losses), proof.lines()


def test_images_are_named(tmp_path, broken):
    cfg = devkit_config(tmp_path)
    insert("train", 3, "FilterAnnotations", min_gt_bbox_wh=(50, 40))(cfg, tmp_path)
    line = next(each for each in prove(cfg).lines() if "FilterAnnotations" in each)
    assert "VOC2007/JPEGImages/000.jpg" in line


def other_split(cfg, folder):
    content = json.loads((folder / "val.json").read_text())
    for each in (*content["images"], *content["annotations"]):
        key = "id" if "file_name" in each else "image_id"
        each[key] += 100
    (folder / "other.json").write_text(json.dumps(content))
    cfg.val_evaluator.ann_file = str(folder / "other.json")


def moved_in_the_metrics_file(cfg, folder):
    content = json.loads((folder / "val.json").read_text())
    for each in content["annotations"]:
        each["bbox"][0] += 1
        each["bbox"][1] += 1
    (folder / "moved.json").write_text(json.dumps(content))
    cfg.val_evaluator.ann_file = str(folder / "moved.json")


def test_a_whole_chain_of_coco_is_perfect(tmp_path):
    proof = prove(coco_config(tmp_path))
    assert proof.is_perfect, proof.lines()
    assert proof.objects == 4


def test_categories_in_another_order(tmp_path):
    proof = prove(coco_config(tmp_path, CATS[::-1]))
    assert any("label 0 is 'dog' in its order, and 'cat' in the classes" in each.text for each in proof.losses)
    assert any(each.step.endswith("val.json") for each in proof.losses)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (other_split, "the file has no image of this id"),
        (moved_in_the_metrics_file, "boxes are shifted by (1, 1) pixels"),
    ],
)
def test_the_file_of_a_metric(tmp_path, change, text):
    cfg = coco_config(tmp_path)
    change(cfg, tmp_path)
    proof = prove(cfg)
    assert any(each.step.startswith("val_evaluator.ann_file") and text in each.text for each in proof.losses)


def test_a_whole_chain_of_label_maps_is_perfect(tmp_path):
    proof = prove(scenes_config(tmp_path))
    assert proof.is_perfect, proof.lines()
    assert proof.objects == 3


def another_images_labels(cfg, folder):
    from mmengine.registry import DATASETS
    from mmseg.datasets import BaseSegDataset

    class Displaced(BaseSegDataset):
        def load_data_list(self):
            found = super().load_data_list()
            paths = [each["seg_map_path"] for each in found]
            for each, other in zip(found, [*paths[1:], paths[0]], strict=True):
                each["seg_map_path"] = other
            return found

    DATASETS.register_module(name="SegDisplaced", module=Displaced, force=True)
    cfg.train_dataloader.dataset.type = "SegDisplaced"
    # Both readers are of their own class.
    cfg.val_dataloader.dataset.type = "BaseSegDataset"


def head_ignores(cfg, folder):
    cfg.model.decode_head.ignore_index = 0


def metric_ignores(cfg, folder):
    cfg.val_evaluator.ignore_index = 1


@pytest.mark.parametrize(
    ("change", "step", "text"),
    [
        (insert("train", 2, "ReducedAgain"), "step 3 (ReducedAgain)", "every label is 1 less"),
        (update("train", reduce_zero_label=False), "train_dataloader.dataset", "reduce_zero_label"),
        (update("val", reduce_zero_label=False), "val_dataloader.dataset", "reduce_zero_label"),
        (head_ignores, "decode_head.ignore_index=0", "label 0 (a) is a class, and never counts"),
        (metric_ignores, "ignore_index=1", "label 1 (b) is a class, and never counts"),
        (another_images_labels, "train_dataloader.dataset", "content of another one"),
        (insert("train", 2, "Smooth"), "step 3 (Smooth)", "interpolation"),
        (insert("train", 2, "Cut"), "step 3 (Cut)", "label maps of 60 x 40 become 20 x 20"),
        (insert("train", 2, "LabelsMirrored"), "step 3 (LabelsMirrored)", "mirrored left to right"),
        (insert("train", 2, "LabelsShifted"), "step 3 (LabelsShifted)", ""),
        (update("val", metainfo={"classes": ("b", "a", "c")}), "val_dataloader.dataset.metainfo", "label 0 is 'a' in"),
        (loaded_before_resizing, "val_dataloader.dataset", "load annotations after resizing"),
    ],
)
def test_each_broken_link_of_label_maps_is_named(tmp_path, broken, change, step, text):
    cfg = scenes_config(tmp_path)
    change(cfg, tmp_path)
    proof = prove(cfg)
    assert not proof.is_perfect
    assert any(step in each.step and text in each.step + each.text for each in proof.losses), proof.lines()


def test_the_command(root, monkeypatch, capsys, tmp_path):
    """The committed sample is perfect, and a mistake is one line."""
    from cvplugins.cli import main

    monkeypatch.chdir(root)
    assert (
        main(["data", "prove", "voc_faster_rcnn_sample", "--images", "3", "--json", str(tmp_path / "proof.json")]) == 0
    )
    assert capsys.readouterr().out.splitlines()[-1].startswith("perfect: ")
    assert json.loads((tmp_path / "proof.json").read_text())
    assert main(["data", "prove", "no_such_config"]) == 2
    assert capsys.readouterr().err.startswith("error: config no_such_config does not exist")
