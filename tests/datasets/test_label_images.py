"""Reading and checking label maps. Oracle: files with one known fault each."""

import numpy as np
import pytest

from cvplugins.datasets import check_label_images, read_label_image
from cvplugins.datasets.image_readers import ImageReader
from cvplugins.datasets.label_images import SceneReader, check_classes_occur
from cvplugins.datasets.voc import DataError

image = pytest.importorskip("PIL.Image")


@pytest.fixture
def pairs(tmp_path):
    """Three images with label maps 0 to 3; 0 is a quarter of the pixels."""
    found = []
    for index in range(3):
        pair = tmp_path / f"{index}.jpg", tmp_path / f"{index}.png"
        image.new("RGB", (8, 4)).save(pair[0])
        image.fromarray(np.arange(4, dtype=np.uint8)[:, None].repeat(8, 1)).save(pair[1])
        found.append(pair)
    return found


def label(pairs, index, values):
    image.fromarray(np.asarray(values, np.uint8)).save(pairs[index][1])


def test_labels_that_fit_are_counted(pairs):
    report = check_label_images(pairs, 4)
    assert report.images == 3
    assert report.counts[:5].tolist() == [24, 24, 24, 24, 0]
    assert report.share(0) == 0.25
    assert check_label_images(pairs, 3, reduce_zero_label=True).share(3) == 0.25


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_a_label_out_of_range_is_named_with_file_value_and_setting(pairs, reduce_zero_label):
    classes = 3 if not reduce_zero_label else 2
    with pytest.raises(DataError) as caught:
        check_label_images(pairs, classes, reduce_zero_label=reduce_zero_label)
    message = str(caught.value)
    assert message.startswith(f"3 of 3 images hold a label out of range: {pairs[0][1]}: label 3 (8 pixels)")
    assert f"reduce_zero_label={reduce_zero_label}, {classes} classes are the labels" in message
    assert "further: 1.png, 2.png" in message


def test_the_ignored_label_may_occur(pairs):
    label(pairs, 1, np.full((4, 8), 255))
    assert check_label_images(pairs, 4).counts[255] == 32
    with pytest.raises(DataError, match="label 255"):
        check_label_images(pairs, 4, ignore_index=0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("size", "1.png: is 4 x 8 pixels, but its image is 8 x 4"),
        ("label missing", "1.png: does not exist"),
        ("image missing", "1.jpg: does not exist"),
        ("image truncated", "1.jpg: truncated JPEG"),
        ("label no image", "1.png: not an image"),
    ],
)
def test_a_faulty_pair_is_named(pairs, fault, said):
    picture, labels = pairs[1]
    if fault == "size":
        label(pairs, 1, np.zeros((8, 4)))
    elif fault == "image truncated":
        picture.write_bytes(picture.read_bytes()[:-3])
    elif fault == "label no image":
        labels.write_text("none")
    else:
        (picture if fault == "image missing" else labels).unlink()
    with pytest.raises(DataError) as caught:
        check_label_images(pairs, 4)
    assert str(caught.value).startswith("1 of 3 images cannot be used: ")
    assert said in str(caught.value)


def test_images_that_pillow_cannot_read_only_have_to_exist(pairs):
    tiff = pairs[0][0].with_suffix(".tif")
    with pytest.raises(DataError, match="does not exist"):
        check_label_images([(tiff, pairs[0][1])], 4)
    tiff.write_bytes(b"five channels")
    assert check_label_images([(tiff, pairs[0][1])], 4).images == 1


def test_colours_and_broken_pixels_are_refused(pairs):
    image.new("RGB", (8, 4)).save(pairs[2][1])
    with pytest.raises(DataError, match="holds colours"):
        check_label_images(pairs, 4)
    label(pairs, 0, np.random.default_rng(0).integers(0, 4, (64, 64)))
    pairs[0][1].write_bytes(pairs[0][1].read_bytes()[:-100])
    with pytest.raises(DataError, match=r"0\.png: cannot be read"):
        read_label_image(pairs[0][1])


NAMES = {0: "road", 1: "crack", 2: "sky", 3: "car"}


