"""docs/your_dataset.md: its configs pass the check of the tools, on small data in the layouts that it describes."""

import json
import re

import numpy as np
import pytest
from doc_pages import DOCS
from PIL import Image

PAGE = (DOCS / "your_dataset.md").read_text(encoding="utf-8")
CONFIGS = dict(re.findall(r"^`(\w+\.(?:py|yaml))`:\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
NAMES = ["first", "second", "third"]
CLASSES = ("person", "car")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the page's configs, as the one that its reader works in."""
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photographs(folder):
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.fromarray(np.full((60, 80, 3), 60 * number, np.uint8)).save(folder / f"{name}.jpg")


@pytest.fixture
def street(folder):
    """VOC XML, with the lists that the page's commands make."""
    devkit = folder / "data" / "street" / "VOC2007"
    photographs(devkit / "JPEGImages")
    (devkit / "Annotations").mkdir()
    (devkit / "ImageSets" / "Main").mkdir(parents=True)
    for name, class_ in zip(NAMES, (*CLASSES, "person"), strict=True):
        box = "<xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax>"
        (devkit / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><size><width>80</width><height>60</height></size><object><name>{class_}</name>"
            f"<bndbox>{box}</bndbox></object></annotation>"
        )
    (devkit / "ImageSets" / "Main" / "trainval.txt").write_text("first\nsecond\n")
    (devkit / "ImageSets" / "Main" / "test.txt").write_text("third\n")


@pytest.fixture
def street_coco(folder):
    photographs(folder / "data" / "street_coco" / "images")
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    for split, names in (("train", NAMES[:2]), ("val", NAMES[2:])):
        images = [{"id": i, "file_name": f"{name}.jpg", "width": 80, "height": 60} for i, name in enumerate(names, 1)]
        annotations = [
            {
                "id": each["id"],
                "image_id": each["id"],
                "category_id": 1,
                "bbox": [2, 3, 18, 22],
                "area": 396,
                "iscrowd": 0,
            }
            for each in images
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "data" / "street_coco" / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def rooms(folder):
    for split in ("training", "validation"):
        photographs(folder / "data" / "rooms" / "images" / split)
        labels = folder / "data" / "rooms" / "annotations" / split
        labels.mkdir(parents=True)
        for name in NAMES:
            label = (np.arange(4800) % 4).astype(np.uint8).reshape(60, 80)
            label[0] = 255
            Image.fromarray(label).save(labels / f"{name}.png")


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("config", "data"), [("street.py", "street"), ("street_coco.py", "street_coco"), ("rooms.py", "rooms")]
)
def test_config_passes_the_check(tool, folder, monkeypatch, request, config, data):
    request.getfixturevalue(data)
    monkeypatch.chdir(folder)
    assert tool("train", config, "--dry-run") == (0, [f"config, plugins and data of {config} are fine"], [])


@pytest.mark.detectron2
def test_config_of_detectron2_passes_the_check(tool, folder, street, monkeypatch):
    monkeypatch.chdir(folder)
    assert tool("train", "street.yaml", "--dry-run")[::2] == (0, [])


def test_page_names_the_four_configs():
    assert set(CONFIGS) == {"street.py", "street_coco.py", "rooms.py", "street.yaml"}
