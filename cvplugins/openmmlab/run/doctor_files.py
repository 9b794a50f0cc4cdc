"""What the files of OpenMMLab's packages say without being imported."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Files", "read_bounds", "read_extensions", "read_files"]


@dataclass(frozen=True)
class Files:
    """Facts from files.

    Attributes:
        bounds: For a package and another one, the range of the other's versions that its ``__init__.py`` takes.
        compiled: The compiled ``mmcv/_ext`` that this Python would load, empty if there is none.
        compiled_for_others: Compiled ones of other versions of Python.
        pure: The ``mmcv/_ext.py``, empty if there is none.
    """

    bounds: Mapping[tuple[str, str], str] = field(default_factory=dict)
    compiled: str = ""
    compiled_for_others: tuple[str, ...] = ()
    pure: str = ""


def read_files() -> Files:
    """Return the facts about the packages that Python would import."""
    bounds: dict[tuple[str, str], str] = {}
    for package in ("mmdet", "mmseg"):
        folder = _folder(package)
        if folder is not None:
            found = read_bounds((folder / "__init__.py").read_text(encoding="utf-8", errors="replace"))
            bounds |= {(package, other): wanted for other, wanted in found.items()}
    folder = _folder("mmcv")
    return Files(bounds) if folder is None else read_extensions(folder, bounds)


def read_bounds(source: str) -> dict[str, str]:
    r"""Return the ranges that a package's ``__init__.py`` checks.

    mmdet 3.3 has ``mmcv_minimum_version = '2.0.0rc4'``, mmseg 1.2 ``MMCV_MIN = '2.0.0rc4'``; both take the minimum and
    refuse the maximum. The forks check nothing.

    >>> read_bounds("MMCV_MIN = '2.0.0rc4'\nMMCV_MAX = '2.2.0'")
    {'mmcv': '>=2.0.0rc4,<2.2.0'}
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:  # importing it fails as well, and that is reported
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)):
            continue
        for target in node.targets:
            match = re.fullmatch(r"(mmcv|mmengine)_(min|max)(?:imum_version)?", getattr(target, "id", "").lower())
            if match:
                found.setdefault(match.group(1), {})[match.group(2)] = str(node.value.value)
    signs = {"min": ">=", "max": "<"}
    return {
        other: ",".join(f"{sign}{ends[end]}" for end, sign in signs.items() if end in ends)
        for other, ends in found.items()
    }


def read_extensions(folder: Path, bounds: Mapping[tuple[str, str], str] | None = None) -> Files:
    """Return which files in mmcv's folder could be ``mmcv._ext``; a compiled one of this Python goes first."""
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    mine = [folder / f"_ext{suffix}" for suffix in suffixes if (folder / f"_ext{suffix}").is_file()]
    every = sorted([*folder.glob("_ext*.so"), *folder.glob("_ext*.pyd")])
    pure = folder / "_ext.py"
    return Files(
        bounds or {},
        compiled=str(mine[0]) if mine else "",
        compiled_for_others=tuple(str(file) for file in every if file not in mine),
        pure=str(pure) if pure.is_file() else "",
    )


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
