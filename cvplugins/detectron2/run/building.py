"""Everything that is built from a config, and one line with the key where Detectron2 refuses its value."""

from __future__ import annotations

import contextlib
import inspect
import re
import traceback
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode, get_cfg

from cvplugins.errors import UserError, first_line
from cvplugins.refusals import did_you_mean, shown

__all__ = ["keys_read_by", "leaves", "refusals_named", "where"]

KEY = re.compile(r"\bcfg((?:\.[A-Z][A-Z0-9_]*)+)")
MOST = 4  # keys that a message lists


@contextlib.contextmanager
def refusals_named(cfg: CfgNode, given: Sequence[Collection[str]] = ()) -> Iterator[None]:
    """Turn what is raised while something is built into one line with the keys that it is about.

    Args:
        cfg: The config that things are built from.
        given: Keys to suspect first: those of the command line, then those of the config file itself.

    Raises:
        UserError: Something refused its values.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(_refusal(error, cfg, given)) from error


def keys_read_by(error: BaseException, cfg: CfgNode) -> dict[str, Any]:
    """Return the keys and values that the innermost code with a config read before an error came.

    A class that is made from a config says in its ``from_config`` what it reads, and a function in its own text.
    """
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        worker = frame.f_locals.get("self", frame.f_locals.get("cls"))
        kind = worker if isinstance(worker, type) else type(worker)
        sources: list[Any] = [frame.f_code] if "cfg" in frame.f_locals else []
        sources += [vars(each)["from_config"].__func__ for each in kind.__mro__ if _is_made_from_config(each)]
        found: dict[str, Any] = {}
        for source in sources:
            with contextlib.suppress(OSError, TypeError):  # no text to read
                paths = [path[1:] for path in KEY.findall(inspect.getsource(source))]
                found |= {path: _value(cfg, path) for path in paths}
        found = {path: value for path, value in found.items() if not isinstance(value, (CfgNode, _Missing))}
        if found:
            return found
    return {}


def _is_made_from_config(kind: type) -> bool:
    return isinstance(vars(kind).get("from_config"), classmethod)


def where(error: BaseException) -> str:
    """Return the module and line that raised an error, and the line's text if the error says nothing itself."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    module = list(traceback.walk_tb(error.__traceback__))[-1][0].f_globals.get("__name__")
    said = f", `{frame.line}`" if not str(error) else ""
    return f"{module}, line {frame.lineno}{said}"


class _Missing:
    pass


def _refusal(error: Exception, cfg: CfgNode, given: Sequence[Collection[str]]) -> str:
    message = str(error.args[0]) if error.args else ""
    unknown = re.match(r"No object named '(.*)' found in '(.*)' registry!", message)
    if unknown:
        paths = [path for path, value in leaves(cfg) if value == unknown[1]]
        frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
        known = sorted(getattr(frame.f_locals.get("self"), "_obj_map", {}))
        hint = did_you_mean(unknown[1], known) or f"it has {', '.join(known)}"
        return f"config: {' and '.join(paths[:2]) or 'a key'} = {unknown[1]!r}: {message} {hint}"
    read = keys_read_by(error, cfg)
    said = f"{type(error).__name__}: {first_line(error)}" if message else type(error).__name__
    quoted = [path for path, value in read.items() if _quotes(message, path, value)]
    default = get_cfg()
    changed = [path for path, value in read.items() if value != _value(default, path)]
    suspected = [[path for path in read if path in keys] for keys in given]
    blamed = next(filter(None, [quoted, *suspected, changed]), list(read))
    if not blamed:
        return f"config: {said} ({where(error)}); --traceback shows all of it"
    listed = ", ".join(f"{path} = {shown(read[path], 40)}" for path in blamed[:MOST])
    return f"config: {listed}: refused ({said}; {where(error)})"


def _quotes(message: str, path: str, value: Any) -> bool:
    """Return whether an error names a key, or says a value that is no common number."""
    names = path.rpartition(".")[2] in message
    says = isinstance(value, str) and len(value) > 1 and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", message)
    number = isinstance(value, (int, float)) and re.search(rf"(?:^|[:=]|got) ?{re.escape(repr(value))}(?!\w)", message)
    return bool(names or says or number)


def _value(cfg: CfgNode, path: str) -> Any:
    node: Any = cfg
    for name in path.split("."):
        if not isinstance(node, CfgNode) or name not in node:
            return _Missing()
        node = node[name]
    return node


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a config by its path."""
    if not isinstance(node, CfgNode):
        yield path, node
        return
    for key, child in node.items():
        yield from leaves(child, f"{path}.{key}" if path else str(key))
