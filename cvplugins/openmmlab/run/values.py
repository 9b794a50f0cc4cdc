"""Values that mmengine's constructors take, and on which the run dies or does nothing later."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import math
from typing import Any

import torch
from mmengine.config import Config

from cvplugins.errors import UserError
from cvplugins.openmmlab.hooks.entries import check_hook_entries
from cvplugins.refusals import did_you_mean, shown

from .config_walk import Part, at, walk
from .loader_values import check_loaders
from .schedule_values import check_schedules

__all__ = ["check_values"]

DICTS = (
    *("model", "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "val_cfg", "test_cfg"),
    *("optim_wrapper", "env_cfg", "randomness", "log_processor", "visualizer", "auto_scale_lr", "default_hooks"),
)
OF_LOADERS = ("persistent_workers", "drop_last", "pin_memory", "shuffle")
OF_DATASETS = ("metainfo", "data_prefix", "filter_cfg")
RATES = ("lr", "weight_decay", "momentum")
PATHS = ("data_root", "ann_file", "work_dir", "load_from", "out_dir", "output_dir", "save_dir", "test_out_dir")
RANDOMNESS = ("seed", "diff_rank_seed", "deterministic")
SCOPES = ("mmengine", "mmdet", "mmseg", "mmcv", "mmpretrain", "mmpose", "mmrotate", "mmyolo")
# Numbers that count something, by their paths, and the least of each.
COUNTS = {
    **dict.fromkeys(("train_cfg.max_epochs", "train_cfg.max_iters", "train_cfg.val_interval"), 1),
    "train_cfg.val_begin": 0,
    "optim_wrapper.accumulative_counts": 1,
    "auto_scale_lr.base_batch_size": 1,
    "log_processor.window_size": 1,
    "default_hooks.checkpoint.interval": -1,
    "default_hooks.checkpoint.max_keep_ckpts": -1,
    "default_hooks.logger.interval": 1,
}


FLAGS = (
    *("resume", "skip_broken", "find_unused_parameters", "env_cfg.cudnn_benchmark", "auto_scale_lr.enable"),
    *("train_cfg.by_epoch", "randomness.deterministic", "randomness.diff_rank_seed"),
    *(f"{job}_dataloader.{key}" for job in ("train", "val", "test") for key in OF_LOADERS),
)


def check_values(cfg: Config) -> None:
    """Raise ``UserError`` for lengths and intervals below 1, numbers that are none, and parts of another type."""
    _check_types(cfg)
    _check_counts(cfg)
    _check_scope(cfg.get("default_scope"))
    _check_clipping(cfg.get("optim_wrapper") or {})
    _check_checkpoint_name((cfg.get("default_hooks") or {}).get("checkpoint") or {})
    for path in FLAGS:
        value = at(cfg, path)
        if value is not None and value not in (True, False):  # and not 0 or 1
            raise UserError(f"{path} = {shown(value)}: expected True or False")
    check_loaders(cfg)
    check_schedules(cfg)
    check_hook_entries(cfg)
    for part in walk(cfg):
        _check_part(part)


def _check_counts(cfg: Config) -> None:
    if at(cfg, "auto_scale_lr.enable") and at(cfg, "auto_scale_lr.base_batch_size") is None:
        raise UserError("auto_scale_lr.base_batch_size = None: expected a whole number, 1 or more, as enable is True")
    for path, least in COUNTS.items():
        value = at(cfg, path)
        if value is None:
            continue
        if path.startswith("train_cfg.") and isinstance(value, float) and value.is_integer():
            value = int(value)  # mmengine's loops take 12.0 for 12 (mmengine/runner/loops.py)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{path} = {shown(value)}: expected a whole number, {least} or more")


def _check_scope(scope: Any) -> None:
    if scope is not None and not isinstance(scope, str):
        raise UserError(f"default_scope = {shown(scope)}: expected a name, such as 'mmdet'")
    if scope and scope.isidentifier() and scope not in SCOPES and importlib.util.find_spec(scope) is None:
        guess = did_you_mean(scope, SCOPES)
        if guess:
            raise UserError(f"default_scope = {scope!r}: there is no such package; {guess}")


def _check_clipping(wrapper: dict[str, Any]) -> None:
    """Refuse options of ``clip_grad`` that torch's functions lack: they get them at the first step only."""
    clipping = wrapper.get("clip_grad")
    if not isinstance(clipping, dict):
        return
    kind = clipping.get("type", "norm")
    if kind not in ("norm", "value"):
        guess = did_you_mean(kind, ("norm", "value")) or "expected norm or value"
        raise UserError(f"optim_wrapper.clip_grad.type = {shown(kind)}: {guess}")
    for key in ("max_norm", "clip_value"):
        value = clipping.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise UserError(f"optim_wrapper.clip_grad.{key} = {shown(value)}: expected a number above 0")
    function = torch.nn.utils.clip_grad_value_ if kind == "value" else torch.nn.utils.clip_grad_norm_
    known = [name for name in inspect.signature(function).parameters if name != "parameters"]
    for key in clipping:
        if key not in ("type", *known):
            hint = did_you_mean(key, known) or f"it has {', '.join(known)}"
            raise UserError(f"optim_wrapper.clip_grad.{key}: {function.__name__} has no such option; {hint}")


