"""OpenMMLab's section of the doctor: each trap with made-up facts, and the files of packages as they are written."""

from __future__ import annotations

import importlib.machinery

import pytest
from doctor_facts import DEVICE, by_name, distribution, facts, installed, raised, torch

from cvplugins.doctor import Installer, Outcome, Status, try_imports
from cvplugins.openmmlab.run.doctor import PROBES, check
from cvplugins.openmmlab.run.doctor_files import Files, read_bounds, read_extensions, read_files

FORKS = installed(
    distribution("onedl-mmengine", "0.10.12", "mmengine"),
    distribution("onedl-mmcv", "2.3.6", "mmcv", requires=("onedl-mmengine>=0.10.8rc1", "opencv-python")),
    distribution(
        "onedl-mmdetection",
        "3.5.1",
        "mmdet",
        requires=('onedl-mmcv>=2.0.0; extra == "mminstall"', 'onedl-mmengine<1.0.0,>=0.8.3; extra == "mminstall"'),
    ),
    distribution("onedl-mmsegmentation", "1.4.2", "mmseg", requires=("numpy>2",)),
    distribution("cvplugins-mmcv-ops", "0.1.0"),
)
ORIGINALS = installed(
    distribution("mmengine", "0.10.7", "mmengine"),
    distribution("mmcv-lite", "2.1.0", "mmcv"),
    distribution("mmdet", "3.3.0", "mmdet"),
    distribution("mmsegmentation", "1.2.2", "mmseg"),
    distribution("cvplugins-mmcv-ops", "0.1.0"),
    distribution("numpy", "1.26.4", "numpy"),
)
NAMES = ("mmengine", "mmcv", "mmcv.ops", "mmdet", "mmseg")
PURE = Files(pure="/s/mmcv/_ext.py")
COMPILED = Files(compiled="/s/mmcv/_ext.cpython-311.so", pure="/s/mmcv/_ext.py")
# mmdet 3.3.0 and mmseg 1.2.2, as they are written.
MMDET = (
    "import mmcv\nmmcv_minimum_version = '2.0.0rc4'\nmmcv_maximum_version = '2.2.0'\nmmengine_minimum_version = '0.7.1'"
)
MMSEG = "MMCV_MIN = '2.0.0rc4'\nMMCV_MAX = '2.2.0'\nMMENGINE_MIN = '0.5.0'\nMMENGINE_MAX = '1.0.0'\n"


def findings(distributions=FORKS, files=PURE, outcomes=None, **given):
    return by_name(check(facts(distributions=distributions, outcomes=imported(outcomes), **given), files))


def imported(outcomes):
    return dict.fromkeys(NAMES, Outcome("ok")) | (outcomes or {})


def compiled_for(cuda):
    answers = {"file": COMPILED.compiled, "compiled": True, "cuda": cuda}
    return {"mmcv.ops": Outcome("ok", answers=answers)}


@pytest.mark.parametrize("family", [FORKS, ORIGINALS])
def test_all_is_fine(family):
    found = findings(family)
    assert {each.status for each in found.values()} == {Status.OK}
    kind = "the maintained fork" if family is FORKS else "the original"
    assert all(kind in found[name].value for name in ("mmengine", "mmcv", "mmdet", "mmseg"))
    assert "nothing compiled" in found["operators"].value


def test_it_need_not_be_installed():
    (found,) = check(facts(), Files())
    assert (found.status, "not installed" in found.value) == (Status.OK, True)


def test_the_bounds_that_packages_check():
    assert read_bounds(MMDET) == {"mmcv": ">=2.0.0rc4,<2.2.0", "mmengine": ">=0.7.1"}
    assert read_bounds(MMSEG) == {"mmcv": ">=2.0.0rc4,<2.2.0", "mmengine": ">=0.5.0,<1.0.0"}
    assert read_bounds("from .version import __version__") == {}
    assert read_bounds("def (") == {}


