"""A hook that applies a normalisation policy to the model of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cvplugins.norm import NormRule, apply_norm_policy, norm_kinds, read_rules
from cvplugins.registry import HOOKS

__all__ = ["NormPolicyHook"]


@HOOKS.register_module()
class NormPolicyHook(Hook):
    """Convert the model's batch norms before anything runs; see :func:`cvplugins.norm.apply_norm_policy`.

    In one process and in several, in training, validation and testing. What was done, and which settings do nothing or
    contradict each other, goes to the log. Weights are loaded afterwards and fit, because names stay.

    Args:
        rules: What becomes of which layers, as dicts with the options of :class:`cvplugins.norm.NormRule`.
    """

    priority = "VERY_HIGH"  # EMAHook copies the model before_run too, and has to copy the converted one
    checkpoint_key = "cvplugins_norm_kinds"

    def __init__(self, rules: Iterable[NormRule | Mapping[str, Any]]) -> None:
        self.rules = read_rules(rules)

    def before_run(self, runner) -> None:
        """Apply the policy: the optimizer is built and the weights are not loaded yet."""
        _refuse_a_second_policy(runner.cfg)
        wrapped = is_model_wrapper(runner.model)
        model = runner.model.module if wrapped else runner.model
        trained = _trained(model)
        summary = apply_norm_policy(model, self.rules)
        summary.tell(runner.logger.info, runner.logger.warning)
        if wrapped and _trained(model) != trained:
            _wrap_again(runner, model)

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store what the layers are: the weights of group and batch norm have the same names."""
        checkpoint[self.checkpoint_key] = _kinds(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Warn of weights that were trained with another kind of layer."""
        then, now = checkpoint.get(self.checkpoint_key, {}), _kinds(runner)
        # Batch norms of all kinds mean the same when they are evaluated.
        changed = [name for name in then if now.get(name, then[name]) != then[name]]
        if changed:
            name = changed[0]
            runner.logger.warning(
                f"normalisation policy: {len(changed)} layers were trained as another kind, such as {name}, which was "
                f"{then[name]} and is {now[name]}; give the rules that the checkpoint was trained with"
            )


def _kinds(runner) -> dict[str, str]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return norm_kinds(model)


def _refuse_a_second_policy(cfg) -> None:
    """Raise if the config lets something else convert the layers too: two would undo each other."""
    wrapper = cfg.get("model_wrapper_cfg") or {}
    if cfg.get("sync_bn") is not None:
        raise ValueError(
            f"sync_bn={cfg.sync_bn!r} and NormPolicyHook both convert batch norms; remove sync_bn and let a rule say "
            "it: dict(to='SyncBN')"
        )
    if str(wrapper.get("type")).endswith("SyncBatchNormDataParallel") and wrapper.get("convert", True):
        raise ValueError(
            "SyncBatchNormDataParallel and NormPolicyHook both convert batch norms; give the wrapper convert=False"
        )


def _trained(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _wrap_again(runner, model: nn.Module) -> None:
    """Wrap the model anew: DDP would wait for the gradients of what trained when it was built."""
    if not isinstance(runner.model, DistributedDataParallel):
        raise ValueError(
            f"{type(runner.model).__name__} cannot follow a policy that changes what trains; use "
            "DistributedDataParallel or freeze the layers in the model's config"
        )
    runner.model = runner.wrap_model(runner.cfg.get("model_wrapper_cfg"), model)
