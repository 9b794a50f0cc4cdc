"""Mistakes in files of results and annotations: one line that names file, entry, key and value; exit code 2."""

import copy
import json
import math
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from coco_files import rectangle

from cvplugins.cli import main

RUNS = {"size": [20, 30], "counts": [0, 4, 596]}
NAN, INFINITY = float("nan"), float("inf")
WHOLE_OR_TEXT = "expected a whole number or a text"
BOX = "expected [x, y, width, height]"


def annotations():
    return {
        "images": [dict(id=number, file_name=f"{number}.jpg", height=20, width=30) for number in (7, 3, 5)],
        "categories": [dict(id=18, name="dog"), dict(id=4, name="cat"), dict(id=9, name="cow")],
        "annotations": [
            dict(id=1, image_id=3, category_id=4, bbox=[1, 2, 3, 4], area=12, segmentation=rectangle(1, 2, 3, 4)),
            dict(id=2, image_id=7, category_id=18, bbox=[0, 0, 1, 1], area=1, iscrowd=1, segmentation=RUNS),
        ],
    }


def results():
    return [
        dict(image_id=7, category_id=4, bbox=[1, 2, 3, 4], score=0.5, segmentation=rectangle(1, 2, 3, 4)),
        dict(image_id=3, category_id=18, bbox=[1.5, 2, 3, 4], score=0.25, segmentation=copy.deepcopy(RUNS)),
    ]


