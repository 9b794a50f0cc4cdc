"""The reader and the check of VOC data.

Oracles: annotations written by hand; the standard library's own XML parser and Pillow's full decoding on the sample
and on real photographs; and copies of the sample, each broken in one way.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cvplugins.datasets import VOC_CLASSES, DataError, VOCObject, check_voc, read_annotation, read_split

TRAINVAL = [("VOC2007", "trainval")]

DOG = """<annotation>
  <filename>000001.jpg</filename>
  <size><width>40</width><height>30</height><depth>3</depth></size>
  <object>
    <name>dog</name>
    <pose>Left</pose>
    <truncated>1</truncated>
    <difficult>0</difficult>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>
  </object>
</annotation>
"""


@pytest.fixture
def annotation(tmp_path):
    """Write an annotation and return its path."""

    def write(text):
        path = tmp_path / "000001.xml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def devkit(tmp_path, sample):
    """A copy of the sample's first 15 training images."""
    copy = tmp_path / "VOCdevkit"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (copy / "VOC2007" / part).mkdir(parents=True)
    ids = read_split(sample, *TRAINVAL[0])[:15]
    for image_id in ids:
        for file in (f"JPEGImages/{image_id}.jpg", f"Annotations/{image_id}.xml"):
            shutil.copy(sample / "VOC2007" / file, copy / "VOC2007" / file)
    (copy / "VOC2007/ImageSets/Main/trainval.txt").write_text("\n".join(ids))
    return copy


def test_the_classes_are_vocs_in_alphabetical_order():
    assert len(set(VOC_CLASSES)) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


@pytest.mark.openmmlab
def test_the_classes_are_mmdets():
    from mmdet.datasets import VOCDataset

    assert VOCDataset.METAINFO["classes"] == VOC_CLASSES


def test_an_annotation_by_hand(annotation):
    read = read_annotation(annotation(DOG))
    assert (read.filename, read.width, read.height) == ("000001.jpg", 40, 30)
    assert read.objects == (VOCObject("dog", 1, 2, 40, 30, difficult=False, truncated=True, pose="Left"),)


def test_what_may_be_absent_and_what_other_tasters_add(annotation):
    text = DOG.replace("<pose>Left</pose>", "").replace("<truncated>1</truncated>", "")
    text = text.replace("<difficult>0</difficult>", "").replace("<filename>000001.jpg</filename>", "")
    text = text.replace("<xmin>1</xmin>", "<xmin>1.75</xmin>")
    part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></part>"
    read = read_annotation(annotation(text.replace("</object>", f"{part}</object>")))
    assert read.filename == ""
    assert read.objects == (VOCObject("dog", 1.75, 2, 40, 30),)


def test_an_image_without_objects(annotation):
    text = DOG[: DOG.index("<object>")] + "</annotation>"
    assert read_annotation(annotation(text)).objects == ()


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("</object>", "", 11, "mismatched tag"),
        ("</annotation>", "", 12, "no element found"),
        ("<size>", "<size & >", 3, "not well-formed"),
        ("<height>30</height>", "", 3, "<size> has no <height>"),
        ("<width>40</width>", "<width>-1</width>", 3, "<width> is '-1'"),
        ("<width>40</width>", "<width>40.0</width>", 3, "<width> is '40.0'"),
        ("<ymax>30</ymax>", "", 9, "<bndbox> has no <ymax>"),
        ("<name>dog</name>", "", 4, "<object> has no <name>"),
        ("<ymin>2</ymin>", "<ymin>two</ymin>", 9, "<ymin> is 'two', not a number"),
        ("<ymin>2</ymin>", "<ymin>nan</ymin>", 9, "<ymin> is 'nan', not a number"),
        ("<ymin>2</ymin>", "<ymin/>", 9, "<ymin> is None, not a number"),
        ("<xmax>40</xmax>", "<xmax>0</xmax>", 9, "inside out: xmin 1, ymin 2, xmax 0, ymax 30"),
        ("<ymin>2</ymin>", "<ymin>30.5</ymin>", 9, "inside out: xmin 1, ymin 30.5, xmax 40, ymax 30"),
        ("<difficult>0</difficult>", "<difficult>no</difficult>", 8, "<difficult> is 'no'"),
    ],
)
def test_a_broken_annotation_names_file_line_and_what(annotation, old, new, line, what):
    assert old in DOG
    path = annotation(DOG.replace(old, new))
    with pytest.raises(DataError) as error:
        read_annotation(path)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert what in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["<name>wolf</name>", "<name> dog</name>", "<name/>"])
