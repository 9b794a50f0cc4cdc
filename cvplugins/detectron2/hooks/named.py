"""The hooks by their names, as ``cfg.CVPLUGINS.HOOKS`` lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PeriodicWriter
from detectron2.utils.registry import Registry

from cvplugins.errors import UserError
from cvplugins.options import check_options, plain

from .best_checkpoint import BestCheckpointHook
from .early_stopping import EarlyStoppingHook
from .ema import EMAHook
from .generalization import GeneralizationHook
from .gradient_clipping import GradientClippingHook
from .gradient_health import GradientHealthHook
from .hard_examples import HardExampleMiningHook
from .layer_freeze import LayerFreezeHook
from .nonfinite import NonFiniteGuardHook
from .optimizer_switch import OptimizerSwitchHook
from .plugin_hook import PluginHook
from .throughput import ThroughputHook
from .validation_loss import ValidationLoss
from .weight_penalty import WeightPenaltyHook

__all__ = ["HOOKS", "build_cvplugins_hooks", "insert_hooks"]

HOOKS = Registry("CVPLUGINS_HOOKS")
HOOKS.__doc__ = (
    "Hooks of ``cfg.CVPLUGINS.HOOKS``: subclasses of HookBase, PluginHook for what the config gives elsewhere."
)
for _hook in (
    BestCheckpointHook,
    EMAHook,
    EarlyStoppingHook,
    GeneralizationHook,
    GradientClippingHook,
    GradientHealthHook,
    HardExampleMiningHook,
    LayerFreezeHook,
    NonFiniteGuardHook,
    OptimizerSwitchHook,
    ThroughputHook,
    ValidationLoss,
    WeightPenaltyHook,
):
    HOOKS.register(_hook)


def build_cvplugins_hooks(cfg: Any) -> list[HookBase]:
    """Return the hooks of ``cfg.CVPLUGINS.HOOKS``, in the order in which they have to act.

    Args:
        cfg: Detectron2's config. An entry is the dict that OpenMMLab takes: ``{type: EMAHook, momentum: 0.001}``.

    Raises:
        UserError: A name or option is wrong, or a hook does not fit the rest of the config; before any work.

    Example::

        class Trainer(DefaultTrainer):
            def build_hooks(self):
                return insert_hooks(super().build_hooks(), build_cvplugins_hooks(self.cfg))
    """
    entries = cfg.get("CVPLUGINS", {}).get("HOOKS", [])
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise UserError(f"CVPLUGINS.HOOKS is {entries!r}; give a list such as [{{type: EMAHook, momentum: 0.001}}]")
    hooks: list[HookBase] = []
    for number, entry in enumerate(entries):
        try:
            hooks.append(_build(cfg, entry))
            if type(hooks[-1]) in map(type, hooks[:-1]):
                raise UserError(f"a second {type(hooks[-1]).__name__}, whose state Detectron2 would not save; use one")
        except UserError as error:
            raise UserError(f"CVPLUGINS.HOOKS[{number}]: {error}") from error
    return sorted(hooks, key=lambda hook: getattr(hook, "priority", PluginHook.priority))


def insert_hooks(hooks: Sequence[HookBase | None], ours: Sequence[HookBase]) -> list[HookBase | None]:
    """Return Detectron2's hooks with ours before those that write: checkpoints, evaluations, logs.

    So that a checkpoint has our hooks' state after the same iteration, and the log their numbers.

    Args:
        hooks: What a trainer's ``build_hooks`` returns.
        ours: Those to put among them.
    """
    writing = (PeriodicCheckpointer, EvalHook, PeriodicWriter)
    place = next((index for index, hook in enumerate(hooks) if isinstance(hook, writing)), len(hooks))
    return [*hooks[:place], *ours, *hooks[place:]]


def _build(cfg: Any, entry: Any) -> HookBase:
    if not isinstance(entry, Mapping) or "type" not in entry:
        raise UserError(f"expected a hook such as {{type: EMAHook, momentum: 0.001}}, but got {entry!r}")
    options = {name: plain(value) for name, value in entry.items() if name != "type"}
    name = str(entry["type"]).removeprefix("cvplugins.")
    known = dict(HOOKS)
    if name not in known:
        raise UserError(f"no hook {name!r} here; use {', '.join(sorted(known))}")
    try:
        given = known[name].from_config(cfg) if issubclass(known[name], PluginHook) else {}
        check_options(known[name], {**given, **options}, name)
        return known[name](**{**given, **options})
    except (TypeError, ValueError) as error:
        text = str(error)
        raise UserError(text if text.startswith(name) else f"{name}: {text}") from error