@pytest.fixture
def answer(tmp_path, capsys, monkeypatch):
    """Evaluate files in an empty folder; return the exit code and the error, of which there is one line."""
    monkeypatch.chdir(tmp_path)

    def run(*options, truth=None, found=None, predictions="found.json"):
        for name, content in (("truth.json", truth or annotations()), ("found.json", found or results())):
            if not os.path.lexists(name):
                (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        code = main(["evaluate", predictions, "--annotations", "truth.json", *options])
        errors = capsys.readouterr().err.splitlines()
        for name in ("truth.json", "found.json"):
            os.remove(name)
        assert len(errors) == (code == 2), errors
        return code, "".join(errors)

    return run


def test_whole_files_pass(answer):
    assert answer() == (0, "")
    assert answer("--boxes") == (0, "")
    assert answer(found="[]") == (0, "")


FIELDS = [
    *(("images", "id", value, WHOLE_OR_TEXT) for value in (None, [], {}, True, NAN, INFINITY, 1.5)),
    ("images", "id", "3", "images[0].id is 7; expected numbers or texts alone"),
    ("images", "id", 7, "as images[0].id is already"),
    *(("images", "height", value, "expected a whole number") for value in ([], {}, "20", True, NAN)),
    *(("categories", "id", value, WHOLE_OR_TEXT) for value in (None, [], {}, True, NAN, 1.5)),
    ("categories", "id", 18, "as categories[0].id is already"),
    *(("categories", "name", value, "expected a text") for value in (None, [], {}, True, NAN, 3)),
    *(("annotations", "image_id", value, WHOLE_OR_TEXT) for value in (None, [], {}, True, NAN, 1.5)),
    ("annotations", "category_id", 99, "which is none of its categories"),
    *(("annotations", "category_id", value, WHOLE_OR_TEXT) for value in (None, [], {}, True, NAN, 1.5)),
    *(
        ("annotations", "bbox", value, BOX)
        for value in (None, {}, "1 2 3 4", True, NAN, [], [1, 2, 3], [1, 2, 3, 4, 5])
    ),
    *(
        ("annotations", "bbox", value, BOX)
        for value in ([1, 2, None, 4], [1, 2, "3", 4], [[1, 2, 3, 4]], [1, 2, NAN, 4])
    ),
    ("annotations", "bbox", [1, 2, -3, 4], "a width and a height of at least 0"),
    *(("annotations", "area", value, "expected a number") for value in (None, [], {}, "12", True, NAN, INFINITY, -1)),
    *(("annotations", "iscrowd", value, "expected 0 or 1") for value in (None, [], {}, "1", NAN, 2, -1, 0.5)),
]


@pytest.mark.parametrize("part", ["images", "categories", "annotations"])
def test_fields_of_annotations(answer, part):
    for _, key, value, expected in (field for field in FIELDS if field[0] == part):
        truth = annotations()
        truth[part][1][key] = value
        code, error = answer("--boxes", truth=truth)
        assert code == 2, (key, value)
        assert error.startswith(f"error: truth.json: {part}[1].{key} is {as_json(value)}"), error
        assert expected in error
    for key in ("id", "name") if part == "categories" else ("id",) if part == "images" else ("image_id", "bbox"):
        truth = annotations()
        del truth[part][1][key]
        assert answer("--boxes", truth=truth) == (2, f"error: truth.json: {part}[1] has no {key!r}")


def as_json(value):
    return json.dumps(value)


RESULT_FIELDS = [
    *(("image_id", value, WHOLE_OR_TEXT) for value in (None, [], {}, True, NAN, 1.5)),
    *(("image_id", value, "which is no image of truth.json") for value in (8, -1)),
    *(("category_id", value, WHOLE_OR_TEXT) for value in (None, [], {}, True, NAN, 1.5)),
    ("category_id", 99, "which is no category of truth.json"),
    ("category_id", "18", "results[0].category_id is 4; expected numbers or texts alone"),
    *(("score", value, "expected a number") for value in (None, [], {}, "high", "0.5", True, NAN, INFINITY)),
    *(("bbox", value, BOX) for value in (None, {}, "1", True, NAN, [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, None, 4])),
    ("bbox", [1, 2, 3, -4], "a width and a height of at least 0"),
    ("bbox", [1e308, 2, 1e308, 4], "in pixels"),
]


def test_fields_of_results(answer):
    for key, value, expected in RESULT_FIELDS:
        found = results()
        found[1][key] = value
        code, error = answer("--boxes", found=found)
        assert code == 2, (key, value)
        assert error.startswith(f"error: found.json: results[1].{key} is {as_json(value)}"), error
        assert expected in error
    for key in ("image_id", "category_id", "score", "bbox"):
        found = results()
        del found[1][key]
        assert answer("--boxes", found=found) == (2, f"error: found.json: results[1] has no {key!r}")


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_ids_that_are_all_texts(answer, key):
    """A "4" for 4 would lose every detection."""
    found = [{**each, key: str(each[key])} for each in results()]
    code, error = answer(found=found)
    assert code == 2
    assert f'results[0].{key} is "{results()[0][key]}", which is no ' in error
    assert "ids are numbers there" in error


OUTLINES = [
    *(
        (value, "expected polygons such as")
        for value in (None, 7, "mask", True, NAN, [1, 2, 3, 4], [1, 2, 3, 4, 5, 6], {})
    ),
    *(
        (value, "expected polygons such as")
        for value in ([[[1, 2], [3, 4], [5, 6]]], [[1, 2, 3, 4, 5, NAN]], [["1"] * 6])
    ),
    *((value, "of at least three points") for value in ([], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]])),
    ([[1, 2, 3, 4, 5, 1e12]], "has a point at 1e+12, far outside the image of 20 x 30"),
    ({"size": [20, 30]}, "has no 'counts'"),
    ({"counts": [600]}, "has no 'size'"),
    *(
        ({"size": size, "counts": [600]}, "of the image")
        for size in ([20], [20, 30, 1], [-20, -30], [20.5, 30], [0, 0])
    ),
    *(({"size": [side, side], "counts": "0"}, "of the image") for side in (10**9, 10**30)),
    *(({"size": size, "counts": [600]}, "expected polygons such as") for size in (None, 20, "20 x 30", ["20", "30"])),
    ({"size": [30, 20], "counts": [600]}, "height and width are swapped"),
    *(({"size": [20, 30], "counts": counts}, "expected polygons such as") for counts in (None, 600, {}, ["600"])),
    *(({"size": [20, 30], "counts": counts}, "expected whole numbers") for counts in ([0.5, 599.5], [-1, 601])),
    *(({"size": [20, 30], "counts": counts}, "whose sum is ") for counts in ([], [4], [601], [2**40], "04db1", "0")),
    *(({"size": [20, 30], "counts": counts}, "no compressed run lengths") for counts in ("", "04d", "é", "P" * 40)),
]


