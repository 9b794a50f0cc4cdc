"""Read a config file and the command line's changes to it; say what is wrong before any work."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import detectron2
import yaml
from detectron2.config import CfgNode, get_cfg

from cvplugins.config_bases import check_bases
from cvplugins.config_files import config_folder, find_config
from cvplugins.detectron2.mask2former.config import add_mask2former_config, is_mask2former, named_root
from cvplugins.errors import UserError, first_line

from .config_node import add_cvplugins_config

__all__ = ["load_config", "own_keys", "read_content"]

MISMATCH = re.compile(r"Type mismatch \(.*?\) with values \((.*) vs\. (.*)\) for config key: (\S+)", re.DOTALL)


class _ZooNode(CfgNode):
    """A node whose files may name a config of the installed zoo, or one of ours, as their base."""

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        # fvcore (0.1.5) puts the folder of the derived config in front, and in front of the base's own bases too.
        before, _, inside = filename.rpartition("::")
        if before.endswith("detectron2"):
            folder = zoo_folder()
        elif before.endswith("cvplugins"):
            folder = config_folder()
        else:
            return super()._open_cfg(filename)
        return super()._open_cfg(os.path.normpath(folder / inside))


def zoo_folder() -> Path:
    """Return the folder of Detectron2's configs, which a checkout that nobody has installed has beside the package."""
    # Not by detectron2.model_zoo, whose import needs pkg_resources, which setuptools no longer has.
    package = Path(detectron2.__path__[0])
    installed = package / "model_zoo" / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def load_config(path: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> CfgNode:
    """Load a YAML config on top of Detectron2's defaults and ours: a config with every key, ready for a trainer.

    Its ``_BASE_`` may be a file beside it, a config of the installed zoo such as
    ``detectron2::PascalVOC-Detection/faster_rcnn_R_50_C4.yaml``, or one that comes with this package such as
    ``cvplugins::detectron2/voc_faster_rcnn_R_50_C4.yaml``. Detectron2's own ``merge_from_file`` knows neither of the
    latter. If it has keys of ``MODEL.MASK_FORMER``, the original Mask2Former is imported, whose keys these are.

    Args:
        path: The config file, or the name of one that comes with this package, such as ``"voc_faster_rcnn_R_50_C4"``.
        options: Dotted keys and values that replace those of the file.

    Example::

        cfg = load_config("voc_faster_rcnn_sample", {"SOLVER.MAX_ITER": 100})
        register_datasets(cfg)
        trainer = CvpluginsTrainer(cfg)

    Raises:
        UserError: The file or a base is missing or broken, or a key or value does not fit.
    """
    loaded = read_content(path)
    cfg = get_cfg()
    add_cvplugins_config(cfg)
    if loaded.get("VERSION", cfg.VERSION) != cfg.VERSION:
        raise UserError(f"config {path} has VERSION {loaded['VERSION']}; only {cfg.VERSION} is read")
    changes = _nested(options or {})
    if is_mask2former(loaded) or is_mask2former(changes):
        add_mask2former_config(cfg, named_root(changes, loaded))
    _merge(cfg, loaded, f"config {path}")
    version = cfg.VERSION
    _merge(cfg, changes, "--cfg-options")
    if version != cfg.VERSION:
        raise UserError(f"--cfg-options: VERSION = {cfg.VERSION}: only {version} is read; leave it out")
    return cfg


def read_content(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a config file and its bases say, without Detectron2's defaults.

    Args:
        path: See :func:`load_config`.

    Raises:
        UserError: The file or a base is missing or broken.
    """
    path = find_config(path, "detectron2")
    check_bases(path)
    try:
        loaded = _ZooNode.load_yaml_with_base(str(path), allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        raise UserError(f"config {path}: {error.problem}; tags that run code are not read, write the value") from error
    except yaml.YAMLError as error:
        raise UserError(f"config {path} is no YAML: {' '.join(str(error).split())}") from error
    except (OSError, RuntimeError, AssertionError) as error:
        raise UserError(f"config {path} cannot be read: {first_line(error)}") from error
    except TypeError:  # of an empty file, or a base
        loaded = None
    if not isinstance(loaded, dict):
        raise UserError(f"config {path}: expected keys and values in it and in its bases")
    return loaded


def own_keys(path: str | os.PathLike[str]) -> list[str]:
    """Return the dotted keys that a config file itself has, without its bases."""
    loaded = yaml.safe_load(find_config(path, "detectron2").read_text())
    return list(_dotted(loaded, "")) if isinstance(loaded, dict) else []


def _dotted(node: Any, path: str) -> Iterator[str]:
    if not isinstance(node, dict):
        yield path
        return
    for key, child in node.items():
        yield from _dotted(child, f"{path}.{key}" if path else str(key))


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree of dotted keys; unlike yacs's own merge_from_list it can add options to plugins."""
    tree: dict[str, Any] = {}
    for dotted, value in options.items():
        *folders, name = dotted.split(".")
        if not all([*folders, name]):
            raise UserError(f"--cfg-options {dotted}: the key has an empty part between its dots")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise UserError(
                    f"--cfg-options {dotted}: {folder} is given a value of its own too; give one of the two"
                )
        if isinstance(node.get(name), dict):
            raise UserError(f"--cfg-options {dotted}: keys below it are given too; give one of the two")
        node[name] = value
    return tree


def _merge(cfg: CfgNode, changes: Mapping[str, Any], source: str) -> None:
    try:
        cfg.merge_from_other_cfg(CfgNode(changes))
    except KeyError as error:
        name = str(error.args[0]).rpartition(" ")[2]
        raise UserError(f"{source}: there is no key {name}{_similar_key(cfg, name)}") from error
    except (AssertionError, ValueError, AttributeError, TypeError) as error:
        found = MISMATCH.search(str(error))
        if found:
            has, given, key = (" ".join(each.split()) for each in found.groups())
            raise UserError(f"{source}: {key} = {given}: expected a value such as {has}") from error
        raise UserError(f"{source}: {first_line(error)}") from error


def _similar_key(cfg: CfgNode, dotted: str) -> str:
    *folders, name = dotted.split(".")
    for folder in folders:
        cfg = cfg.get(folder, {})
    close = difflib.get_close_matches(name, cfg, n=1)
    return f"; did you mean {'.'.join([*folders, close[0]])}?" if close else ""
