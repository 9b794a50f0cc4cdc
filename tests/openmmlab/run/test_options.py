"""Values of the command line against mmengine's own reader, which differs in blanks and open brackets alone."""

import argparse

import pytest

from cvplugins.errors import UserError
from cvplugins.openmmlab.run.options import parse_options

ALIKE = [
    *("5", "1e-3", "1_000", "true", "False", "None", "word", "'quoted'", "-1", "", "a.b", "nan_x", "/data/VOC"),
    *("1,2,3", "[1,2,3]", "(1,2)", "()", "[]", "('helmet',)", "[(1,2),(3,4)]", "[a,b,c]", "[[1,2],[3]],5"),
    *("[(200,100),(300,100)]", "1,", "[a,,b]", "a=b", "[1.5,True,None,x]", '["a","b"]'),
]


@pytest.mark.openmmlab
@pytest.mark.parametrize("text", ALIKE)
def test_values_are_read_as_mmengine_reads_them(text):
    from mmengine.config import DictAction

    options = argparse.Namespace(given={})
    DictAction([], "given")(argparse.ArgumentParser(), options, [f"key={text}"])
    assert repr(parse_options([f"key={text}"])) == repr(options.given)


def test_blanks_stay_within_a_value_and_go_around_it():
    given = ["data_root=/a b/VOC kit", "classes=('traffic light', stop sign)", "scale= (200, 100)", "x=[ 1 , 2 ]"]
    assert parse_options(given) == {
        "data_root": "/a b/VOC kit",
        "classes": ("traffic light", "stop sign"),
        "scale": (200, 100),
        "x": [1, 2],
    }


@pytest.mark.parametrize("text", ["[1,2", "(1,2", "1,2]", "[1", "([1,2)]x,(", "[(1,2]"])
def test_open_brackets_are_refused(text):
    with pytest.raises(UserError, match="brackets"):
        parse_options([f"key={text}"])


def test_two_tuples_are_a_list_of_two():
    """mmengine takes the outer brackets off and gets lost."""
    assert parse_options(["key=(1,2),(3,4)"]) == {"key": [(1, 2), (3, 4)]}
