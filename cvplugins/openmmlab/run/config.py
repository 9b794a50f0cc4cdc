"""Read a config file and the command line's changes to it; say what is wrong before any work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from cvplugins import registry
from cvplugins.config_bases import check_bases
from cvplugins.config_files import check_syntax, find_config
from cvplugins.errors import UserError, first_line
from cvplugins.openmmlab.upstream import make_mmseg_configs_reachable

from .config_keys import check_file_keys, check_option_keys
from .config_walk import at

__all__ = ["check_plugin_names", "load_config", "type_name", "walk_dicts"]


def load_config(path: str | os.PathLike, options: Mapping[str, Any] | None = None) -> Config:
    """Load an mmengine config, apply ``options`` and check the names of our plugins in it.

    Args:
        path: The config file, or the name of one that comes with this package, such as ``"voc_faster_rcnn"``.
        options: Dotted keys and values, as ``--cfg-options`` gives them. ``data_root`` moves every dataset
            that lies in the config's own ``data_root``, and the metrics' files there; in mmengine it is a
            variable without effect.

    Raises:
        UserError: The file is missing or broken, a base is missing, a key cannot be set, a plugin is unknown.
    """
    make_mmseg_configs_reachable()
    path = find_config(path)
    if path.suffix == ".py":
        check_syntax(path)
    check_bases(path)
    try:
        config = Config.fromfile(path)
        list(config.values())  # a config of the new style imports its classes here
    except SyntaxError as error:  # mmengine parses a base without its name
        line = (error.text or "").strip()
        raise UserError(f"a base of config {path}, line {error.lineno}: {error.msg}: {line}") from error
    except ModuleNotFoundError as error:
        raise UserError(f"config {path}: {first_line(error)}; install the package that it builds on") from error
    except Exception as error:  # a config is Python code: it can raise anything
        raise UserError(f"config {path} cannot be read: {type(error).__name__}: {first_line(error)}") from error
    options = dict(options or {})
    data_root = options.pop("data_root", None)
    check_file_keys(config)
    check_option_keys(config, options)
    try:
        config.merge_from_dict(options)
    except (KeyError, TypeError, AssertionError, IndexError, AttributeError, ValueError) as error:
        raise UserError(f"--cfg-options do not fit config {path}: {_misfit(path, options, error)}") from error
    if data_root is not None:
        _move_data_root(config, str(data_root))  # a folder may be called 2012
    check_plugin_names(config)
    return config


def walk_dicts(node: Any) -> Iterator[dict]:
    """Yield every dict in a config, outer ones first."""
    if isinstance(node, dict):
        yield node
        children = list(node.values())
    else:
        children = list(node) if isinstance(node, (list, tuple)) else []
    for child in children:
        yield from walk_dicts(child)


def check_plugin_names(config: Config) -> None:
    """Raise ``UserError`` for a ``type='cvplugins.X'`` that no registry knows, with the closest names."""
    registries = [getattr(registry, name) for name in registry.__all__ if name.isupper()]
    prefix = f"{registry.SCOPE}."
    for node in walk_dicts(list(config.values())):
        name = node.get("type")
        if not isinstance(name, str) or not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        known = {known for each in registries for known in each.names()}
        if name not in known:
            raise UserError(f"unknown plugin type='{prefix}{name}'; {registry.suggest(name, known)}")


def type_name(node: Mapping[str, Any]) -> str:
    """Return the name of a config dict's type without its scope; the type may be a class.

    >>> type_name({"type": "mmdet.VOCDataset"})
    'VOCDataset'
    """
    kind = node["type"]
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__


def _misfit(path: str | os.PathLike, options: Mapping[str, Any], error: BaseException) -> str:
    """Return which option cannot be merged, and why."""
    for key, value in options.items():
        config = Config.fromfile(path)
        try:
            config.merge_from_dict({key: value})
        except (KeyError, TypeError, AssertionError, IndexError, AttributeError, ValueError) as refused:
            above, _, last = key.rpartition(".")
            why = first_line(refused)
            if last.isdigit() and isinstance(at(config, above), list):
                why = f"of a list only a dict's keys can be given, as {key}.KEY, or the whole list as {above}=[...]"
            return f"{key}={value}: {why}"
    return first_line(error)


def _move_data_root(config: Config, data_root: str) -> None:
    """Replace the old ``data_root`` at the head of every string: in datasets, and in the paths of metrics."""
    old = config.get("data_root")
    moved = [node for node in walk_dicts(list(config.values())) if old and node.get("data_root") == old]
    if not moved:
        raise UserError("data_root: no dataset of this config lies in its data_root; set the datasets' own data_root")
    head = old.rstrip("/") + "/"
    for node in [config, *walk_dicts(list(config.values()))]:
        for key, value in node.items():
            if isinstance(value, str) and (value == old or value.startswith(head)):
                node[key] = os.path.join(data_root, value.removeprefix(head)) if value != old else data_root
