"""The files that a config inherits from, found by reading its text: no line of it runs, no framework is imported."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError
from .paths import check_source, is_address

__all__ = ["check_bases", "config_chain", "first_literal"]

YAML_BASE = re.compile(r"^_BASE_:[ \t]*(['\"]?)(?P<base>[^'\"#\n]+?)\1[ \t]*(?:#.*)?$", re.MULTILINE)


def check_bases(path: str | os.PathLike[str]) -> None:
    """Raise ``UserError`` if a file that a config inherits from, directly or not, is missing or no regular file."""
    for _ in config_chain(path):
        pass


def config_chain(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a config and those that it inherits from, the nearest first; those of a package where it is installed.

    Raises:
        UserError: A base is missing or no regular file, or has a form that mmengine does not know.
    """
    waiting, seen = [Path(path)], set()
    while waiting:
        current = waiting.pop(0)
        if os.path.realpath(current) in seen:
            continue
        seen.add(os.path.realpath(current))
        yield current
        for base in _bases(current):
            if current.suffix == ".py" and base.startswith("cvplugins::"):
                raise UserError(
                    f"config {current}: _base_ = {base!r}: mmengine knows no such form; write "
                    f'_base_ = __import__("cvplugins").config_path("{Path(base.partition("::")[2]).stem}")'
                )
            found = _find(base, current)
            if found is not None:
                check_source(found, f"config {current}: its base")
                waiting.append(found)


def first_literal(path: str | os.PathLike[str], name: str) -> object:
    """Return what a Python config, or the nearest of its bases, assigns to a name if it is a literal; None if not."""
    for each in config_chain(path):
        for node in _statements(each):
            is_it = isinstance(node, ast.Assign) and any(getattr(to, "id", None) == name for to in node.targets)
            if isinstance(node, ast.Assign) and is_it:
                return node.value.value if isinstance(node.value, ast.Constant) else None
    return None


def _bases(path: Path) -> list[str]:
    if path.suffix in (".yaml", ".yml"):
        found = YAML_BASE.search(_text(path))
        return [found["base"]] if found else []
    for node in _statements(path):
        if isinstance(node, ast.Assign) and any(getattr(to, "id", None) == "_base_" for to in node.targets):
            listed = node.value.elts if isinstance(node.value, (ast.List, ast.Tuple)) else [node.value]
            return [each.value for each in listed if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return []


def _find(base: str, inside: Path) -> Path | None:
    """Return the path of a base, None where it cannot be known without the framework."""
    if "::" in base or is_address(base):
        return None
    return Path(os.path.normpath(inside.parent / Path(base).expanduser()))


def _statements(path: Path) -> list[ast.stmt]:
    if path.suffix != ".py":
        return []
    try:
        return ast.parse(_text(path)).body
    except (SyntaxError, ValueError):  # the config's loader says what is wrong with it
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}") from error
