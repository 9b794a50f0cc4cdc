"""The floors of the house: the core imports no framework, and importing it is cheap."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import cvplugins

FRAMEWORKS = ["mmengine", "mmcv", "mmdet", "mmseg", "detectron2"]
ADAPTERS = {"cvplugins.openmmlab", "cvplugins.detectron2", "cvplugins.registry"}


def core_modules():
    found = pkgutil.walk_packages(cvplugins.__path__, "cvplugins.", onerror=lambda name: None)
    names = (module.name for module in found)
    return [name for name in names if ".".join(name.split(".")[:2]) not in ADAPTERS and not name.endswith("__main__")]


def run_python(code):
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_core_imports_no_framework():
    names = core_modules()
    assert {"cvplugins.losses.focal", "cvplugins.metrics", "cvplugins.norm", "cvplugins.monitors"} <= set(names)
    code = f"""
import importlib, json, sys
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps([name for name in {FRAMEWORKS!r} + ['matplotlib', 'PIL', 'cv2'] if name in sys.modules]))
"""
    assert json.loads(run_python(code)) == []


def test_importing_the_package_imports_neither_a_framework_nor_much_else():
    code = """
import sys, torch
before = set(sys.modules)
import cvplugins
print(*sorted(set(sys.modules) - before))
"""
    assert run_python(code).split() == ["cvplugins"]


@pytest.mark.parametrize("module", ["cvplugins.registry"])
def test_a_missing_framework_is_named_with_the_command_that_installs_it(module):
    code = f"""
import sys
sys.modules['mmengine'] = None  # as if it were not installed
try:
    import {module}
except ImportError as error:
    print(error)
"""
    assert "pip install 'cvplugins[openmmlab]'" in run_python(code)


def test_no_adapter_imports_the_other():
    package = Path(cvplugins.__file__).parent
    for adapter, other in [("openmmlab", "detectron2"), ("detectron2", "openmmlab")]:
        for path in (package / adapter).glob("**/*.py"):
            assert f"cvplugins.{other}" not in path.read_text(), path
