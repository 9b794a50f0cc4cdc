"""Images and label maps that do not fit their annotation or cannot be read, given to the tools of both frameworks."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from devkits import small_devkit, split_file
from odd_images import changed, claiming, encoded, scan_replaced, write
from PIL import Image
from scenes import first_image, label_map, small_scenes
from small_detectron2_run import write_config

MMDET = pytest.param("mmdet", marks=pytest.mark.openmmlab)
DETECTRON2 = pytest.param("detectron2", marks=pytest.mark.detectron2)
both = pytest.mark.parametrize("framework", [MMDET, DETECTRON2])


@pytest.fixture
def devkit(sample, tmp_path):
    return small_devkit(sample, tmp_path / "VOCdevkit")


@pytest.fixture
def small_ade20k(scenes, tmp_path):
    return small_scenes(scenes, tmp_path / "ADEChallengeData2016")


def dry_run(framework, data, *options):
    """Return the arguments of a dry run of the sample's training on other data."""
    if framework == "mmdet":
        return (
            "train",
            "configs/voc_faster_rcnn_sample.py",
            "--cfg-options",
            f"data_root={data}",
            "--dry-run",
            *options,
        )
    if framework == "mmseg":
        config = "configs/ade20k_mask2former_sample.py"
        return ("train", config, "--cfg-options", f"data_root={data}", "--dry-run", *options)
    config = write_config(data.parent / "small.yaml", data)
    return ("train", config, "--dry-run", *options)


def first_files(devkit):
    name = split_file(devkit, "VOC2007", "trainval").read_text().split()[0]
    folder = devkit / "VOC2007"
    return folder / "JPEGImages" / f"{name}.jpg", folder / "Annotations" / f"{name}.xml"


def set_size(xml, width, height):
    text = re.sub(r"<width>\d+</width>", f"<width>{width}</width>", xml.read_text())
    xml.write_text(re.sub(r"<height>\d+</height>", f"<height>{height}</height>", text))


def turn(path, orientation):
    """Save with the pixels turned back, so that a reader that applies the tag sees the image as it was."""
    back = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180, 8: Image.Transpose.ROTATE_270}
    write(path, encoded(Image.open(path).transpose(back[orientation]), "JPEG", orientation))


@both
def test_boxes_of_the_stored_pixels_of_a_turned_photograph(refused, devkit, framework):
    """The pixels are as annotated, and the tag turns them all the same."""
    image, _ = first_files(devkit)
    width, height = Image.open(image).size
    write(image, encoded(Image.open(image), "JPEG", 6))
    parts = [f"{image}: is {height} x {width} pixels", "orientation tag 6", f"says {width} x {height}", "exiftool"]
    refused(parts, *dry_run(framework, devkit))


@both
def test_good_photographs_of_odd_kinds_pass(tool, devkit, framework):
    """Turned as annotated, PNG by another name, with a video or zeros at the end, with odd flags and no <size>."""
    names = split_file(devkit, "VOC2007", "trainval").read_text().split()
    images = [devkit / "VOC2007" / "JPEGImages" / f"{name}.jpg" for name in names]
    xmls = [devkit / "VOC2007" / "Annotations" / f"{name}.xml" for name in names]
    turn(images[0], 8)
    write(images[1], encoded(Image.open(images[1]), "PNG"))
    write(images[2], images[2].read_bytes() + b"\0" * 4000)
    write(images[3], images[3].read_bytes() + b"\0\0\0\x18ftypmp42" * 1000)
    for xml, flag in zip(xmls, ("", "0.5", "1.0", "true"), strict=True):
        text = re.sub(r"<truncated>\d</truncated>", "", xml.read_text())
        xml.write_text(text.replace("<bndbox>", f"<truncated>{flag}</truncated><occluded/><bndbox>"))
    xmls[3].write_text(re.sub(r"<size>.*?</size>", "", xmls[3].read_text(), flags=re.DOTALL))
    code, _, errors = tool(*dry_run(framework, devkit), "--full")
    assert (code, errors) == (0, [])


@both
@pytest.mark.parametrize("case", ["swapped", "other"])
def test_a_size_of_another_image(refused, devkit, framework, case):
    image, xml = first_files(devkit)
    width, height = Image.open(image).size
    size, said = (
        ((height, width), "swapped; correct") if case == "swapped" else ((999, 777), "999 x 777: take the image")
    )
    set_size(xml, *size)
    refused([f"{image}: is {width} x {height} pixels", said], *dry_run(framework, devkit))


