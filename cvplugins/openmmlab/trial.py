"""Build everything that a run needs in a folder that is thrown away, and let one batch through it."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import traceback
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import OPTIMIZERS, VISBACKENDS, DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from cvplugins.errors import UserError, first_line
from cvplugins.paths import check_folder
from cvplugins.refusals import did_you_mean, shown

from .batch_sizes import check_batch_sizes
from .building import build_runner, object_path, refusals_named
from .config import walk_dicts
from .metric_names import check_monitors

__all__ = ["trial_run"]

FOLDERS = ("out_dir", "output_dir", "test_out_dir", "overlay_dir", "label_dir", "save_dir")
FILES = ("outfile_prefix", "out_file_path", "results_path")


@contextlib.contextmanager
def trial_run(cfg: Config, *loops: str, batches: bool, given: Collection[str] = ()) -> Iterator[Runner]:
    """Yield a Runner as the run will have it, with every part built; all that it writes is deleted in the end.

    Args:
        cfg: A loaded config with ``work_dir``; it stays as it is.
        loops: ``"train_loop"``, ``"val_loop"`` or ``"test_loop"``.
        batches: Whether one batch of each loop goes through model and metrics.
        given: Keys that the command line gives, which are suspected first.

    Raises:
        UserError: A constructor refuses what the config gives it, a loader has nothing to load, or a batch fails.
    """
    for path in _outputs(cfg):
        check_folder(path)
    name = f"trial_{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            runner = build_runner(_trial_config(cfg, name, folder), *loops, given=given)
            _complete(runner, cfg, given, is_training="train_loop" in loops)
            for loop in loops:
                if getattr(runner, loop) is not None:
                    _check_loader(getattr(runner, loop).dataloader, f"{loop.removesuffix('_loop')}_dataloader")
                    if loop != "train_loop":
                        check_batch_sizes(runner, loop)
            if batches:
                _run_batches(runner, cfg, loops)
            yield runner
        finally:
            _forget(name)


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


def _complete(runner: Runner, cfg: Config, given: Collection[str], is_training: bool) -> None:
    """Build what mmengine builds when a training starts: optimizers, schedules, the visualizer's backends."""
    with refusals_named(cfg, given):
        if cfg.get("default_scope"):
            init_default_scope(cfg.default_scope)
        for backend in (cfg.get("visualizer") or {}).get("vis_backends") or []:
            if isinstance(backend, dict):
                VISBACKENDS.build({"save_dir": runner.work_dir, **backend})
        if not is_training:
            return
        _check_optimizer(cfg)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    check_monitors(runner)
    with _failures_told(cfg, "a hook cannot begin", "custom_hooks"):
        for event in ("before_run", "before_train"):  # where hooks compare their options with the model
            runner.call_hook(event)


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


def _run_batches(runner: Runner, cfg: Config, loops: Sequence[str]) -> None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for module in model.modules():
        if "Pretrained" in str(getattr(module, "init_cfg", None)):
            module.init_cfg = None  # a download that a trial does not need
    if hasattr(model, "init_weights"):
        model.init_weights()
    for loop in loops:
        if getattr(runner, loop) is None:
            continue
        job = loop.removesuffix("_loop")
        batch = _first_batch(getattr(runner, loop).dataloader, cfg, f"{job}_dataloader")
        with _failures_told(cfg, f"one batch of {job}_dataloader does not go through the model", "model"):
            outputs = _train(model, batch, runner) if job == "train" else _predict(model, batch, job)
        if job != "train":
            evaluator = getattr(runner, loop).evaluator
            with _failures_told(cfg, f"{job}_evaluator cannot read the model's predictions", f"{job}_evaluator"):
                evaluator.process(data_samples=outputs, data_batch=batch)


def _first_batch(loader: DataLoader, cfg: Config, key: str) -> Any:
    """Load one batch in this process: workers would load several at once."""
    with _failures_told(cfg, f"{key} cannot load a batch", key):
        if loader.batch_sampler is None:
            return next(iter(loader))
        return loader.collate_fn([loader.dataset[index] for index in next(iter(loader.batch_sampler))])


def _train(model: Any, batch: Any, runner: Runner) -> Any:
    """Compute the loss; the step behind it too if the model has one of its own."""
    model.train()
    if type(model).train_step is not BaseModel.train_step:
        return model.train_step(batch, optim_wrapper=runner.optim_wrapper)
    inputs = model.data_preprocessor(batch, True)
    return model.parse_losses(model._run_forward(inputs, mode="loss"))


def _predict(model: nn.Module, batch: Any, job: str) -> Any:
    model.eval()
    with torch.no_grad():
        return getattr(model, f"{job}_step")(batch)


@contextlib.contextmanager
def _failures_told(cfg: Config, what: str, within: str) -> Iterator[None]:
    """Say in one line which part of the config failed at a batch, and where in the code."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
        place = f"{frame.f_globals.get('__name__')}, line {line}"
        path = object_path(error, cfg, within)
        said = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{what}: {path}: {said} ({place}); --traceback shows all of it") from error


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
