"""What a run of mmengine needs to go on: is all of it in the checkpoint, and does it fit the config?"""

from __future__ import annotations

import contextlib
import copy
import os
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from cvplugins.errors import UserError, first_line
from cvplugins.optimizer_state import check_optimizer_fits, check_optimizer_state
from cvplugins.safe_loading import BrokenCheckpointError

from .checkpoint import open_checkpoint, weights_of
from .config import walk_dicts

__all__ = ["check_optimizer", "check_weights_reach", "loading_explained", "open_for_resume"]

# What mmengine's Runner.resume reads without asking whether it is there, or leaves out in silence.
NEEDED = ("state_dict", "meta", "message_hub", "optimizer")


def open_for_resume(cfg: Config, path: str | os.PathLike, trusted: bool = False) -> dict[str, Any]:
    """Open a checkpoint with which a run shall go on.

    Raises:
        BrokenCheckpointError: It cannot be read, or something in it is not what it should be.
        UserError: It has weights without the state of a run.
    """
    found = open_checkpoint(path, trusted)
    needed = (*NEEDED, "param_schedulers") if cfg.get("param_scheduler") else NEEDED
    if missing := [key for key in needed if key not in found]:
        raise UserError(
            f"checkpoint {path} cannot be resumed: it has no {', '.join(missing)}. To begin with its weights, leave "
            f"--resume out and add --cfg-options load_from={path}"
        )
    weights_of(found, path)
    source = f"checkpoint {path}:"
    _check_counts(found["meta"], source)
    _check_kind(found["message_hub"], Mapping, f"{source} message_hub")
    for key in ("log_scalars", "runtime_info", "resumed_keys"):
        _check_kind(found["message_hub"].get(key), Mapping, f"{source} message_hub[{key!r}]")
    for name, state in _optimizer_states(found["optimizer"], f"{source} optimizer").items():
        check_optimizer_state(state, name)
    if "param_schedulers" in needed:
        _check_schedulers(found["param_schedulers"], f"{source} param_schedulers")
    return found


@contextlib.contextmanager
def loading_explained(path: str | os.PathLike | None) -> Iterator[None]:
    """Turn what mmengine and the hooks raise while they load a checkpoint into one line; other errors pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        if "load_or_resume" not in frames:
            raise
        raise UserError(
            f"checkpoint {path} does not fit the config ({type(error).__name__}: {first_line(error)}); "
            "give the config of the run that wrote it"
        ) from error


def check_optimizer(cfg: Config, model: nn.Module, found: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Raise ``UserError`` unless the config's optimizer can go on with a checkpoint's state.

    Args:
        cfg: The run's config.
        model: The model that the optimizer is for; unchanged.
        found: What :func:`open_for_resume` returned.
        path: Where it came from, for the message.
    """
    wrapper = cfg.optim_wrapper
    switches = any("OptimizerSwitchHook" in str(node.get("type")) for node in walk_dicts(cfg.get("custom_hooks")))
    if "optimizer" not in wrapper or "param_groups" not in found["optimizer"] or switches:
        return  # of several optimizers, or of one that is not the config's any more
    kept = {key: wrapper[key] for key in ("optimizer", "paramwise_cfg", "constructor") if key in wrapper}
    built: Any = build_optim_wrapper(model, copy.deepcopy({"type": "OptimWrapper", **kept}))
    check_optimizer_fits(built.optimizer, found["optimizer"], f"checkpoint {path}: optimizer")


def check_weights_reach(model: nn.Module, found: dict[str, Any], path: str | os.PathLike) -> None:
    """Raise ``UserError`` if not one weight of a checkpoint to begin with has name and shape of one of the model's.

    mmengine only logs what does not fit, and the run begins with random weights. What fits is loaded here.
    """
    weights = {name.removeprefix("module."): value for name, value in weights_of(found, path).items()}
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    if not fitting:
        first = f", such as {next(iter(weights))}," if weights else ""
        raise UserError(
            f"checkpoint {path}: none of its {len(weights)} weights{first} fits the model of the config; "
            "give the checkpoint of such a model, or leave load_from out"
        )


def _check_counts(meta: Any, source: str) -> None:
    _check_kind(meta, Mapping, f"{source} meta")
    for key in ("epoch", "iter"):
        value = meta.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BrokenCheckpointError(f"{source} meta[{key!r}] is {value!r:.40}, not a number of 0 or more")
    seed = meta.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise BrokenCheckpointError(f"{source} meta['seed'] is {seed!r:.40}, not a number")


def _check_schedulers(states: Any, source: str) -> None:
    _check_kind(states, (list, Mapping), source)
    for key, state in enumerate(states) if isinstance(states, list) else states.items():
        # Those of several optimizers are lists by the optimizers' names.
        for each in state if isinstance(state, list) else [state]:
            _check_kind(each, Mapping, f"{source}[{key!r}]")


def _check_kind(value: Any, kinds: Any, source: str) -> None:
    if not isinstance(value, kinds):
        raise BrokenCheckpointError(f"{source} is a {type(value).__name__}, not what mmengine writes there")


def _optimizer_states(state: Any, source: str) -> dict[str, Any]:
    """Return the state of each optimizer: models such as GANs have several, by their names."""
    if isinstance(state, Mapping) and state and not {"state", "param_groups"} & set(state):
        return {f"{source}[{name!r}]": each for name, each in state.items() if name != "base_param_settings"}
    return {source: state}