@pytest.mark.parametrize("file", ["truth", "found"])
def test_outlines(answer, file):
    """Fractions in counts and sums that are not the size would keep pycocotools busy for ever."""
    pytest.importorskip("pycocotools")
    for value, expected in OUTLINES:
        truth, found = annotations(), results()
        (truth["annotations"] if file == "truth" else found)[1]["segmentation"] = value
        code, error = answer(truth=truth, found=found)
        assert code == 2, value
        place = "annotations[1].segmentation (image 7)" if file == "truth" else "results[1].segmentation (image 3)"
        assert error.startswith(f"error: {file}.json: {place} "), error
        assert expected in error, error
        assert answer("--boxes", truth=truth, found=found) == (0, "")


def test_results_of_which_some_have_no_outline(answer):
    found = results()
    del found[1]["segmentation"]
    assert "results[1].segmentation (image 3) is missing" in answer(found=found)[1]
    truth = annotations()
    for each in truth["annotations"]:
        del each["segmentation"]
    assert "truth.json: has no 'segmentation' to compare masks with; give --boxes" in answer(truth=truth)[1]


def test_polygons_of_an_image_without_a_size(answer):
    truth = annotations()
    truth["images"][1]["height"] = None
    assert "the height and width of the image are unknown and 30" in answer(truth=truth)[1]
    truth["images"][1]["height"] = 10**9
    truth["images"][1]["width"] = 10**9
    found = [results()[0]]
    assert "the height and width of the image are 1000000000 and 1000000000" in answer(truth=truth, found=found)[1]


DEEP = "[" * 100_000 + "]" * 100_000
WHOLE_FILES = [
    ("", "not JSON"),
    ("{", "not JSON"),
    ("[1, ", "not JSON"),
    ("\x00", "not JSON"),
    ("3", "holds 3; expected"),
    ("null", "holds null; expected"),
    (DEEP, "nested too deeply"),
]


def test_whole_files(answer):
    for content, expected in [
        *WHOLE_FILES,
        ("[]", "holds a list; expected an object with images, annotations and categories; are these results?"),
        ('{"images": [], "annotations": []}', "has no list 'categories'"),
        ('{"images": 5, "annotations": [], "categories": []}', "images is 5; expected a list"),
        ('{"images": [7], "annotations": [], "categories": []}', "images[0] is 7; expected an object"),
        ('{"images": [], "annotations": [], "categories": []}', "has no categories"),
        ('{"images": [], "annotations": [], "categories": [], "more": ' + DEEP + "}", "nested too deeply"),
        ('{"images": [{"id": null, "more": ' + DEEP + '}], "annotations": [], "categories": []}', "nested too deeply"),
    ]:
        code, error = answer(truth=content or " ")
        assert (code, error[:19]) == (2, "error: truth.json: ")
        assert expected in error
    for content, expected in [
        *WHOLE_FILES,
        ("{}", "holds an object; expected a list of results; are these annotations?"),
        ("[[1, 2]]", "results[0] is [1, 2]; expected an object"),
    ]:
        code, error = answer(found=content or " ")
        assert (code, error[:19]) == (2, "error: found.json: ")
        assert expected in error


def test_files_that_are_no_utf_8(answer, tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(annotations()), encoding="utf-16")
    assert "truth.json: not JSON" in answer()[1]
    (tmp_path / "found.json").write_bytes(b'[{"image_id": "\xff\xfe"}]')
    assert "found.json: not JSON" in answer()[1]


def test_pipes_are_not_read(answer, tmp_path):
    for name in ("truth.json", "found.json"):
        os.mkfifo(tmp_path / name)
        code, error = answer()
        assert code == 2
        assert name in error
    os.mkfifo(tmp_path / "found.pkl")
    assert answer("--trust-pickle", predictions="found.pkl")[0] == 2


def test_values_of_options(answer, tmp_path):
    for value in ("nan", "inf"):
        assert answer("--score-threshold", value) == (2, f"error: --score-threshold {value}: expected a number")
    (tmp_path / "file").touch()
    for folder, expected in (("file", "is a file"), ("file/in/it", "is a file"), ("/proc/results", "/proc")):
        code, error = answer("--out-dir", folder)
        assert code == 2
        assert expected in error
    assert sorted(os.listdir()) == ["file"]


