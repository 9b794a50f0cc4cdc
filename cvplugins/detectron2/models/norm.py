"""The normalisation policy of ``cfg.CVPLUGINS.NORM``, applied to a model of Detectron2."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from cvplugins import norm
from cvplugins.errors import UserError
from cvplugins.norm import NormRule, NormSummary, read_rules
from cvplugins.options import plain

__all__ = ["apply_norm_policy", "norm_rules"]

logger = logging.getLogger("detectron2.cvplugins")  # below the one that Detectron2's setup_logger shows


def norm_rules(cfg: Any) -> tuple[NormRule, ...]:
    """Return the rules of ``cfg.CVPLUGINS.NORM``, none if it has none.

    Args:
        cfg: Detectron2's config. The node has the option of OpenMMLab's NormPolicyHook:
            ``{rules: [{to: FrozenBN, names: [backbone.*]}, {to: SyncBN}]}``.

    Raises:
        UserError: What is wrong, and what is accepted.
    """
    node = cfg.get("CVPLUGINS", {}).get("NORM", {})
    if not isinstance(node, Mapping):
        raise UserError(f"CVPLUGINS.NORM is {node!r}; give a dict such as {{rules: [{{to: SyncBN}}]}}")
    unknown = sorted(set(node) - {"rules"})
    if unknown:
        raise UserError(f"CVPLUGINS.NORM has no key {', '.join(unknown)}; it has rules")
    rules = plain(node.get("rules", []))
    if rules == [] or rules is None:
        return ()
    try:
        return read_rules(rules)
    except (TypeError, ValueError) as error:
        raise UserError(f"CVPLUGINS.NORM: {error}") from error


def apply_norm_policy(cfg: Any, model: nn.Module) -> NormSummary | None:
    """Convert the model's batch norms as ``cfg.CVPLUGINS.NORM`` says; see :func:`cvplugins.norm.apply_norm_policy`.

    To be called between ``build_model`` and ``build_optimizer``: frozen layers then get no optimizer, and
    DistributedDataParallel does not wait for them. Checkpoints fit whatever the policy, because names stay. What was
    done, and which settings do nothing, goes to the log.

    Args:
        cfg: Detectron2's config.
        model: Not wrapped; changed.

    Returns:
        What became of every batch norm; None without rules.

    Raises:
        UserError: A rule is not valid.

    Example::

        class Trainer(DefaultTrainer):
            @classmethod
            def build_model(cls, cfg):
                model = super().build_model(cfg)
                apply_norm_policy(cfg, model)
                return model
    """
    rules = norm_rules(cfg)
    if not rules:
        return None
    summary = norm.apply_norm_policy(model, rules)
    summary.tell(logger.info, logger.warning)
    return summary
