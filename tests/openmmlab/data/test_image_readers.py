"""How OpenMMLab reads images. Oracle: its own transforms, on the same files."""

import itertools

import numpy as np
import pytest
from odd_images import claiming, encoded, picture, with_xmp, write
from PIL import Image

from cvplugins.datasets.image_files import ImageHeader, read_header
from cvplugins.errors import DataError

pytestmark = pytest.mark.openmmlab

FLAGS = ("color", "grayscale", "unchanged", "color_ignore_orientation", "grayscale_ignore_orientation")


def reader(**options):
    from cvplugins.openmmlab.data.image_readers import image_reader

    return image_reader([{"type": "mmdet.LoadImageFromFile", **options}])


def loaded(path, **options):
    from mmcv.transforms import LoadImageFromFile

    height, width = LoadImageFromFile(**options)({"img_path": str(path)})["img"].shape[:2]
    return width, height


def test_the_size_is_that_of_the_loaded_image(tmp_path):
    contents = {
        f"{kind}{tag}": encoded(picture(), kind, tag) for kind in ("JPEG", "PNG", "WEBP") for tag in (None, 1, 3, 6, 8)
    }
    contents["xmp"] = with_xmp(encoded(picture()))
    for (name, content), backend, flag in itertools.product(contents.items(), ("cv2", "pillow", None), FLAGS):
        path = write(tmp_path / f"{name}.jpg", content)
        options = {"imdecode_backend": backend, "color_type": flag}
        assert reader(**options).size(read_header(path)) == loaded(path, **options), (name, options)


def test_only_the_plain_loader_is_known():
    from cvplugins.openmmlab.data.image_readers import image_reader

    assert image_reader([{"type": "LoadMultiChannelImageFromFiles"}]) is None
    assert image_reader(None) is None
    assert reader(imdecode_backend="tifffile") is None


@pytest.mark.parametrize(
    ("backend", "sizes"),
    [("cv2", [(40_000, 40_000), (60_000, 20_000)]), ("pillow", [(40_000, 40_000), (60_000, 20_000)])],
)
def test_sizes_that_a_backend_refuses_are_refused(tmp_path, backend, sizes):
    for size in sizes:
        path = write(tmp_path / "a.jpg", claiming(encoded(picture()), *size))
        with pytest.raises(Exception, match=r"exceeds limit|CV_IO_MAX_IMAGE"):
            loaded(path, imdecode_backend=backend)
        assert "cut it into tiles" in reader(imdecode_backend=backend).problem(path, read_header(path))


@pytest.mark.parametrize(
    "resize",
    [
        {"type": "Resize", "scale": (60, 40), "keep_ratio": True},
        {"type": "RandomChoiceResize", "scales": [(60, 40), (80, 40)], "keep_ratio": True},
        {"type": "RandomResize", "scale": (120, 80), "ratio_range": (0.5, 0.5), "keep_ratio": True},
    ],
)
def test_a_side_that_resizing_would_lose_is_found(tmp_path, resize):
    from mmcv.transforms import TRANSFORMS  # mmdet's Resize inherits from mmcv's

    from cvplugins.openmmlab.data.image_readers import image_reader

    step = TRANSFORMS.build(resize | ({"scales": [(60, 40)]} if "scales" in resize else {}))
    limits = image_reader([{"type": "LoadImageFromFile"}, resize])
    for width in (119, 120, 121, 200):
        image = np.zeros((1, width, 3), np.uint8)
        try:
            survives = step({"img": image, "img_shape": (1, width)})["img"].size > 0
        except Exception:  # OpenCV's own error for a size of 0
            survives = False
        path = write(tmp_path / f"{width}.png", encoded(Image.fromarray(image), "PNG"))
        assert (limits.problem(path, read_header(path)) is None) == survives
    assert image_reader([{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (60, 40)}]).max_ratio == np.inf


def test_a_side_that_mmsegs_resizing_would_lose_is_found():
    from mmseg.datasets.transforms import ResizeShortestEdge

    from cvplugins.openmmlab.data.image_readers import image_reader

    step = {"type": "RandomChoiceResize", "scales": [40], "resize_type": "ResizeShortestEdge", "max_size": 60}
    limits = image_reader([{"type": "LoadImageFromFile"}, step])
    for width in (119, 120, 121, 200):
        height_left = ResizeShortestEdge(scale=40, max_size=60)._get_output_shape(np.zeros((1, width, 3)), 40)[1]
        assert (limits.problem("a.png", ImageHeader("PNG", width, 1)) is None) == (height_left > 0)


def test_labels_are_read_as_mmseg_reads_them(tmp_path):
    from mmseg.datasets.transforms import LoadAnnotations

    from cvplugins.openmmlab.data.image_readers import scene_reader

    values = np.array([[0, 1, 0], [2, 1, 3]], np.uint8)
    grey, palette = Image.fromarray(values), Image.fromarray(values).convert("P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 200, 0])
    exif = Image.Exif()
    exif[274] = 6
    for image, backend in itertools.product((grey, palette), ("pillow", "cv2")):
        image.save(tmp_path / "a.png", exif=exif)
        info = {"seg_map_path": str(tmp_path / "a.png"), "seg_fields": [], "reduce_zero_label": False}
        theirs = LoadAnnotations(imdecode_backend=backend)(info)["gt_seg_map"]
        ours = scene_reader([{"type": "LoadAnnotations", "imdecode_backend": backend}])
        assert np.array_equal(ours.read_labels(tmp_path / "a.png"), theirs)
        width, height = ours.label.size(read_header(tmp_path / "a.png"))
        assert theirs.shape[:2] == (height, width)
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"a\.png: cannot be read"):
        scene_reader(None).read_labels(tmp_path / "a.png")
