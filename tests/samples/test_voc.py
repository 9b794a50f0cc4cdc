"""The sample and its generator.

Oracles: what the sample promises, counted from the files with the standard library and Pillow; a second run; shapes
whose area is a formula; and boxes against the pixels that an object changed.
"""

import json
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

import cvplugins.samples.painting as painting
import cvplugins.samples.voc as generator
from cvplugins.cli import main
from cvplugins.datasets import VOC_CLASSES, check_voc, read_annotation, read_split
from cvplugins.errors import UserError
from cvplugins.samples.glyphs import GLYPHS, Glyph, Shape, rasterise
from cvplugins.samples.painting import COLOURS
from cvplugins.samples.voc import draw_image, write_sample

image = pytest.importorskip("PIL.Image")

SPLITS = [("VOC2007", "trainval"), ("VOC2007", "test"), ("VOC2012", "trainval")]


@pytest.fixture(scope="module")
def drawn_again(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "VOCdevkit"
    write_sample(root)
    return root


def _annotations(devkit, year, split):
    return {i: read_annotation(devkit / year / "Annotations" / f"{i}.xml") for i in read_split(devkit, year, split)}


def _objects(devkit):
    splits = [_annotations(devkit, *split) for split in SPLITS]
    return [(annotation, found) for split in splits for annotation in split.values() for found in annotation.objects]


def _side(found):
    return max(found.xmax - found.xmin, found.ymax - found.ymin) + 1


def _files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_committed_sample_is_what_the_generator_draws(sample, drawn_again):
    committed, again = _files(sample), _files(drawn_again)
    assert committed.keys() == again.keys()
    for name in committed:
        if name.suffix != ".jpg":
            assert committed[name] == again[name], name


def test_the_committed_images_are_those_drawn_up_to_jpegs_rounding(sample, drawn_again):
    for path in list(sample.rglob("*.jpg"))[::10]:
        committed = np.asarray(image.open(path), float)
        again = np.asarray(image.open(drawn_again / path.relative_to(sample)), float)
        assert np.abs(committed - again).mean() < 1.5, path


@pytest.fixture
def few_images(monkeypatch):
    """Make the generator draw 3 splits of 4 images."""
    few = tuple((year, split, 4, id_format, first) for year, split, _, id_format, first in generator.SPLITS)
    monkeypatch.setattr(generator, "SPLITS", few)


@pytest.mark.usefixtures("few_images")
def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path):
    first, same, other = (tmp_path / name for name in ("first", "same", "other"))
    write_sample(first, seed=3)
    write_sample(same, seed=3)
    write_sample(other, seed=4)
    assert _files(first) == _files(same)
    assert all(content != _files(other)[name] for name, content in _files(first).items() if name.suffix == ".jpg")


def test_size_and_layout(sample):
    assert sum(len(content) for content in _files(sample).values()) < 6e6
    counts = [len(read_split(sample, *split)) for split in SPLITS]
    assert counts == [140, 91, 60]
    assert counts[1] % 2 == 1
    listed = {(year, i) for year, split in SPLITS for i in read_split(sample, year, split)}
    assert listed == {(path.parts[-3], path.stem) for path in sample.rglob("*.jpg")}
    assert listed == {(path.parts[-3], path.stem) for path in sample.rglob("*.xml")}


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_every_class_equally_often_and_an_empty_image(sample, split):
    annotations = _annotations(sample, *split).values()
    counts = Counter(found.name for annotation in annotations for found in annotation.objects)
    assert set(counts) == set(VOC_CLASSES)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert min(len(annotation.objects) for annotation in annotations) == 0
    assert max(len(annotation.objects) for annotation in annotations) == 5


def test_objects_vary_as_promised(sample):
    objects = _objects(sample)
    sides = np.array([_side(found) for _, found in objects])
    assert 12 <= sides.min() <= 20
    assert 100 <= sides.max() <= 130
    assert (sides < 32).mean() >= 0.15
    assert 0.04 <= np.mean([found.difficult for _, found in objects]) <= 0.08
    assert 0.1 <= np.mean([found.truncated for _, found in objects]) <= 0.3
    on_border = [
        found.xmin == 1 or found.ymin == 1 or found.xmax == annotation.width or found.ymax == annotation.height
        for annotation, found in objects
    ]
    assert np.mean(on_border) >= 0.1
    assert all(1 <= found.xmin < found.xmax <= annotation.width for annotation, found in objects)
    assert all(1 <= found.ymin < found.ymax <= annotation.height for annotation, found in objects)


def test_images_vary_and_are_as_large_as_annotated(sample):
    shapes = Counter()
    for year, split in SPLITS:
        for image_id, annotation in _annotations(sample, year, split).items():
            with image.open(sample / year / "JPEGImages" / annotation.filename) as picture:
                assert picture.size == (annotation.width, annotation.height)
                assert annotation.filename == f"{image_id}.jpg"
                shapes[np.sign(annotation.width - annotation.height)] += 1
                # No flat backgrounds.
                assert np.asarray(picture.convert("L"), float).std() > 4
    assert min(shapes[1], shapes[0], shapes[-1]) >= 20


