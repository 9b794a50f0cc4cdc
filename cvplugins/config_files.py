"""Find a config by its path, or by the name of one that comes with this package."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from .errors import UserError

__all__ = ["SUFFIXES", "check_syntax", "config_folder", "config_names", "find_config"]

SUFFIXES = (".py", ".yaml", ".yml")


def config_folder() -> Path:
    """Return the folder of the configs: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_names() -> dict[str, Path]:
    """Return the configs that come with this package by name, such as ``detectron2/voc_faster_rcnn_sample``."""
    folder = config_folder()
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    parts = {path: path.relative_to(folder).with_suffix("").parts for path in paths}
    return {"/".join(names): path for path, names in parts.items() if names[-2:-1] != ("_base_",)}


def find_config(path_or_name: str | os.PathLike[str], folder: str = "") -> Path:
    """Return the path of a config.

    A file of this path comes first. A name, with or without its suffix, is looked up among the configs that come with
    this package.

    Args:
        path_or_name: Such as ``my/config.py`` or ``voc_faster_rcnn_sample``.
        folder: Where else a name may lie, such as ``"detectron2"``: then ``voc_faster_rcnn_sample`` is the one there.

    Raises:
        UserError: There is neither; the message has the closest ones.

    Example:
        >>> find_config("voc_faster_rcnn_sample").name
        'voc_faster_rcnn_sample.py'
        >>> find_config("voc_faster_rcnn_sample", "detectron2").name
        'voc_faster_rcnn_sample.yaml'
        >>> find_config("voc_faster_rcn")
        Traceback (most recent call last):
        ...
        cvplugins.errors.UserError: config voc_faster_rcn does not exist; did you mean voc_faster_rcnn?
    """
    path = Path(path_or_name)
    if os.path.isfile(path):  # unlike Path's, False for what cannot even be asked
        return path
    given, known = path.as_posix(), config_names()
    # With its suffix a name may look like a path; only the very file is meant then.
    name = given if path.suffix not in SUFFIXES else path.with_suffix("").as_posix()
    for wanted in filter(None, [f"{folder}/{name}" if folder else "", name]):
        if wanted in known and path.suffix in ("", known[wanted].suffix):
            return known[wanted]
    if os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"config {given} is no regular file, but a pipe, socket or device")
    if os.path.isdir(path):
        raise UserError(f"config {given} is a folder; give a file in it, or the name of a config of cvplugins")
    around = path.parent.glob("*") if os.path.isdir(path.parent) else ()
    beside = [each.as_posix() for each in around if each.suffix in SUFFIXES and each.is_file()]
    raise UserError(f"config {given} does not exist{_suggestion(given, name, beside, known)}")


def check_syntax(path: Path) -> None:
    """Raise ``UserError`` if a Python config cannot be parsed; no line of it runs."""
    try:
        compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:
        line = (error.text or "").strip()
        place = f", line {error.lineno}" if error.lineno else ""  # a file with null bytes has none
        raise UserError(f"config {path}{place}: {error.msg}{f': {line}' if line else ''}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"config {path} cannot be read: {error}") from error


def _suggestion(given: str, name: str, beside: Iterable[str], known: Iterable[str]) -> str:
    """Return what else was meant: a file beside the given path, or a config of ours whose name ends in the same way."""
    close = difflib.get_close_matches(given, list(beside), n=1)
    if not close:
        same_end = [each for each in known if each.rpartition("/")[2] == name.rpartition("/")[2]]
        close = same_end or difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return "" if "/" in given else f"; there are {', '.join(known)}, and any path"
