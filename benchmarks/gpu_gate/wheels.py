"""Collect the wheels that the GPU machine lacks: resolved by uv, downloaded by pip, built where a registry has none."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from cvplugins.errors import UserError

__all__ = [
    "HEAVY",
    "LIMIT_MB",
    "PLATFORM",
    "PRESENT",
    "check_size",
    "collect",
    "distribution",
    "excluded",
    "normalised",
    "pip_platforms",
    "read_names",
    "read_pins",
    "uv_platform",
]

LIMIT_MB = 50.0
PLATFORM = "manylinux_2_28_x86_64"
GLIBC_TAGS = (28, 27, 26, 24, 17)  # pip takes each tag literally, a wheel has one or two

# What a machine with torch, torchvision, triton, OpenCV and pytest has, with what these need.
PRESENT = frozenset(
    {
        *("filelock", "fsspec", "iniconfig", "jinja2", "markupsafe", "mpmath", "networkx", "numpy"),
        *("opencv-python", "opencv-python-headless", "packaging", "pillow", "pip", "pluggy", "pygments"),
        *("pytest", "setuptools", "sympy", "torch", "torchvision", "triton", "typing-extensions"),
    }
)
# 26 MB with what they need, beside the 35 MB of SciPy. mmdet imports both, mmengine, mmcv, mmseg and the core neither.
HEAVY = frozenset({"matplotlib", "scikit-image"})
NEEDS_HEAVY = frozenset({"onedl-mmdetection", "imaug"})
# Declared, but imported only when used, or not at all: numba comes with imagecorruptions, 45 MB.
UNUSED = frozenset({"fonttools", "imagecorruptions-imaug", "tzdata"})
# This repository's own, built here.
OWN = frozenset({"cvplugins", "cvplugins-mmcv-ops"})
# No registry has a wheel of these; built in isolation they are pure Python.
SOURCE_ONLY = frozenset(
    {"antlr4-python3-runtime", "fvcore", "iopath", "onedl-mmcv", "onedl-mmdetection", "onedl-mmsegmentation"}
)


def normalised(name: str) -> str:
    """Return a distribution's name as registries compare it.

    >>> normalised("Onedl_MMCV")
    'onedl-mmcv'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(wheel: Path) -> str:
    """Return the name of the distribution that a wheel holds.

    >>> distribution(Path("onedl_mmcv-2.3.6-py3-none-any.whl"))
    'onedl-mmcv'
    """
    return normalised(wheel.name.split("-")[0])


