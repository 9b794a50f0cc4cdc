"""Build everything that a run needs in a folder that is thrown away."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import OPTIMIZERS, VISBACKENDS, DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from cvplugins.errors import UserError
from cvplugins.openmmlab.data.batch_sizes import check_batch_sizes
from cvplugins.paths import check_folder
from cvplugins.refusals import did_you_mean, shown

from .building import build_runner, refusals_named
from .config import walk_dicts
from .first_batch import begin_weights, failures_told, run_first_batches
from .head_values import check_anchors, check_head_values
from .metric_names import check_monitors
from .option_types import check_option_types
from .paramwise_checks import check_paramwise

__all__ = ["Trial", "trial_run"]

FOLDERS = ("out_dir", "output_dir", "test_out_dir", "overlay_dir", "label_dir", "save_dir")
FILES = ("outfile_prefix", "out_file_path", "results_path")


@dataclass
class Trial:
    """A run that is never started.

    Attributes:
        runner: With every part built.
        cfg: The config.
        loops: The loops that it has.
        given: Keys that the command line gives.
        has_weights: Whether the model has the weights with which the run begins.
    """

    runner: Runner
    cfg: Config
    loops: tuple[str, ...]
    given: Collection[str]
    has_weights: bool

    def run_first_batches(self) -> None:
        """Let one batch of each loop through model and metrics; the weights change.

        Raises:
            UserError: A batch fails.
        """
        run_first_batches(self.runner, self.cfg, self.loops, has_weights=self.has_weights, given=self.given)


@contextlib.contextmanager
def trial_run(cfg: Config, *loops: str, given: Collection[str] = ()) -> Iterator[Trial]:
    """Yield a run as it will be, with every part built; all that it writes is deleted in the end.

    Args:
        cfg: A loaded config with ``work_dir``; it stays as it is.
        loops: ``"train_loop"``, ``"val_loop"`` or ``"test_loop"``.
        given: Keys that the command line gives, which are suspected first.

    Raises:
        UserError: A constructor refuses what the config gives it, or a loader has nothing to load.
    """
    for path in _outputs(cfg):
        check_folder(path)
    name = f"trial_{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _check_options(cfg)
            runner = _build(_trial_config(cfg, name, folder), loops, given)
            check_anchors(cfg, runner.model)
            has_weights = _complete(runner, cfg, given, is_training="train_loop" in loops)
            for loop in loops:
                if getattr(runner, loop) is not None:
                    _check_loader(getattr(runner, loop).dataloader, f"{loop.removesuffix('_loop')}_dataloader")
                    if loop != "train_loop":
                        key = f"{loop.removesuffix('_loop')}_dataloader"
                        with failures_told(cfg, f"{key} cannot load an image", key, given):
                            check_batch_sizes(runner, loop)
            yield Trial(runner, cfg, loops, given, has_weights)
        finally:
            _forget(name)


def _check_options(cfg: Config) -> None:
    """Refuse options whose class takes them and that it cannot use."""
    if cfg.get("default_scope"):
        init_default_scope(cfg.default_scope)
    check_option_types(cfg)
    check_head_values(cfg)


def _build(trial: Config, loops: tuple[str, ...], given: Collection[str]) -> Runner:
    """Build a Runner; where mmengine cannot tell which of a monitored number is better, look first if there is one."""
    try:
        return build_runner(trial, *loops, given=given)
    except UserError as error:
        if "Cannot infer the rule" not in str(error.__cause__):
            raise
        ruled = copy.deepcopy(trial)
        for hook in walk_dicts([ruled.get("default_hooks"), ruled.get("custom_hooks")]):
            if "save_best" in hook or "monitor" in hook:
                hook["rule"] = "greater"
        check_monitors(build_runner(ruled, *loops))
        raise


def _trial_config(cfg: Config, name: str, folder: str) -> Config:
    """Return the config with all that is written going to ``folder``, and nothing said on the way."""
    trial = copy.deepcopy(cfg)
    trial.work_dir, trial.experiment_name, trial.log_level = folder, name, "ERROR"
    trial.load_from, trial.resume = None, False
    visualizer = trial.get("visualizer")
    if isinstance(visualizer, dict):
        visualizer.update(name=name, save_dir=folder)
        # Some write to a server as soon as they are told the config; they are built by themselves, in _complete.
        if isinstance(visualizer.get("vis_backends"), list):
            visualizer["vis_backends"] = [{"type": "LocalVisBackend"}]
    written = [trial.get(key) for key in ("default_hooks", "custom_hooks", "val_evaluator", "test_evaluator")]
    for node in walk_dicts(written):
        for key in (*FOLDERS, *FILES):
            if isinstance(node.get(key), str):
                node[key] = str(Path(folder, key))
    return trial


def _complete(runner: Runner, cfg: Config, given: Collection[str], is_training: bool) -> bool:
    """Build what mmengine builds when a training starts: optimizers, schedules, the visualizer's backends, weights.

    Returns:
        Whether the model has the weights that its config names.
    """
    with refusals_named(cfg, given):
        if cfg.get("default_scope"):
            init_default_scope(cfg.default_scope)
        for backend in (cfg.get("visualizer") or {}).get("vis_backends") or []:
            if isinstance(backend, dict):
                VISBACKENDS.build({"save_dir": runner.work_dir, **backend})
        if not is_training:
            return True  # a test gives it those of its checkpoint
        _check_optimizer(cfg)
        check_paramwise(cfg, runner.model)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    check_monitors(runner)
    with failures_told(cfg, "the model's weights cannot be set", "model", given):
        has_weights = begin_weights(runner.model.module if is_model_wrapper(runner.model) else runner.model)
    with failures_told(cfg, "a hook cannot begin", "custom_hooks", given):
        for event in ("before_run", "before_train"):  # where hooks compare their options with the model
            runner.call_hook(event)
    return has_weights


def _check_optimizer(cfg: Config) -> None:
    """Refuse an optimizer that no registry knows; mmengine's constructor (0.10) calls the None that it finds."""
    optimizer = cfg.optim_wrapper.get("optimizer")
    kind = optimizer.get("type") if isinstance(optimizer, dict) else None
    path = f"optim_wrapper.optimizer.type = {shown(kind)}"
    if isinstance(kind, str):
        with OPTIMIZERS.switch_scope_and_registry(None) as registry:
            if registry.get(kind) is None:
                names = {*registry.module_dict, *OPTIMIZERS.module_dict}
                raise UserError(f"{path}: no optimizer has this name; {did_you_mean(kind, names) or 'such as AdamW'}")
    elif kind is not None and not callable(kind):
        raise UserError(f"{path}: expected a name, such as 'AdamW'")


