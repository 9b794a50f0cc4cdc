"""Names of weights between mmdet and Detectron2, without either."""

import pytest
import torch

from cvplugins.errors import UserError
from cvplugins.weights import convert_weights
from cvplugins.weights.faster_rcnn import BLOCKS, parameter_names


def weights_of(framework, depth=50):
    """One number for each name, to recognise it by."""
    names = [pair[("mmdet", "detectron2").index(framework)] for pair in parameter_names(depth)]
    return {name: torch.tensor(number) for number, name in enumerate(names)}


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize(("source", "target"), [("mmdet", "detectron2"), ("detectron2", "mmdet")])
def test_there_and_back_is_the_identity(depth, source, target):
    weights = weights_of(source, depth)
    there = convert_weights(weights, source=source, target=target)
    assert there.keys() == weights_of(target, depth).keys()
    assert convert_weights(there, source=target, target=source) == weights


def test_names_as_the_model_zoos_have_them():
    """Written down from a checkpoint of each zoo."""
    found = convert_weights(weights_of("mmdet"), source="mmdet", target="detectron2")
    given = weights_of("mmdet")
    for mmdet, detectron2 in {
        "backbone.conv1.weight": "backbone.bottom_up.stem.conv1.weight",
        "backbone.layer4.2.bn3.running_var": "backbone.bottom_up.res5.2.conv3.norm.running_var",
        "neck.fpn_convs.3.conv.bias": "backbone.fpn_output5.bias",
        "rpn_head.rpn_reg.weight": "proposal_generator.rpn_head.anchor_deltas.weight",
        "roi_head.bbox_head.shared_fcs.0.weight": "roi_heads.box_head.fc1.weight",
        "roi_head.bbox_head.fc_reg.bias": "roi_heads.box_predictor.bbox_pred.bias",
    }.items():
        assert found[detectron2] is not given[mmdet]
        assert found[detectron2] == given[mmdet]


@pytest.mark.parametrize("depth", BLOCKS)
def test_backbones_of_every_depth_have_torchvisions_names(depth):
    """From which mmdet's are taken."""
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = getattr(models, f"resnet{depth}")().state_dict()
    ours = {mmdet.removeprefix("backbone.") for mmdet, _ in parameter_names(depth) if mmdet.startswith("backbone.")}
    assert ours == {name for name in theirs if not name.startswith("fc.")}


def test_frozen_batch_norms_have_no_counters():
    weights = {name: each for name, each in weights_of("detectron2").items() if "num_batches" not in name}
    there = convert_weights(weights, source="detectron2", target="mmdet")
    assert convert_weights(there, source="mmdet", target="detectron2") == weights


def test_what_comes_beside_the_weights_is_no_weight():
    weights = weights_of("detectron2")
    constants = {"pixel_mean": 0, "proposal_generator.anchor_generator.cell_anchors.0": 0}
    wrapped = {f"module.{name}": each for name, each in (weights | constants).items()}
    assert convert_weights(wrapped, source="detectron2", target="mmdet").keys() == weights_of("mmdet").keys()


def test_what_is_missing_or_left_over_is_named():
    weights = weights_of("mmdet")
    del weights["neck.fpn_convs.2.conv.bias"]
    with pytest.raises(UserError, match=r"missing: neck.fpn_convs.2.conv.bias\. Only"):
        convert_weights(weights, source="mmdet", target="detectron2")
    masks = {f"roi_head.mask_head.convs.{each}.conv.weight": 0 for each in range(4)}
    with pytest.raises(UserError, match=r"left over: roi_head.mask_head.convs.0.conv.weight, .* and 1 more"):
        convert_weights(weights_of("mmdet") | masks, source="mmdet", target="detectron2")
    with pytest.raises(UserError, match="check which framework the file is from"):
        convert_weights(weights_of("mmdet"), source="detectron2", target="mmdet")


def test_frameworks_are_named():
    with pytest.raises(UserError, match="'mmseg' is unknown; accepted: mmdet, detectron2"):
        convert_weights({}, source="mmseg", target="mmdet")
    with pytest.raises(UserError, match="need no conversion"):
        convert_weights({}, source="mmdet", target="mmdet")