def occurring(pairs, values, classes=2, **options):
    """Fill every label map with values; return the warnings about them."""
    for index in range(len(pairs)):
        label(pairs, index, np.resize(values, (4, 8)))
    report = check_label_images(pairs, classes, **options)
    offset = int(options.get("reduce_zero_label", False))
    return check_classes_occur(report, {index + offset: NAMES[index] for index in range(classes)})


def test_a_foreground_that_is_ignored_is_refused(pairs):
    said = "hold only label 0 ('road') of the classes, and 255, which is ignored: label 1 ('crack') occurs nowhere"
    with pytest.raises(DataError) as caught:
        occurring(pairs, [0, 0, 0, 255])
    assert said in str(caught.value)
    assert "If 255 means 'crack', store it as 1" in str(caught.value)
    with pytest.raises(DataError, match=r"only label 1 .*, and 0, which is ignored: label 2"):
        occurring(pairs, [0, 1], reduce_zero_label=True)
    with pytest.raises(DataError, match="hold no class, but 255, which is ignored"):
        occurring(pairs, [255], classes=4)
    assert occurring(pairs, [0, 0, 1, 255]) == ()


def test_classes_that_no_label_map_holds_are_named(pairs):
    assert occurring(pairs, [0, 1, 2, 2], classes=4) == (
        "1 of 4 classes occur in none of the label maps: label 3 ('car')",
    )
    assert occurring(pairs, [0, 0, 0, 0]) == ("1 of 2 classes occur in none of the label maps: label 1 ('crack')",)
    assert occurring(pairs, [0, 1, 2, 3], classes=4) == ()


def test_much_that_is_ignored_is_named(pairs):
    assert occurring(pairs, [0, 1, 255, 255, 255, 255, 255, 255]) == ("75 % of the pixels are ignored (labels 255)",)
    assert occurring(pairs, [0, 1, 255, 255]) == ()


def test_more_label_maps_are_read_until_all_classes_were_seen(pairs, monkeypatch):
    monkeypatch.setattr("cvplugins.datasets.label_images.READ", 1)
    for index, values in enumerate(([0], [0, 1], [0])):
        label(pairs, index, np.resize(values, (4, 8)))
    assert check_label_images(pairs, 2).read == 3
    assert check_label_images(pairs, 1, ignore_index=1).read == 1
    assert check_label_images(pairs, 3).read == 3


def test_labels_beyond_eight_bits_are_for_loaders_that_keep_them(pairs):
    values = np.full((4, 8), 300, np.uint16)
    image.fromarray(values).save(pairs[0][1])
    with pytest.raises(DataError, match="holds label 300; the loader keeps labels from 0 to 255"):
        check_label_images(pairs, 400)
    assert check_label_images(pairs, 400, reader=SceneReader(largest=65_535)).counts[300] == 32


def test_a_label_map_of_stored_pixels_beside_a_turned_image(pairs):
    exif = image.Exif()
    exif[274] = 6
    image.new("RGB", (8, 4)).save(pairs[1][0], exif=exif)
    with pytest.raises(DataError, match=r"1\.png: is 8 x 4 pixels, but its image is 4 x 8 as .* remove the tag"):
        check_label_images(pairs, 4)
    assert check_label_images(pairs, 4, reader=SceneReader(image=ImageReader(turns="none"))).images == 3


def test_indices_of_a_palette_are_read(tmp_path):
    picture = image.new("P", (2, 2))
    picture.putdata([0, 2, 1, 1])
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / "palette.png")
    assert read_label_image(tmp_path / "palette.png").tolist() == [[0, 2], [1, 1]]


def test_of_many_label_maps_some_are_read(pairs, monkeypatch):
    read = []
    original = read_label_image
    monkeypatch.setattr("cvplugins.datasets.label_images.READ", 2)
    monkeypatch.setattr(
        "cvplugins.datasets.label_images.read_label_image", lambda path: read.append(path.name) or original(path)
    )
    assert check_label_images(pairs, 4).images == 3
    assert sorted(read) == ["0.png", "2.png"]