def _check_checkpoint_name(hook: dict[str, Any]) -> None:
    name = hook.get("filename_tmpl")
    if name is not None and not (isinstance(name, str) and "{}" in name):
        raise UserError(
            f"default_hooks.checkpoint.filename_tmpl = {shown(name)}: expected a name with {{}} for the number, "
            "such as 'epoch_{}.pth'; without it each checkpoint would overwrite the one before"
        )


def _check_part(part: Part) -> None:
    """Refuse types that are no names, paths that are numbers, and numbers that nothing can use, wherever they are."""
    path, key, value = part
    if key == "type" and isinstance(value, (int, float, list, tuple, dict)):
        raise UserError(f"{path} = {shown(value)}: expected a name, such as 'ResNet'")
    if key in PATHS and isinstance(value, (int, float)):
        raise UserError(f"{path} = {value}: expected a path")
    if key in OF_DATASETS and "_dataloader." in path and not isinstance(value, (dict, type(None))):
        raise UserError(f"{path} = {shown(value)}: expected a dict")
    if key in RATES and value is True:
        raise UserError(f"{path} = {value}: expected a number")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if math.isnan(value):
        raise UserError(f"{path} = {value}: expected a number")
    if key == "lr" and (math.isinf(value) or value < 0):
        raise UserError(f"{path} = {value}: a learning rate is a finite number, 0 or more")
    if key == "interval" and value == 0 and path.startswith(("default_hooks.", "custom_hooks.")):
        raise UserError(f"{path} = 0: give 1 or more; -1 means never, where the hook knows that")
    if path == "optim_wrapper.clip_grad.max_norm" and value <= 0:
        raise UserError(f"{path} = {value}: the norm that gradients are cut to is above 0; leave clip_grad out")


def _check_types(cfg: Config) -> None:
    for key in DICTS:
        if not isinstance(cfg.get(key, None) or {}, dict):
            raise UserError(f"{key} = {shown(cfg[key])}: expected a dict")
    for job in ("train", "val", "test"):
        loader = cfg.get(f"{job}_dataloader") or {}
        for key in ("dataset", "sampler") if loader else ():
            is_default = key == "sampler" and loader.get(key, key) is None  # torch's own, as some configs of mmdet say
            if not isinstance(loader.get(key), dict) and not is_default:
                raise UserError(f"{job}_dataloader.{key} = {shown(loader.get(key))}: expected a dict")
    for job in ("val", "test"):
        parts = [f"{job}_{part}" for part in ("dataloader", "cfg", "evaluator")]
        absent = [key for key in parts if cfg.get(key) is None]
        if 0 < len(absent) < len(parts):
            raise UserError(f"the config lacks {', '.join(absent)}: {', '.join(parts)} go together, or all are None")
    for key in cfg.get("randomness") or {}:
        if key not in RANDOMNESS:
            guess = did_you_mean(key, RANDOMNESS)
            raise UserError(f"randomness.{key}: there is no such key; {guess or 'it has ' + ', '.join(RANDOMNESS)}")
    level = cfg.get("log_level", "INFO")
    if not isinstance(level, int) and not isinstance(logging.getLevelName(level), int):
        raise UserError(f"log_level = {shown(level)}: expected DEBUG, INFO, WARNING, ERROR or CRITICAL")