def test_a_box_is_tight_around_the_pixels_of_its_object(monkeypatch):
    """Drawn alone in one colour on another one, without texture, an object's pixels can be counted."""
    flat = {name: (255.0, 0.0, 0.0) for name in (*COLOURS, "body", "shade")}
    monkeypatch.setattr(generator, "_background", lambda h, w, _: np.full((h, w, 3), [0.0, 255.0, 0.0]))
    monkeypatch.setattr(painting, "_shift", lambda *_: flat["body"])
    monkeypatch.setattr(generator, "finish", lambda pixels, _: pixels.clip(0, 255).astype(np.uint8))
    for number, name in enumerate(VOC_CLASSES * 3):
        pixels, annotation = draw_image("a.jpg", [name], np.random.RandomState(number))
        (found,) = annotation.objects
        changed = (pixels[..., 1] < 127) if not found.difficult else (pixels[..., 1] < 255 * (1 - 0.45 / 2))
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        box = (found.xmin, found.ymin, found.xmax, found.ymax)
        assert box == (columns[0] + 1, rows[0] + 1, columns[-1] + 1, rows[-1] + 1), (name, number)


def test_objects_in_front_shrink_the_box_behind():
    """Drawn with and without others from the same seed, the first object is the same or smaller."""
    shrunk = 0
    for seed in range(30):
        _, alone = draw_image("a.jpg", ["bus"], np.random.RandomState(seed))
        _, hidden = draw_image("a.jpg", ["bus", "cat", "sofa", "tvmonitor", "dog"], np.random.RandomState(seed))
        before, after = alone.objects[0], hidden.objects[0]
        assert before.xmin <= after.xmin <= after.xmax <= before.xmax
        assert before.ymin <= after.ymin <= after.ymax <= before.ymax
        if _area(after) < 0.95 * _area(before):
            shrunk += 1
            assert after.truncated
    assert shrunk >= 2


def _area(found):
    return (found.xmax - found.xmin + 1) * (found.ymax - found.ymin + 1)


@pytest.mark.parametrize(
    ("kind", "numbers", "area"),
    [
        ("box", (10, 20, 60, 50), 50 * 30),
        ("oval", (50, 50, 40, 20), math.pi * 40 * 20),
        ("poly", (10, 10, 90, 10, 10, 70), 80 * 60 / 2),
        ("line", (10, 20, 50, 80, 50), 60 * 10 + math.pi * 5**2),
    ],
)
@pytest.mark.parametrize(("scale", "angle", "mirrored"), [((1, 1), 0, False), ((1.5, 0.5), 0.2, True)])
def test_shapes_cover_the_area_of_their_formula(kind, numbers, area, scale, angle, mirrored):
    glyph = Glyph(100, 100, (1, 2, 3), (Shape("body", kind, numbers),))
    rgb, coverage = rasterise(glyph, {"body": (1, 2, 3)}, scale, angle, mirrored=mirrored)
    assert coverage.sum() == pytest.approx(area * scale[0] * scale[1], rel=0.01)
    np.testing.assert_allclose(rgb[coverage > 0], np.broadcast_to((1, 2, 3), ((coverage > 0).sum(), 3)))


def test_mirroring():
    glyph, palette = GLYPHS["horse"], {**COLOURS, "body": (1, 1, 1)}
    straight, _ = rasterise(glyph, palette, (1, 1), 0)
    mirrored, _ = rasterise(glyph, palette, (1, 1), 0, mirrored=True)
    assert not np.allclose(straight, straight[:, ::-1])
    np.testing.assert_allclose(mirrored, straight[:, ::-1])


def test_a_hole_shows_what_is_behind():
    ring = Glyph(10, 10, (9, 9, 9), (Shape("body", "box", (0, 0, 10, 10)), Shape("none", "box", (2, 2, 8, 8))))
    assert rasterise(ring, {"body": (9, 9, 9)}, (1, 1), 0)[1].sum() == pytest.approx(100 - 36)


def test_an_unknown_kind_of_shape_is_refused():
    with pytest.raises(ValueError, match="'blob'; there are box, oval, poly, line"):
        rasterise(Glyph(1, 1, (0, 0, 0), (Shape("body", "blob", ()),)), {"body": (0, 0, 0)}, (1, 1), 0)


def test_every_class_has_a_drawing_that_fills_its_grid():
    assert set(GLYPHS) == set(VOC_CLASSES)
    for name, glyph in GLYPHS.items():
        palette = {**COLOURS, "body": glyph.body, "shade": (0, 0, 0)}
        _, coverage = rasterise(glyph, palette, (1, 1), 0)
        rows, columns = np.flatnonzero(coverage.any(1)), np.flatnonzero(coverage.any(0))
        assert np.ptp(rows) > 0.85 * glyph.height, name
        assert np.ptp(columns) > 0.85 * glyph.width, name


@pytest.mark.usefixtures("few_images")
def test_the_command_writes_and_replaces_only_samples(tmp_path, capsys):
    root = tmp_path / "VOCdevkit"
    assert main(["sample", "voc", str(root)]) == 0
    assert "12 images" in capsys.readouterr().out
    assert len(check_voc(root, SPLITS).splits) == 3
    assert main(["sample", "voc", str(root)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    (root / "VOC2007/JPEGImages/000001.jpg").unlink()
    assert main(["sample", "voc", str(root), "--force"]) == 0
    assert (root / "VOC2007/JPEGImages/000001.jpg").is_file()
    assert list(tmp_path.iterdir()) == [root]


def test_no_other_folder_is_ever_replaced(tmp_path):
    root = tmp_path / "VOCdevkit"
    root.mkdir()
    (root / "precious.txt").write_text("real data")
    with pytest.raises(UserError, match="not a sample"):
        write_sample(root, overwrite=True)
    assert (root / "precious.txt").read_text() == "real data"


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "write_jpeg", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_sample(tmp_path / "VOCdevkit")
    assert list(tmp_path.iterdir()) == []


def test_without_pillow_the_message_says_how_to_install_it(tmp_path):
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from cvplugins.samples.voc import write_sample\n"
        f"try: write_sample({json.dumps(str(tmp_path / 'a'))})\n"
        "except ImportError as error: print(error)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "pip install pillow" in printed
