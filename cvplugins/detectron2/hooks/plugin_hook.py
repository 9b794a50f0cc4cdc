"""What our hooks share: their state, the optimizer's steps, and what they do around each evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.solver import LRScheduler
from torch import nn

from cvplugins.detectron2.upstream import wrap_evaluation
from cvplugins.distributed import gather_objects
from cvplugins.errors import UserError
from cvplugins.monitors import Monitor, watch_steps
from cvplugins.options import joined_signature

from .monitored_run import TrainerRun, logger

__all__ = ["MonitorHook", "PluginHook", "logger", "plugin_hooks"]


class PluginHook(HookBase):
    """A hook of Detectron2 around a monitor.

    The state lies in the checkpoint under the name of the class, of which a trainer can have one: Detectron2 drops
    that of a second. Gradients are seen and changed in hooks of the optimizer, between backward and step of
    SimpleTrainer and AMPTrainer alike: ``after_backward`` does not reach the hooks of a DefaultTrainer, and there
    AMP's gradients are still scaled. What a hook does around evaluations happens within EvalHook, on every rank,
    so that it may stand before it.

    Attributes:
        monitor: What thinks, with ``state_dict`` and ``load_state_dict``; None without state.
        priority: Lower ones act first, as in mmengine.
        evaluates: Whether it does nothing without evaluations.
        stops: Whether it ends the training now.
    """

    monitor: Any = None
    priority = 50
    evaluates = False
    stops = False
    _handles: tuple[Any, ...] = ()

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the options that Detectron2's config gives elsewhere, such as ``output_dir``.

        Raises:
            UserError: The hook does not fit the rest of the config.
        """
        if cls.evaluates and not cfg.DATASETS.TEST:
            raise UserError("it needs evaluations, and DATASETS.TEST is empty; name the sets to evaluate on")
        return {}

    @property
    def model(self) -> nn.Module:
        """The model, not wrapped."""
        return TrainerRun(self.trainer).model

    def begin(self) -> None:
        """Do what comes before the first iteration."""

    def finish(self) -> None:
        """Do what comes after the last iteration and its evaluation, on every rank; not after a failure."""

    def release(self) -> None:
        """Leave the model as it was, whatever happened; other ranks may be lost."""

    def evaluation(self) -> AbstractContextManager[None]:
        """Return what surrounds an evaluation."""
        return nullcontext()

    def results(self) -> dict[str, Any]:
        """Return what to add to the results of an evaluation."""
        return {}

    def evaluated(self, scalars: Mapping[str, float]) -> None:
        """Look at the results, which are the first rank's on all of them."""

    def before_train(self) -> None:
        """Come between EvalHook and its function, and begin."""
        evaluators = [hook for hook in self.trainer._hooks if isinstance(hook, EvalHook)]
        if self.evaluates and not evaluators:
            raise UserError(
                f"{type(self).__name__} needs evaluations, and this trainer makes none: register an EvalHook"
            )
        for hook in evaluators:
            wrap_evaluation(hook, _Evaluation, self.trainer)
        self.begin()

    def after_train(self) -> None:
        """Leave model and optimizer as they were, and finish unless it failed or an evaluation is to come."""
        for handle in self._handles:
            handle.remove()
        self._handles = ()
        self.release()
        ended = self.trainer.iter >= self.trainer.max_iter or any(hook.stops for hook in plugin_hooks(self.trainer))
        if ended and not _is_to_evaluate(self.trainer):
            self.finish()

    @property
    def schedulers(self) -> list[LRScheduler]:
        """What Detectron2's hooks change the learning rates by."""
        return TrainerRun(self.trainer).schedulers

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the monitor's state when a run is resumed."""
        self.monitor.load_state_dict(state)


class MonitorHook(PluginHook):
    """A hook of Detectron2 that only passes a monitor's options and events on.

    Subclasses give ``monitor_type``, whose options they take, and ``output_dir``; options of their own are
    keyword-only.
    """

    monitor_type: type[Monitor]

    def __init_subclass__(cls) -> None:
        """Take over the monitor's options, which messages and documentation show."""
        super().__init_subclass__()
        if "monitor_type" in vars(cls):
            cls.__signature__ = joined_signature(cls.monitor_type, cls)

    def __init__(self, *arguments: Any, output_dir: str = ".", **options: Any) -> None:
        self.monitor = self.monitor_type(*arguments, **options)
        self.output_dir = output_dir

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the output folder."""
        return {**super().from_config(cfg), "output_dir": cfg.OUTPUT_DIR}

    def begin(self) -> None:
        """Begin, and watch the optimizer's steps.

        Raises:
            UserError: An option does not fit the run.
        """
        self.run = TrainerRun(self.trainer, self.output_dir)
        try:
            self.monitor.begin(self.run)
        except ValueError as error:
            raise UserError(f"{type(self).__name__}: {error}") from error
        self._handles += tuple(watch_steps(self.run, self.monitor))

    def before_step(self) -> None:
        """Tell the monitor."""
        self.monitor.before_iteration(self.run)

    def after_step(self) -> None:
        """Tell the monitor."""
        self.monitor.after_iteration(self.run)

    def finish(self) -> None:
        """Tell the monitor."""
        self.monitor.finish(self.run)

    def release(self) -> None:
        """Tell the monitor, if it has begun."""
        if hasattr(self, "run"):
            self.monitor.release(self.run)


class _Evaluation:
    """The function of an EvalHook, and what our hooks do around it."""

    def __init__(self, function: Callable[[], Any], trainer: Any) -> None:
        self.function = function
        self.trainer = trainer

    def __call__(self) -> dict[str, Any]:
        hooks = list(plugin_hooks(self.trainer))
        with ExitStack() as stack:
            for hook in hooks:
                stack.enter_context(hook.evaluation())
            results = dict(self.function() or {})  # other ranks than the first may have none
            for hook in hooks:
                results.update(hook.results())
            scalars = gather_objects(dict(flatten_results_dict(results)))[0]
            for hook in hooks:
                hook.evaluated(scalars)
        if _is_over(self.trainer):
            for hook in hooks:
                hook.finish()
        return results


def plugin_hooks(trainer: Any) -> Iterator[PluginHook]:
    """Yield our hooks of a trainer."""
    yield from (hook for hook in trainer._hooks if isinstance(hook, PluginHook))


def _is_over(trainer: Any) -> bool:
    # By the rule of detectron2/engine/hooks.py (EvalHook): during the training it is true of no evaluation.
    return trainer.iter + 1 >= trainer.max_iter


def _is_to_evaluate(trainer: Any) -> bool:
    """Return whether an EvalHook behind will evaluate at the end of the training; it deletes its function then."""
    hooks = (hook for hook in trainer._hooks if isinstance(hook, EvalHook))
    return _is_over(trainer) and any(hook._eval_after_train and hasattr(hook, "_func") for hook in hooks)
