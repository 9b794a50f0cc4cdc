"""Detectron2's section of the doctor, with made-up facts and, where it is installed, with the real ones."""

from __future__ import annotations

import pytest
from doctor_facts import by_name, facts, raised

from cvplugins.detectron2.run.doctor import PROBES, check
from cvplugins.doctor import Outcome, Status, try_imports

DETECTRON2 = {"version": "0.6", "folder": "/d/detectron2", "has_configs": True, "compiled": True}
MISSING_C = "cannot import name '_C' from 'detectron2' (/d/detectron2/__init__.py)"


def findings(detectron2=DETECTRON2, mask2former=None, **given):
    outcomes = {
        "detectron2": detectron2 if isinstance(detectron2, Outcome) else Outcome("ok", answers=detectron2),
        "mask2former": mask2former or Outcome("ok", answers={"folder": "/m"}),
    }
    return by_name(check(facts(outcomes=outcomes, **given)))


def test_all_is_fine():
    found = findings()
    assert {each.status for each in found.values()} == {Status.OK}
    assert (found["Detectron2"].value, found["Mask2Former"].value) == ("0.6, compiled; /d/detectron2", "/m")


def test_it_need_not_be_installed():
    found = findings(Outcome("missing"), raised("No module named 'detectron2'", "ModuleNotFoundError"))
    assert {each.status for each in found.values()} == {Status.OK}


def test_a_folder_that_runs_without_being_compiled():
    assert "not compiled" in findings(DETECTRON2 | {"compiled": False})["Detectron2"].value


def test_a_folder_without_the_link_to_the_configs():
    """setup.py makes this link; without it ``_BASE_: detectron2::...`` finds no file."""
    found = findings(DETECTRON2 | {"has_configs": False})["Detectron2"]
    assert found.status is Status.WARNING
    assert found.advice == "ln -s /d/configs /d/detectron2/model_zoo/configs"


def test_a_folder_of_the_same_name_hides_it():
    """A clone in the current folder is imported as a package without content."""
    error = raised("No module named 'detectron2.modeling'", "ModuleNotFoundError", missing="detectron2.modeling")
    found = findings(error)["Detectron2"]
    assert (found.status, "hides it" in found.value) == (Status.ERROR, True)


def test_compiled_for_another_torch():
    error = raised("/d/_C.so: undefined symbol: _ZN2at4_ops", module="detectron2.modeling")
    found = findings(error)["Detectron2"]
    assert (found.status, "undefined symbol" in found.value) == (Status.ERROR, True)
    assert "--no-build-isolation git+" in found.advice


def test_the_root_of_mask2former_is_no_checkout():
    error = raised(
        "/x is no checkout of Mask2Former: it has no mask2former/__init__.py; git clone Y, then export Z", "UserError"
    )
    found = findings(mask2former=error)["Mask2Former"]
    assert (found.status, found.advice) == (Status.ERROR, "git clone Y && export Z")


def test_mask2former_needs_a_package():
    error = raised("Mask2Former needs timm, which is not installed: pip install timm", "UserError")
    found = findings(mask2former=error)["Mask2Former"]
    assert (found.status, found.advice) == (Status.ERROR, "python -m pip install timm")


def test_mask2former_needs_a_compiled_detectron2():
    found = findings(mask2former=raised(MISSING_C))["Mask2Former"]
    assert (found.status, "needs a compiled Detectron2" in found.value) == (Status.ERROR, True)


def test_setuptools_without_pkg_resources():
    found = findings(pkg_resources_users=("detectron2", "mmengine"))["setuptools"]
    assert (found.status, found.advice) == (Status.WARNING, 'python -m pip install "setuptools<82"')
    assert "mmengine" not in found.value


@pytest.mark.detectron2
def test_a_folder_that_is_no_checkout_for_real(tmp_path, monkeypatch):
    monkeypatch.setenv("MASK2FORMER_ROOT", str(tmp_path))
    outcomes = try_imports(PROBES)
    assert outcomes["detectron2"].state == "ok"
    found = by_name(check(facts(outcomes=outcomes)))["Mask2Former"]
    assert (found.status, "is no checkout" in found.value, "git clone" in found.advice) == (Status.ERROR, True, True)