def test_classes(answer):
    assert answer("--classes", "cow", "dog") == (0, "")
    assert "has no category 'bird'; its categories: dog, cat, cow" in answer("--classes", "bird")[1]
    truth = annotations()
    truth["categories"][1]["name"] = "dog"
    assert "2 of its categories are called 'dog' (id 18, 4)" in answer("--classes", "dog", truth=truth)[1]


def sample(**changes):
    own = dict(bboxes=np.array([[1, 2, 4, 6.0]]), scores=np.array([0.5]), labels=np.array([1]))
    return dict(img_id=7, pred_instances={**own, **changes})


PICKLES = [
    (3, "holds a int; expected a list of predictions"),
    ([3], "entry 0 has no pred_instances"),
    ([dict(img_id=7)], "entry 0 has no pred_instances"),
    ([dict(sample(), img_id=8)], "entry 0 is of image 8, which the annotations do not list"),
    ([dict(sample(), img_id=[7])], "entry 0 is of image [7], which"),
    ([sample(), sample()], "entry 1 is of image 7, as an entry before"),
    ([dict(img_id=7, pred_instances=dict(bboxes=[]))], "entry 0 has no 'scores'"),
    ([sample(bboxes=np.zeros((1, 5)))], "bboxes have the shape (1, 5); expected (1, 4)"),
    ([sample(scores=np.zeros(2))], "scores have the shape (2,); expected (1,)"),
    ([sample(scores=np.array([math.nan]))], "scores hold a number that is not finite"),
    ([sample(scores=["high"])], "scores are of <U4; expected numbers"),
    ([sample(labels=np.array([3]))], "has the label 3; there are 3 classes"),
    ([sample(labels=np.array([-1]))], "has the label -1; there are 3 classes"),
    ([sample(labels=np.array([0.5]))], "has the label 0.5; there are 3 classes"),
    ([sample(masks=[])], "has 0 masks, but 1 labels"),
    ([sample(masks=[None])], "masks hold null"),
    ([sample(masks=[dict(size=[20, 30], counts=b"04d")])], "masks[0] has counts that are no compressed run lengths"),
    ([sample(masks=[dict(size=[30, 20], counts=b"04db0")])], "height and width are swapped"),
]


def test_pickles(answer, tmp_path):
    pytest.importorskip("pycocotools")
    path = tmp_path / "found.pkl"
    path.write_bytes(pickle.dumps([sample()]))
    assert answer("--trust-pickle", predictions="found.pkl") == (0, "")
    for content, expected in PICKLES:
        path.write_bytes(pickle.dumps(content))
        code, error = answer("--trust-pickle", predictions="found.pkl")
        assert code == 2, content
        assert error.startswith("error: found.pkl: "), error
        assert expected in error
    for content in (b"", b"text", pickle.dumps([sample()])[:-20], b"\x80\x04\x8a\xff"):
        path.write_bytes(content)
        assert "found.pkl: cannot be opened: " in answer("--trust-pickle", predictions="found.pkl")[1]


def test_labels_of_a_pickle_count_by_the_file(answer, tmp_path):
    """mmdet numbers its labels by the order of the categories in the file, whatever the order of the classes is."""
    (tmp_path / "found.pkl").write_bytes(pickle.dumps([sample()]))
    arguments = dict(predictions="found.pkl")
    assert answer("--trust-pickle", "--classes", "dog", "cat", **arguments)[0] == 0
    assert (
        "its labels count by the categories of" in answer("--trust-pickle", "--classes", "cat", "dog", **arguments)[1]
    )


@pytest.mark.slow
def test_a_mistake_waits_for_no_torch(tmp_path):
    """It is answered within seconds even where torch takes longer to import."""
    (tmp_path / "truth.json").write_text(json.dumps(annotations()))
    (tmp_path / "found.json").write_text(json.dumps([{**results()[0], "score": None}]))
    code = (
        "import sys; from cvplugins.cli import main; "
        "code = main(['evaluate', 'found.json', '--annotations', 'truth.json']); "
        "sys.exit(99 if 'torch' in sys.modules or 'matplotlib' in sys.modules else code)"
    )
    start = time.monotonic()
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 2, finished.stderr
    assert "results[0].score is null" in finished.stderr
    assert time.monotonic() - start < 30