def read_names(text: str) -> frozenset[str]:
    """Return the names in the output of ``pip freeze`` or ``pip list``, or in a list with commas or lines.

    >>> sorted(read_names("scipy==1.16.0, PyYAML"))
    ['pyyaml', 'scipy']
    """
    found = (re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", part) for part in re.split(r"[,\n]", text))
    return frozenset(normalised(each[1]) for each in found if each) - {"package"}  # the heading of `pip list`


def excluded(present: frozenset[str], everything: bool) -> frozenset[str]:
    """Return what does not travel: what is there, what nobody imports, and mmdet where its needs are too heavy."""
    none = PRESENT | present | UNUSED | OWN
    if everything or present >= HEAVY:
        return none
    return none | HEAVY | NEEDS_HEAVY


def read_pins(compiled: str) -> dict[str, str]:
    r"""Return versions by name from the output of ``uv pip compile``.

    >>> read_pins("scipy==1.16.0\n# a comment")
    {'scipy': '1.16.0'}
    """
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", compiled, re.MULTILINE)
    return {normalised(name): version for name, version in pairs}


def pip_platforms(platform: str) -> list[str]:
    """Return pip's options for a platform and, on Linux, the older ones that it runs too.

    >>> pip_platforms("win_amd64")
    ['--platform', 'win_amd64']
    """
    match = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    tags = [platform]
    if match:
        newest, machine = int(match[1]), match[2]
        tags += [f"manylinux_2_{minor}_{machine}" for minor in GLIBC_TAGS if minor < newest]
        tags.append(f"manylinux2014_{machine}")
    return [option for tag in tags for option in ("--platform", tag)]


def uv_platform(platform: str) -> str:
    """Return uv's name of a platform tag.

    >>> uv_platform("manylinux_2_28_x86_64")
    'x86_64-manylinux_2_28'
    """
    match = re.fullmatch(r"(manylinux_2_\d+)_(\w+)", platform)
    return f"{match[2]}-{match[1]}" if match else platform


def check_size(sizes: Mapping[str, int], limit_mb: float) -> float:
    """Return the sum in megabytes.

    Raises:
        UserError: It is above ``limit_mb``; the message names the largest.
    """
    total = sum(sizes.values()) / 1e6
    if total > limit_mb:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        named = ", ".join(f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest)
        raise UserError(
            f"the wheels are {total:.1f} MB in all, more than {limit_mb:g} MB; the largest are {named}; "
            "list what the GPU machine has in a file and pass it with --present, or raise --limit"
        )
    return total


def collect(root: Path, options: argparse.Namespace) -> None:
    """Fill ``options.wheels``, print each wheel's size, and refuse more than ``options.limit`` megabytes."""
    present = _read_present(options.present)
    without = excluded(present, options.everything)
    pins = _resolve(root, without, options)
    options.wheels.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _build_own(root, folder)
        _build([f"{name}=={pins[name]}" for name in sorted(pins) if name in SOURCE_ONLY], folder)
        _download([f"{name}=={pins[name]}" for name in sorted(pins) if name not in SOURCE_ONLY], folder, options)
        wheels = sorted(folder.glob("*.whl"), key=lambda wheel: -wheel.stat().st_size)
        _check_complete(wheels, {*pins, *OWN})
        for wheel in wheels:
            print(f"{wheel.stat().st_size / 1e6:7.2f} MB  {wheel.name}")
        total = check_size({distribution(wheel): wheel.stat().st_size for wheel in wheels}, options.limit)
        for old in options.wheels.glob("*.whl"):
            old.unlink()
        for wheel in wheels:
            shutil.move(wheel, options.wheels)
    print(f"{total:7.2f} MB  in {len(wheels)} wheels, in {options.wheels}")
    if without >= NEEDS_HEAVY:
        print(
            "mmdet does not travel, so its benchmark (hooks) will be left out: matplotlib and scikit-image, which it "
            "imports, are too large. If the GPU machine has both, name its packages with --present."
        )


def _read_present(file: Path | None) -> frozenset[str]:
    if file is None:
        return frozenset()
    if not file.is_file():
        raise UserError(f"--present {file} is no file; write the output of `pip freeze` on the GPU machine there")
    return read_names(file.read_text())


def _resolve(root: Path, without: Iterable[str], options: argparse.Namespace) -> dict[str, str]:
    """Return the versions of the project's own group for the GPU machine, without some packages and their needs."""
    groups = ["openmmlab", "detectron2"] if options.detectron2 else ["openmmlab"]
    with tempfile.TemporaryDirectory() as folder:
        overrides = Path(folder, "overrides.txt")
        # A requirement that never holds takes the place of the real one, and what only it needs goes too.
        overrides.write_text("".join(f"{name} ; python_version < '0'\n" for name in sorted(without)))
        return read_pins(
            _call(
                *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "pyproject.toml"),
                *(option for group in groups for option in ("--group", group)),
                *("--override", str(overrides)),
                *("--python-version", options.python, "--python-platform", uv_platform(options.platform)),
                folder=root,
            )
        )


def _build_own(root: Path, folder: Path) -> None:
    for name in sorted(OWN):
        # By way of the source distribution: a folder `build` of former times cannot get into the wheel.
        _call("uv", "build", "--quiet", "--package", name, "--out-dir", str(folder), folder=root)


def _build(pinned: list[str], folder: Path) -> None:
    """Build wheels in isolation; pip's cache could hold a compiled mmcv, so it is not asked."""
    _call(*_pip(), "wheel", "--quiet", "--no-deps", "--no-cache-dir", "--wheel-dir", str(folder), *pinned)
    for wheel in folder.glob("*.whl"):
        if not wheel.name.endswith("-none-any.whl"):
            raise UserError(f"{wheel.name} was compiled for this machine; unset what makes its set-up find a compiler")


def _download(pinned: list[str], folder: Path, options: argparse.Namespace) -> None:
    _call(
        *_pip(),
        *("download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)),
        *("--python-version", options.python, "--implementation", "cp", *pip_platforms(options.platform)),
        *pinned,
    )


def _check_complete(wheels: Iterable[Path], names: set[str]) -> None:
    if missing := names - {distribution(wheel) for wheel in wheels}:
        raise UserError(f"there is no wheel of {', '.join(sorted(missing))}; see the output above")


def _pip() -> list[str]:
    """Return the command for pip: uv's environments have none."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    return ["uv", "tool", "run", "pip"]


def _call(*command: str, folder: Path | None = None) -> str:
    """Return what a command prints.

    Raises:
        UserError: It is missing or fails; the message is its last line.
    """
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise UserError(f"{command[0]} is not installed: pip install {command[0]}") from error
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        raise UserError(f"`{' '.join(command[:3])}` failed with exit code {error.returncode}; see above") from error