def test_mmcv_too_new_for_mmdet():
    """mmdet 3.3.0 raises an AssertionError with mmcv 2.2.0, which is the newest one."""
    newest = {name: each for name, each in ORIGINALS.items() if name != "mmcv-lite"}
    newest["mmcv"] = distribution("mmcv", "2.2.0", "mmcv")
    files = Files({("mmdet", "mmcv"): read_bounds(MMDET)["mmcv"]}, pure=PURE.pure)
    error = raised("MMCV==2.2.0 is used but incompatible.", "AssertionError", module="mmdet")
    found = findings(newest, files, {"mmdet": error})["mmdet"]
    assert found.status is Status.ERROR
    assert found.value == "3.3.0 takes mmcv >=2.0.0rc4,<2.2.0, and there is 2.2.0"
    assert found.advice == ('python -m pip uninstall -y mmcv && python -m pip install "mmcv-lite>=2.0.0rc4,<2.2.0"')


def test_mmengine_too_old_for_the_fork_of_mmcv_by_its_metadata():
    older = FORKS | installed(distribution("onedl-mmengine", "0.10.7", "mmengine"))
    found = findings(older)["mmcv"]
    assert (found.status, ">=0.10.8rc1, and there is 0.10.7" in found.value) == (Status.ERROR, True)
    assert '"onedl-mmengine>=0.10.8rc1"' in found.advice


def test_numpy_2_with_the_originals():
    found = findings(ORIGINALS | installed(distribution("numpy", "2.4.6", "numpy")))
    assert {found[name].status for name in ("mmengine", "mmcv", "mmdet", "mmseg")} == {Status.WARNING}
    assert found["mmdet"].advice == 'python -m pip install "numpy<2" "opencv-python<4.12"'


@pytest.mark.parametrize(
    ("names", "package", "kept"),
    [
        (("mmcv", "mmcv-lite"), "mmcv", "mmcv-lite"),
        (("mmcv", "onedl-mmcv"), "mmcv", "onedl-mmcv"),
        (("mmcv", "mmcv-lite", "onedl-mmcv"), "mmcv", "onedl-mmcv"),
        (("mmdet", "onedl-mmdetection"), "mmdet", "onedl-mmdetection"),
        (("mmsegmentation", "onedl-mmsegmentation"), "mmseg", "onedl-mmsegmentation"),
        (("mmengine", "mmengine-lite"), "mmengine", "mmengine"),
        (("mmengine", "onedl-mmengine"), "mmengine", "onedl-mmengine"),
    ],
)
def test_two_distributions_that_install_one_package(names, package, kept):
    family = {name: each for name, each in FORKS.items() if package not in each.packages}
    family |= installed(*(distribution(name, "2.1.0", package) for name in names))
    found = findings(family, installer=Installer("uv pip"))[package]
    assert (found.status, "install the same package" in found.value) == (Status.ERROR, True)
    assert found.advice == f"uv pip uninstall {' '.join(names)} && uv pip install {kept}==2.1.0"


def test_mmcv_without_operators():
    error = raised("No module named 'mmcv._ext'", "ModuleNotFoundError", module="mmcv.ops", missing="mmcv._ext")
    found = findings(files=Files(), outcomes={"mmcv.ops": error})["operators"]
    assert (found.status, "No module named 'mmcv._ext'" in found.value) == (Status.ERROR, True)
    assert found.advice.startswith("python -m pip install")
    assert "mmcv-ops" in found.advice


def test_operators_for_another_python():
    found = findings(files=Files(compiled_for_others=("/s/mmcv/_ext.cpython-38.so",)))["operators"]
    assert (found.status, "_ext.cpython-38.so is for another Python" in found.value) == (Status.ERROR, True)


def test_operators_for_the_cpu_alone_on_a_machine_with_a_gpu():
    """mmcv raises "nms_impl: implementation for device cuda:0 not found"."""
    outcomes = compiled_for("not available")
    assert findings(files=COMPILED, outcomes=outcomes)["operators"].status is Status.OK
    outcomes["torch"] = torch(devices=[DEVICE])
    found = findings(files=COMPILED, outcomes=outcomes)["operators"]
    assert (found.status, found.advice) == (Status.ERROR, "rm /s/mmcv/_ext.cpython-311.so")