def test_objects_of_other_classes_are_left_out_unread(annotation, name):
    """As mmdet's XMLDataset does: it looks at the name before the box."""
    text = DOG.replace("<name>dog</name>", name).replace("<xmin>1</xmin>", "<xmin>one</xmin>")
    read = read_annotation(annotation(text))
    assert read.objects == ()
    assert f"<name>{read.others[0]}</name>" == name.replace("<name/>", "<name></name>")


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>',
        '<!DOCTYPE annotation SYSTEM "file:///etc/passwd">',
        "<!DOCTYPE annotation>",
    ],
)
def test_a_doctype_is_refused(annotation, doctype):
    with pytest.raises(DataError, match="line 1: a DOCTYPE is not allowed"):
        read_annotation(annotation(doctype + DOG))


@pytest.mark.parametrize("encoding", ["shift_jis", "no-such-encoding"])
def test_an_unknown_encoding_is_an_error_of_the_data(annotation, encoding):
    with pytest.raises(DataError, match=r"line 1: .*UTF-8"):
        read_annotation(annotation(f'<?xml version="1.0" encoding="{encoding}"?>{DOG}'))


def test_an_empty_and_a_missing_annotation(annotation, tmp_path):
    with pytest.raises(DataError, match="line 1: malformed XML, no element found"):
        read_annotation(annotation(""))
    with pytest.raises(DataError, match=r"nowhere\.xml: cannot read the annotation, No such file"):
        read_annotation(tmp_path / "nowhere.xml")


def _list(devkit, name, text):
    path = devkit / "VOC2007" / "ImageSets" / "Main" / f"{name}.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize("text", ["000002\n000001\n", "000002  1\r\n000001 -1\r\n\r\n", "\ufeff000002\n000001"])
def test_lists_with_flags_blank_lines_and_a_byte_order_mark(devkit, text):
    _list(devkit, "dog_train", text)
    assert read_split(devkit, "VOC2007", "dog_train") == ["000002", "000001"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "names no image"),
        ("\n \n", "names no image"),
        ("000001\n000002\n000001\n", r"line 3: names image 000001 again \(first in line 1\)"),
        (b"\xff\xd8\xff\xe0", "not a text file"),
    ],
)
def test_a_broken_list(devkit, text, what):
    _list(devkit, "odd", text)
    with pytest.raises(DataError, match=rf"odd\.txt.*{what}"):
        check_voc(devkit, [("VOC2007", "odd")])


def test_a_missing_list_names_those_that_exist(devkit):
    _list(devkit, "val", "000001")
    with pytest.raises(DataError, match=r"test\.txt: cannot read the split, .*; lists in its folder: trainval, val$"):
        check_voc(devkit, [("VOC2007", "test")])


@pytest.mark.parametrize("missing", [".", "VOC2007", "VOC2007/JPEGImages", "VOC2007/Annotations", "VOC2007/ImageSets"])
def test_a_missing_folder_says_what_was_looked_for_and_what_to_do(devkit, missing):
    shutil.rmtree(devkit / missing)
    with pytest.raises(DataError) as error:
        check_voc(devkit, TRAINVAL)
    message = str(error.value)
    assert str((devkit / missing).absolute()) in message
    for hint in (
        "cvplugins data get voc0712",
        "ImageSets/Main",
        "configs/voc_faster_rcnn_sample.py",
        "data/sample/VOCdevkit",
    ):
        assert hint in message
    assert "\n" not in message


def test_the_sample_that_the_message_names_exists(root):
    assert (root / "configs/voc_faster_rcnn_sample.py").is_file()
    assert (root / "data/sample/VOCdevkit/VOC2007").is_dir()


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def _fill_with_zeros(path):
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2].ljust(size, b"\0"))


def _to_png(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + path.read_bytes())


BREAKAGES = [
    ("JPEGImages/000003.jpg", Path.unlink, "cannot read the image, No such file"),
    ("JPEGImages/000003.jpg", _truncate, "truncated JPEG"),
    ("JPEGImages/000003.jpg", _fill_with_zeros, "truncated JPEG"),
    ("JPEGImages/000003.jpg", _to_png, "truncated PNG"),
    ("JPEGImages/000003.jpg", lambda path: path.write_bytes(b"<html>"), "not an image .*3c 68 74"),
    ("JPEGImages/000003.jpg", lambda path: path.write_bytes(b""), "the file is empty"),
    ("Annotations/000003.xml", Path.unlink, "cannot read the annotation, No such file"),
    ("Annotations/000003.xml", _truncate, "line .*: malformed XML"),
]


