"""Every part of a config with its dotted path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.config import Config

__all__ = ["Part", "at", "walk"]


class Part(NamedTuple):
    """A part of a config.

    Attributes:
        path: Its dotted path, such as ``"custom_hooks.2"``; empty for the config itself.
        key: The last part of the path.
        value: What the config has there.
    """

    path: str
    key: str
    value: Any


def walk(node: Any, path: str = "", key: str = "") -> Iterator[Part]:
    """Yield every part of a config, outer ones first, the config itself at the beginning.

    >>> [part.path for part in walk({"hooks": [{"type": "X"}]})]
    ['', 'hooks', 'hooks.0', 'hooks.0.type']
    """
    yield Part(path, key, node)
    children: Any = ()
    if isinstance(node, (dict, Config)):
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    for name, child in children:
        yield from walk(child, f"{path}.{name}" if path else str(name), str(name))


def at(node: Any, path: str) -> Any:
    """Return what a config has at a dotted path, None if there is nothing.

    >>> at({"hooks": [{"type": "X"}]}, "hooks.0.type")
    'X'
    """
    for name in path.split("."):
        if isinstance(node, (dict, Config)):
            node = node.get(name)
        elif isinstance(node, (list, tuple)) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node
