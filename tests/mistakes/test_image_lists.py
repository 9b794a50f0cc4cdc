"""Lists of images as editors and VOC's per-class lists leave them.

Oracles: lists written by hand, and mmengine's ``list_from_file``, which takes every line as it is.
"""

import pytest
from annotations import check, config, dataset, write_devkit

from cvplugins.datasets import read_image_list
from cvplugins.errors import UserError

LIST = "VOC2007/ImageSets/Main/trainval.txt"
IDS = ("1", "photo 1", "a b")
DIRTY = {
    "a byte order mark": b"\xef\xbb\xbf1\nphoto 1\na b\n",
    "trailing blanks and tabs": b"1 \nphoto 1\t\na b  \t\n",
    "leading blanks": b" 1\n\tphoto 1\na b\n",
    "empty lines": b"1\n\nphoto 1\na b\n\n \n",
    "flags": b"1  1\nphoto 1 -1\na b  0\n",
    "flags with line ends of Windows": b"1  1\r\nphoto 1 -1\r\na b  0\r\n",
    "UTF-16": "\ufeff1\nphoto 1\na b\n".encode("utf-16-le"),
}
CLEAN = {
    "line ends of Unix": b"1\nphoto 1\na b\n",
    "line ends of Windows": b"1\r\nphoto 1\r\na b\r\n",
    "line ends of old Macs": b"1\rphoto 1\ra b\r",
    "no end of the last line": b"1\nphoto 1\na b",
}


@pytest.fixture
def devkit(tmp_path):
    return write_devkit(tmp_path / "VOCdevkit", {name: [("dog", (5, 5, 30, 30))] for name in IDS})


@pytest.mark.parametrize("kind", [*DIRTY, *CLEAN])
def test_every_list_gives_its_ids(devkit, kind):
    (devkit / LIST).write_bytes({**DIRTY, **CLEAN}[kind])
    found = read_image_list(devkit / LIST, devkit / "VOC2007" / "Annotations")
    assert found.ids == IDS
    assert found.plain == (kind in CLEAN)
    assert found.flagged == (3 if "flags" in kind else 0)


@pytest.mark.openmmlab
@pytest.mark.parametrize("kind", [*DIRTY, *CLEAN])
def test_mmdet_gets_the_clean_list(devkit, tmp_path, kind):
    from mmdet.datasets import VOCDataset
    from mmengine.fileio import list_from_file

    (devkit / LIST).write_bytes({**DIRTY, **CLEAN}[kind])
    cfg = config(dataset("VOCDataset", devkit, LIST, ("dog",), pipeline=[]), work_dir=str(tmp_path / "work"))
    check(cfg)
    node = cfg.train_dataloader.dataset
    assert list_from_file(VOCDataset(**{k: v for k, v in node.items() if k != "type"}).ann_file) == list(IDS)
    assert (tmp_path / "work").exists() == (kind in DIRTY)


@pytest.mark.openmmlab
def test_lists_of_one_name_in_two_devkits(devkit, tmp_path):
    from mmengine.fileio import list_from_file

    other = write_devkit(tmp_path / "other", {"7": [("dog", (5, 5, 30, 30))]})
    for root in (devkit, other):
        (root / LIST).write_bytes(b"\xef\xbb\xbf" + (root / LIST).read_bytes())
    sets = [dataset("VOCDataset", root, LIST, ("dog",)) for root in (devkit, other)]
    cfg = config({"type": "ConcatDataset", "datasets": sets}, work_dir=str(tmp_path / "work"))
    check(cfg)
    read = [list_from_file(each.ann_file) for each in cfg.train_dataloader.dataset.datasets]
    assert read == [list(IDS), ["7"]]


@pytest.mark.openmmlab
def test_broken_images_are_taken_off_the_list(devkit, tmp_path):
    from mmengine.fileio import list_from_file

    (devkit / "VOC2007" / "JPEGImages" / "a b.jpg").write_bytes(b"none")
    train = dataset("VOCDataset", devkit, LIST, ("dog",))
    cfg = config(train, work_dir=str(tmp_path / "work"), skip_broken=True)
    check(cfg)
    assert list_from_file(cfg.train_dataloader.dataset.ann_file) == ["1", "photo 1"]


