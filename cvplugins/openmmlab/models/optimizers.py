"""Optimizers that neither torch nor mmengine has, from pytorch-optimizer; it is imported when one is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mmengine.registry import OPTIMIZERS as ROOT_OPTIMIZERS
from torch.optim import Optimizer

from cvplugins.errors import UserError
from cvplugins.registry import OPTIMIZERS

__all__ = ["FROM_LIBRARY", "lookahead"]

FROM_LIBRARY = {"LARS": "LARS", "LAMB": "Lamb", "Lion": "Lion", "Adafactor": "AdaFactor"}  # ours: the library's name


def _library() -> Any:
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise UserError(
            f"the optimizers {', '.join(FROM_LIBRARY)} and Lookahead are those of pytorch-optimizer, which "
            "is not installed: pip install pytorch-optimizer"
        ) from error
    return pytorch_optimizer


def _optimizer(name: str) -> Callable[..., Optimizer]:
    def build(params: Iterable[Any], **options: Any) -> Optimizer:
        return getattr(_library(), FROM_LIBRARY[name])(params, **options)

    build.__name__ = name
    build.__doc__ = f"Return pytorch-optimizer's {FROM_LIBRARY[name]}; the options are its own."
    return build


for _name in FROM_LIBRARY:
    OPTIMIZERS.register_module(name=_name, module=_optimizer(_name))


@OPTIMIZERS.register_module(name="Lookahead")
def lookahead(
    params: Iterable[Any], base: str = "AdamW", lookahead_k: int = 5, lookahead_alpha: float = 0.5, **options: Any
) -> Optimizer:
    """Return pytorch-optimizer's Lookahead around another optimizer.

    Reference: Zhang et al., Lookahead Optimizer, NeurIPS 2019, arXiv:1907.08610.

    Args:
        params: Parameters or parameter groups.
        base: Type of the optimizer that makes the steps, of any registry.
        lookahead_k: Steps between two updates of the slow weights.
        lookahead_alpha: Part of the way that the slow weights follow, in [0, 1].
        options: Options of ``base``. They stand beside it and not in a config of its own, because mmengine reads
            ``lr`` and ``weight_decay`` from here for its ``paramwise_cfg``.
    """
    inner = ROOT_OPTIMIZERS.build({"type": base, "params": params, **options})
    return _library().Lookahead(inner, k=lookahead_k, alpha=lookahead_alpha)