@pytest.mark.parametrize(("file", "damage", "what"), BREAKAGES)
def test_a_broken_file_is_named(devkit, file, damage, what):
    damage(devkit / "VOC2007" / file)
    with pytest.raises(DataError, match=rf"^VOC2007 trainval: 1 of 15 images .*{file}.*{what}.*skip_broken=True$"):
        check_voc(devkit, TRAINVAL)


@pytest.mark.parametrize(("file", "damage", "what"), BREAKAGES)
def test_a_broken_file_can_be_skipped(devkit, file, damage, what):
    damage(devkit / "VOC2007" / file)
    report = check_voc(devkit, TRAINVAL, skip_broken=True)
    ((image_id, reason),) = report.broken
    assert image_id == "000003"
    assert file in reason
    assert report.splits[0].images == 14


def test_padding_after_the_end_of_an_image_is_fine(devkit):
    for path, padding in zip((devkit / "VOC2007/JPEGImages").iterdir(), (b"\0", b"\0" * 500, b"\r\n"), strict=False):
        path.write_bytes(path.read_bytes() + padding)
    assert check_voc(devkit, TRAINVAL).splits[0].images == 15


def test_the_end_of_an_embedded_thumbnail_is_not_the_end_of_the_image(devkit):
    path = devkit / "VOC2007/JPEGImages/000003.jpg"
    content = path.read_bytes()
    thumbnail = b"\xff\xe1\x00\x06\xff\xd8\xff\xd9"  # an APP1 segment of 6 bytes
    path.write_bytes(content[:2] + thumbnail + content[2:])
    assert check_voc(devkit, TRAINVAL).broken == ()
    _truncate(path)
    with pytest.raises(DataError, match=r"000003\.jpg: truncated JPEG"):
        check_voc(devkit, TRAINVAL)


def test_many_missing_images_are_counted_and_the_first_ones_listed(devkit):
    for number in range(2, 14):
        (devkit / f"VOC2007/JPEGImages/{number:06d}.jpg").unlink()
    with pytest.raises(DataError) as error:
        check_voc(devkit, TRAINVAL)
    further = ", ".join(f"{number:06d}" for number in range(3, 13))
    assert "12 of 15 images missing or broken" in str(error.value)
    assert "000002.jpg" in str(error.value)
    assert f"; further: {further} and 1 more. " in str(error.value)


def test_nothing_whole_is_an_error_even_when_skipping(devkit):
    shutil.rmtree(devkit / "VOC2007/JPEGImages")
    (devkit / "VOC2007/JPEGImages").mkdir()
    with pytest.raises(DataError, match="15 of 15 images missing"):
        check_voc(devkit, TRAINVAL, skip_broken=True)


ALL_SPLITS = [("VOC2007", "trainval"), ("VOC2007", "test"), ("VOC2012", "trainval")]


def _assert_report_agrees_with_elementtree(devkit):
    report = check_voc(devkit, ALL_SPLITS)
    assert report.broken == ()
    for split in report.splits:
        ids = (devkit / split.year / f"ImageSets/Main/{split.name}.txt").read_text().split()
        trees = [ElementTree.parse(devkit / split.year / f"Annotations/{image_id}.xml") for image_id in ids]
        assert split.images == len(ids)
        assert split.objects == sum(len(tree.findall("object")) for tree in trees)
        assert split.difficult == sum(
            tree.findtext("difficult") == "1" for tree in trees for tree in tree.iter("object")
        )


def test_the_sample_is_whole(sample):
    _assert_report_agrees_with_elementtree(sample)


def test_real_photographs_are_whole(real_voc):
    _assert_report_agrees_with_elementtree(real_voc / "VOCdevkit")


def test_a_real_photograph_cut_anywhere_is_truncated(real_voc, tmp_path):
    """A cut file is one that Pillow cannot decode."""
    image = pytest.importorskip("PIL.Image")
    source = real_voc / "VOCdevkit/VOC2007"
    shutil.copytree(source, tmp_path / "VOC2007")
    ids = read_split(tmp_path, *TRAINVAL[0])
    for number, image_id in enumerate(ids):
        path = tmp_path / f"VOC2007/JPEGImages/{image_id}.jpg"
        content = path.read_bytes()
        path.write_bytes(content[: max(3, len(content) * number // len(ids))])
        with pytest.raises(OSError, match=r"trunca|identify"):
            image.open(path).load()
    with pytest.raises(DataError, match=f"{len(ids)} of {len(ids)} .* truncated JPEG"):
        check_voc(tmp_path, TRAINVAL)


def test_the_package_needs_no_image_library():
    code = "import sys, cvplugins.datasets; print(any(name == 'PIL' or name == 'cv2' for name in sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
