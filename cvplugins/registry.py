"""mmengine registries of the scope ``cvplugins``.

mmengine imports this module by its name when a config says ``type='cvplugins.X'``, from any scope. The
parents are mmengine's root registries, because a child of mmdet's would be out of reach from mmseg. The
``locations`` are imported at the first look-up, not before.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

try:
    from mmengine import registry as root
except ImportError as error:
    raise ImportError("cvplugins.registry needs mmengine: pip install 'cvplugins[openmmlab]'") from error

__all__ = [
    "DATA_SAMPLERS",
    "HOOKS",
    "METRICS",
    "MODELS",
    "MODEL_WRAPPERS",
    "OPTIMIZERS",
    "TASK_UTILS",
    "PluginRegistry",
    "suggest",
]

SCOPE = "cvplugins"


class PluginRegistry(root.Registry):
    """A registry that answers a wrong name with the closest right ones."""

    def get(self, key: str) -> Any:
        """Return the class registered as ``key``.

        Raises:
            KeyError: Nothing has this name; the message lists the closest names, or all of them.
        """
        found = super().get(key)
        name = key.removeprefix(f"{SCOPE}.")
        if found is None:
            raise KeyError(f"{SCOPE} has no {self.name} named '{name}'; {suggest(name, self.names())}")
        # The parent answers for names that are not ours, as it has to where default_scope is ours.
        if name not in self.module_dict and name in self.parent.module_dict and not _is_default_scope():
            raise KeyError(f"{SCOPE} has no {self.name} named '{name}', but mmengine has; write type='{name}'")
        return found

    def names(self) -> list[str]:
        """Return the names of all plugins of this kind."""
        self.import_from_location()
        return sorted(self.module_dict)


def _is_default_scope() -> bool:
    scope = root.DefaultScope.get_current_instance()
    return scope is not None and scope.scope_name == SCOPE


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a phrase that names the known names closest to a wrong one, or all of them.

    >>> suggest("FocalLos", ["FocalLoss", "DiceLoss"])
    'did you mean FocalLoss?'
    """
    known = sorted(known)
    # A slip of the hand leaves one name close; only without such a one are others worth a look.
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.85) or difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known)}"


def _child(parent: root.Registry, *modules: str) -> PluginRegistry:
    locations = [f"cvplugins.openmmlab.{module}" for module in modules]
    return PluginRegistry(parent.name, parent=parent, scope=SCOPE, locations=locations)


MODELS = _child(root.MODELS, "models.losses", "models.norm", "models.segmentors")
METRICS = _child(
    root.METRICS,
    "metrics.classification",
    "metrics.detection",
    "metrics.generation",
    "metrics.image_quality",
    "metrics.segmentation",
    "metrics.tracking",
)
HOOKS = _child(
    root.HOOKS,
    "hooks.checkpoint",
    "hooks.early_stopping",
    "hooks.fuse_conv_bn",
    "hooks.generalization",
    "hooks.gradient_clipping",
    "hooks.gradient_health",
    "hooks.hard_examples",
    "hooks.layer_freeze",
    "hooks.model_numbers",
    "hooks.nonfinite",
    "hooks.norm_policy",
    "hooks.optimizer_switch",
    "hooks.precise_bn",
    "hooks.reproducibility",
    "hooks.result_files",
    "hooks.segmentation_images",
    "hooks.throughput",
    "hooks.training_plan",
    "hooks.undefined_numbers",
    "hooks.validation_loss",
    "hooks.validations",
    "hooks.weight_penalty",
)
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS, "models.norm")
TASK_UTILS = _child(root.TASK_UTILS, "models.assigner")
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, "data.hard_example_samplers")
OPTIMIZERS = _child(root.OPTIMIZERS, "models.optimizers")
