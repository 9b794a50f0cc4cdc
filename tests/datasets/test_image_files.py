"""Headers of image files. Oracle: how each file was made, and what Pillow decodes."""

import os
import tracemalloc

import pytest
from odd_images import changed, claiming, encoded, picture, scan_replaced, with_chunk, with_xmp, write
from PIL import Image

from cvplugins.datasets.image_files import ImageHeader, has_broken_scan, read_header
from cvplugins.datasets.image_readers import ImageReader, check_images, size_problem
from cvplugins.datasets.regular_files import read_bytes
from cvplugins.errors import DataError

JPEG, PNG = encoded(picture()), encoded(picture(), "PNG")
UPRIGHT = ImageHeader("JPEG", 40, 30)


def header(tmp_path, content, name="a.jpg"):
    return read_header(write(tmp_path / name, content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"])
def test_the_size_is_read_whatever_the_name_says(tmp_path, kind):
    found = header(tmp_path, encoded(picture(), kind), "a.jpg")
    assert (found.format, found.width, found.height, found.orientation) == (kind, 40, 30, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_is_read(tmp_path, kind, orientation):
    found = header(tmp_path, encoded(picture(), kind, orientation))
    assert found.orientation == found.pillow_orientation == orientation
    assert ImageReader().size(found) == ((30, 40) if orientation >= 5 else (40, 30))
    assert ImageReader(turns="none").size(found) == (40, 30)


def test_an_orientation_in_xmp_is_pillows_alone(tmp_path):
    found = header(tmp_path, with_xmp(JPEG))
    assert (found.orientation, found.pillow_orientation) == (1, 6)


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    assert header(tmp_path, with_chunk(PNG, b"eXIf", exif.tobytes()[6:], last=True)).orientation == 6


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(tmp_path, orientation):
    assert header(tmp_path, encoded(picture(), "JPEG", orientation)).orientation == 1


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\0\0\0\x18ftypmp42" + b"video" * 400_000, b"\r\n", b"\0" * 900])
def test_bytes_behind_the_end_are_fine(tmp_path, tail):
    found = header(tmp_path, JPEG + tail)
    assert (found.width, found.height) == (40, 30)
    assert found.trailing == (len(tail) > 1024)
    assert Image.open(tmp_path / "a.jpg").convert("RGB").size == (40, 30)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "not an image (it starts with bytes 3c 68 74 6d 6c 3e 34 30)"),
        (JPEG[:-2], "truncated JPEG (no end marker)"),
        (JPEG[:300], "truncated JPEG"),
        (JPEG[: len(JPEG) // 2].ljust(len(JPEG), b"\0"), "truncated JPEG (no end marker)"),
        (changed(JPEG, b"\xff\xc4", 6, b"\xff" * 10), "damaged JPEG, its tables"),
        (changed(JPEG, b"\xff\xdb", 4, b"\x07"), "damaged JPEG, its tables"),
        (changed(JPEG, b"\xff\xc0", 11, b"\x00"), "damaged JPEG, its tables"),
        (changed(JPEG, b"\xff\xda", 4, b"\x07"), "damaged JPEG, its tables"),
        (changed(JPEG, b"\xff\xc0", 9, b"\x09"), "damaged JPEG, its header"),
        (claiming(JPEG, 0, 30), "an image of no size (0 x 30 pixels)"),
        (claiming(JPEG, 40, 0), "an image of no size (40 x 0 pixels)"),
        (claiming(PNG, 0, 30), "an image of no size (0 x 30 pixels)"),
        (PNG[:-12], "truncated PNG"),
        (PNG[:100], "truncated PNG"),
        (changed(PNG, b"IHDR", 6, b"\x07"), "damaged PNG, the checksum of its header is wrong"),
        (encoded(picture(), "WEBP")[:-20], "the image cannot be read"),
    ],
)
def test_what_no_loader_reads_is_named(tmp_path, content, said):
    with pytest.raises(DataError) as caught:
        header(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jpg'}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, kind in (("pipe.jpg", "a named pipe"), (".", "a folder"), ("/dev/zero", "a device")):
        with pytest.raises(DataError, match=f"it is {kind} and not a file"):
            read_header(tmp_path / path)
    with pytest.raises(DataError, match="No such file"):
        read_header(tmp_path / "none.jpg")


@pytest.mark.parametrize("size", [(40_000, 40_000), (60_000, 20_000), (40_000, 1), (65_500, 65_500)])
@pytest.mark.parametrize("image", [PNG, JPEG])
def test_memory_is_bounded_whatever_size_is_claimed(tmp_path, image, size):
    tracemalloc.start()
    found = header(tmp_path, claiming(image, *size))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.width, found.height) == size
    assert peak < 4e6


def test_a_png_with_a_huge_text_is_what_pillow_says(tmp_path):
    import zlib

    text = with_chunk(PNG, b"zTXt", b"k\0\0" + zlib.compress(b"a" * (2 << 20)))
    found = header(tmp_path, text, "a.png")
    with pytest.raises(ValueError, match="too large") as caught:
        Image.open(tmp_path / "a.png")
    assert found.refused_by_pillow == str(caught.value)
    reader = ImageReader(name="Pillow", uses_pillow=True)
    assert "Pillow refuses it (Decompressed data too large" in str(reader.problem("a.png", found))
    assert ImageReader().problem("a.png", found) is None
    assert header(tmp_path, with_chunk(PNG, b"tEXt", b"k\0short"), "b.png").refused_by_pillow == ""


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((30, 4), None),
        ((31, 4), "31 x 4 pixels; r reads sides up to 30"),
        ((20, 11), "20 x 11 pixels; r reads up to 200 in all"),
        ((24, 2), None),
        ((25, 2), "Resize would leave no pixel of its short side: the long side may be at most 12 times"),
    ],
)
def test_the_limits_of_a_loader_are_named(size, said):
    reader = ImageReader(name="r", max_side=30, max_pixels=200, max_ratio=12, resized_by="Resize")
    problem = reader.problem("a.jpg", ImageHeader("JPEG", *size))
    assert problem is None if said is None else said in str(problem)


