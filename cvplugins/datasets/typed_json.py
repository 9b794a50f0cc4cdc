"""JSON files decoded by type: whatever is of another type is named by its place, its value and what was expected."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from cvplugins.errors import DataError

from .regular_files import read_bytes

__all__ = ["read_typed_json", "shown", "type_problems"]

T = TypeVar("T")

LISTED = 20  # entries of one file
SHOWN = 60  # characters of a value in a message
MARK = "not a finite number"  # the key of what stands for NaN and Infinity, which no field takes
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_typed_json(
    path: str | os.PathLike[str], kind: type[T], *, root: str, expected: Mapping[str, str], allow_mark: bool = True
) -> T:
    """Read a JSON file; keys that the type does not have are passed over.

    Args:
        path: A regular file in UTF-8.
        kind: What msgspec makes of it.
        root: What messages call the list that the file holds, if it holds one: ``root[3].key``.
        expected: What is said of the value of a key, by the key; ``""`` for the file as a whole.
        allow_mark: Whether a byte order mark may come first.

    Raises:
        DataError: The file is missing, no regular file or no JSON, or a value has another type; the message names the
            file, the place, the value and what was expected.
    """
    content = read_bytes(path)
    if content.startswith(BYTE_ORDER_MARK):
        if not allow_mark:
            raise DataError(f"{path}: begins with a byte order mark, which JSON readers refuse; save it without one")
        content = content[len(BYTE_ORDER_MARK) :]
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise _of_type(path, content, error, root, expected) from error
    except RecursionError as error:
        raise DataError(f"{path}: is nested too deeply to be read") from error
    except msgspec.DecodeError as error:
        return _with_marks(path, content, kind, error, root, expected)


def type_problems(path: str | os.PathLike[str], parts: Mapping[str, type], expected: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the entries of a file's lists, for the first 20 of wrong type.

    Args:
        path: A JSON file that :func:`read_typed_json` refused.
        parts: What msgspec makes of each entry of a list, by the list's key.
        expected: See :func:`read_typed_json`.

    Returns:
        A line for each; nothing where the file as a whole is to blame.
    """
    content = read_bytes(path)
    try:
        lists = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        entries = [
            (part, number, raw)
            for part in parts
            for number, raw in enumerate(msgspec.json.decode(lists.get(part, b"[]"), type=list[msgspec.Raw]))
        ]
    except (msgspec.MsgspecError, RecursionError):
        return []
    problems: list[str] = []
    for part, number, raw in entries:
        try:
            msgspec.json.decode(raw, type=parts[part])
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `$")
            whole = msgspec.ValidationError(f"{message} - at `$.{part}[{number}]{place.rstrip('`')}`")
            problems.append(str(_of_type(path, content, whole, part, expected)))
        if len(problems) == LISTED:
            break
    return problems


def shown(value: Any) -> str:
    """Return a value as JSON has it, cut where it is long.

    >>> shown([1.0, None, True])
    '[1, null, true]'
    """
    text = json.dumps(_plain(value), ensure_ascii=False, default=str)
    # NaN and Infinity as the file has them.
    text = re.sub(rf'{{"{MARK}": "([^"]*)"}}', r"\1", text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def _plain(value: Any) -> Any:
    """Return a value whose whole floats are integers, which they mostly are in the file."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _with_marks(
    path: object, content: bytes, kind: type[T], error: Exception, root: str, expected: Mapping[str, str]
) -> T:
    """Decode JSON with NaN or Infinity in it, which is none, but is written and harmless where nobody reads it."""
    try:
        values = json.loads(content.decode(), parse_constant=lambda word: {MARK: word}, parse_float=_float)
        marked = json.dumps(values).encode()
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply to be read") from error
    except ValueError as other:  # a UnicodeDecodeError is one, too
        raise DataError(f"{path}: not JSON: {other}") from error
    try:
        return msgspec.json.decode(marked, type=kind)
    except msgspec.ValidationError as other:
        raise _of_type(path, marked, other, root, expected) from other
    except msgspec.DecodeError as other:
        raise DataError(f"{path}: not JSON: {other}") from other


def _float(text: str) -> Any:
    number = float(text)
    return number if math.isfinite(number) else {MARK: text}


def _of_type(
    path: object, content: bytes, error: msgspec.ValidationError, root: str, expected: Mapping[str, str]
) -> DataError:
    message, _, place = str(error).partition(" - at `$")
    steps: list[str | int] = [
        int(number) if number else key for key, number in re.findall(r"\.(\w+)|\[(\d+)\]", place.rstrip("`"))
    ]
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", message):
        if not steps:
            return DataError(f"{path}: has no list {missing[1]!r}; expected {expected['']}")
        return DataError(f"{path}: {_named(steps, root)} has no {missing[1]!r}")
    if len(steps) > 1 and isinstance(steps[-1], int) and isinstance(steps[-2], str) and steps[-2] in expected:
        steps.pop()  # the whole list says more than one of its numbers
    key = next((step for step in reversed(steps) if isinstance(step, str)), "")
    wanted = expected.get(key, "a list") if steps and steps[-1] == key else "an object"
    try:
        value = _value_at(content, steps)
    except RecursionError:  # what is wrong behind the first mistake makes the file unreadable
        return DataError(f"{path}: is nested too deeply to be read")
    except ValueError as broken:
        return DataError(f"{path}: not JSON: {broken}")
    if not steps:
        kind = {"list": "a list", "dict": "an object"}.get(type(value).__name__, shown(value))
        return DataError(f"{path}: holds {kind}; expected {expected['']}")
    return DataError(f"{path}: {_named(steps, root)} is {shown(value)}; expected {wanted}")


def _named(steps: Sequence[str | int], root: str) -> str:
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps]
    name = "".join(parts)
    return f"{root}{name}" if name.startswith("[") else name.removeprefix(".")


def _value_at(content: bytes, steps: Sequence[str | int]) -> Any:
    value = json.loads(content)
    for step in steps:
        value = value[step]
    return value
