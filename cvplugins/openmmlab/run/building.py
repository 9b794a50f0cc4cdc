"""Everything that is built from a config, and one line with the path of the key where a constructor refuses."""

from __future__ import annotations

import contextlib
import linecache
import traceback
from collections.abc import Collection, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from cvplugins.errors import UserError, first_line
from cvplugins.refusals import did_you_mean, explain_refusal, named_option, shown

from .config_walk import at, walk

__all__ = ["build_runner", "object_path", "refusals_named", "with_words"]

# The variables of mmengine's functions (0.10) that hold a part of the config while it is built.
NODES = {
    "build_from_cfg": "cfg",
    "build_scheduler_from_cfg": "cfg",
    "build_dataloader": "dataloader",
    "build_train_loop": "loop",
    "build_val_loop": "loop",
    "build_test_loop": "loop",
    "build_log_processor": "log_processor",
    "build_evaluator": "evaluator",
    "register_hook": "hook",
}
# The top-level keys that the methods of a Runner are for.
KEYS = {
    "setup_env": "env_cfg",
    "set_multi_processing": "env_cfg.mp_cfg",
    "set_randomness": "randomness",
    "build_logger": "log_level",
    "build_log_processor": "log_processor",
    "build_visualizer": "visualizer",
    "build_model": "model",
    "wrap_model": "model_wrapper_cfg",
    "register_default_hooks": "default_hooks",
    "register_custom_hooks": "custom_hooks",
    "_check_scheduler_cfg": "param_scheduler",
    "build_param_scheduler": "param_scheduler",
    "build_optim_wrapper": "optim_wrapper",
    "scale_lr": "auto_scale_lr",
    "build_train_loop": "train_cfg",
    "build_val_loop": "val_cfg",
    "build_test_loop": "test_cfg",
}
# The variables of mmcv's functions (2.1) that hold the name of a layer, and some names.
LAYERS = ("layer_type", "padding_type")
NORMS = ("BN", "SyncBN", "GN", "LN", "IN")
LOOPS = {"build_train_loop": "train_", "build_val_loop": "val_", "build_test_loop": "test_"}


class _Place(NamedTuple):
    """A part of the config that was being built.

    Attributes:
        path: Its dotted path, such as ``"custom_hooks.2"``.
        node: What the config has there, as the builder got it.
        frame: The builder's.
    """

    path: str
    node: Any
    frame: FrameType


def build_runner(cfg: Config, *loops: str, given: Collection[str] = ()) -> Runner:
    """Build the Runner and all that mmengine would build only when it runs: the named loops, optimizers, schedules.

    Args:
        cfg: A loaded config with ``work_dir``.
        loops: ``"train_loop"``, ``"val_loop"`` or ``"test_loop"``.
        given: See :func:`refusals_named`.

    Raises:
        UserError: A constructor refuses what the config gives it.
    """
    with refusals_named(cfg, given):
        runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
        for loop in loops:
            getattr(runner, loop)
    return runner


@contextlib.contextmanager
def refusals_named(cfg: Config, given: Collection[str] = ()) -> Iterator[None]:
    """Turn what a constructor raises into one line with the path of its key.

    Args:
        cfg: The config that things are built from.
        given: Keys that the command line gives, which are suspected first.

    Raises:
        UserError: A constructor refused its options.
    """
    try:
        yield
    except Exception as error:
        raise UserError(_refusal(error, cfg, given)) from error


def object_path(error: BaseException, cfg: Config, within: str = "") -> str:
    """Return the path of the config's part whose object raised an error while it worked, ``within`` if none did."""
    found = within
    for frame, _ in traceback.walk_tb(error.__traceback__):
        worker = frame.f_locals.get("self")
        if worker is None:
            continue
        name = type(worker).__name__
        named = [
            path
            for path, _, node in walk(cfg)
            if path.startswith(within) and isinstance(node, dict) and _name(node.get("type")) == name
        ]
        inner = [path for path in named if path.startswith(found)]
        found = (inner or named or [found])[0]
    return found


def with_words(error: Exception) -> Exception:
    """Return an error that says something: of a bare ``assert`` its line of code."""
    if str(error).strip():
        return error
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    code = linecache.getline(frame.f_code.co_filename, line).strip()
    return AssertionError(code).with_traceback(error.__traceback__) if isinstance(error, AssertionError) else error


def _refusal(error: Exception, cfg: Config, given: Collection[str]) -> str:
    """Return the line about an error, with the options of the command line if it names none of them."""
    places = list(_places(error, cfg))
    if not places:
        return _without_place(error)
    line = _line(with_words(error), places, cfg, given)
    below = [key for key in given if key.startswith(f"{places[-1].path}.")]
    return line if any(key in line for key in below) or not below else f"{line}; --cfg-options sets {', '.join(below)}"


def _line(error: Exception, places: list[_Place], cfg: Config, given: Collection[str]) -> str:
    place = places[-1]
    if isinstance(error, UserError):
        return str(error) if place.path in str(error) else f"{place.path}: {error}"
    if not isinstance(place.node, Mapping):
        return f"{place.path} = {shown(place.node)}: {type(error).__name__}: {first_line(error)}"
    if isinstance(error, KeyError) and "must contain the key" in str(error):
        return _without_type(place, cfg)
    if isinstance(error, KeyError) and ("is not in the" in str(error) or "has no" in str(error)):
        return _of_unknown_type(place, cfg, str(error.args[0]))
    if isinstance(error, KeyError) and "Cannot find" in str(error):
        found = _of_unknown_layer(error, place, cfg)
        if found:
            return found
    kind = place.node.get("type")
    if kind is not None and not isinstance(kind, str) and not callable(kind):
        return f"{place.path}.type = {shown(kind)}: expected a name, such as 'ResNet'"
    if "need at least one array to concatenate" in str(error):  # BaseDataset packs the images that are left
        return (
            f"{place.path}: no image is left to load; filter_cfg leaves out those without objects (filter_empty_gt) or "
            "with small ones alone, and metainfo.classes objects of other classes"
        )
    for each in reversed(places):  # what is built may get values from around it, as samplers get the batch size
        key = named_option(error, each.node) if isinstance(each.node, Mapping) else None
        if key is not None:
            return explain_refusal(error, each.path, {key: each.node[key]}, _kind(each))
    options = [key for key in place.node if key != "type"]
    suspects = [key for key in options if any(f"{each}.".startswith(f"{place.path}.{key}.") for each in given)]
    return explain_refusal(error, place.path, place.node, _kind(place), suspects)


