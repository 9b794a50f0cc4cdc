"""`cvplugins data stats`. Oracles: ElementTree, pycocotools and NumPy's bincount over the same files."""

import contextlib
import io
import json
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from annotations import write_coco, write_devkit
from coco_files import coco_files
from PIL import Image
from scenes import label_map, small_scenes

from cvplugins.cli import main
from cvplugins.datasets.layouts import find_splits
from cvplugins.datasets.statistics import merge_contents, read_content, summarize_content
from cvplugins.reporting.data_statistics import data_statistics_table, draw_data_statistics


def stats(tmp_path, *arguments):
    path = tmp_path / "stats.json"
    assert main(["data", "stats", *map(str, arguments), "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_voc_as_elementtree_counts_it(real_voc, tmp_path, capsys):
    devkit = real_voc / "VOCdevkit"
    found = stats(tmp_path, devkit)
    assert [each["name"] for each in found["splits"]] == ["VOC2007 trainval", "VOC2007 test", "VOC2012 trainval"]
    for split in found["splits"]:
        year, name = split["name"].split()
        ids = (devkit / year / "ImageSets" / "Main" / f"{name}.txt").read_text().split()
        objects, images, small, difficult, pixels = Counter(), Counter(), 0, 0, Counter()
        for image_id in ids:
            tree = ElementTree.parse(devkit / year / "Annotations" / f"{image_id}.xml")
            names = []
            for each in tree.findall("object"):
                names.append(each.findtext("name"))
                sides = [float(each.find("bndbox").findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
                width, height = sides[2] - sides[0], sides[3] - sides[1]
                small += min(width, height) < 32  # as XMLDataset compares them
                pixels[names[-1]] += (width + 1) * (height + 1)
                difficult += each.findtext("difficult") == "1"
            objects.update(names)
            images.update(set(names))
        classes = split["classes"]
        assert {each: classes[each]["objects"] for each in classes} == dict(objects)
        assert {each: classes[each]["images"] for each in classes} == dict(images)
        assert {each: classes[each]["pixels"] for each in classes} == pytest.approx(dict(pixels), abs=1)
        assert split["left_out"]["shorter side below 32"] == small
        assert split["left_out"]["difficult"] == difficult
        assert split["images"] == len(ids)
    assert "a rule would leave out: difficult" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
def test_coco_as_pycocotools_counts_it(tmp_path, seed):
    coco = pytest.importorskip("pycocotools.coco")
    content = coco_files(seed)[0]
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 3]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = coco.COCO(str(path))
    (split,) = find_splits(path)
    found = summarize_content(read_content(split))
    for place, name in enumerate(found.classes):
        (number,) = oracle.getCatIds([name])
        entries = oracle.loadAnns(oracle.getAnnIds(catIds=[number]))
        assert found.objects[place] == len(entries)
        assert found.images_with[place] == len(oracle.getImgIds(catIds=[number]))
        assert found.pixels[place] == sum(each["area"] for each in entries)
        areas = np.array([each["area"] for each in entries])
        limits = [areas < 32**2, (areas >= 32**2) & (areas < 96**2), areas >= 96**2]
        assert found.small_medium_large[place].tolist() == [each.sum() for each in limits]
        for other_place, other in enumerate(found.classes):
            both = oracle.getImgIds(catIds=[number, *oracle.getCatIds([other])])
            assert found.cooccurrence[place, other_place] == len(both)
    assert (found.images, found.empty_images, found.left_out["crowd"]) == (8, 1, 1)


def test_label_maps_as_bincount_counts_them(scenes, tmp_path):
    root = small_scenes(scenes, tmp_path / "rooms")
    found = stats(tmp_path, root, "--reduce-zero-label")
    maps = [np.asarray(Image.open(label_map(each))) for each in sorted((root / "images" / "training").glob("*.jpg"))]
    counts = sum(np.bincount(each.ravel(), minlength=256) for each in maps)
    split = found["splits"][0]
    pixels = {int(name): each["pixels"] for name, each in split["classes"].items()}
    assert pixels == {label: counts[label] for label in range(1, 255) if counts[label]}
    assert split["ignored_pixels"] == counts[0] + counts[255]
    assert {int(name): each["images"] for name, each in split["classes"].items()} == {
        label: sum((each == label).any() for each in maps) for label in pixels
    }


@pytest.mark.parametrize("kind", ["no objects", "one image", "all ignored", "empty file"])
def test_nasty_data_has_numbers_a_table_a_figure_and_no_line_too_many(tmp_path, kind):
    if kind == "no objects":
        root = write_devkit(tmp_path, {"a": [], "b": []})
    elif kind == "one image":
        root = write_devkit(tmp_path, {"a": [("<b>$\\frac$", (3, 3, 3, 3), True)]})
        xml = root / "VOC2007" / "Annotations" / "a.xml"
        xml.write_text(xml.read_text().replace("<name><b>$\\frac$</name>", "<name>&lt;b&gt;$\\frac$</name>"))
    elif kind == "all ignored":
        root = tmp_path
        for name in ("images", "masks"):
            (root / name).mkdir()
        Image.new("RGB", (8, 8)).save(root / "images" / "a.jpg")
        Image.new("L", (8, 8), 255).save(root / "masks" / "a.png")
    else:
        root = write_coco(tmp_path / "train.json", [], [], images=0)
    (split,) = find_splits(root)
    found = summarize_content(read_content(split))
    assert found.objects.sum() == (kind == "one image")
    assert found.images == {"no objects": 2, "empty file": 0}.get(kind, 1)
    assert found.ignored_pixels == 64 * (kind == "all ignored")
    assert json.loads(json.dumps(found.as_json()))["images"] == found.images
    assert data_statistics_table(found).startswith(f"{split.name}: ")
    path = tmp_path / "page.png"
    draw_data_statistics(found, path)
    assert Image.open(path).size[0] == 1200
    stats(tmp_path, root)


def test_splits_are_merged_by_name(tmp_path):
    devkit = write_devkit(tmp_path, {"a": [("dog", (3, 3, 20, 20))], "b": [("cat", (3, 3, 20, 20))]})
    write_devkit(devkit, {"c": [("cow", (3, 3, 9, 9)), ("cat", (1, 1, 5, 5))]}, year="VOC2012")
    write_devkit(devkit, {"d": [("ant", (3, 3, 9, 9))]}, "test")
    contents = [read_content(each) for each in find_splits(devkit)]
    trained = [each for each in contents if "test" not in each.name]
    both = merge_contents(trained, contents)
    assert both.classes == ("ant", "cat", "cow", "dog")
    assert both.presence.tolist() == [
        [False, False, False, True],
        [False, True, False, False],
        [False, True, True, False],
    ]
    assert summarize_content(both).objects.tolist() == [0, 2, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--beta", "1"], "below 1"),
        (["--scale", "0", "5"], "two numbers of pixels"),
        (["--figure", "page.doc"], "must end in .png"),
        (["--json", "none/stats.json"], "does not exist"),
        (["--config-lines", "mmseg"], "the data is boxes; choose mmdet"),
    ],
)
def test_mistakes_in_the_command(tmp_path, capsys, arguments, match, monkeypatch):
    devkit = write_devkit(tmp_path / "kit", {"a": [("dog", (3, 3, 20, 20))]})
    monkeypatch.chdir(tmp_path)
    assert main(["data", "stats", str(devkit), *arguments]) == 2
    assert match in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["kit"]


def test_what_is_broken_is_named_and_left_out(tmp_path, capsys):
    devkit = write_devkit(tmp_path / "kit", {name: [("dog", (3, 3, 20, 20))] for name in "ab"})
    (devkit / "VOC2007" / "Annotations" / "a.xml").write_text("<annotation>")
    found = stats(tmp_path, devkit)
    assert found["splits"][0]["images"] == 1
    assert "1 files cannot be read" in capsys.readouterr().out