def _check_loader(loader: DataLoader, key: str) -> None:
    dataset: Any = loader.dataset
    if len(dataset) == 0:
        raise UserError(f"{key}.dataset: there is no image to load")
    with contextlib.suppress(TypeError):  # an endless loader has no length
        if len(loader) == 0:
            raise UserError(
                f"{key}: {len(dataset)} images make no batch of {loader.batch_size}, and drop_last leaves out the "
                "smaller rest; lower batch_size"
            )


def _outputs(cfg: Config) -> list[str]:
    """Return the folders that hooks and metrics will write to."""
    written = [cfg.get(key) for key in ("default_hooks", "custom_hooks", "val_evaluator", "test_evaluator")]
    folders = [str(node[key]) for node in walk_dicts(written) for key in FOLDERS if isinstance(node.get(key), str)]
    return [folder for folder in folders if "://" not in folder]


def _forget(name: str) -> None:
    """Take the trial's objects out of mmengine's tables, so that the run's own are the current ones."""
    for handler in getattr(MMLogger._instance_dict.get(name), "handlers", []):
        handler.close()
    kinds: list[Any] = [MMLogger, MessageHub, DefaultScope, Visualizer]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        for key in [each for each in kind._instance_dict if each.startswith(name)]:
            kind._instance_dict.pop(key)