def _without_place(error: Exception) -> str:
    """Return the line about an error that came from no part of the config that is known here."""
    if isinstance(error, UserError):
        return str(error)
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    where = f"{frame.f_globals.get('__name__')}, line {line}"
    said = f"{type(error).__name__}: {first_line(error)}"
    return f"the config cannot be built: {said} ({where}); --traceback shows all of it"


def _without_type(place: _Place, cfg: Config) -> str:
    above, _, last = place.path.rpartition(".")
    beside = [each for each in at(cfg, above) or () if each != last] if above else []
    return f"{place.path} has no type; {did_you_mean(last, beside) or 'give it one'}"


def _of_unknown_type(place: _Place, cfg: Config, message: str) -> str:
    said = message.split(". Please check")[0].splitlines()[0]
    kind, path = place.node.get("type"), f"{place.path}.type"
    name = said.partition(" is not in the")[0]
    if name != said and name != kind:  # it is named elsewhere, as optim_wrapper.constructor
        path = next((each for each, _, node in walk(cfg) if node == name), path)
        kind = name
    names = _registered(place.frame.f_locals.get("registry"))
    guess = did_you_mean(str(kind).rpartition(".")[2], names) if "did you mean" not in said else ""
    return f"{path} = {shown(kind)}: {said}" + (f"; {guess}" if guess else "")


def _of_unknown_layer(error: BaseException, place: _Place, cfg: Config) -> str:
    """Return the line about a layer that mmcv has no class for; its own message says None in place of the name."""
    frame, _ = list(traceback.walk_tb(error.__traceback__))[-1]
    kind = next((frame.f_locals[name] for name in LAYERS if name in frame.f_locals), None)
    registry = frame.f_locals.get("registry")
    path = next((part.path for part in walk(at(cfg, place.path), place.path) if part.value == kind), None)
    if not isinstance(kind, str) or path is None:
        return ""
    known = _registered(registry)
    guess = did_you_mean(kind, known) or did_you_mean(kind, NORMS) or f"it has {', '.join(NORMS)} and others"
    return f"{path} = {shown(kind)}: no registry of layers has it; {guess}"


def _places(error: BaseException, cfg: Config) -> Iterator[_Place]:
    """Yield the parts of the config that were being built when an error came, outer ones first."""
    path, prefix = "", ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module, name = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        if not module.startswith("mmengine.") or not (name in NODES or name in KEYS):
            continue
        prefix = LOOPS.get(name, prefix)
        if name in KEYS and module.startswith(("mmengine.runner", "mmengine.utils")):
            path = KEYS[name]
            node = at(cfg, path)
            yield _Place(path, {} if node is None else node, frame)
        node = frame.f_locals.get(NODES.get(name, ""))
        if name == "build_from_cfg" and not isinstance(node, Mapping):
            above = at(cfg, path)
            keys = [key for key, value in above.items() if _same(value, node)] if isinstance(above, Mapping) else []
            if keys:
                yield _Place(f"{path}.{keys[0]}", node, frame)
        found = _find(cfg, node, path, prefix)
        if found:
            path = found
            yield _Place(path, node, frame)


def _find(cfg: Config, node: Any, within: str, prefix: str) -> str:
    """Return the path of the part that is most like ``node``: below ``within`` if there is one, else anywhere."""
    if not isinstance(node, Mapping):
        return ""
    scored = []
    for path, _, each in walk(cfg):
        if not path or not isinstance(each, Mapping) or _name(each.get("type")) != _name(node.get("type")):
            continue
        equal = sum(key in each and _same(each[key], value) for key, value in node.items())
        differing = len(each) - equal
        if equal:
            near = path == within or path.startswith(f"{within}.")
            scored.append(((near, path.startswith(prefix), equal, -differing), path))
    best = max((score for score, _ in scored), default=None)
    return next((path for score, path in scored if score == best), "")


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one is other or bool(one == other))


def _name(kind: Any) -> Any:
    """Return the name of a type without its scope; the type may be a class."""
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", kind)


def _kind(place: _Place) -> Any:
    """Return the class that a builder was about to make an object of."""
    variables, name = place.frame.f_locals, place.frame.f_code.co_name
    if name in ("build_from_cfg", "build_scheduler_from_cfg"):
        return variables.get("obj_cls") or variables.get("scheduler_cls")
    if name == "build_train_loop":
        return EpochBasedTrainLoop if place.node.get("by_epoch") else IterBasedTrainLoop
    known: dict[str, Any] = {
        "build_val_loop": ValLoop,
        "build_test_loop": TestLoop,
        "build_dataloader": DataLoader,
        "build_log_processor": LogProcessor,
        "set_randomness": Runner.set_randomness,
    }
    return known.get(name)


def _registered(registry: Any) -> set[str]:
    names: set[str] = set()
    while registry is not None:
        names.update(registry.module_dict)
        registry = registry.parent
    return names
