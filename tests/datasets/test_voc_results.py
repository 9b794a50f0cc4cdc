"""PASCAL VOC's files of results: which is whose, and what is wrong with a line."""

import os

import pytest

from cvplugins.datasets import DataError, read_voc_results

LINE = "000001 0.5 1 2 3 4\n"


def written(folder, *stems, **content):
    for stem in stems:
        (folder / f"{stem}.txt").write_text("")
    for stem, text in content.items():
        (folder / f"{stem}.txt").write_text(text)
    return folder


@pytest.mark.parametrize("prefix", ["", "comp4_det_test_"])
@pytest.mark.parametrize("others", [("police_car", "dog"), ("police_car",), ()])
def test_a_class_whose_name_ends_another(tmp_path, prefix, others):
    """``police_car.txt`` lies beside ``car.txt``, whether it is a class or not."""
    folder = written(tmp_path, f"{prefix}police_car", f"{prefix}dog", **{f"{prefix}car": LINE})
    found = read_voc_results(folder, ["car", *others])
    assert found["000001"][2].tolist() == [0]


def test_names_of_images_with_blanks(tmp_path):
    folder = written(tmp_path, dog="\ufeffmy dog 2 0.5 1 2 3 4\n")
    boxes, scores, _ = read_voc_results(folder, ["dog"])["my dog 2"]
    assert (boxes.tolist(), scores.tolist()) == ([[1, 2, 3, 4]], [0.5])


def test_boxes_of_less_than_a_pixel_as_detectron2_writes_them(tmp_path):
    """Its evaluator adds 1 to xmin and ymin: a box from 10.0 to 10.3 becomes 11.0 to 10.3."""
    assert read_voc_results(written(tmp_path, dog="a 0.5 11.0 11.0 10.3 10.3\n"), ["dog"])["a"][0].tolist() == [
        [11.0, 11.0, 10.3, 10.3]
    ]


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (["police_car", "dog"], "expected one file of class car, such as comp4_det_test_car.txt; found none"),
        (["comp3_car", "comp4_car", "comp4_dog"], "of class car, .* found comp3_car.txt, comp4_car.txt"),
        (["car"], "of class dog"),
    ],
)
def test_files_that_are_missing_or_double(tmp_path, stems, message):
    if "police_car" in stems:
        with pytest.raises(DataError, match=message):
            read_voc_results(written(tmp_path, *stems), ["car", "police_car", "dog"])
    else:
        with pytest.raises(DataError, match=message):
            read_voc_results(written(tmp_path, *stems), ["car", "dog"] if len(stems) == 1 else ["car"])


@pytest.mark.parametrize(
    ("stems", "classes", "found"),
    [
        (["car", "comp4_det_test_car"], ["car"], "car.txt, comp4_det_test_car.txt"),
        (["car", "dog", "comp4_det_test_car"], ["car", "dog"], "car.txt, comp4_det_test_car.txt"),
        (["car", "comp4_det_test_car", "comp4_det_test_dog"], ["car", "dog"], "car.txt, comp4_det_test_car.txt"),
        (["comp4_car", "comp4_det_test_car"], ["car"], "comp4_car.txt, comp4_det_test_car.txt"),
        (["car", "results_car", "police_car"], ["car"], "car.txt, results_car.txt"),
    ],
)
def test_two_results_of_one_class_by_two_patterns_are_named(tmp_path, stems, classes, found):
    """Oracle: nothing says which of the two is meant."""
    with pytest.raises(DataError, match=f"of class car, .* found {found}"):
        read_voc_results(written(tmp_path, *stems), classes)


@pytest.mark.parametrize("prefix", ["", "comp4_det_test_"])
def test_files_of_longer_names_are_other_classes(tmp_path, prefix):
    folder = written(tmp_path, f"{prefix}police_car", **{f"{prefix}car": "a 0.5 1 2 3 4\n"})
    assert list(read_voc_results(folder, ["car"])) == ["a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 0.5 1 2 3", "expected image, score, xmin, ymin, xmax, ymax"),
        ("a high 1 2 3 4", "expected image, score"),
        ("a nan 1 2 3 4", "expected image, score"),
        ("a 0.5 1 2 inf 4", "expected image, score"),
        ("a 0.5 9 2 3 4", r"the box \[9, 2, 3, 4\] ends before it begins"),
        ("a 0.5 1 2 3 4 5", "image 'a 0.5' is none of the annotations'"),
        ("b 0.5 1 2 3 4", "image 'b' is none of the annotations'"),
    ],
)
def test_lines(tmp_path, line, message):
    folder = written(tmp_path, dog=f"a 0.5 1 2 3 4\n\n{line}\n")
    with pytest.raises(DataError, match=rf"dog\.txt, line 3: {message}"):
        read_voc_results(folder, ["dog"], {"a": None})


def test_files_that_are_no_text(tmp_path):
    folder = written(tmp_path)
    (folder / "dog.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"dog\.txt: cannot be read as text"):
        read_voc_results(folder, ["dog"])
    (folder / "dog.txt").unlink()
    os.mkfifo(folder / "dog.txt")
    with pytest.raises(DataError, match=r"dog\.txt: cannot read the file, it is a named pipe"):
        read_voc_results(folder, ["dog"])
