"""Changes to a config that the command line gives; nothing of OpenMMLab is needed to read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cvplugins.errors import UserError

__all__ = ["parse_options"]

BRACKETS = {"(": ")", "[": "]"}


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the dotted keys and values of ``KEY=VALUE`` pairs, read as OpenMMLab's own tools read them.

    But blanks stay: mmengine's ``DictAction`` (0.10) takes them out of every value, of paths too.

    Raises:
        UserError: A pair has no ``=``, a key has an empty part, or a bracket is not closed.

    Example:
        >>> parse_options(["data_root=/a b/VOC kit", "scale=(200, 1e2)", "model.neck=None"])
        {'data_root': '/a b/VOC kit', 'scale': (200, 100.0), 'model.neck': None}
    """
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--cfg-options {pair}: expected KEY=VALUE, such as train_dataloader.batch_size=4")
        if not all(key.split(".")):
            raise UserError(f"--cfg-options {pair}: {key} has an empty part between its dots")
        try:
            options[key] = _value(value)
        except ValueError as error:
            raise UserError(f"--cfg-options {pair}: {error}; put the value in quotes and close each bracket") from error
    return options


def _value(text: str) -> Any:
    """Return a number, a truth value, None, a word, or a list or tuple of such."""
    text = text.strip().strip("'\"")
    depths = _depths(text)
    if depths is None:
        if "," in text or text[:1] in BRACKETS or text[-1:] in BRACKETS.values():
            raise ValueError("its brackets do not match")
        return _scalar(text)  # a path may hold any letter
    if text[:1] in BRACKETS and depths.index(0) == len(text) - 1:
        inside = text[1:-1]
        values = [_value(each) for each in _split(inside, _depths(inside) or [])]
        return tuple(values) if text[0] == "(" else values
    if any(letter == "," and depth == 0 for letter, depth in zip(text, depths, strict=True)):
        return [_value(each) for each in _split(text, depths)]
    return _scalar(text)


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), None if text == "None" else text)


def _split(text: str, depths: Sequence[int]) -> Iterator[str]:
    """Yield what stands between the commas outside brackets; behind a comma at the end there is nothing."""
    start = 0
    for index, (letter, depth) in enumerate(zip(text, depths, strict=True)):
        if letter == "," and depth == 0:
            yield text[start:index]
            start = index + 1
    if start < len(text):
        yield text[start:]


def _depths(text: str) -> list[int] | None:
    """Return how many brackets are open behind each letter, None if they do not match."""
    waiting: list[str] = []
    depths = []
    for letter in text:
        if letter in BRACKETS:
            waiting.append(BRACKETS[letter])
        elif letter in BRACKETS.values() and (not waiting or waiting.pop() != letter):
            return None
        depths.append(len(waiting))
    return None if waiting else depths