@both
def test_images_that_are_damaged_or_beyond_a_limit(tool, devkit, tmp_path, framework):
    image, xml = first_files(devkit)
    good, text = image.read_bytes(), xml.read_text()
    line = encoded(Image.new("RGB", (40_000, 1)))
    cases = [
        (changed(good, b"\xff\xc4", 6, b"\xff" * 10), None, "damaged JPEG, its tables"),
        (line, (40_000, 1), "would leave no pixel of its short side"),
        (claiming(good, 60_000, 20_000), (60_000, 20_000), "cut it into tiles"),
        (claiming(encoded(Image.open(image), "PNG"), 40_000, 40_000), (40_000, 40_000), "cut it into tiles"),
        (claiming(good, 0, 20), None, "an image of no size"),
        (b"GIF89a", None, "not an image"),
    ]
    for content, size, said in cases:
        write(image, content)
        if size:
            set_size(xml, *size)
        code, _, errors = tool(*dry_run(framework, devkit))
        assert (code, len(errors)) == (2, 1)
        assert f"{image}: " in errors[0]
        assert said in errors[0]
        xml.write_text(text)
    assert not (tmp_path / "work").exists()


@both
def test_damaged_pixels_are_found_with_full(tool, refused, devkit, framework):
    image, _ = first_files(devkit)
    write(image, scan_replaced(image.read_bytes()))
    assert tool(*dry_run(framework, devkit))[0] == 0
    refused([f"{image}: damaged, its pixels"], *dry_run(framework, devkit), "--full")


@both
def test_full_is_for_a_dry_run(refused, devkit, framework):
    refused("--full decodes every image once", *dry_run(framework, devkit)[:-1], "--full")


@both
def test_named_pipes_are_not_opened(tool, devkit, framework):
    image, xml = first_files(devkit)
    for path in (image, xml, split_file(devkit, "VOC2007", "trainval")):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        code, _, errors = tool(*dry_run(framework, devkit))
        assert (code, len(errors)) == (2, 1)
        assert f"{path}: cannot read the " in errors[0]
        assert "it is a named pipe and not a file" in errors[0]
        path.unlink()
        path.write_bytes(content)


@pytest.mark.openmmlab
def test_a_loader_that_ignores_the_tag_takes_the_stored_pixels(tool, devkit):
    image, _ = first_files(devkit)
    write(image, encoded(Image.open(image), "JPEG", 6))
    sets = "train_dataloader.dataset.dataset.datasets"
    option = f"{sets}.0.pipeline.0.color_type=color_ignore_orientation"
    code, _, errors = tool("train", *dry_run("mmdet", devkit)[1:-1], option, "--dry-run")
    assert (code, errors) == (0, [])


# Label maps


@pytest.mark.openmmlab
def test_a_label_map_of_the_stored_pixels_beside_a_turned_photograph(refused, small_ade20k):
    image = first_image(small_ade20k)
    write(image, encoded(Image.open(image).crop((0, 0, 120, 90)), "JPEG", 6))
    Image.open(label_map(image)).crop((0, 0, 120, 90)).save(label_map(image))
    refused(
        [f"{label_map(image)}: is 120 x 90 pixels, but its image is 90 x 120", "remove the tag", "color_ignore"],
        *dry_run("mmseg", small_ade20k),
    )


@pytest.mark.openmmlab
def test_a_foreground_that_is_ignored(refused, small_ade20k):
    for path in small_ade20k.rglob("*.png"):
        values = np.zeros(np.array(Image.open(path)).shape, np.uint8)
        values[:9] = 255
        Image.fromarray(values).save(path)
    keys = {
        "type": "BaseSegDataset",
        "metainfo.classes": "('road','crack')",
        "metainfo.palette": "[[0,0,0],[9,9,9]]",
        "reduce_zero_label": False,
        "img_suffix": ".jpg",
    }
    sets = {"train_dataloader": 1, "val_dataloader": 2}  # and the place of LoadAnnotations in its pipeline
    own = [f"{each}.dataset.{key}={value}" for each in sets for key, value in keys.items()]
    own += [f"{each}.dataset.pipeline.{place}.reduce_zero_label=False" for each, place in sets.items()]
    command = (*dry_run("mmseg", small_ade20k)[:-1], *own, "model.decode_head.num_classes=2", "--dry-run")
    refused(["label 1 ('crack') occurs nowhere", "If 255 means 'crack', store it as 1"], *command)


