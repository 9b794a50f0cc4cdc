"""What a loss declares to the heads that call it is what it takes."""

import inspect

import pytest
import torch

from cvplugins.errors import UserError
from cvplugins.losses import LOSSES, CompositeLoss, OHEMLoss
from cvplugins.losses.contract import Loss
from cvplugins.losses.from_config import check_loss_weight

WITHIN = ("loss", "losses")


@pytest.mark.parametrize("core", LOSSES, ids=lambda core: core.__name__)
def test_the_kind_of_target_agrees_with_the_options(core):
    """The oracle is the signature: a loss of labels has ``ignore_index``, one of parts takes losses."""
    options = inspect.signature(core).parameters
    assert issubclass(core, Loss)
    kind = "parts" if any(name in options for name in WITHIN) else "labels" if "ignore_index" in options else "values"
    assert core.target_kind == kind


def test_losses_of_parts_are_the_wrappers():
    assert [core for core in LOSSES if core.target_kind == "parts"] == [CompositeLoss, OHEMLoss]


@pytest.mark.parametrize("weight", ["2", None, True, float("nan"), [1.0], torch.tensor(1.0)])
def test_a_loss_weight_is_a_finite_number(weight):
    with pytest.raises(UserError, match=r"loss_weight of FocalLoss is .*; expected a number"):
        check_loss_weight(weight, "FocalLoss")
