"""COCO's files against pycocotools, and what is wrong with a file is said."""

import json

import numpy as np
import pytest

from cvplugins.datasets import DataError, read_coco_annotations, read_coco_results

POLYGON = [[1, 1, 9, 1, 9, 5, 1, 5]]
RUNS = {"size": [20, 30], "counts": [0, 4, 596]}


def annotations():
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 20, "width": 30},
            {"id": 3, "file_name": "a.jpg", "height": 20, "width": 30},
            {"id": 5, "file_name": "c.jpg", "height": 20, "width": 30},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 4, "name": "cat"}, {"id": 9, "name": "cow"}],
        "annotations": [
            dict(id=1, image_id=3, category_id=4, bbox=[1, 2, 3, 4.5], area=9.0, segmentation=POLYGON),
            dict(id=2, image_id=7, category_id=18, bbox=[0, 0, 1, 1], area=1.0, iscrowd=1, segmentation=RUNS),
            dict(id=3, image_id=3, category_id=9, bbox=[5, 5, 5, 5], area=20.0, segmentation=POLYGON),
        ],
    }


def results():
    return [
        dict(image_id=7, category_id=4, bbox=[1, 2, 3, 4], score=0.5),
        dict(image_id=3, category_id=18, bbox=[1.5, 2, 3, 4], score=0.25),
        dict(image_id=7, category_id=18, bbox=[0, 0, 1, 1], score=1),
    ]


@pytest.fixture
def written(tmp_path):
    def write(content, name="file.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_annotations_by_image(written):
    found = read_coco_annotations(written(annotations()))
    assert found.classes == ("dog", "cat", "cow")
    assert found.category_ids == (18, 4, 9)
    assert list(found.images) == [7, 3, 5]
    assert found.images[3].boxes.tolist() == [[1, 2, 4, 6.5], [5, 5, 10, 10]]
    assert found.images[3].labels.tolist() == [1, 2]
    assert found.images[3].areas.tolist() == [9.0, 20.0]
    assert found.images[7].crowd.tolist() == [True]
    assert found.images[5].boxes.shape == (0, 4)
    assert found.names[3] == "a.jpg"
    assert found.sizes[3] == (20, 30)


def test_some_classes(written):
    found = read_coco_annotations(written(annotations()), ["dog", "cow"])
    assert found.images[3].labels.tolist() == [1]
    assert len(found.images[3].segmentations) == 1
    kept = read_coco_results(written(results()), found)
    assert kept[7].labels.tolist() == [0]


def test_classes_in_an_order_of_their_own(written):
    path = written(annotations())
    by_name = read_coco_annotations(path, ["cow", "dog"])
    by_id = read_coco_annotations(path, category_ids=[9, 18])
    for found in (by_name, by_id):
        assert found.classes == ("cow", "dog")
        assert found.images[3].labels.tolist() == [0]
        assert found.images[7].labels.tolist() == [1]
        assert not found.in_file_order
    assert read_coco_annotations(path, ["dog", "cow"]).in_file_order


def test_results_by_image(written):
    truth = read_coco_annotations(written(annotations()))
    found = read_coco_results(written(results(), "results.json"), truth)
    assert found[7].labels.tolist() == [1, 0]
    assert found[7].scores.tolist() == [0.5, 1.0]
    assert found[3].boxes.tolist() == [[1.5, 2, 4.5, 6]]
    assert len(found[5].labels) == 0
    assert not read_coco_results(written([], "empty.json"), truth)[7].labels.size


def test_masks_equal_pycocotools(written):
    coco = pytest.importorskip("pycocotools.coco")
    coding = pytest.importorskip("pycocotools.mask")
    path = written(annotations())
    theirs = coco.COCO(str(path))
    ours = read_coco_annotations(path).images
    for image_id, indices in ((3, (1, 3)), (7, (2,))):
        masks = coding.decode(ours[image_id].masks(20, 30))
        expected = np.stack([theirs.annToMask(theirs.anns[index]) for index in indices], axis=-1)
        np.testing.assert_array_equal(masks, expected)


def broken(part, number, **changes):
    content = annotations()
    for key, value in changes.items():
        if value is None:
            del content[part][number][key]
        else:
            content[part][number][key] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, ", "not JSON"),
        ([], "holds a list; expected an object with images, annotations and categories; are these results"),
        ({"images": [], "annotations": []}, "has no list 'categories'"),
        (broken("annotations", 1, category_id=99), r"annotations\[1\].category_id is 99, which is none of its"),
        (broken("annotations", 2, bbox=None), r"annotations\[2\] has no 'bbox'"),
        (broken("annotations", 2, bbox=[1, 2, 3]), r"annotations\[2\].bbox is \[1, 2, 3\]; expected \[x"),
        (broken("annotations", 2, image_id=None), r"annotations\[2\] has no 'image_id'"),
        (broken("images", 1, id=7), r"images\[1\].id is 7, as images\[0\].id is already"),
    ],
)
def test_broken_annotations_are_named(written, content, message):
    with pytest.raises(DataError, match=rf"file\.json: .*{message}"):
        read_coco_annotations(written(content))


def test_wrong_classes_are_named(written):
    path = written(annotations())
    with pytest.raises(DataError, match="has no category 'bird'; its categories: dog, cat, cow"):
        read_coco_annotations(path, ["bird"])
    with pytest.raises(DataError, match=r"has no category of id 5; its ids: 18, 4, 9"):
        read_coco_annotations(path, category_ids=[5])
    with pytest.raises(DataError, match=r"nowhere\.json: cannot read the file"):
        read_coco_annotations(path.parent / "nowhere.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (annotations(), "holds an object; expected a list of results; are these annotations"),
        ([dict(image_id=8, category_id=4, bbox=[1, 2, 3, 4], score=0.5)], r"results\[0\].image_id is 8, which is no"),
        ([dict(image_id=7, category_id=4, bbox=[1, 2, 3, 4])], r"results\[0\] has no 'score'"),
        ([dict(image_id=7, category_id=4, score=1)], "neither 'bbox' nor 'segmentation'"),
        ([[1, 2]], r"results\[0\] is \[1, 2\]; expected an object"),
    ],
)
def test_broken_results_are_named(written, content, message):
    truth = read_coco_annotations(written(annotations()))
    with pytest.raises(DataError, match=rf"results\.json: .*{message}"):
        read_coco_results(written(content, "results.json"), truth)