@pytest.mark.detectron2
def test_a_foreground_that_is_ignored_in_detectron2(refused, small_ade20k, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for path in small_ade20k.rglob("*.png"):
        Image.fromarray(np.array([[0, 255]], np.uint8)).resize(Image.open(path).size, 0).save(path)
    if "cracks" in DatasetCatalog:
        DatasetCatalog.remove("cracks")
        MetadataCatalog.remove("cracks")
    images = sorted((small_ade20k / "images" / "training").glob("*.jpg"))
    records = [{"file_name": str(path), "sem_seg_file_name": str(label_map(path))} for path in images]
    DatasetCatalog.register("cracks", lambda: records)
    roots = {"image_root": str(images[0].parent), "sem_seg_root": str(label_map(images[0]).parent)}
    MetadataCatalog.get("cracks").set(stuff_classes=["road", "crack"], ignore_label=255, **roots)
    config = write_config(tmp_path / "small.yaml", small_ade20k)
    options = ["DATASETS.TRAIN=('cracks',)", "DATASETS.TEST=()", "MODEL.META_ARCHITECTURE=SemanticSegmentor"]
    options += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES=2"]
    refused(["dataset cracks: the label maps hold only label 0 ('road')"], "train", config, "--cfg-options", *options)


@pytest.mark.openmmlab
def test_label_maps_that_are_pipes(refused, small_ade20k):
    path = label_map(first_image(small_ade20k))
    path.unlink()
    os.mkfifo(path)
    refused([f"{path}: cannot read the label map, it is a named pipe"], *dry_run("mmseg", small_ade20k))


# COCO's form


def coco_config(framework, folder):
    """Write a small data set in COCO's form and a config that trains on it; return its arguments, images and file."""
    entries, objects = [], []
    for number, (width, height) in enumerate([(60, 40), (64, 48), (50, 70)], start=1):
        write(folder / "images" / f"{number}.jpg", encoded(Image.new("RGB", (width, height))))
        entries.append({"id": number, "file_name": f"{number}.jpg", "width": width, "height": height})
        box = {"bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0, "category_id": 1, "image_id": number, "id": number}
        objects.append(box | {"segmentation": [[5, 5, 25, 5, 25, 25]]})
    path = folder / "coco.json"
    content = {"images": entries, "annotations": objects, "categories": [{"id": 1, "name": "dog"}]}
    path.write_text(json.dumps(content))
    if framework == "mmdet":
        config = folder / "coco.py"
        dataset = f"""dict(_delete_=True, type='CocoDataset', data_root={str(folder)!r}, ann_file='coco.json',
            data_prefix=dict(img='images/'), metainfo=dict(classes=('dog',)), pipeline=_base_.TRAIN)"""
        config.write_text(
            f"_base_ = ['{Path.cwd()}/configs/voc_faster_rcnn_sample.py']\n"
            f"train_dataloader = dict(dataset={dataset.replace('_base_.TRAIN', '[' + LOAD + ']')})\n"
            "val_dataloader = None\nval_cfg = None\nval_evaluator = None\n"
            "model = dict(roi_head=dict(bbox_head=dict(num_classes=1)))\n"
        )
        return ("train", config, "--dry-run"), path
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances

    if "small_coco" in DatasetCatalog:
        DatasetCatalog.remove("small_coco")
        MetadataCatalog.remove("small_coco")
    register_coco_instances("small_coco", {}, str(path), str(folder / "images"))
    MetadataCatalog.get("small_coco").thing_classes = ["dog"]
    config = write_config(folder / "small.yaml", folder)
    options = ["DATASETS.TRAIN=('small_coco',)", "DATASETS.TEST=()", "MODEL.ROI_HEADS.NUM_CLASSES=1"]
    return ("train", config, "--dry-run", "--cfg-options", *options), path


LOAD = (
    "dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), "
    "dict(type='Resize', scale=(1000, 600), keep_ratio=True), dict(type='PackDetInputs')"
)


@both
def test_images_of_a_coco_file(tool, tmp_path, framework):
    arguments, path = coco_config(framework, tmp_path / "coco")
    assert tool(*arguments)[0] == 0
    content = json.loads(path.read_text())
    image = path.parent / "images" / "1.jpg"
    whole = image.read_bytes()
    cases = [
        (lambda entry: entry.update(width=40, height=60), whole, "says 40 x 60: width and height are swapped"),
        (lambda entry: entry.update(width=600), whole, "is 60 x 40 pixels, but"),
        (lambda entry: None, encoded(Image.new("RGB", (60, 40)), "JPEG", 6), "orientation tag 6"),
        (lambda entry: None, whole[:-2], "truncated JPEG"),
        (lambda entry: None, b"", "the file is empty"),
    ]
    for change, pixels, said in cases:
        changed_content = json.loads(json.dumps(content))
        change(changed_content["images"][0])
        path.write_text(json.dumps(changed_content))
        write(image, pixels)
        code, _, errors = tool(*arguments)
        assert (code, len(errors)) == (2, 1), said
        assert f"{image}: " in errors[0]
        assert said in errors[0]
    path.unlink()
    os.mkfifo(path)
    code, _, errors = tool(*arguments)
    assert (code, len(errors)) == (2, 1)
    assert f"{path}: cannot read the annotation file, it is a named pipe" in errors[0]


@pytest.mark.openmmlab
def test_label_maps_saved_as_jpeg(refused, small_ade20k):
    """JPEG changes the values: some are no label any more."""
    for path in small_ade20k.rglob("*.png"):
        labels = np.resize(np.array([1, 150], np.uint8), Image.open(path).size[::-1])
        Image.fromarray(labels).save(path.with_suffix(".jpg"), quality=50)
    sets = ("train_dataloader", "val_dataloader")
    own = [f"{each}.dataset.seg_map_suffix=.jpg" for each in sets]
    refused("hold a label out of range", *dry_run("mmseg", small_ade20k)[:-1], *own, "--dry-run")
