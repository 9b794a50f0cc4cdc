"""How Detectron2 reads images. Oracle: its own read_image, check_image_size and augmentations, on the same files."""

import re

import numpy as np
import pytest
from odd_images import claiming, encoded, picture, with_chunk, with_xmp, write
from PIL import Image

from cvplugins.datasets.image_files import read_header
from cvplugins.datasets.image_readers import size_problem
from cvplugins.errors import DataError

pytestmark = pytest.mark.detectron2


@pytest.fixture(scope="module")
def cfg():
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("train",), ("test",)
    return cfg


def test_sizes_agree_with_those_of_loaded_images(tmp_path, cfg):
    from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image

    from cvplugins.detectron2.data.image_checks import image_reader

    contents = [
        encoded(picture(), kind, tag) for kind in ("JPEG", "PNG", "WEBP") for tag in (None, 1, 2, 3, 5, 6, 7, 8)
    ]
    contents.append(with_xmp(encoded(picture())))
    for number, content in enumerate(contents):
        path = write(tmp_path / f"{number}.jpg", content)
        image, header = read_image(str(path), "BGR"), read_header(path)
        reader = image_reader(cfg)
        assert reader.size(header) == image.shape[1::-1]
        for width, height in ((40, 30), (30, 40), (80, 60)):
            fits = size_problem(path, header, reader, (width, height), "its record") is None
            if fits:
                check_image_size({"width": width, "height": height}, image)
            else:
                with pytest.raises(SizeMismatchError):
                    check_image_size({"width": width, "height": height}, image)


def test_a_record_without_size_takes_that_of_the_loaded_image(tmp_path, sample):
    from detectron2.data.detection_utils import check_image_size, read_image
    from devkits import small_devkit

    from cvplugins.detectron2.data.voc import voc_records

    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    for xml in (devkit / "VOC2007" / "Annotations").glob("*.xml"):
        xml.write_text(re.sub(r"<size>.*?</size>", "", xml.read_text(), flags=re.DOTALL))
        write(devkit / "VOC2007" / "JPEGImages" / f"{xml.stem}.jpg", encoded(picture(), "JPEG", 6))
    for record in voc_records(devkit, "VOC2007", "trainval"):
        assert (record["width"], record["height"]) == (30, 40)
        check_image_size(record, read_image(record["file_name"]))


def test_what_pillow_refuses_is_refused(tmp_path, cfg):
    import zlib

    from detectron2.data.detection_utils import read_image

    from cvplugins.detectron2.data.image_checks import image_reader

    text = b"k\0\0" + zlib.compress(b"a" * (2 << 20))
    for content in (
        claiming(encoded(picture()), 40_000, 40_000),
        claiming(encoded(picture(), "PNG"), 60_000, 20_000),
        with_chunk(encoded(picture(), "PNG"), b"zTXt", text),
    ):
        path = write(tmp_path / "a.jpg", content)
        with pytest.raises(Exception, match=r"exceeds limit|too large"):
            read_image(str(path), "BGR")
        assert image_reader(cfg).problem(path, read_header(path)) is not None


def test_a_side_that_resizing_would_lose_is_found(tmp_path, cfg):
    from detectron2.data.transforms import ResizeShortestEdge

    from cvplugins.detectron2.data.image_checks import image_reader

    train, test = image_reader(cfg, "train"), image_reader(cfg, "test")
    assert (train.max_ratio, test.max_ratio) == (2 * cfg.INPUT.MAX_SIZE_TRAIN, 2 * cfg.INPUT.MAX_SIZE_TEST)
    for width in (2665, 2666, 2667, 40_000):
        height_left = ResizeShortestEdge.get_output_shape(1, width, 800, cfg.INPUT.MAX_SIZE_TRAIN)[0]
        header = read_header(write(tmp_path / "a.png", encoded(Image.new("L", (width, 1)), "PNG")))
        assert (train.problem("a.png", header) is None) == (height_left > 0)


def test_label_maps_whose_values_the_mapper_would_change_are_refused(tmp_path, cfg):
    from detectron2.data.detection_utils import read_image

    from cvplugins.detectron2.data.image_checks import scene_reader

    grey = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8))
    grey.save(tmp_path / "grey.png")
    read = scene_reader(cfg, "train").read_labels
    assert np.array_equal(read(tmp_path / "grey.png"), read_image(str(tmp_path / "grey.png"), "L")[:, :, 0])
    palette = grey.convert("P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "palette.png")
    became = read_image(str(tmp_path / "palette.png"), "L")[1, 1, 0]
    with pytest.raises(DataError, match=rf"3 becomes {became}\): save it as 8-bit grey"):
        read(tmp_path / "palette.png")