TURNED = ImageHeader("JPEG", 40, 30, 6, 6)


@pytest.mark.parametrize(
    ("found", "reader", "expected", "said"),
    [
        (UPRIGHT, ImageReader(), (40, 30), None),
        (TURNED, ImageReader(), (30, 40), None),
        (TURNED, ImageReader(), (40, 30), "by its orientation tag 6, but <size> says 40 x 30, its stored pixels"),
        (TURNED, ImageReader(turns="none"), (40, 30), None),
        (TURNED, ImageReader(turns="none"), (30, 40), "without regard to its orientation tag 6"),
        (UPRIGHT, ImageReader(), (30, 40), "width and height are swapped; correct <size>"),
        (UPRIGHT, ImageReader(), (80, 60), "is 40 x 30 pixels, but <size> says 80 x 60: take the image that was"),
        (ImageHeader("JPEG", 40, 30, 1, 6), ImageReader(turns="pillow"), (40, 30), "orientation tag 6"),
    ],
)
def test_sizes_are_compared_as_the_loader_sees_them(found, reader, expected, said):
    problem = size_problem("a.jpg", found, reader, expected, "<size>")
    assert problem is None if said is None else said in str(problem)


def test_unusual_images_pass_with_a_warning(tmp_path):
    contents = {
        "png.jpg": PNG,
        "png2.jpg": PNG,
        "upside_down.jpg": encoded(picture(), "JPEG", 3),
        "square.jpg": encoded(picture(30, 30), "JPEG", 6),
        "video.jpg": JPEG + b"video" * 1000,
        "plain.JPG": JPEG,
        "turned.jpg": encoded(picture(), "JPEG", 6),  # its annotation has the size as turned
    }
    sizes = [(picture().height, picture().width) if name == "turned.jpg" else None for name in contents]
    paths = [write(tmp_path / name, content) for name, content in contents.items()]
    found = check_images(paths, ImageReader(name="the loader"), sizes)
    assert found.problems == [None] * len(paths)
    assert [warning.partition(":")[0].partition(";")[0] for warning in found.warnings] == [
        "2 image(s) named .jpg but of the format PNG",
        "2 image(s) turned or mirrored by an orientation tag when the loader reads them",
        "1 image(s) with more bytes behind their end, which loaders pass over",
    ]
    assert all(warning.endswith(".jpg") for warning in found.warnings)
    # Without a size nothing tells on which pixels an annotation was made.
    assert "3 image(s) turned" in " ".join(check_images(paths, ImageReader(name="the loader")).warnings)


def test_damage_within_the_pixels_is_found_by_decoding_all(tmp_path):
    paths = [write(tmp_path / "a.jpg", JPEG), write(tmp_path / "b.jpg", scan_replaced(encoded(picture(200, 150))))]
    assert check_images(paths, ImageReader()).problems == [None, None]
    whole, damaged = check_images(paths, ImageReader(full=True)).problems
    assert whole is None
    assert "b.jpg: damaged, its pixels" in str(damaged)


def test_damage_that_decoders_fill_with_grey_is_found(tmp_path):
    """Oracle: the pixels that Pillow decodes without a word."""
    jpeg = encoded(picture(200, 150))
    found = set()
    for seed in range(8):
        path = write(tmp_path / f"{seed}.jpg", scan_replaced(jpeg, seed))
        try:
            same = Image.open(path).tobytes() == Image.open(write(tmp_path / "whole.jpg", jpeg)).tobytes()
        except OSError:
            continue
        assert not same
        found |= {seed} if has_broken_scan(path) else set()
        assert check_images([path], ImageReader(full=True)).problems[0] is not None
    assert found


@pytest.mark.parametrize("progressive", [False, True])
def test_whole_pixels_hold_no_broken_bytes(tmp_path, progressive):
    picture(200, 150).save(tmp_path / "a.jpg", progressive=progressive, restart_marker_blocks=1, quality=95)
    assert not has_broken_scan(tmp_path / "a.jpg")


def test_no_real_photograph_is_broken(real_voc):
    for path in (real_voc / "VOCdevkit").rglob("*.jpg"):
        assert not has_broken_scan(path)


def test_what_only_the_own_decoder_refuses_is_found_too(tmp_path):
    def fails(path):
        raise RuntimeError("no such codec")

    path = write(tmp_path / "a.jpg", JPEG)
    (problem,) = check_images([path], ImageReader(name="X", decode=fails, full=True)).problems
    assert problem == f"{path}: damaged, X cannot decode it (no such codec)"


def test_a_format_that_pillow_does_not_know_is_tried_by_the_loader(tmp_path):
    path = write(tmp_path / "a.tif", b"five channels")
    assert "not an image" in str(check_images([path], ImageReader()).problems[0])
    assert check_images([path], ImageReader(decode=read_bytes)).problems == [None]
    assert check_images([path], ImageReader(decode=read_bytes, uses_pillow=True)).problems[0] is not None
