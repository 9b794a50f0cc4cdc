"""Each trap, with made-up facts: the oracle is what the trap does to a training, and the command that ends it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
from doctor_facts import DEVICE, FINE, GPU, by_name, distribution, facts, installed, raised, torch

from cvplugins.doctor import Installer, Outcome, Part, Status, check_machine, check_python, examination, examine
from cvplugins.doctor.machine import GIB, Compiler
from cvplugins.doctor.versions import version_key


def python(**given):
    return by_name(check_python(facts(**given)))


def machine(environment=None, **changes):
    return by_name(check_machine(replace(FINE, **changes), environment or {}))


def test_nothing_is_said_where_all_is_fine():
    findings = [*python().values(), *machine().values()]
    assert {each.status for each in findings} == {Status.OK}
    assert {each.advice for each in findings} == {""}


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 13, 0)])
def test_python_that_the_frameworks_are_not_made_for(version):
    found = python(python=version)["Python"]
    assert (found.status, "uv venv --python 3.12" in found.advice) == (Status.WARNING, True)


def test_torch_is_missing():
    found = python(outcomes={"torch": Outcome("missing")})["torch"]
    assert (found.status, found.value) == (Status.ERROR, "not installed")
    assert "--torch-backend=auto" in found.advice


def test_torch_before_2_1():
    found = python(
        distributions=installed(distribution("torch", "2.0.1", "torch")),
        outcomes={"torch": torch(version="2.0.1+cu117")},
    )["torch"]
    assert (found.status, found.advice) == (Status.ERROR, 'python -m pip install "torch>=2.1" torchvision')


def test_numpy_2_beside_a_torch_that_was_built_for_numpy_1():
    found = python(outcomes={"torch": torch(version="2.1.2")})["NumPy"]
    assert found.status is Status.ERROR
    # OpenCV from 4.12 on asks for NumPy 2.
    assert found.advice == 'python -m pip install "numpy<2" "opencv-python<4.12"'


def test_torch_that_cannot_use_numpy():
    found = python(outcomes={"torch": torch(numpy_error="Numpy is not available")})["torch"]
    assert (found.status, "Numpy is not available" in found.value) == (Status.ERROR, True)


def test_torchvision_for_another_torch_by_its_metadata():
    older = distribution("torchvision", "0.26.0", "torchvision", requires=("torch==2.11.0",))
    error = raised("operator torchvision::nms does not exist", "RuntimeError", module="torchvision")
    found = python(distributions=installed(older), outcomes={"torchvision": error})["torchvision"]
    assert found.status is Status.ERROR
    assert found.value == "0.26.0, built for torch ==2.11.0, beside torch 2.12.0"
    assert "torch==2.12.0 torchvision" in found.advice


def test_torchvision_for_another_build_of_torch_by_its_error():
    """The version is the right one, but one of the two is for the CPU only."""
    error = raised("operator torchvision::nms does not exist", "RuntimeError", module="torchvision")
    found = python(outcomes={"torchvision": error, "torch": torch(version="2.12.0+cpu")})["torchvision"]
    assert (found.status, "built for another torch" in found.value) == (Status.ERROR, True)
    assert "--torch-backend=auto" in found.advice
    assert "torch==2.12.0 torchvision" in found.advice


@pytest.mark.parametrize(
    "error",
    [
        "numpy.core.multiarray failed to import",
        "AttributeError: _ARRAY_API not found",
        "numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88",
        "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.4.6",
    ],
)
def test_opencv_for_another_numpy(error):
    found = python(outcomes={"cv2": raised(error, module="cv2")})["OpenCV"]
    assert (found.status, "built for another NumPy" in found.value) == (Status.ERROR, True)
    assert found.advice == "python -m pip install --upgrade opencv-python numpy"


def test_opencv_without_the_desktop():
    error = raised("libGL.so.1: cannot open shared object file: No such file or directory", module="cv2")
    found = python(outcomes={"cv2": error}, installer=Installer("uv pip"))["OpenCV"]
    assert found.status is Status.ERROR
    remove, install = found.advice.split(" && ")
    assert remove == "uv pip uninstall opencv-python"
    assert install == "uv pip install --no-deps --reinstall opencv-python-headless"


def test_several_opencv_distributions():
    same = distribution("opencv-python-headless", "5.0.0.93", "cv2")
    assert python(distributions=installed(same))["OpenCV"].status is Status.OK
    older = distribution("opencv-python-headless", "4.11.0.86", "cv2")
    found = python(distributions=installed(older))["OpenCV"]
    assert found.status is Status.WARNING
    assert found.advice == (
        "python -m pip uninstall -y opencv-python opencv-python-headless"
        " && python -m pip install opencv-python==5.0.0.93"
    )


def test_undefined_symbol_in_a_compiled_file():
    error = raised("/x/_C.so: undefined symbol: _ZN3c10", module="torchvision")
    found = python(outcomes={"torchvision": error})["torchvision"]
    assert (found.status, "built for another version" in found.value) == (Status.ERROR, True)
    assert found.advice == "python -m pip install --no-deps --force-reinstall torchvision==0.27.0"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome("died", "ended Python by signal SIGSEGV, in /x/cv2.py, line 3", module="cv2"), "its import crashes"),
        (Outcome("hung", "no progress for 120 s", module="cv2"), "its import hangs"),
        (Outcome("died", "ended Python by signal SIGILL"), "its use crashes"),
    ],
)
def test_a_package_that_ends_or_stops_python(outcome, words):
    found = python(outcomes={"cv2": outcome})["OpenCV"]
    assert (found.status, words in found.value, outcome.error in found.value) == (Status.ERROR, True, True)


def test_a_package_that_only_repeats_the_failure_of_another_one():
    error = raised("torch cannot be imported", module="torchvision", needs="torch")
    found = python(outcomes={"torchvision": error})["torchvision"]
    assert (found.status, found.advice) == (Status.ERROR, "mend torch first")


def test_a_dependency_is_named_as_installers_know_it():
    error = raised("No module named 'PIL'", "ModuleNotFoundError", module="torchvision", missing="PIL")
    assert python(outcomes={"torchvision": error})["torchvision"].advice == "python -m pip install pillow"


def on_gpu(**answers):
    return {
        "machine": replace(FINE, gpus=(GPU, GPU), driver="550.54.15", driver_works=True),
        "outcomes": {"torch": torch(**answers)},
    }


def test_driver_older_than_the_cuda_of_torch():
    found = python(**on_gpu(driver_cuda=12040))["CUDA"]
    assert found.status is Status.ERROR
    assert found.value == "driver 550.54.15 runs CUDA up to 12.4; torch is built for 13.0 (driver 580 or newer)"
    assert "--torch-backend=auto" in found.advice


def test_driver_of_the_same_major_version_is_new_enough():
    """CUDA promises that programs of one major version run on each driver of it."""
    found = python(**on_gpu(driver_cuda=13000, cuda="13.2", devices=[DEVICE, DEVICE]))["CUDA"]
    assert (found.status, found.value) == (Status.OK, "13.2 on 2 GPUs, the driver runs up to 13.0")


def test_torch_for_the_cpu_beside_a_gpu():
    found = python(**on_gpu(cuda="", version="2.12.0+cpu"))["CUDA"]
    assert (found.status, "--torch-backend=auto" in found.advice) == (Status.WARNING, True)


def test_hidden_gpus():
    found = python(**on_gpu(driver_cuda=13000), environment={"CUDA_VISIBLE_DEVICES": ""})["CUDA"]
    assert (found.status, found.advice) == (Status.WARNING, "unset CUDA_VISIBLE_DEVICES")


def test_a_gpu_that_torch_was_not_built_for():
    broken = DEVICE | {"error": "CUDA error: no kernel image is available for execution on the device"}
    found = python(**on_gpu(driver_cuda=13000, devices=[broken]))["CUDA"]
    assert (found.status, "compute capability 9.0" in found.value) == (Status.ERROR, True)


def test_nccl_is_missing_from_a_build_for_gpus():
    assert python(**on_gpu(driver_cuda=13000, devices=[DEVICE], nccl=""))["NCCL"].status is Status.WARNING
    assert "NCCL" not in python(outcomes={"torch": torch(nccl="")})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outcomes": {"triton": Outcome("missing")}}, "not installed"),
        ({"outcomes": {"triton": raised("no libtriton", module="triton")}}, "no libtriton"),
        ({"distributions": installed(distribution("triton", "2.1.0", "triton"))}, "older than 3.0"),
        ({"has_python_headers": False}, "headers are missing"),
        ({"c_compiler": Compiler()}, "no C compiler"),
        ({"c_compiler": Compiler("/bin/false")}, "no C compiler"),  # there, but it does not run
    ],
)
def test_deformable_attention_is_slow_on_a_gpu(changes, words):
    given = on_gpu(driver_cuda=13000, devices=[DEVICE])
    given["outcomes"] |= changes.get("outcomes", {})
    compiler = changes.get("c_compiler", FINE.c_compiler)
    given["machine"] = replace(given["machine"], c_compiler=compiler)
    others = {key: value for key, value in changes.items() if key in ("distributions", "has_python_headers")}
    found = python(**given, **others)["Triton"]
    assert (found.status, words in found.value) == (Status.WARNING, True)


def test_deformable_attention_is_fast_on_a_gpu():
    found = python(**on_gpu(driver_cuda=13000, devices=[DEVICE]))["Triton"]
    assert (found.status, found.value) == (Status.OK, "3.7.0; deformable attention takes its kernel")


def test_shared_memory_of_a_container():
    found = machine(shared_memory=64 * 2**20, shared_memory_free=64 * 2**20)["/dev/shm"]
    assert (found.status, "--shm-size=8g" in found.advice) == (Status.WARNING, True)


def test_shared_memory_that_others_left_full():
    assert machine(shared_memory_free=2**20)["/dev/shm"].status is Status.WARNING


@pytest.mark.parametrize(("free", "status"), [(0.5, "error"), (3, "warning"), (50, "ok")])
def test_disk(free, status):
    assert machine(disk_free=int(free * GIB))["disk"].status.value == status


def test_open_files():
    found = machine(open_files=1024, open_files_hard=None)["open files"]
    assert (found.status, found.advice) == (Status.WARNING, "ulimit -n 65536")
    assert "as root" in machine(open_files=1024, open_files_hard=1024)["open files"].advice


def test_memory():
    assert machine(memory_free=GIB)["memory"].status is Status.WARNING


def test_a_container_with_less_time_than_cores():
    found = machine(core_limit=2.5)["cores"]
    assert (found.status, found.advice) == (Status.WARNING, "export OMP_NUM_THREADS=2")
    assert machine({"OMP_NUM_THREADS": "2"}, core_limit=2.5)["cores"].status is Status.OK
    assert machine(cores=2, core_limit=4.0)["cores"].value == "2 of the machine's 8"


def test_a_driver_that_shows_no_gpu():
    assert machine(driver_works=False)["GPU"].status is Status.ERROR
    found = machine(driver_works=True, driver="580.1", gpus=(GPU, GPU))["GPU"]
    assert (found.status, found.value) == (Status.OK, "2 x NVIDIA H200, 140.0 GiB; driver 580.1")


def test_a_check_that_fails_is_a_finding():
    def broken(facts):
        raise KeyError("nothing")

    (found,) = examine([Part("Part", broken)]).findings
    assert (found.status, "KeyError" in found.value) == (Status.ERROR, True)


def test_files_that_nobody_can_read_are_a_finding(monkeypatch):
    def unreadable():
        raise UnicodeDecodeError("utf-8", b"", 0, 1, "invalid start byte")

    monkeypatch.setattr("cvplugins.doctor.examination.read_distributions", unreadable)
    (found,) = examine([Part("Part", lambda facts: [])]).findings
    assert (found.status, "invalid start byte" in found.value) == (Status.ERROR, True)


def test_who_imports_pkg_resources(tmp_path, monkeypatch):
    """Without pkg_resources, packages that import it anywhere are found by their text."""
    for name, line in {"asks": "    import pkg_resources", "names": "text = 'import pkg_resources'"}.items():
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "deep" / "file.py").write_text(f"def function():\n{line}\n")
    (tmp_path / "checkout" / "asks").mkdir(parents=True)
    (tmp_path / "checkout" / "setup.py").write_text("import pkg_resources\n")
    monkeypatch.syspath_prepend(tmp_path)
    packages = ["asks", "names", "checkout", "absent"]
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pkg_resources" else find_spec(name))
    found = examination.collect([Part("Part", lambda facts: [], packages=tuple(packages))])
    assert (found.pkg_resources_users, found.problems) == (("asks",), ())


def test_versions_sort_as_packaging_sorts_them():
    from packaging.version import parse

    versions = ["2.0.0", "2.0.0rc4", "2.0.0a1", "2.0.0b2", "2.0.0.dev3", "2.0.1", "2.10", "2.9.1", "10.0", "0.9"]
    assert sorted(versions, key=version_key) == sorted(versions, key=parse)
