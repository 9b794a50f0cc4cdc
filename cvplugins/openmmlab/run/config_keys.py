"""Keys of a config that nothing would read: misspelt ones, those of OpenMMLab 2, and variables of the file."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from cvplugins.errors import UserError
from cvplugins.misspelt import slip_of
from cvplugins.refusals import did_you_mean

from .config_walk import at, walk

__all__ = ["check_file_keys", "check_option_keys"]

logger = logging.getLogger(__name__)

# What mmengine's Runner, the frameworks' hooks and we read from the top level of a config.
KEYS = (
    *("model", "work_dir", "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "val_cfg", "test_cfg"),
    *("auto_scale_lr", "optim_wrapper", "param_scheduler", "val_evaluator", "test_evaluator", "default_hooks"),
    *("custom_hooks", "data_preprocessor", "load_from", "resume", "launcher", "env_cfg", "log_processor", "log_level"),
    *("visualizer", "vis_backends", "default_scope", "randomness", "experiment_name", "custom_imports", "runner_type"),
    *("model_wrapper_cfg", "find_unused_parameters", "sync_bn", "compile", "activation_checkpointing"),
    *("efficient_conv_bn_eval", "tta_model", "tta_pipeline", "skip_broken", "data_root", "strategy"),
)
# What OpenMMLab 2 read, and where it is now.
OLD_KEYS = {
    "optimizer": "optim_wrapper.optimizer",
    "optimizer_config": "optim_wrapper.clip_grad",
    "lr_config": "param_scheduler",
    "runner": "train_cfg",
    "total_epochs": "train_cfg.max_epochs",
    "data": "train_dataloader, val_dataloader and test_dataloader",
    "evaluation": "train_cfg.val_interval and val_evaluator",
    "checkpoint_config": "default_hooks.checkpoint",
    "log_config": "default_hooks.logger",
    "resume_from": "load_from with resume=True",
    "seed": "randomness.seed",
    "fp16": "optim_wrapper.type=AmpOptimWrapper",
}
# Dicts whose unknown keys mmengine passes over.
PARTS = {
    "env_cfg": ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"),
    "auto_scale_lr": ("enable", "base_batch_size"),
    "optim_wrapper.paramwise_cfg": (
        *("custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult", "dwconv_decay_mult"),
        *("dcn_offset_lr_mult", "bypass_duplicate"),
    ),
}
SURE = 8  # letters from which on a slip is no other word: models is one


def check_option_keys(config: Config, options: Mapping[str, Any]) -> None:
    """Check the keys that the command line changes, before they are merged.

    Args:
        config: As the file has it.
        options: Dotted keys and values.

    Raises:
        UserError: A key is new, so that nothing in the config reads it, and close to one that there is.
    """
    for dotted in options:
        first = dotted.partition(".")[0]
        if first not in config and first not in KEYS:
            _refuse_new_key(dotted, first, config)
        elif first not in KEYS and dotted == first:
            users = [part.path for part in walk(config) if part.key == first and part.path != first]
            such = f", such as {' and '.join(users[:3])}" if users else ""
            logger.warning(
                "--cfg-options %s: a variable of the file, which was read before; this changes nothing, set what it is "
                "used for%s",
                dotted,
                such,
            )
        _refuse_misspelt_part(config, dotted)


def check_file_keys(config: Config) -> None:
    """Check the top level of a config, and the parts whose unknown keys mmengine passes over.

    A name of the user's own is a variable, and legal; one that is a slip away from a key and that nothing in the file
    uses is not.

    Args:
        config: A loaded config.

    Raises:
        UserError: A key is misspelt.
    """
    for key in config:
        meant = slip_of(key, KEYS) if key not in KEYS else None
        if meant is None or _is_used(key, config.text):
            continue
        message = f"config {config.filename}: nothing reads {key}; did you mean {meant}?"
        if len(key) < SURE:
            logger.warning(message)
        else:
            raise UserError(message)
    for dotted, known in PARTS.items():
        node = at(config, dotted)
        for key in node if isinstance(node, dict) else ():
            if meant := slip_of(key, known):
                raise UserError(f"{dotted}.{key} = {node[key]!r}: nothing reads it; did you mean {dotted}.{meant}?")


def _refuse_new_key(dotted: str, first: str, config: Config) -> None:
    if first in OLD_KEYS:
        raise UserError(
            f"--cfg-options {dotted}: {first} is a key of OpenMMLab 2, which nothing reads; use {OLD_KEYS[first]}"
        )
    guess = did_you_mean(first, {*KEYS, *config})
    if guess:
        raise UserError(f"--cfg-options {dotted}: the config has no key {first}, and nothing reads it; {guess}")
    logger.warning("--cfg-options %s: the config has no key %s; mmengine reads no such key", dotted, first)


def _refuse_misspelt_part(config: Config, dotted: str) -> None:
    """Refuse a new key beside one that is a slip away; what a constructor takes, it refuses itself."""
    node: Any = config
    path: list[str] = []
    for name in dotted.split("."):
        if isinstance(node, (list, tuple)):
            child = node[int(name)] if name.isdigit() and int(name) < len(node) else None
        elif isinstance(node, (dict, Config)):
            meant = slip_of(name, [str(key) for key in node])
            if meant is not None and path and (isinstance(node[meant], dict) or "type" not in node):
                wanted = ".".join([*path, meant])
                raise UserError(
                    f"--cfg-options {dotted}: there is no {'.'.join([*path, name])}; did you mean {wanted}?"
                )
            child = node.get(name)
        else:
            return
        if child is None:
            return
        node, path = child, [*path, name]


def _is_used(key: str, text: str) -> bool:
    """Return whether a config's text has a name elsewhere than where it is assigned."""
    return re.search(rf"(?<!\w){re.escape(key)}(?!\w)(?!\s*=[^=])", text) is not None