@pytest.mark.openmmlab
def test_folders_of_ones_own(tmp_path):
    """XMLDataset's img_subdir and ann_subdir, and a list anywhere."""
    root = write_devkit(tmp_path / "kit", {"1": [("dog", (5, 5, 30, 30))]})
    (root / "VOC2007" / "JPEGImages").rename(root / "VOC2007" / "photos")
    (root / "VOC2007" / "Annotations").rename(root / "VOC2007" / "xml")
    (root / LIST).rename(root / "mine.txt")
    train = dataset("VOCDataset", root, "mine.txt", ("dog",), img_subdir="photos", ann_subdir="xml")
    check(config(train))
    (root / "VOC2007" / "xml" / "1.xml").unlink()
    with pytest.raises(UserError, match=r"mine\.txt: 1 of 1 images .*xml/1\.xml: cannot read the annotation"):
        check(config(train))


@pytest.mark.openmmlab
def test_capital_suffixes_are_named_where_the_loader_takes_small_ones(devkit):
    photo = devkit / "VOC2007" / "JPEGImages" / "1.jpg"
    photo.rename(photo.with_suffix(".JPG"))
    message = r"1\.jpg: cannot read the image.*; there is 1\.JPG, but the reader looks for \.jpg: rename"
    with pytest.raises(UserError, match=message):
        check(config(dataset("VOCDataset", devkit, LIST, ("dog",))))


@pytest.mark.detectron2
def test_capital_suffixes_are_read_where_the_loader_is_ours(devkit):
    from cvplugins.detectron2.data.voc import voc_records

    photo = devkit / "VOC2007" / "JPEGImages" / "1.jpg"
    photo.rename(photo.with_suffix(".JPG"))
    names = [each["file_name"].rpartition("/")[2] for each in voc_records(devkit, "VOC2007", "trainval", ("dog",))]
    assert names == ["1.JPG", "photo 1.jpg", "a b.jpg"]


@pytest.mark.openmmlab
def test_capital_suffixes_beside_small_ones_in_a_folder_of_label_maps(tmp_path):
    for folder in ("img", "map"):
        (tmp_path / folder).mkdir()
    for name in ("a.jpg", "b.JPG"):
        (tmp_path / "img" / name).touch()
    prefix = {"img_path": "img", "seg_map_path": "map"}
    train = dataset("BaseSegDataset", tmp_path, "", ("road",), data_prefix=prefix)
    with pytest.raises(UserError, match=r"img: 1 of 2 images, such as b\.JPG, would be left out, because img_suffix"):
        check(config(train, default_scope="mmseg"))


@pytest.mark.openmmlab
def test_lists_of_label_maps(tmp_path):
    """mmseg strips lines, but takes a byte order mark for part of a name and an empty line for an image."""
    from mmseg.datasets import BaseSegDataset

    from cvplugins.openmmlab.data.segmentation_files import clean_lists
    from cvplugins.openmmlab.data.written_lists import WrittenLists

    for folder, suffix in (("img", ".jpg"), ("map", ".png")):
        (tmp_path / folder).mkdir()
        for name in ("a", "b 1"):
            (tmp_path / folder / f"{name}{suffix}").touch()
    prefix = {"img_path": "img", "seg_map_path": "map"}
    node = dataset("BaseSegDataset", tmp_path, "list.txt", ("road",), data_prefix=prefix)
    for text, is_plain in (("a \nb 1\n", True), ("\ufeffa\nb 1\n\n", False), ("a -1\nb 1 1\n", False)):
        (tmp_path / "list.txt").write_text(text, encoding="utf-8")
        cfg = config(dict(node), default_scope="mmseg")
        clean = clean_lists(cfg, ("train_dataloader",), WrittenLists(tmp_path / "work"))
        assert (clean == {}) == is_plain
        options = {key: value for key, value in cfg.train_dataloader.dataset.items() if key not in ("type", "pipeline")}
        loaded = BaseSegDataset(**options)
        names = [loaded.get_data_info(index)["img_path"].rpartition("/")[2] for index in range(len(loaded))]
        assert names == ["a.jpg", "b 1.jpg"]
