"""Changes to a config that the command line gives; nothing of OpenMMLab is imported before their mistakes are found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cvplugins.errors import UserError

__all__ = ["parse_options"]


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the dotted keys and values of ``KEY=VALUE`` pairs, read as OpenMMLab's own tools read them.

    Raises:
        UserError: A pair has no ``=``.
    """
    for pair in pairs:
        if not pair.partition("=")[0] or "=" not in pair:
            raise UserError(f"--cfg-options {pair}: expected KEY=VALUE, such as train_dataloader.batch_size=4")
    from mmengine.config import DictAction

    options = argparse.Namespace(given={})
    DictAction([], "given")(argparse.ArgumentParser(), options, list(pairs))
    return options.given
