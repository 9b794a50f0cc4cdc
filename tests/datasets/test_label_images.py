"""Reading and checking label maps. Oracle: files with one known fault each."""

import numpy as np
import pytest

from cvplugins.datasets import check_label_images, read_label_image
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