def test_operators_for_another_cuda():
    outcomes = {**compiled_for("12.1"), "torch": torch(devices=[DEVICE])}
    assert findings(files=COMPILED, outcomes=outcomes)["operators"].status is Status.WARNING
    outcomes |= compiled_for("13.0")
    assert findings(files=COMPILED, outcomes=outcomes)["operators"].status is Status.OK


def test_operators_compiled_for_another_torch():
    error = raised("/s/mmcv/_ext.cpython-311.so: undefined symbol: _ZN3c10", module="mmcv.ops")
    found = findings(files=COMPILED, outcomes={"mmcv.ops": error})["operators"]
    assert (found.status, "undefined symbol" in found.value) == (Status.ERROR, True)
    # Ours lie beside them, and take their place once they are gone.
    assert found.advice == "rm /s/mmcv/_ext.cpython-311.so"
    alone = Files(compiled=COMPILED.compiled)
    advice = findings(files=alone, outcomes={"mmcv.ops": error})["operators"].advice
    assert advice.startswith("rm /s/mmcv/_ext.cpython-311.so && python -m pip install")


def test_a_package_that_needs_another_one_of_openmmlab():
    """``pip install mmcv`` would be the wrong advice: that has to be compiled."""
    without = {name: each for name, each in FORKS.items() if "mmcv" not in each.packages}
    error = raised("No module named 'mmcv'", "ModuleNotFoundError", module="mmdet.models", missing="mmcv")
    found = findings(without, Files(), {"mmcv": Outcome("missing"), "mmdet": error})
    assert found["mmcv"].advice == "python -m pip install onedl-mmcv"
    assert found["mmdet"].advice == "mend mmcv first"


def test_what_needs_the_operators_says_so():
    needs = raised("mmcv.ops cannot be imported", module="mmdet.models", needs="mmcv.ops")
    error = raised("No module named 'mmcv._ext'", "ModuleNotFoundError", module="mmcv.ops", missing="mmcv._ext")
    found = findings(files=Files(), outcomes={"mmcv.ops": error, "mmdet": needs})["mmdet"]
    assert (found.status, found.advice) == (Status.ERROR, "mend the operators first")


def test_mmseg_need_not_be_installed():
    without = {name: each for name, each in FORKS.items() if "mmseg" not in each.packages}
    found = findings(without, outcomes={"mmseg": Outcome("missing")})["mmseg"]
    assert (found.status, found.advice) == (Status.OK, "python -m pip install onedl-mmsegmentation")


def test_setuptools_without_pkg_resources():
    """mmengine 0.10.7 asks it where the zoo's configs lie; setuptools 82 has it no more."""
    setuptools = installed(distribution("setuptools", "82.0.0", "setuptools"))
    found = findings(ORIGINALS | setuptools, pkg_resources_users=("mmengine",))["setuptools"]
    assert found.status is Status.ERROR
    assert found.value == "setuptools 82.0.0 has no pkg_resources, which mmengine imports"
    assert found.advice == 'python -m pip install "setuptools<82"'


def test_which_file_python_would_load(tmp_path):
    (tmp_path / "_ext.py").touch()
    assert read_extensions(tmp_path) == Files(pure=str(tmp_path / "_ext.py"))
    (tmp_path / "_ext.cpython-38-x86_64-linux-gnu.so").touch()
    assert read_extensions(tmp_path).compiled == ""
    mine = tmp_path / f"_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    mine.touch()
    found = read_extensions(tmp_path)
    assert found.compiled == str(mine)
    assert len(found.compiled_for_others) == 1


@pytest.mark.openmmlab
def test_what_is_installed_here_for_real():
    """Oracle: the operators' module that the tests themselves import."""
    import mmcv._ext

    outcomes = try_imports([probe for probe in PROBES if probe.name in ("mmengine", "mmcv", "mmcv.ops")])
    assert {each.state for each in outcomes.values()} == {"ok"}
    assert outcomes["mmcv.ops"].answers["file"] == mmcv._ext.__file__
    files = read_files()
    assert mmcv._ext.__file__ in (files.compiled, files.pure)
    assert mmcv._ext.__file__ == (files.compiled or files.pure)
