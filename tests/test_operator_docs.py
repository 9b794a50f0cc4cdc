"""docs/operators.md is up to date, and its survey is of the operators that are installed here."""

import json

import pytest


def test_page_is_up_to_date(root):
    import make_operators

    assert (root / "docs" / "operators.md").read_text() == make_operators.page(), "run python docs/make_operators.py"


def test_no_model_of_the_zoos_lacks_an_operator(root):
    survey = json.loads((root / "docs" / "operators" / "zoo.json").read_text())
    assert survey["operators"] == "cvplugins-mmcv-ops"
    errors = [found["error"] for zoo in survey["run"].values() for found in zoo.values() if "error" in found]
    assert not [error for error in errors if "cvplugins-mmcv-ops" in error]


@pytest.mark.openmmlab
def test_every_operator_that_the_zoos_ask_for_is_there(root):
    """The oracle is the survey: what mmcv asked its module for while a model of each family was trained and tested."""
    import mmcv._ext

    survey = json.loads((root / "docs" / "operators" / "zoo.json").read_text())
    asked = {name for zoo in survey["run"].values() for found in zoo.values() for name in found.get("operators", [])}
    assert asked
    assert asked <= set(vars(mmcv._ext)) or not mmcv._ext.__file__.endswith(".py")
